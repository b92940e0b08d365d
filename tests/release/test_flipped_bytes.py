"""One flipped byte anywhere in a release fails verification: every file, every position, shards, variants and signature included."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glideslope.errors import VerificationError
from glideslope.release import verify
from glideslope.release.evidence.contents import Release, open_evidence
from glideslope.release.vetting.gates.files import check_manifest
from glideslope.release.vetting.table import CHECKS, SIGNED_GATES
from glideslope.store.file_lists import MANIFEST_NAME, list_files
from glideslope.trust.envelopes import sign_statement
from glideslope.trust.hashed_files import Hashed, hash_files, hash_one
from glideslope.trust.keys import generate_key, read_private_key
from glideslope.trust.opening import OpenRelease
from glideslope.trust.release_manifest import SIGNATURE_NAME
from glideslope.trust.signatures import Vouched, release_statement


@dataclass(frozen=True)
class Signed:
    """A signed release that tests may damage if they mend it again; digests of its files, and its manifest."""

    directory: Path
    hashed: dict[str, Hashed]
    opened: OpenRelease


@pytest.fixture(scope="module")
def signed(full_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Signed:
    root = tmp_path_factory.mktemp("signed")
    directory = Path(shutil.copytree(full_release, root / "release"))
    generate_key(root / "key")
    release = open_evidence(directory)
    vouched = Vouched(release.recipe.release.title, tuple(gate.name for gate in SIGNED_GATES), release.policy.sha256, {})
    envelope = sign_statement(release_statement((directory / MANIFEST_NAME).read_bytes(), vouched), read_private_key(root / "key"))
    (directory / SIGNATURE_NAME).write_bytes(envelope)
    return Signed(directory, hash_files(directory, list_files(directory)), open_evidence(directory).opened)


def find(signed: Signed, path: str) -> list[str]:
    """What `verify` finds first when one file may have changed; of the others it is known what they hold."""
    try:
        release = open_evidence(signed.directory) if path in (MANIFEST_NAME, SIGNATURE_NAME) else Release(signed.opened)
        release.__dict__["hashed"] = signed.hashed | {path: hash_one(signed.directory, path)}
        return check_manifest(release) + (CHECKS["signature"](release) if path == SIGNATURE_NAME else [])
    except VerificationError as error:
        return [str(error)]


def flip(file: Path, place: int, mask: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(place)
        (byte,) = opened.read(1)
        opened.seek(place)
        opened.write(bytes([byte ^ mask]))


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_byte_anywhere_is_named(signed: Signed, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(signed.hashed)))
    size = signed.hashed[path].entry.size_bytes
    place, mask = data.draw(st.integers(0, size - 1) | st.sampled_from([0, size - 1])), data.draw(st.integers(1, 255))
    flip(signed.directory / path, place, mask)
    try:
        found = find(signed, path)
    finally:
        flip(signed.directory / path, place, mask)
    assert found, f"byte {place} of {path} changed by {mask:#x} goes unnoticed"
    assert any(path in problem or (path == SIGNATURE_NAME and "signature" in problem) for problem in found)


def test_the_untouched_release_verifies(signed: Signed) -> None:
    assert find(signed, SIGNATURE_NAME) == []
    assert CHECKS["manifest"] is check_manifest
    assert {path.split("/")[0] for path in signed.hashed} >= {"base", "upsampler_inpaint", "evidence", MANIFEST_NAME, SIGNATURE_NAME}
    verify(signed.directory)


def test_a_file_that_ends_early_or_goes_on_is_named(signed: Signed) -> None:
    for path in sorted(signed.hashed):
        file = signed.directory / path
        size = file.stat().st_size
        with file.open("r+b") as opened:
            opened.seek(size - 1)
            last = opened.read(1)
        os.truncate(file, size - 1)
        cut = find(signed, path)
        with file.open("ab") as opened:
            opened.write(last + b"\n")
        longer = find(signed, path)
        os.truncate(file, size)
        assert cut, f"{path} may end early"
        assert longer, f"{path} may go on"
