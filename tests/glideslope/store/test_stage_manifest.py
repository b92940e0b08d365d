import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.errors import StageError, StorageError, VerificationError
from glideslope.trust import release_manifest as manifest_module
from glideslope.trust.release_manifest import (
    Manifest,
    canonical_json,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_json,
    write_bytes,
    write_json,
)

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12)


@given(JSON)
def test_canonical_json_reads_back_and_is_written_again_the_same(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(), st.integers(), max_size=6))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert sha256_json(dict(reversed(value.items()))) == sha256_json(value)


def test_canonical_json_has_no_spaces_keeps_letters_and_refuses_what_is_no_number() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"not JSON compliant|Out of range"):
            canonical_json([value])


@given(st.binary(max_size=64))
def test_the_digest_of_a_file_is_that_of_its_bytes(data: bytes) -> None:
    assert len(sha256_bytes(data)) == 64
    assert sha256_bytes(data) != sha256_bytes(data + b"\0")


def write_tree(directory: Path) -> None:
    for name in ("b.txt", "a/x.bin", "a.txt"):
        write_bytes(directory / name, name.encode())


def test_equal_directories_have_equal_manifests(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tree(tmp_path / name)
    one, two = (Manifest.of_directory(tmp_path / name) for name in ("one", "two"))
    assert one == two
    assert one.root == two.root
    assert [entry.path for entry in one.files] == ["a.txt", "a/x.bin", "b.txt"]
    assert one.files[1].sha256 == sha256_file(tmp_path / "one" / "a" / "x.bin")
    assert Manifest.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert one.differences(tmp_path / "two") == []


def test_every_file_changed_missing_or_added_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path)
    before = Manifest.of_directory(tmp_path)
    (tmp_path / "a.txt").write_text("A.txt")
    (tmp_path / "b.txt").write_text("longer than before")
    (tmp_path / "a" / "x.bin").unlink()
    (tmp_path / "a" / "y.bin").touch()
    problems = before.differences(tmp_path)
    assert [problem.split(":")[0] for problem in problems] == ["a.txt", "a/x.bin", "b.txt", "a/y.bin"]
    assert "sha256 is" in problems[0]
    assert problems[1:] == ["a/x.bin: file is missing", "b.txt: size is 18 bytes, expected 5", "a/y.bin: file is not in the manifest"]
    assert before.differences(tmp_path, exclude=["a/y.bin"]) == problems[:3]


def test_excluded_files_are_left_out(tmp_path: Path) -> None:
    write_tree(tmp_path)
    write_json(tmp_path / "manifest.json", {})
    assert "manifest.json" not in {entry.path for entry in Manifest.of_directory(tmp_path).files}
    assert {entry.path for entry in Manifest.of_directory(tmp_path, exclude=["a/x.bin"]).files} == {"a.txt", "b.txt", "manifest.json"}


def test_links_to_files_count_as_files_and_anything_odd_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree")
    (tmp_path / "elsewhere").write_bytes(b"linked")
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "elsewhere")
    assert sha256_bytes(b"linked") in {entry.sha256 for entry in Manifest.of_directory(tmp_path / "tree").files}
    (tmp_path / "tree" / "folder").symlink_to(tmp_path)
    (tmp_path / "tree" / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "tree" / "pipe")
    with pytest.raises(VerificationError) as caught:
        Manifest.of_directory(tmp_path / "tree")
    assert caught.value.problems == ("dangling: not a plain file", "folder: not a plain file", "pipe: not a plain file")


@pytest.mark.parametrize("value", [
    {}, [], "x", {"format": "glideslope.manifest/2", "files": []}, {"format": "glideslope.manifest/1"},
    {"format": "glideslope.manifest/1", "files": [{"path": "a"}]}, {"format": "glideslope.manifest/1", "files": ["a"]},
    {"format": "glideslope.manifest/1", "files": [{"path": "a", "size_bytes": "many", "sha256": ""}]}])
def test_a_malformed_manifest_is_refused(value: Any) -> None:
    with pytest.raises(VerificationError, match=r"^manifest: 1 problem\(s\): "):
        Manifest.from_json(value)


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    write_json(path, {"b": 1, "a": "é"})
    assert path.read_text(encoding="utf-8") == '{\n  "a": "é",\n  "b": 1\n}\n'
    assert read_json(path) == {"b": 1, "a": "é"}
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_full_disk_is_one_clear_error_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(manifest_module.os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*file: No space left on device; free space or choose a writable directory"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_path_below_a_regular_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_bytes(tmp_path / "file" / "below" / "x", b"")


def test_json_that_cannot_be_read_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"x\.json: file is missing; run the stage that writes it"):
        read_json(tmp_path / "x.json")
    with pytest.raises(StageError, match="cannot be read: Is a directory"):
        read_json(tmp_path)
    for content in (b"{", b"\xff", b"[" * 100_000):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(StageError, match=r"x\.json: not readable as JSON"):
            read_json(tmp_path / "x.json")
