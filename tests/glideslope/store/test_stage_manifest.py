import json
import os
from pathlib import Path
from typing import Any

import pytest

from glideslope.errors import VerificationError
from glideslope.store.digests import sha256_bytes, sha256_file
from glideslope.store.stage_manifest import Manifest
from glideslope.store.whole_files import write_bytes, write_json


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
