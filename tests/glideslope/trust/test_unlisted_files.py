"""What a hub, its client and a publisher put beside a release, and what else is refused in its place."""

import json
import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest
from huggingface_hub._local_folder import write_download_metadata

from glideslope.store.file_lists import list_files
from glideslope.store.whole_files import write_bytes
from glideslope.trust.status import Status, times_from, with_current
from glideslope.trust.unlisted_files import find_misuse, may_lie_beside

CLIENT = ".cache/huggingface"
METADATA = f"{CLIENT}/download/base/config.json.metadata"


def lying(place: Path) -> list[str]:
    return list_files(place)


def test_what_the_hubs_client_writes_passes(tmp_path: Path) -> None:
    for digest in ("b" * 40, "c" * 64):
        write_download_metadata(tmp_path, f"base/{digest[0]}.json", "a" * 40, digest)
    write_bytes(tmp_path / f"{CLIENT}/trees/{'a' * 40}.json", json.dumps({"format_version": 1, "files": {}}).encode())
    found = lying(tmp_path)
    assert {f"{CLIENT}/.gitignore", f"{CLIENT}/CACHEDIR.TAG", f"{CLIENT}/download/base/b.json.metadata"} <= set(found)
    assert all(may_lie_beside(path) for path in found)
    assert find_misuse(tmp_path, found) == []


@pytest.mark.parametrize("path", ["pipeline.py", f"{CLIENT}/pipeline.py", f"{CLIENT}/download/pytorch_model.bin", f"{CLIENT}/trees/x.json",
                                  f"x/{CLIENT}/.gitignore", ".cache/x", "base/.gitattributes", "STATUS.txt", "WITHDRAWN.json", "README.md"])
def test_nothing_else_may_lie_beside_a_release(path: str) -> None:
    assert not may_lie_beside(path)


PICKLE = pickle.dumps({"a": 1})


@pytest.mark.parametrize(("path", "content"), [
    (METADATA, PICKLE), (METADATA, pickle.dumps({"a": 1}, protocol=0)), (METADATA, b"import os\n"), (METADATA, b"\n" * 5_000),
    (f"{CLIENT}/download/x.lock", PICKLE), (f"{CLIENT}/download/x.lock", b"import os; os.system('id')"), (f"{CLIENT}/.gitignore", b"*.py\n"),
    (f"{CLIENT}/CACHEDIR.TAG", PICKLE), (f"{CLIENT}/trees/{'a' * 40}.json", PICKLE), (f"{CLIENT}/trees/{'a' * 40}.json", b"[" * 20_000),
    ("STATUS.json", PICKLE), ("STATUS.json", b"{}"), ("STATUS.json", b" " * 1_000_001),
    (".gitattributes", b"* filter=evil\n"),
    (".gitattributes", b"* filter=lfs diff=lfs merge=lfs -text\r# filter=evil\n"), (".gitattributes", b"\r* filter=evil\n"),
    (".gitattributes", b"\xff"), (".gitattributes", b"#" * 100_001)])
def test_a_name_alone_lets_nothing_through(tmp_path: Path, path: str, content: bytes) -> None:
    write_bytes(tmp_path / path, content)
    assert may_lie_beside(path)
    problem, = find_misuse(tmp_path, [path])
    assert problem.startswith(f"{path}: ")


def test_a_status_passes(tmp_path: Path) -> None:
    status = Status("org/name", 1, *times_from(datetime.now(UTC), None), with_current((), "0" * 64, "v1"))
    write_bytes(tmp_path / "STATUS.json", status.to_bytes())
    assert find_misuse(tmp_path, lying(tmp_path)) == []


def test_attributes_with_the_line_ends_of_windows_pass(tmp_path: Path) -> None:
    write_bytes(tmp_path / ".gitattributes", b"# large\r\n*.safetensors filter=lfs diff=lfs merge=lfs -text\r\n")
    assert find_misuse(tmp_path, [".gitattributes"]) == []
