import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.sources import files
from glideslope.data_filter.sources.files import (
    Unreadable,
    below_root,
    digest_file,
    digest_image,
    digest_images,
    expand_braces,
    find_spelled,
    list_files,
    list_visible,
    plain_text,
    read_file,
    split_path,
)
from glideslope.errors import SourceError
from glideslope.store.digests import sha256_bytes


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def test_a_folder_is_listed_in_a_fixed_order_without_hidden_names(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.png", "z/a.png", "m/n/a.png", ".hidden.png", ".git/a.png", "m/.b.png")
    assert list(list_visible(tmp_path)) == ["a.png", "b.png", "m/n/a.png", "z/a.png"]


def test_a_folder_that_cannot_be_listed_refuses_the_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="gone: this folder cannot be listed: No such file"):
        list(list_visible(tmp_path / "gone"))


@pytest.mark.parametrize(("pattern", "names"), [
    ("a.tar", ["a.tar"]), ("a-{0..2}.tar", ["a-0.tar", "a-1.tar", "a-2.tar"]), ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
    ("{x,y}/{1..2}.tar", ["x/1.tar", "x/2.tar", "y/1.tar", "y/2.tar"]), ("{a}.tar", ["a.tar"]),
])
def test_braces_stand_for_their_names_in_order(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names


def test_a_range_that_counts_down_is_refused() -> None:
    with pytest.raises(SourceError, match="counts down"):
        expand_braces("{3..1}.tar")


@given(st.integers(0, 200), st.integers(0, 30), st.integers(1, 5))
def test_a_range_has_every_number_once_and_its_own_width(first: int, length: int, width: int) -> None:
    names = expand_braces(f"{{{first:0{width}d}..{first + length}}}")
    assert [int(name) for name in names] == list(range(first, first + length + 1))
    assert all(len(name) >= width for name in names)


def test_files_are_found_by_folder_name_glob_and_braces(tmp_path: Path) -> None:
    touch(tmp_path, "b/1.tar", "b/0.TAR", "a.tar", "a.txt")
    assert list_files(str(tmp_path), suffix=".tar") == ("a.tar", "b/0.TAR", "b/1.tar")
    assert list_files(str(tmp_path / "a.txt"), suffix=".tar") == ("a.txt",)
    assert list_files(str(tmp_path / "b" / "*.tar"), suffix=".tar") == ("1.tar",)
    assert list_files(str(tmp_path / "{b/1,a}.tar"), suffix=".tar") == ("b/1.tar", "a.tar")
    assert split_path(str(tmp_path / "{b/1,a}.tar")) == (tmp_path, "{b/1,a}.tar")
    assert split_path(str(tmp_path / "?" / "{0..1}.tar")) == (tmp_path, "?/{0..1}.tar")


@pytest.mark.parametrize(("path", "message"), [
    ("gone", "gone: no such file or folder"), ("x*.tar", r"x\*\.tar: no such file or folder"), ("empty", "no .tar file in this folder"),
    ("part-{0..3}.tar", r"part-2\.tar, part-3\.tar is missing, 2 of 4 files are"),
])
def test_files_that_are_not_there_refuse_the_source(tmp_path: Path, path: str, message: str) -> None:
    touch(tmp_path, "part-0.tar", "part-1.tar", "empty/a.txt")
    with pytest.raises(SourceError, match=message):
        list_files(str(tmp_path / path), suffix=".tar")


@pytest.mark.parametrize(("root", "name", "inside"), [
    ("/data", "a/b.png", "a/b.png"), ("/data", "./a/../b.png", "b.png"), ("/data", "../b.png", None), ("/data", "a/../../b.png", None),
    ("/data", "/data/a.png", "a.png"), ("/data", "/database/a.png", None), ("/data", "/etc/passwd", None), ("/data", ".", None),
    (".", "a.png", "a.png"), (".", "../a.png", None), (".", "..", None), (".", "/a.png", None), ("/", "/a.png", "a.png"), ("/data/", "a", "a"),
    ("../data", "a.png", "a.png"), ("../data", "../a.png", None),
])
def test_paths_that_lead_out_of_the_root_are_told_from_those_below_it(root: str, name: str, inside: str | None) -> None:
    assert below_root(Path(root), name) == inside


@given(st.binary(min_size=1))
def test_any_name_becomes_text_that_can_be_written(data: bytes) -> None:
    name = os.fsdecode(data)
    assert plain_text(name).encode("utf-8")
    if "\\" not in name and not any("\udc80" <= letter <= "\udcff" for letter in name):
        assert plain_text(name) == name


def test_a_file_is_read_whole_or_refused_with_its_reason(tmp_path: Path) -> None:
    touch(tmp_path, "a")
    assert read_file(tmp_path / "a", max_bytes=1) == b"a"
    assert digest_image(tmp_path / "a") == sha256_bytes(b"a")
    os.mkfifo(tmp_path / "pipe")
    for name, reason, problem in (("gone", "missing", "is missing"), ("a/b", "missing", "is missing"), (".", "unreadable", "not a plain file"),
                                  ("pipe", "unreadable", "not a plain file"), ("n\0l", "unreadable", "null"),
                                  ("x" * 300, "unreadable", "too long")):
        for act in (lambda path: read_file(path, max_bytes=9), digest_image):
            with pytest.raises(Unreadable, match=problem) as caught:
                act(tmp_path / name)
            assert caught.value.reason == reason


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "big").write_bytes(b"12345")
    with pytest.raises(Unreadable, match="is too large: 5 bytes, at most 4 are read"):
        read_file(tmp_path / "big", max_bytes=4)
    monkeypatch.setattr(files, "MAX_IMAGE_BYTES", 4)
    assert digest_images([tmp_path / "big", tmp_path / "gone"]) == ["too large", "missing"]


def test_a_settled_file_is_hashed_once_and_a_fresh_one_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    assert digest_file(path) == sha256_bytes(b"one")
    path.write_bytes(b"two")  # same size, perhaps within one tick of the file system's clock
    assert digest_file(path) == sha256_bytes(b"two")
    now = time.time_ns()
    monkeypatch.setattr(files.time, "time_ns", lambda: now + 10**10)
    assert digest_file(path) == sha256_bytes(b"two")
    monkeypatch.setattr(files, "sha256_file", lambda path: pytest.fail("hashed again"))
    assert digest_file(path) == sha256_bytes(b"two")


def test_many_images_are_hashed_in_their_order(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}" for number in range(200)))
    assert digest_images([tmp_path / f"{number}" for number in range(200)]) == [sha256_bytes(f"{number}".encode()) for number in range(200)]


ODD_NAMES = ["set[1]", "a*b", "what?", "{0..2}", "x{a,b}", "[!a]", "100%", "my%20photos", "two  words", "~", "~nobody", "größe", "写真",
             "a'b\"c", "#1"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_what_exists_as_it_is_written_is_meant_literally(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, f"{name}/0.tar", f"{name}/{name}.tar", "set1/decoy.tar", "axb/decoy.tar", "whatx/decoy.tar", "0/decoy.tar", "b/decoy.tar")
    expected = tuple(sorted(["0.tar", f"{name}.tar"]))
    monkeypatch.chdir(tmp_path)
    for root in (str(tmp_path / name), name, f"./{name}"):
        assert list_files(root, suffix=".tar") == expected
        assert list_files(f"{root}/*.tar", suffix=".tar") == expected
        assert list_files(f"{root}/{name}.tar", suffix=".tar") == (f"{name}.tar",)
        assert list_files(f"{root}/{{0..0}}.tar", suffix=".tar") == ("0.tar",)
        assert (split_path(f"{root}/*.tar")[0] / "0.tar").is_file()
    assert f"{name}/0.tar" in list_files(str(tmp_path / "*" / "0.tar"), suffix=".tar")
    assert list_files(str(tmp_path / "*" / f"{name}.tar"), suffix=".tar") == (f"{name}/{name}.tar",)


@given(st.text("ab[]*?{},.-é ", min_size=1, max_size=6).filter(lambda name: not name.startswith(".")))
def test_any_folder_is_found_under_its_own_name(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.mktemp("odd")
    touch(root, f"{name}/0.tar", "decoy/0.tar")
    assert list_files(str(root / name / "*.tar"), suffix=".tar") == ("0.tar",)
    assert split_path(str(root / name / "*.tar"))[0] == root / name


def test_globs_see_what_a_listing_sees_and_go_deep_with_two_stars(tmp_path: Path) -> None:
    touch(tmp_path, "a/0.tar", "a/b/1.tar", "a/._0.tar", ".git/2.tar", "__MACOSX/a/3.tar", "c/x.txt", "[b]/4.tar")
    assert list_files(str(tmp_path / "**" / "*.tar"), suffix=".tar") == ("[b]/4.tar", "a/0.tar", "a/b/1.tar")
    assert list_files(str(tmp_path / "a" / "*.tar"), suffix=".tar") == ("0.tar",)
    assert list_files(str(tmp_path / "[ab]" / "*.tar"), suffix=".tar") == ("a/0.tar",)
    assert list_files(str(tmp_path / "*" / "[01].tar"), suffix=".tar") == ("a/0.tar",)


def test_a_tilde_is_the_home_directory_unless_something_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "home/tars/a.tar")
    assert list_files("~/tars", suffix=".tar") == list_files("~/tars/*.tar", suffix=".tar") == ("a.tar",)
    touch(tmp_path, "~/tars/b.tar")
    assert list_files("~/tars", suffix=".tar") == ("b.tar",)
    with pytest.raises(SourceError, match="~nobody-here/tars: no such file or folder"):
        list_files("~nobody-here/tars", suffix=".tar")


def test_what_systems_leave_behind_is_not_looked_at(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "Thumbs.db", "desktop.ini", ".DS_Store", "__MACOSX/b.png", "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
          "$RECYCLE.BIN/c.png",
          "lost+found/d.png", "thumbs/e.png")
    assert list(list_visible(tmp_path)) == ["a.png", "thumbs/e.png"]


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("name", "any_case", "meant"), [
    (f"{COMPOSED}/b.png", True, f"{DECOMPOSED}/B.PNG"), (f"{COMPOSED}/b.png", False, None), (f"{COMPOSED}/B.PNG", False, f"{DECOMPOSED}/B.PNG"),
    ("x/y.png", True, None), ("X/Y.png", True, "X/Y.png"), ("x/Y.png", False, None), ("gone/b.png", True, None), ("twice.PNG", True, None),
    ("Twice.png", True, "Twice.png"), ("STRASSE.png", True, "straße.png"),
])
def test_a_name_in_another_spelling_means_the_one_file_that_is_called_so(tmp_path: Path, name: str, any_case: bool, meant: str | None) -> None:
    touch(tmp_path, f"{DECOMPOSED}/B.PNG", "X/Y.png", "x/z.png", "Twice.png", "twice.png", "straße.png")
    assert find_spelled(tmp_path, name, any_case=any_case) == meant


def test_a_path_is_found_in_another_normal_form_but_never_with_other_capitals(tmp_path: Path) -> None:
    touch(tmp_path, f"{DECOMPOSED}/0.tar")
    assert list_files(str(tmp_path / COMPOSED), suffix=".tar") == list_files(str(tmp_path / COMPOSED / "*.tar"), suffix=".tar") == ("0.tar",)
    with pytest.raises(SourceError, match="no such file or folder"):
        list_files(str(tmp_path / COMPOSED.upper()), suffix=".tar")
