import json
import shutil
from pathlib import Path

import pytest
from model_signing import verifying

from glideslope.errors import ReleaseError
from glideslope.release.exports.model_signing import export_bundle, generate_bundle_key
from glideslope.trust.keys import generate_key


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle_keys") / "key"
    generate_bundle_key(path)
    return path


def judge(release: Path, bundle: Path, key: Path) -> None:
    """The OpenSSF project's own verifier; it raises what it refuses."""
    verifying.Config().use_elliptic_key_verifier(public_key=Path(f"{key}.pub")).verify(release, bundle)


def test_the_openssf_verifier_accepts_the_bundle(release_dir: Path, key: Path, tmp_path: Path) -> None:
    num_files = export_bundle(release_dir, key, tmp_path / "bundle.json")
    assert num_files == sum(path.is_file() for path in release_dir.rglob("*"))
    judge(release_dir, tmp_path / "bundle.json", key)
    assert export_bundle(release_dir, key, tmp_path / "again.json") == num_files
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "bundle.json").read_bytes()


def test_the_openssf_verifier_refuses_a_changed_an_added_and_a_missing_file(release_dir: Path, key: Path, tmp_path: Path) -> None:
    export_bundle(release_dir, key, tmp_path / "bundle.json")
    license_text = (release_dir / "LICENSE").read_bytes()
    (release_dir / "LICENSE").write_bytes(license_text.replace(b"Apache", b"apache", 1))
    with pytest.raises(ValueError, match="Hash mismatch for 'LICENSE'"):
        judge(release_dir, tmp_path / "bundle.json", key)
    (release_dir / "LICENSE").unlink()
    with pytest.raises(ValueError, match="Missing files in model"):
        judge(release_dir, tmp_path / "bundle.json", key)
    (release_dir / "LICENSE").write_bytes(license_text)
    (release_dir / "evil.py").touch()
    with pytest.raises(ValueError, match="Extra files found in model"):
        judge(release_dir, tmp_path / "bundle.json", key)


def test_the_openssf_verifier_refuses_another_key_and_an_edited_statement(release_dir: Path, key: Path, tmp_path: Path) -> None:
    from cryptography.exceptions import InvalidSignature

    bundle = tmp_path / "bundle.json"
    export_bundle(release_dir, key, bundle)
    generate_bundle_key(tmp_path / "other")
    with pytest.raises(ValueError, match="Key mismatch"):
        judge(release_dir, bundle, tmp_path / "other")
    value = json.loads(bundle.read_text())
    value["dsseEnvelope"]["payload"] = value["dsseEnvelope"]["payload"].replace("A", "B", 1)
    bundle.write_text(json.dumps(value))
    with pytest.raises((ValueError, InvalidSignature)):
        judge(release_dir, bundle, key)


def test_a_bundle_is_not_written_for_what_does_not_fit_or_into_the_release(release_dir: Path, key: Path, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"lies inside the release .*, where nothing may be added"):
        export_bundle(release_dir, key, release_dir / "bundle.json")
    generate_key(tmp_path / "ed25519")
    with pytest.raises(ReleaseError, match="another kind of key than P-256"):
        export_bundle(release_dir, tmp_path / "ed25519", tmp_path / "bundle.json")
    changed = Path(shutil.copytree(release_dir, tmp_path / "changed"))
    (changed / "LICENSE").write_bytes(b"")
    with pytest.raises(ReleaseError, match="LICENSE: size is 0 bytes"):
        export_bundle(changed, key, tmp_path / "bundle.json")
    assert not (tmp_path / "bundle.json").exists()
