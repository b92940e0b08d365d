import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from glideslope.data_filter.sources import tar_survey, webdataset
from glideslope.data_filter.sources.source import SourceItem
from glideslope.data_filter.sources.webdataset import WebDataset, WebDatasetSource, is_hidden, looks_like_image, split_name
from glideslope.errors import SourceError

from ..conftest import TinyClip
from ..pairs import Pair, bad_rows, encode, index_rows, some_pairs, tar_members, write_tar

PNG = encode((1, 2, 3))


def read_all(path: Path, **settings: Any) -> list[SourceItem]:
    source = WebDataset(WebDatasetSource(path=str(path), **settings))
    return [item for shard in source.shards() for item in source.read(shard)]


def read_one(tmp_path: Path, members: list[tuple[str | tarfile.TarInfo, bytes]], **settings: Any) -> SourceItem:
    (item,) = read_all(write_tar(tmp_path / "a.tar", members), **settings)
    return item


def test_images_captions_and_json_come_out_byte_for_byte(tmp_path: Path) -> None:
    text, extra = " Größe\r\n", '{ "b":1.50,  "a": "\\u00e9" }\n'
    item = read_one(tmp_path, [("sub/000.jpg", PNG), ("sub/000.txt", text.encode()), ("sub/000.json", extra.encode())])
    assert item == SourceItem("sub/000", "sub/000", PNG, text, metadata=extra)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "AVIF"])
def test_an_image_is_known_by_its_content_whatever_it_is_called(tmp_path: Path, kind: str) -> None:
    image = encode((9, 200, 9), kind=kind, size=(16, 16))
    assert looks_like_image(image[:16])
    assert read_one(tmp_path, [("a.bin", image), ("a.txt", b"x"), ("a.cls", b"7"), ("a.npy", b"\x93NUMPY")]).image == image


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.ppm", "a.tga", "a.seg.png"])
def test_a_member_called_as_an_image_is_the_image_even_when_it_is_damaged(tmp_path: Path, name: str) -> None:
    item = read_one(tmp_path, [(name, b""), ("a.txt", b"x")])
    assert (item.image, item.reason) == (b"", "")  # decoding refuses it, and says why


@given(st.text(max_size=16))
def test_text_is_not_taken_for_an_image(text: str) -> None:
    assert not looks_like_image(text.encode()[:16]) or text.startswith(("GIF8", "\x00\x00\x00"))


def test_members_of_a_sample_may_lie_apart(tmp_path: Path) -> None:
    pairs = some_pairs(5)
    members = tar_members(pairs)
    items = read_all(write_tar(tmp_path / "a.tar", members[::2] + members[1::2]))
    assert [(item.key, item.image, item.caption) for item in items] == [(pair.name, pair.image, pair.caption) for pair in pairs]


def test_the_caption_may_stand_in_another_member_or_in_a_field_of_the_json(tmp_path: Path) -> None:
    fields = json.dumps({"Caption": " né ", "n": 3}).encode()
    members: list[tuple[str | tarfile.TarInfo, bytes]] = [("a.jpg", PNG), ("a.txt", b"one"), ("a.caption", b"two"), ("a.json", fields)]
    assert read_one(tmp_path, members).caption == "one"
    assert read_one(tmp_path, members, caption_member="caption").caption == "two"
    assert read_one(tmp_path, members, caption_member="json:Caption").caption == " né "
    several = read_one(tmp_path, [("a.jpg", PNG), ("a.json", b'{"c": ["one", "two", "one", ""]}')], caption_member="json:c")
    assert (several.caption, several.captions) == ("one", ("one", "two"))
    missing, number = (read_one(tmp_path, members, caption_member=f"json:{field}") for field in ("gone", "n"))
    assert (missing.reason, missing.error) == ("caption", "caption of a is missing")
    assert (number.reason, number.error) == ("caption", "caption of a is int, expected text")


def test_one_of_several_images_is_used_only_when_the_recipe_names_it(tmp_path: Path) -> None:
    members: list[tuple[str | tarfile.TarInfo, bytes]] = [("a.jpg", PNG), ("a.seg.png", encode((0, 0, 0))), ("a.txt", b"x")]
    item = read_one(tmp_path, members)
    assert (item.image, item.reason) == (None, "unreadable")
    assert item.error == ("sample a of a.tar has 2 images (a.jpg, a.seg.png). The name of a sample ends at its first dot: if these are "
                          "samples of "
                          "their own, set source.name_until to last_dot; if they are images of one sample, name one with source.image_member")
    assert read_one(tmp_path, members, image_member="jpg").image == PNG
    other = read_one(tmp_path, members, image_member="png")
    assert (other.reason, other.error) == ("missing", "sample a of a.tar has no image (found a.jpg, a.seg.png, a.txt)")


def linked(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


@pytest.mark.parametrize(("members", "key", "reason", "error"), [
    ([("a.jpg", PNG)], "a", "caption", "caption of a is missing"),
    ([("a.jpg", PNG), ("a.txt", b" \n")], "a", "caption", "caption of a is missing"),
    ([("a.jpg", PNG), ("a.txt", b"caf\xe9")], "a", "caption", "caption of a is not UTF-8"),
    ([("a.txt", b"x")], "a", "missing", "sample a of a.tar has no image (found a.txt)"),
    ([("README", b"x")], "README", "missing", "sample README of a.tar has no image (found README)"),
    ([("a.jpg", PNG), ("a.txt", b"x"), ("a.json", b"{'a': 1}")], "a", "unreadable", "member a.json of a.tar is not JSON: "),
    ([("a.jpg", PNG), ("a.txt", b"x"), ("a.json", b'"\xff"')], "a", "unreadable", "member a.json of a.tar is not UTF-8: byte 1"),
    ([("a.jpg", PNG), ("a.txt", b"x"), ("a.json", '{"k": 1}'.encode("utf-16"))], "a", "unreadable", "member a.json of a.tar is UTF-16, "),
    ([("a.jpg", PNG), ("a.txt", b"x"), ("a.json", b'{"k": 1, "k": 2}')], "a", "unreadable", "member a.json of a.tar is not JSON: the key 'k'"),
    ([("a.jpg", PNG), ("a.txt", "a cat".encode("utf-16"))], "a", "caption", "caption of a is UTF-16, expected UTF-8; convert it: iconv"),
    ([("a.jpg", PNG), ("a.txt", b"x"), ("a.json", b"[" * 100_000)], "a", "unreadable", "member a.json of a.tar is not JSON: "),
    ([(linked("a.jpg"), b""), ("a.txt", b"x")], "a", "unreadable", "member a.jpg of a.tar is a link"),
    ([("/a.jpg", PNG), ("/a.txt", b"x")], "/a", "unreadable", "member /a.jpg of a.tar has an absolute path"),
    ([("../a.jpg", PNG), ("../a.txt", b"x")], "../a", "unreadable", "member ../a.jpg of a.tar leads out of the archive"),
])
def test_a_sample_that_cannot_be_used_is_a_row_with_its_reason(tmp_path: Path, members: list[tuple[str | tarfile.TarInfo, bytes]], key: str,
                                                               reason: str, error: str) -> None:
    item = read_one(tmp_path, members)
    assert (item.key, item.reason) == (key, reason)
    assert item.error is not None and item.error.startswith(error)


def test_names_that_occur_twice_make_as_many_bad_rows(tmp_path: Path) -> None:
    pair, other = Pair("a", PNG, "x"), Pair("a", encode((0, 0, 0)), "y")
    items = read_all(write_tar(tmp_path / "a.tar", tar_members([pair, other, *some_pairs(1)])))
    assert [(item.key, item.reason, item.error) for item in items] == [
        *[("a", "unreadable", "sample a of a.tar has 2 members named a.jpg")] * 2, ("p0000", "", None)]


def test_a_member_beyond_the_limit_is_a_row_and_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "MAX_IMAGE_BYTES", 20)
    monkeypatch.setattr(webdataset, "MAX_TEXT_BYTES", 10)
    members = [("a.jpg", PNG), ("a.txt", b"x"), ("b.jpg", b"small"), ("b.txt", b"x" * 11), ("c.jpg", b"small"), ("c.txt", b"x"),
               ("c.json", b'"0123456789"')]
    items = read_all(write_tar(tmp_path / "a.tar", members))
    assert [item.reason for item in items] == ["too large", "caption", "too large"]
    assert {item.key: item.error for item in items} == {
        "a": f"member a.jpg of a.tar is too large: {len(PNG)} bytes, at most 20 are read",
        "b": "caption of b is too large: 11 bytes, at most 10 are read",
        "c": "member c.json of a.tar is too large: 12 bytes, at most 10 are read"}


def test_hidden_companions_and_folders_are_not_looked_at(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("sub")
    folder.type = tarfile.DIRTYPE
    members = [(folder, b""), ("sub/._a.jpg", b"mac"), (".DS_Store", b"x"), ("./sub/a.jpg", PNG), ("./sub/a.txt", b"x")]
    assert read_one(tmp_path, members).key == "sub/a"
    assert [is_hidden(name) for name in ("a/b.c", ".a/b", "a/.b", "../a.b", "a..b")] == [False, True, True, False, False]
    assert split_name("a.b/c.seg.PNG") == ("a.b/c", "seg.png")


def test_names_that_are_not_utf8_get_a_readable_key(tmp_path: Path) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name, data in (("caf\xe9.jpg", PNG), ("caf\xe9.txt", b"x")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (tmp_path / "a.tar").write_bytes(target.getvalue())
    (item,) = read_all(tmp_path / "a.tar")
    assert (item.key, item.caption, item.error) == ("caf\\xe9", "x", None)


@pytest.mark.parametrize("place", range(600, 12_000, 451))
def test_a_tar_cut_in_the_middle_gives_the_samples_before_the_cut_and_one_row_for_the_rest(tmp_path: Path, place: int) -> None:
    pairs = [Pair(f"p{number}", PNG + bytes(900), f"caption {number}") for number in range(5)]
    whole = write_tar(tmp_path / "whole.tar", tar_members(pairs)).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:place])
    *read, rest = read_all(tmp_path / "a.tar")
    # a sample takes 2,560 bytes: header, two blocks of image, header, a block with the text
    num_whole = sum(number * 2560 + 2048 + len(pair.caption) <= place for number, pair in enumerate(pairs))
    assert [(item.key, item.image, item.caption) for item in read] == [(pair.name, pair.image, pair.caption) for pair in pairs[:num_whole]]
    assert (rest.key, rest.reason) == ("a.tar#truncated", "unreadable")
    assert rest.error is not None and rest.error.startswith("tar a.tar ") and rest.error.endswith(" lost") and f"byte {place}" in rest.error


def test_a_cut_between_the_members_of_the_last_sample_takes_that_sample_with_it(tmp_path: Path) -> None:
    pairs = some_pairs(3)
    members = tar_members(pairs)
    size = write_tar(tmp_path / "b.tar", members[:-1]).stat().st_size
    data = write_tar(tmp_path / "a.tar", members).read_bytes()
    end = next(place for place in range(0, size, 512) if not any((tmp_path / "b.tar").read_bytes()[place:]))
    (tmp_path / "a.tar").write_bytes(data[:end])
    (tmp_path / "b.tar").unlink()
    items = read_all(tmp_path / "a.tar")
    assert [item.key for item in items] == ["p0000", "p0001", "a.tar#truncated"]
    assert items[-1].error == f"tar a.tar ends at byte {end} without an end mark; sample p0002 and whatever followed it is lost"


def test_a_tar_is_a_shard_and_a_change_shows_in_its_fingerprint_alone(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", tar_members(some_pairs(2, first=2 * number)))
    source = WebDataset(WebDatasetSource(path=str(tmp_path)))
    before = source.shards()
    assert [(shard.name, shard.file, shard.num_inputs) for shard in before] == [
        ("shard-00000", "0.tar", None), ("shard-00001", "1.tar", None), ("shard-00002", "2.tar", None)]
    write_tar(tmp_path / "1.tar", tar_members(some_pairs(2, first=7)))
    after = WebDataset(WebDatasetSource(path=str(tmp_path))).shards()
    assert [one.fingerprint == other.fingerprint for one, other in zip(before, after, strict=True)] == [True, False, True]
    with pytest.raises(SourceError, match=r"1\.tar changed while it was read"):
        list(source.read(before[1]))
    assert WebDataset(WebDatasetSource(path=str(tmp_path), caption_member="json:x")).fingerprint() != source.fingerprint()
    (tmp_path / "2.tar").unlink()
    with pytest.raises(SourceError, match=r"2\.tar: cannot be read: No such file"):
        list(source.read(before[2]))


def test_the_fingerprint_does_not_depend_on_where_the_tars_lie(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tar(tmp_path / name / "a.tar", tar_members(some_pairs(2)))
    one, two = (WebDataset(WebDatasetSource(path=str(tmp_path / name))).fingerprint() for name in ("one", "two"))
    assert one == two


def test_only_the_keys_asked_for_are_read(tmp_path: Path) -> None:
    source = WebDataset(WebDatasetSource(path=str(write_tar(tmp_path / "a.tar", tar_members(some_pairs(6))))))
    assert [item.key for item in source.read(source.shards()[0], keys={"p0001", "p0004", "a.tar#truncated"})] == ["p0001", "p0004"]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "sub/a.tar.zst"])
def test_compressed_tars_are_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "a.tar", tar_members(some_pairs(1)))
    write_tar(tmp_path / name, [])
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(SourceError, match=r"a compressed tar; .*unpack it to \.tar"):
            WebDataset(WebDatasetSource(path=str(path))).shards()


def test_every_kind_of_bad_input_ends_as_a_row_of_the_index(tmp_path: Path, tiny_clip: TinyClip) -> None:
    frames = io.BytesIO()
    Image.new("RGB", (8, 8)).save(frames, "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    good = some_pairs(3)
    whole = write_tar(tmp_path / "tars" / "0.tar", tar_members([
        *good, Pair("zero", b"", "x"), Pair("cut", encode((1, 2, 3), kind="JPEG", size=(64, 64))[:300], "x"), Pair("text", b"no image", "x"),
        Pair("huge", encode((1, 2, 3), size=(200, 200)), "x"), Pair("frames", frames.getvalue(), "x"),
        Pair("grey16", encode_mode("I;16"), "x"), Pair("cmyk", encode_mode("CMYK"), "x")])).read_bytes()
    write_tar(tmp_path / "tars" / "1.tar", [("gone.txt", b"x"), ("latin.jpg", PNG), ("latin.txt", b"caf\xe9"), ("mute.jpg", PNG),
                                            *tar_members(good[:1])])
    (tmp_path / "tars" / "2.tar").write_bytes(whole[:550])
    rows = index_rows(WebDatasetSource(path=str(tmp_path / "tars")), tmp_path / "index")
    bad = bad_rows(rows)
    assert {key: reason for key, (reason, _) in bad.items()} == {
        "zero": "unreadable", "cut": "unreadable", "text": "unreadable", "huge": "too large", "frames": "unreadable", "gone": "missing",
        "latin": "caption", "mute": "caption", "p0000": "duplicate key", "2.tar#truncated": "unreadable"}
    assert [row["key"] for row in rows if row["status"] == "ok"] == ["p0000", "p0001", "p0002", "grey16", "cmyk", "latin", "mute"]
    assert len(rows) == 10 + 4 + 1
    assert bad["2.tar#truncated"][1] == "tar 2.tar ends at byte 550 in the middle of p0000.jpg; sample p0000 and whatever followed it is lost"


def encode_mode(mode: str) -> bytes:
    target = io.BytesIO()
    Image.new(mode, (8, 8)).save(target, "TIFF")
    return target.getvalue()


def test_a_tar_that_changes_between_runs_is_embedded_again_and_the_others_are_taken_over(tmp_path: Path, tiny_clip: TinyClip) -> None:
    config = WebDatasetSource(path=str(tmp_path / "tars"))
    for number in range(3):
        write_tar(tmp_path / "tars" / f"{number}.tar", tar_members(some_pairs(4, first=4 * number)))
    index_rows(config, tmp_path / "index")
    assert tiny_clip.num_images == 12
    write_tar(tmp_path / "tars" / "1.tar", tar_members([*some_pairs(3, first=4), Pair("new", PNG, "new")]))
    rows = index_rows(config, tmp_path / "index")
    assert tiny_clip.num_images == 16
    assert [row["key"] for row in rows][4:8] == ["p0004", "p0005", "p0006", "new"]
    assert [row["status"] for row in rows] == ["ok"] * 12


@pytest.mark.parametrize(("data", "problem"), [
    (b"", "is empty"), (b"<html>" * 200, "is not a tar"), (b"\x1f\x8b" + bytes(600), "compressed with gzip")])
def test_a_source_without_a_single_tar_is_refused(tmp_path: Path, data: bytes, problem: str) -> None:
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=rf"no file can be read as a tar; a\.tar .*{problem}"):
        WebDataset(WebDatasetSource(path=str(tmp_path))).shards()
    write_tar(tmp_path / "c.tar", tar_members(some_pairs(1)))
    assert [item.key for item in read_all(tmp_path)] == ["a.tar#truncated", "b.tar#truncated", "p0000"]


def test_a_tar_with_nothing_in_it_has_no_rows(tmp_path: Path) -> None:
    assert read_all(write_tar(tmp_path / "a.tar", [])) == []


def dotted_members() -> list[tuple[str | tarfile.TarInfo, bytes]]:
    return [member for number, name in enumerate(("22.05", "22.06", "v1.0/a.b.c"))
            for member in ((f"{name}.PNG", encode((number, 2, 3))), (f"{name}.txt", name.encode()), (f"{name}.json", b"{}"))]


def test_names_with_dots_in_them_are_told_apart_at_their_last_dot(tmp_path: Path) -> None:
    items = read_all(write_tar(tmp_path / "a.tar", dotted_members()), name_until="last_dot")
    assert [(item.key, item.caption, item.image, item.error) for item in items] == [
        (name, name, encode((number, 2, 3)), None) for number, name in enumerate(("22.05", "22.06", "v1.0/a.b.c"))]


NAME_PARTS = st.text("ab.1-", min_size=1, max_size=8).filter(lambda name: not name.startswith("."))


@given(st.lists(NAME_PARTS, min_size=1, max_size=6, unique=True))
def test_no_sample_is_lost_at_the_last_dot_whatever_the_names(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    members = [member for name in names for member in ((f"{name}.png", PNG), (f"{name}.txt", name.encode()))]
    path = write_tar(tmp_path_factory.mktemp("tars") / "a.tar", members)
    assert [(item.key, item.caption, item.error) for item in read_all(path, name_until="last_dot")] == [(name, name, None) for name in names]


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True), st.integers(1, 4))
def test_keys_that_name_the_tar_are_unique_where_names_start_again(tmp_path_factory: pytest.TempPathFactory, tars: list[str], num: int) -> None:
    root = tmp_path_factory.mktemp("tars")
    for tar in tars:
        write_tar(root / "deep" / f"{tar}.tar", tar_members(some_pairs(num)))
    items = read_all(root, keys="tar/member")
    assert [item.key for item in items] == [f"deep/{tar}.tar/p{number:04d}" for tar in sorted(tars) for number in range(num)]
    source = WebDataset(WebDatasetSource(path=str(root), keys="tar/member"))
    assert [item.key for shard in source.shards() for item in source.read(shard, keys={items[-1].key})] == [items[-1].key]


def test_settings_that_change_keys_change_the_fingerprint_and_the_usual_ones_do_not(tmp_path: Path) -> None:
    path = str(write_tar(tmp_path / "a.tar", tar_members(some_pairs(1))))
    prints = {WebDataset(WebDatasetSource(path=path, **settings)).fingerprint()
              for settings in ({}, {"keys": "tar/member"}, {"name_until": "last_dot"})}
    assert len(prints) == 3


def ahead(path: Path, *, needs_captions: bool = True, **settings: Any) -> None:
    WebDataset(WebDatasetSource(path=str(path), **settings)).look_ahead(needs_captions=needs_captions)


def test_names_that_start_again_in_every_tar_are_refused_before_anything_is_embedded(tmp_path: Path) -> None:
    for number in range(3):
        pairs = some_pairs(5, first=5 * number)
        write_tar(tmp_path / f"{number}.tar", tar_members([Pair(f"{place:03d}", pair.image, pair.caption) for place, pair in enumerate(pairs)]))
    with pytest.raises(SourceError, match=r"names start again in every tar \(000 is in several, with other pictures\).*Set source\.keys "
                                          r"to tar/member"):
        ahead(tmp_path)
    ahead(tmp_path, keys="tar/member")


def test_a_tar_that_lies_there_twice_is_not_refused_for_its_names(tmp_path: Path) -> None:
    for name in ("a", "copy of a"):
        write_tar(tmp_path / f"{name}.tar", tar_members(some_pairs(5)))
    ahead(tmp_path)


@pytest.mark.parametrize(("suffix", "data", "settings", "told"), [
    ("json", b'{"Caption": "x", "n": 3}', {}, r"none has a caption in a member txt \(there are jpg \(2 of 2\), json \(2 of 2\); the JSON "
                                              r"has text in Ca"),
    ("caption", b"x", {}, r"none has a caption in a member txt \(there are jpg \(2 of 2\), caption \(2 of 2\)\)"),
    ("json", b'{"Caption": "x"}', {"caption_member": "json:caption"}, r"none has a caption in the JSON field caption .*the JSON has text "
                                                                      r"in Caption"),
    ("txt", b"x", {"caption_member": "json:caption"}, "none has a caption in the JSON field caption .*txt"),
    ("txt", b"x", {"image_member": "png"}, r"none has a member png as source\.image_member says \(there are jpg"),
])
def test_tars_whose_captions_or_images_stand_elsewhere_are_refused_with_what_there_is(
        tmp_path: Path, suffix: str, data: bytes, settings: dict[str, str], told: str) -> None:
    write_tar(tmp_path / "a.tar", [(f"{name}.{end}", content) for name in "ab" for end, content in (("jpg", PNG), (suffix, data))])
    with pytest.raises(SourceError, match=rf"of the first 2 samples, {told}"):
        ahead(tmp_path, **settings)
    if "image_member" not in settings:
        ahead(tmp_path, needs_captions=False, **settings)


def test_samples_that_run_together_at_their_dots_are_refused_with_the_way_out(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", dotted_members())
    with pytest.raises(SourceError, match=r"have names with dots in them \(22\.05\.PNG\).*Set source\.name_until to last_dot"):
        ahead(tmp_path)
    ahead(tmp_path, name_until="last_dot")


def test_samples_with_several_images_each_are_refused_with_the_way_out(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [(f"{name}.{end}", PNG) for name in "ab" for end in ("jpg", "seg.png", "txt")])
    with pytest.raises(SourceError, match=r"2 have several images \(a of a\.tar has a\.jpg, a\.seg\.png\).*name one with source\.image_member"):
        ahead(tmp_path)
    ahead(tmp_path, image_member="jpg")


def test_a_look_ahead_reads_the_first_tars_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        write_tar(tmp_path / f"{number:02d}.tar", tar_members(some_pairs(2, first=2 * number)))
    opened: list[str] = []
    really = tar_survey.list_members
    monkeypatch.setattr(tar_survey, "list_members", lambda file, size, most: opened.append(file.name) or really(file, size, most=most))
    ahead(tmp_path)
    assert len(opened) == tar_survey.MOST_TARS


def test_tars_with_a_few_bad_samples_are_not_refused_for_them(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [*tar_members(some_pairs(8)), ("mute.jpg", PNG), ("lone.txt", b"x"), ("two.jpg", PNG), ("two.b.jpg", PNG),
                                   ("odd.json", b"[1]"), ("bad.json", b"{"), (linked("link.jpg"), b"")])
    ahead(tmp_path)
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:700])
    ahead(tmp_path)
    write_tar(tmp_path / "a.tar", [])
    ahead(tmp_path)


def test_images_and_captions_in_tars_of_their_own_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "images.tar", [(f"{number}.jpg", PNG) for number in range(3)])
    write_tar(tmp_path / "texts.tar", [(f"{number}.txt", b"x") for number in range(3)])
    with pytest.raises(SourceError, match=r"none has both an image and a caption: 3 have no image\. The members of a sample have to lie "
                                          r"in one tar"):
        ahead(tmp_path)
