import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_signing import verifying

from glideslope.cli import main as cli
from glideslope.errors import ReleaseError, VerificationError
from glideslope.release import verify
from glideslope.release.evidence.contents import Release, open_evidence
from glideslope.release.exports.model_signing import generate_bundle_key
from glideslope.release.sign import sign
from glideslope.release.vetting.check import effective_policy, run_policy
from glideslope.release.vetting.gates.files import check_manifest
from glideslope.release.vetting.gates.gate import run_check
from glideslope.release.vetting.table import CHECKS
from glideslope.store.digests import sha256_json
from glideslope.trust.envelopes import sign_statement
from glideslope.trust.keys import generate_key, read_key_id, read_private_key
from glideslope.trust.signatures import Vouched, read_guards, release_statement, verify_guards
from glideslope.trust.signers import SignerRule

SIGNATURE = "manifest.dsse.json"
verify_module = importlib.import_module("glideslope.release.verify")  # the package shows the function of that name
IDENTITY = "01" + "00" * 31


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "release"
    generate_key(path)
    return path


@pytest.fixture(scope="module")
def signed(packed_run: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with its signature; tests must not change it."""
    import shutil

    directory = Path(shutil.copytree(packed_run / "release", tmp_path_factory.mktemp("signed") / "release"))
    sign(directory, key)
    return directory


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["glideslope", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def test_a_release_that_passes_every_gate_is_signed_and_verified(signed: Path, key: Path) -> None:
    signer = verify_guards(read_guards(signed), SignerRule.of(f"{key}.pub"), name="signed")
    assert signer is not None
    assert {"intact", "filter evidence", "secrets", "golden samples", "card complete"} <= set(signer.gates)
    assert signer.unsafe == {}
    assert CHECKS["signature"](open_evidence(signed)) == []
    assert verify(signed).manifest_root == signer.statement["predicate"]["root"]


def test_what_does_not_pass_is_not_signed_and_an_earlier_signature_stays(tamper: Any, key: Path) -> None:
    with pytest.raises(ReleaseError, match="make a key with `glideslope keygen`"):
        sign(tamper.directory, key.with_name("missing"))
    (tamper.directory / SIGNATURE).write_bytes(b"earlier")
    tamper.text("README.md", "21 of 24", "24 of 24")
    tamper.seal()
    with pytest.raises(ReleaseError, match="gate card complete"):
        sign(tamper.directory, key)
    assert (tamper.directory / SIGNATURE).read_bytes() == b"earlier"
    (tamper.directory / "manifest.json").unlink()
    with pytest.raises(ReleaseError, match=r"manifest\.json is missing; pack the release again"):
        sign(tamper.directory, key)


KILLED = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace

from glideslope.release import sign as signing
from glideslope.release.evidence.contents import Release, open_evidence
from glideslope.trust.signatures import Vouched

release, key, place = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
seen = 0

def count() -> None:
    global seen
    seen += 1
    if seen == place:
        os.kill(os.getpid(), signal.SIGKILL)

def hook(event: str, arguments: tuple) -> None:
    changes = event in ("os.rename", "os.remove", "os.truncate") or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
    if changes and str(release) in str(arguments[0]):
        count()

def gates(directory: Path, policy: object, *, is_to_be_signed: bool) -> SimpleNamespace:
    count()  # killed while the gates run
    found = open_evidence(directory)
    said = found.signers.statement["predicate"]
    return SimpleNamespace(guards=found.guards, vouched=Vouched(said["title"], tuple(said["gates"]), said["policy_sha256"], {}))

signing.run_policy = gates
sys.addaudithook(hook)
signing.sign(release, key)
"""


def test_a_signer_killed_at_any_point_leaves_the_earlier_signature_or_the_new_one(tamper: Any, signed: Path, tmp_path: Path) -> None:
    generate_key(tmp_path / "other")
    earlier = (signed / SIGNATURE).read_bytes()
    (tamper.directory / SIGNATURE).write_bytes(earlier)
    ends = []
    for place in range(1, 20):
        ended = subprocess.run([sys.executable, "-c", KILLED, str(tamper.directory), str(tmp_path / "other"), str(place)], check=False)
        shown = (tamper.directory / SIGNATURE).read_bytes()
        ends.append((ended.returncode, shown == earlier))
        assert open_evidence(tamper.directory).signers is not None
        if ended.returncode == 0:
            break
    assert ends[-1] == (0, False)
    assert len(ends) >= 4  # while the gates ran, before the new file was opened, before it took its place, and at the end
    assert all(end == (-9, True) for end in ends[:3])
    assert sorted(path.name for path in tamper.directory.iterdir() if path.name.startswith(SIGNATURE)) == [SIGNATURE]
    assert set(open_evidence(tamper.directory).signers.key_ids) == {read_key_id(f"{tmp_path / 'other'}.pub"),  # type: ignore[union-attr]
                                                              *open_evidence(signed).signers.key_ids}  # type: ignore[union-attr]


def test_a_second_key_is_added_and_the_first_stays(release_dir: Path, signed: Path, key: Path, policy_with: Any, tmp_path: Path) -> None:
    generate_key(tmp_path / "second")
    (release_dir / SIGNATURE).write_bytes((signed / SIGNATURE).read_bytes())
    signers = sign(release_dir, tmp_path / "second")
    ids = [read_key_id(f"{path}.pub") for path in (key, tmp_path / "second")]
    assert signers.key_ids == tuple(sorted(ids))
    assert verify(release_dir, SignerRule.of(ids)).signers == signers
    path = policy_with(signers={"keys": [*ids, IDENTITY.replace("01", "58")], "threshold": 2})
    assert run_policy(release_dir, path).passed[-1] == "signers"
    (release_dir / SIGNATURE).write_bytes((signed / SIGNATURE).read_bytes())
    with pytest.raises(ReleaseError, match=r"gate signers: .* which is 1 of the 2 signatures that are asked for"):
        run_policy(release_dir, path)


def test_a_signature_that_no_longer_fits_and_what_a_killed_signer_left_are_replaced(release_dir: Path, key: Path) -> None:
    (release_dir / SIGNATURE).write_bytes(b"earlier")
    (release_dir / f"{SIGNATURE}.0123abcd.tmp").write_bytes(b"half a sig")
    assert sign(release_dir, key).key_ids == (read_key_id(f"{key}.pub"),)
    assert not (release_dir / f"{SIGNATURE}.0123abcd.tmp").exists()
    assert open_evidence(release_dir).signers is not None


def test_a_statement_of_others_that_says_something_else_is_not_overwritten(tamper: Any, signed: Path, key: Path, tmp_path: Path) -> None:
    generate_key(tmp_path / "second")
    found = open_evidence(signed).signers
    assert found is not None
    value = json.loads(json.dumps(found.statement))
    value["predicate"]["glideslope"] = "0.0.1"
    envelope = sign_statement(value, read_private_key(key))
    (tamper.directory / SIGNATURE).write_bytes(envelope)
    with pytest.raises(ReleaseError, match=r"over another statement about this release \(glideslope 0\.0\.1, you run"):
        sign(tamper.directory, tmp_path / "second")
    assert (tamper.directory / SIGNATURE).read_bytes() == envelope


def test_the_signers_are_those_of_the_bytes_that_were_verified(tamper: Any, signed: Path, monkeypatch: pytest.MonkeyPatch,
                                                              tmp_path: Path) -> None:
    generate_key(tmp_path / "other")
    (tamper.directory / SIGNATURE).write_bytes((signed / SIGNATURE).read_bytes())
    statement = open_evidence(signed).signers.statement  # type: ignore[union-attr]
    forged = sign_statement(statement, read_private_key(tmp_path / "other"))
    checks = dict(CHECKS)

    def exchange(release: Release) -> list[str]:
        (tamper.directory / SIGNATURE).write_bytes(forged)
        return []

    monkeypatch.setattr(verify_module, "CHECKS", {"manifest": checks["manifest"], "exchange": exchange, **checks})
    monkeypatch.setattr(verify_module, "can_draw", lambda: False)
    assert verify(tamper.directory).signers == open_evidence(signed).signers
    monkeypatch.setattr(verify_module, "CHECKS", {"signature": checks["signature"], "exchange": lambda release: exchange(open_evidence(signed)),
                                                  "manifest": checks["manifest"]})
    (tamper.directory / SIGNATURE).write_bytes((signed / SIGNATURE).read_bytes())
    with pytest.raises(VerificationError, match="was exchanged while the release was read"):
        verify(tamper.directory)


def test_a_stale_signature_and_one_for_something_else_are_refused_by_verify(tamper: Any, signed: Path) -> None:
    (tamper.directory / SIGNATURE).write_bytes((signed / SIGNATURE).read_bytes())
    assert CHECKS["signature"](open_evidence(tamper.directory)) == []
    tamper.text("LICENSE", "Apache License", "Apache  License")
    tamper.seal()
    with pytest.raises(VerificationError, match="the signature is about another release"):
        verify(tamper.directory)
    (tamper.directory / SIGNATURE).write_bytes(b"{}")
    with pytest.raises(VerificationError, match="expected payload, payloadType and at least one signature"):
        CHECKS["signature"](open_evidence(tamper.directory))


@pytest.mark.parametrize(("changes", "message"), [
    ({"gates": ("intact",)}, "vouches for no check of allowed files, audits, "),
    ({"policy_sha256": "0" * 64}, "was made under another policy than the packed one"),
    ({"unsafe": {"reload": "no process can be started here"}}, "names bypasses that the packed policy does not have: reload"),
    ({"title": "Another model"}, "is for 'Another model'"),
])
def test_a_statement_that_says_something_else_than_the_release_is_refused(tamper: Any, signed: Path, key: Path, changes: Any,
                                                                         message: str) -> None:
    signer = open_evidence(signed).signers
    assert signer is not None
    said = signer.statement["predicate"]
    vouched = {"title": said["title"], "gates": signer.gates, "policy_sha256": said["policy_sha256"], "unsafe": {}} | changes
    statement = release_statement((tamper.directory / "manifest.json").read_bytes(), Vouched(**vouched))
    (tamper.directory / SIGNATURE).write_bytes(sign_statement(statement, read_private_key(key)))
    assert message in "; ".join(CHECKS["signature"](open_evidence(tamper.directory)))


def test_a_bypass_stands_in_policy_card_and_signature(packed_run: Path, recipe: Any, policy_with: Any, tmp_path: Path, key: Path) -> None:
    import shutil

    from glideslope.release import pack

    reason = "the machine that signs may not start other processes"
    path = policy_with(unsafe_skip={"reload": reason})
    run_dir = Path(shutil.copytree(packed_run, tmp_path / "run", ignore=shutil.ignore_patterns("release*")))
    pack(run_dir, recipe.model_copy(update={"policy": str(path)}), run_dir / "release")
    assert reason in (run_dir / "release/README.md").read_text()
    assert reason in (run_dir / "release/evidence/policy.yaml").read_text()
    signer = sign(run_dir / "release", key)
    assert signer.unsafe == {"reload": reason}
    assert "reload" not in signer.gates
    verify(run_dir / "release")
    assert effective_policy(open_evidence(run_dir / "release"), policy_with("strict.yaml")).unsafe_skip == {}  # then the gate runs after all


def test_commands_make_a_key_and_refuse_a_wrong_one(packed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    release = str(packed_run / "release")
    monkeypatch.setenv("GLIDESLOPE_KEY_PASSPHRASE", "correct horse battery")
    code, out, _ = run(monkeypatch, capsys, "keygen", str(tmp_path / "key"), "--json")
    assert code == 0
    assert json.loads(out)["encrypted"]
    code, _, err = run(monkeypatch, capsys, "verify", release, "--signer", json.loads(out)["key id"])
    assert code == 1
    assert "the release is not signed" in err
    code, _, err = run(monkeypatch, capsys, "keygen", str(tmp_path / "key"))
    assert code == 1
    assert "a key is never overwritten" in err
    monkeypatch.setenv("GLIDESLOPE_KEY_PASSPHRASE", "wrong horse battery")
    code, _, err = run(monkeypatch, capsys, "sign", release, "--key", str(tmp_path / "key"))
    assert code == 1
    assert "another passphrase" in err
    assert run(monkeypatch, capsys, "sign", release, "--key", str(tmp_path / "key"), "--export-bundle", "x")[0] == 2


def test_commands_sign_export_and_verify(release_dir: Path, signed: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    generate_bundle_key(tmp_path / "bundle_key")
    code, out, _ = run(monkeypatch, capsys, "sign", str(release_dir), "--key", str(key), "--export-bundle", str(tmp_path / "bundle.json"),
                       "--bundle-key", str(tmp_path / "bundle_key"), "--json")
    key_id = read_key_id(f"{key}.pub")
    assert code == 0
    assert json.loads(out)["signed by"] == [key_id]
    assert (release_dir / SIGNATURE).read_bytes() == (signed / SIGNATURE).read_bytes()  # signing again gives the same bytes
    verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "bundle_key.pub").verify(release_dir, tmp_path / "bundle.json")
    code, out, _ = run(monkeypatch, capsys, "verify", str(release_dir))
    assert code == 0
    assert f"signed_by: {key_id} (valid; name the key you trust with --signer)" in out
    code, out, _ = run(monkeypatch, capsys, "verify", str(release_dir), "--signer", f"{key}.pub", "--json")
    assert json.loads(out)["signed_by"] == [key_id]
    assert json.loads(out)["is_signer_trusted"] is True
    code, _, err = run(monkeypatch, capsys, "verify", str(release_dir), "--signer", sha256_json("another"))
    assert code == 1
    assert "somebody else signed this release" in err


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_changed_in_any_file_of_a_signed_release_is_noticed(signed: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(path for path in signed.rglob("*") if path.is_file())))
    original = path.read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    changed = original[:place] + bytes([original[place] ^ data.draw(st.integers(1, 255))]) + original[place + 1:]
    try:
        path.write_bytes(changed)
        problems = [problem for check in (check_manifest, CHECKS["signature"]) for problem in run_check("signed", check, open_evidence(signed))]
    finally:
        path.write_bytes(original)
    assert problems


@pytest.mark.parametrize("is_closed", [False, True])
def test_who_cannot_be_asked_for_a_passphrase_is_told_the_variable_in_one_line(tmp_path: Path, is_closed: bool) -> None:
    command = [sys.executable, "-m", "glideslope", "keygen", str(tmp_path / "key"), "--encrypt"]
    shell = ["sh", "-c", 'exec "$@" <&-' if is_closed else 'exec "$@" </dev/null', "sh", *command]
    environment = {name: value for name, value in os.environ.items() if name != "GLIDESLOPE_KEY_PASSPHRASE"}
    done = subprocess.run(shell, capture_output=True, text=True, start_new_session=True, env=environment, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "there is no terminal to ask at; set GLIDESLOPE_KEY_PASSPHRASE" in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []
