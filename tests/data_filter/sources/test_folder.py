import json
import os
from pathlib import Path
from typing import Any

import pytest

from glideslope.data_filter.sources.folder import FolderSource, ImageFolder
from glideslope.data_filter.sources.kind import open_source
from glideslope.data_filter.sources.source import SourceItem
from glideslope.errors import SourceError
from glideslope.store.digests import sha256_bytes, sha256_json

from ..conftest import draw

WHITE = (255, 255, 255)


def read_all(root: Path, **settings: Any) -> dict[str, SourceItem]:
    source = ImageFolder(root, shard_size=2, **settings)
    return {item.key: item for shard in source.shards() for item in source.read(shard)}


def test_captions_from_jsonl_are_kept_letter_for_letter(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "  Ärmel & \\"x\\"  "}\n\n', encoding="utf-8")
    items = read_all(tmp_path)
    assert items["a.png"].caption == '  Ärmel & "x"  '
    assert items["a.png"].image == (tmp_path / "a.png").read_bytes()
    assert items["a.png"].error is None


def test_captions_from_csv_use_the_column_asked_for(tmp_path: Path) -> None:
    draw(tmp_path / "sub" / "a.png", WHITE)
    (tmp_path / "sub" / "metadata.csv").write_text("file_name,caption\na.png,\"one, two\"\n")
    assert read_all(tmp_path, caption_column="caption")["sub/a.png"].caption == "one, two"


def test_captions_from_text_files_beside_the_images(tmp_path: Path) -> None:
    draw(tmp_path / "b" / "a.png", WHITE)
    (tmp_path / "b" / "a.txt").write_bytes("zwei Äpfel\r\n".encode())
    source = open_source(FolderSource(path=str(tmp_path)), shard_size=4)
    (shard,) = source.shards()
    assert [item.caption for item in source.read(shard)] == ["zwei Äpfel"]
    assert source.labels(["person"]) == []


def test_an_image_listed_but_missing_is_a_row(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,x\ngone.png,y\n")
    items = read_all(tmp_path)
    assert items["gone.png"].reason == "missing"
    assert items["gone.png"].error == "image gone.png is missing"
    assert items["a.png"].error is None


def test_an_image_without_a_caption_is_a_row(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    draw(tmp_path / "b.png", WHITE)
    draw(tmp_path / "c.png", WHITE)
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,x\nc.png,  \n")
    items = read_all(tmp_path)
    assert items["b.png"].reason == "caption"
    assert items["b.png"].error == "image b.png is not in the metadata and has no b.txt beside it"
    assert items["c.png"].error == "caption of c.png is missing"


def test_a_caption_without_an_image_is_a_row(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.txt").write_text("y")
    assert read_all(tmp_path)["b.txt"].error == "caption b.txt has no image beside it"


def test_a_caption_that_is_not_utf8_is_a_row_whatever_file_holds_it(tmp_path: Path) -> None:
    for kind in ("txt", "csv", "jsonl"):
        draw(tmp_path / kind / "a.png", WHITE)
    (tmp_path / "txt" / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "csv" / "metadata.csv").write_bytes(b"file_name,text\na.png,caf\xe9\n")
    (tmp_path / "jsonl" / "metadata.jsonl").write_bytes(b'{"file_name": "a.png", "text": "caf\xe9"}\n')
    for kind, where in (("txt", ": byte 3 in line 1 is 0xe9"), ("csv", " (metadata.csv, line 2)"), ("jsonl", " (metadata.jsonl, line 1)")):
        (item,) = read_all(tmp_path / kind).values()
        assert (item.reason, item.caption) == ("caption", None)
        assert str(item.error).startswith(f"caption of a.png is not UTF-8{where}")


def test_a_caption_that_is_no_text_is_a_row(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": 3}\n')
    assert read_all(tmp_path)["a.png"].error == "caption of a.png is int, expected text"


def test_a_path_that_leads_out_of_the_folder_is_a_row_and_is_not_read(tmp_path: Path) -> None:
    draw(tmp_path / "secret.png", WHITE)
    draw(tmp_path / "in" / "a.png", WHITE)
    (tmp_path / "in" / "metadata.csv").write_text("file_name,text\n../secret.png,x\na.png,y\n")
    item = read_all(tmp_path / "in")["../secret.png"]
    assert item.image is None
    assert item.error == "image ../secret.png lies outside of the folder"


def test_a_picture_of_a_type_that_is_not_read_is_a_row_that_says_what_to_do(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    for name in ("b.HEIC", "c.svg"):
        (tmp_path / name).write_bytes((tmp_path / "a.png").read_bytes())  # whatever its content: its name promises something else
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("x")
    items = read_all(tmp_path)
    assert {key: (item.reason, item.error) for key, item in items.items()} == {
        "a.png": ("", None),
        "b.HEIC": ("unreadable", "image b.HEIC: .heic files are not read; convert it to PNG or JPEG"),
        "c.svg": ("unreadable", "image c.svg: .svg files are not read; convert it to PNG or JPEG")}
    (tmp_path / "metadata.csv").write_text("file_name,text\nb.HEIC,x\na.png,y\ngone.heic,z\n")
    items = read_all(tmp_path)
    assert {key: item.reason for key, item in items.items()} == {
        "b.HEIC": "unreadable", "a.png": "", "gone.heic": "missing", "c.svg": "unreadable"}


def test_files_that_are_no_images_are_counted_by_their_endings_unless_metadata_lists_them(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    for name in ("x.mp4", "y.MP4", "README", "sub/labels.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((tmp_path / "a.png").read_bytes())
    assert ImageFolder(tmp_path).others == {".mp4": 2, "": 1, ".csv": 1}
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,y\nREADME,a picture without an ending\n")
    assert ImageFolder(tmp_path).others == {".mp4": 2, ".csv": 1}
    assert read_all(tmp_path)["README"].reason == ""


def test_a_folder_with_nothing_but_other_types_is_refused_with_their_number(tmp_path: Path) -> None:
    for name in ("a.heic", "b.heic", "c.nef"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=r"no images in this folder .*; convert those of types that are not read \(2 x \.heic, 1 x \.nef\)"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize(("name", "text"), [
    ("metadata.csv", "file_name,text\na.png,x\n./a.png,y\na.png,x\na.png, \n"),
    ("metadata.jsonl", '{"file_name": "a.png", "text": ["x", "y", "x", null, ""]}\n'),
    ("metadata.jsonl", '{"file_name": "a.png", "text": "x"}\n{"file_name": "b/../a.png", "text": ["y", "\\ufeffx"]}\n'),
])
def test_several_captions_of_a_picture_are_one_input_each_caption_once(tmp_path: Path, name: str, text: str) -> None:
    draw(tmp_path / "a.png", WHITE)
    (tmp_path / name).write_text(text)
    source = ImageFolder(tmp_path)
    (item,) = source.read(source.shards()[0])
    assert (item.key, item.caption, item.captions, item.error) == ("a.png", "x", ("x", "y"), None)


def test_a_picture_that_several_metadata_files_list_is_one_input(tmp_path: Path) -> None:
    draw(tmp_path / "sub" / "a.png", WHITE)
    (tmp_path / "metadata.csv").write_text("file_name,text\nsub/a.png,x\n../gone.png,y\n../gone.png,z\n")
    (tmp_path / "sub" / "metadata.csv").write_text("file_name,text\na.png,y\n")
    items = {item.key: item for shard in ImageFolder(tmp_path).shards() for item in ImageFolder(tmp_path).read(shard)}
    assert items["sub/a.png"].captions == ("x", "y") and items["../gone.png"].reason == "missing" and len(items) == 2


def test_one_caption_that_cannot_be_used_makes_all_of_a_picture_unusable(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    for row, error in ((b'["x", 3]', "caption of a.png is int, expected text"), (b'["x", "caf\xe9"]', "not UTF-8 (metadata.jsonl, line 1)")):
        (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "a.png", "text": ' + row + b"}\n")
        item = read_all(tmp_path)["a.png"]
        assert (item.caption, item.captions, item.reason) == (None, (), "caption") and str(item.error).endswith(error)


def test_a_picture_with_one_caption_has_the_fingerprint_it_always_had(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    for text in ('"x"', '["x"]', '["x", "x", ""]'):
        (tmp_path / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "text": {text}}}\n')
        image = sha256_bytes((tmp_path / "a.png").read_bytes())
        expected = sha256_json({"source": "folder", "inputs": [["a.png", "x", "", None, image]]})
        assert ImageFolder(tmp_path).shards()[0].fingerprint == expected


def test_an_unreadable_image_is_a_row(tmp_path: Path) -> None:
    draw(tmp_path / "b.png", WHITE)
    (tmp_path / "a.png").mkdir()  # opening it fails whoever runs the test
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,x\nb.png,y\n")
    item = read_all(tmp_path)["a.png"]
    assert item.reason == "unreadable"
    assert item.error is not None and item.error.startswith("image a.png cannot be read: ")


def test_file_names_that_are_not_utf8_get_a_readable_key(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    odd = bytes(tmp_path) + b"/caf\xe9.png"
    with open(odd, "wb") as file:  # noqa: PTH123  (pathlib takes no bytes)
        file.write((tmp_path / "a.png").read_bytes())
    items = read_all(tmp_path)
    assert "caf\\xe9.png" in items
    assert items["caf\\xe9.png"].image is not None


@pytest.mark.parametrize(("name", "text", "message"), [
    ("metadata.jsonl", '{"file_name": "a.png", "text": "x"}\n{"file_name": \n', "line 2: not JSON"),
    ("metadata.jsonl", '["a.png"]\n', "line 1: expected a JSON object, got list"),
    ("metadata.jsonl", '{"text": "x"}\n', "line 1: no file_name"),
    ("metadata.csv", "name,text\na.png,x\n", "column file_name is missing; .*\\(found name, text\\)"),
    ("metadata.csv", "", "column file_name is missing; .*\\(found nothing\\)"),
    ("metadata.csv", "file_name,text\na.png,a red, ripe apple\n", "metadata.csv, line 2: 3 cells, the header has 2; put text with ',' in"),
    ("metadata.csv", "file_name,text,\na.png,a red, ripe apple\n", "line 2: ' ripe apple' stands in a column without a name"),
    ("metadata.csv", "file_name,text\na.png,x\na.png\n", "metadata.csv, line 3: 1 cells, the header has 2"),
    ("metadata.csv", 'file_name,text\na.png,"Starry Night\nb.png,x\n', "metadata.csv, line 2: a double quote opens a cell here and is never"),
    ("metadata.csv", "file_name,text,text\na.png,x,y\n", "column text stands twice"),
    ("metadata.jsonl", '{"file_name": "a.png", "text": "x", "text": "y"}\n', "line 1: not JSON .the key 'text' stands twice"),
])
def test_metadata_that_cannot_be_parsed_refuses_the_source(tmp_path: Path, name: str, text: str, message: str) -> None:
    draw(tmp_path / "a.png", WHITE)
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message):
        ImageFolder(tmp_path)


def test_a_missing_or_empty_folder_and_two_kinds_of_metadata_refuse_the_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="no images in this folder"):
        ImageFolder(tmp_path)
    draw(tmp_path / "a.png", WHITE)
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,x\n")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x"}\n')
    with pytest.raises(SourceError, match="keep one of them"):
        ImageFolder(tmp_path)


def test_the_fingerprint_follows_content_and_not_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        draw(tmp_path / name / "a.png", WHITE)
        (tmp_path / name / "a.txt").write_text("x")
    assert ImageFolder(tmp_path / "one").fingerprint() == ImageFolder(tmp_path / "two").fingerprint()
    draw(tmp_path / "two" / "a.png", (0, 0, 0))
    assert ImageFolder(tmp_path / "one").fingerprint() != ImageFolder(tmp_path / "two").fingerprint()


def test_shards_cover_every_input_once_in_order_and_a_change_shows_in_its_shard_alone(tmp_path: Path) -> None:
    for number in range(5):
        draw(tmp_path / f"{number}.png", WHITE)
        (tmp_path / f"{number}.txt").write_text("x")
    before = ImageFolder(tmp_path, shard_size=2).shards()
    assert [(shard.name, shard.start, shard.stop, shard.num_inputs) for shard in before] == [
        ("shard-00000", 0, 2, 2), ("shard-00001", 2, 4, 2), ("shard-00002", 4, 5, 1)]
    (tmp_path / "3.txt").write_text("y")
    after = ImageFolder(tmp_path, shard_size=2).shards()
    assert [one.fingerprint == other.fingerprint for one, other in zip(before, after, strict=True)] == [True, False, True]


def test_only_the_keys_asked_for_are_read(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        draw(tmp_path / f"{name}.png", WHITE)
        (tmp_path / f"{name}.txt").write_text(name)
    source = ImageFolder(tmp_path)
    (shard,) = source.shards()
    assert [item.caption for item in source.read(shard, keys={"b.png", "unheard of"})] == ["b"]


@pytest.mark.parametrize("change", ["picture", "caption", "added", "removed"])
def test_a_folder_that_changes_between_listing_and_reading_is_refused(tmp_path: Path, change: str) -> None:
    for name in ("b", "c"):
        draw(tmp_path / f"{name}.png", WHITE)
        (tmp_path / f"{name}.txt").write_text(name)
    (shard,) = ImageFolder(tmp_path).shards()
    if change == "picture":
        draw(tmp_path / "b.png", (0, 0, 0))
    elif change == "caption":
        (tmp_path / "b.txt").write_text("other")
    elif change == "added":
        draw(tmp_path / "a.png", WHITE)
    else:
        (tmp_path / "c.png").unlink()
    with pytest.raises(SourceError, match="shard-00000 changed while it was read"):
        list(ImageFolder(tmp_path).read(shard))


def test_a_named_pipe_and_a_link_that_leads_nowhere_are_rows_and_keep_nobody_waiting(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,x\nb.png,y\nc.png,z\n")
    items = read_all(tmp_path)
    assert items["b.png"].error == "image b.png cannot be read: not a plain file"
    assert (items["c.png"].reason, items["c.png"].error) == ("missing", "image c.png is missing")


def test_a_file_name_that_no_file_system_can_hold_is_a_row(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    rows = [{"file_name": name, "text": "x"} for name in ("a.png", "n\0l.png", "\ud800.png", "a" * 300 + ".png")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    items = list(read_all(tmp_path).values())
    assert [item.reason for item in items] == ["", "unreadable", "unreadable", "unreadable"]


def test_links_to_folders_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere" / "a.png", WHITE)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    assert list(read_all(tmp_path / "in")) == ["linked/a.png"]


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_rows_of_metadata_find_their_images_whatever_the_spelling_of_the_names(tmp_path: Path) -> None:
    for name in (f"{DECOMPOSED}.png", "Sub/B.PNG", "c.png", "C.png", "straße.png"):
        draw(tmp_path / name, WHITE)
    rows = [f"{COMPOSED}.png,one", "sub/b.png,two", "C.PNG,several are meant", "STRASSE.png,three", "c.png,four", "C.png,five", "gone.png,six"]
    (tmp_path / "metadata.csv").write_text("file_name,text\n" + "\n".join(rows), encoding="utf-8")
    items = read_all(tmp_path)
    assert {key: (item.caption, item.reason) for key, item in items.items()} == {
        f"{DECOMPOSED}.png": ("one", ""), "Sub/B.PNG": ("two", ""), "C.PNG": ("several are meant", "missing"), "straße.png": ("three", ""),
        "c.png": ("four", ""), "C.png": ("five", ""), "gone.png": ("six", "missing")}


def test_a_row_never_takes_the_image_of_another_row(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    (tmp_path / "metadata.csv").write_text("file_name,text\nA.png,lost on the way\na.png,mine\n")
    items = read_all(tmp_path)
    assert (items["a.png"].caption, items["A.png"].reason) == ("mine", "missing")


@pytest.mark.parametrize("names", [(f"{COMPOSED}.png", f"{DECOMPOSED}.png"), (f"{DECOMPOSED}.PNG", f"{COMPOSED}.Png"),
                                   (f".\\{COMPOSED}.png", f"{COMPOSED}.png")])
def test_rows_that_mean_one_image_in_several_spellings_are_one_input_with_several_captions(tmp_path: Path, names: tuple[str, str]) -> None:
    draw(tmp_path / f"{COMPOSED}.png", WHITE)
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{names[0]},a dog\n{names[1]},a person\n", encoding="utf-8")
    items = read_all(tmp_path)
    assert {key: item.captions for key, item in items.items()} == {f"{COMPOSED}.png": ("a dog", "a person")}


def test_the_name_of_the_metadata_may_have_capitals(tmp_path: Path) -> None:
    for name, text in (("Metadata.CSV", "file_name,text\na.png,a cat\n"), ("metadata.JSONL", '{"file_name": "a.png", "text": "a cat"}')):
        (tmp_path / name[-3:]).mkdir()
        draw(tmp_path / name[-3:] / "a.png", WHITE)
        (tmp_path / name[-3:] / name).write_text(text)
        assert read_all(tmp_path / name[-3:])["a.png"].caption == "a cat"


def test_two_files_of_captions_beside_one_image_are_both_told_of(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    for name in ("a.TXT", "a.txt"):
        (tmp_path / name).write_text(name)
    items = read_all(tmp_path)
    assert {key: (item.caption, item.reason) for key, item in items.items()} == {"a.png": ("a.TXT", ""), "a.txt": (None, "missing")}


def test_captions_beside_images_are_found_whatever_the_spelling_of_the_names(tmp_path: Path) -> None:
    for name in ("IMG_1.JPG", f"{DECOMPOSED}.png", "x.png", "X.png"):
        draw(tmp_path / name, WHITE)
    for name in ("img_1.TXT", f"{COMPOSED}.txt", "x.txt", "lonely.txt"):
        (tmp_path / name).write_text(name)
    assert {key: item.caption for key, item in read_all(tmp_path).items()} == {
        "IMG_1.JPG": "img_1.TXT", f"{DECOMPOSED}.png": f"{COMPOSED}.txt", "x.png": "x.txt", "X.png": None, "lonely.txt": None}


@pytest.mark.parametrize(("caption_file", "suffix", "data"), [
    ("caption", "caption", b"a cat\n"), (".CAP", "cap", b"a cat"), ("json:prompt", "json", b'{"prompt": "a cat"}')])
def test_captions_may_have_another_ending_or_lie_in_json(tmp_path: Path, caption_file: str, suffix: str, data: bytes) -> None:
    draw(tmp_path / "a.png", WHITE)
    draw(tmp_path / "b.png", WHITE)
    (tmp_path / f"a.{suffix}").write_bytes(data)
    items = read_all(tmp_path, caption_file=caption_file)
    assert items["a.png"].caption == "a cat"
    assert items["b.png"].error == f"image b.png has no b.{suffix} beside it"


@pytest.mark.parametrize(("data", "error"), [
    (b"{", "caption of a.png is in a file that is not JSON"), (b"[]", "caption of a.png is missing"), (b'{"prompt": 3}',
                                                                                                       "caption of a.png is int"),
    (b'{"prompt": " "}', "caption of a.png is missing")])
def test_json_beside_an_image_that_holds_no_caption_is_a_row_that_says_so(tmp_path: Path, data: bytes, error: str) -> None:
    draw(tmp_path / "a.png", WHITE)
    (tmp_path / "a.json").write_bytes(data)
    item = read_all(tmp_path, caption_file="json:prompt")["a.png"]
    assert item.reason == "caption" and (item.error or "").startswith(error)


@pytest.mark.parametrize(("files", "told"), [
    ({"a.caption": "x", "b.caption": "y"}, r"none of the 2 images has a caption .*beside the images lie 2 x \.caption\. "
                                           r".*source\.caption_file"),
    ({"a.json": '{"prompt": "x"}'}, "beside the images lie 1 x .json; the JSON has text in prompt"),
    ({"metadata.csv": "file_name,TEXT\na.png,x\n"}, "the metadata has the columns TEXT"),
    ({"captions.csv": "image,caption\n"}, r"apart from them lie 1 x \.csv"), ({}, "there is nothing but images"),
])
def test_a_folder_without_a_caption_where_it_is_looked_for_is_refused_with_what_there_is(
        tmp_path: Path, files: dict[str, str], told: str) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name, WHITE)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=told):
        ImageFolder(tmp_path).look_ahead(needs_captions=True)
    ImageFolder(tmp_path).look_ahead(needs_captions=False)


def test_captions_that_no_image_needs_are_counted_where_there_is_metadata(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    (tmp_path / "lonely.txt").write_text("x")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,y\n")
    assert ImageFolder(tmp_path).others == {".txt": 1}


def test_paths_as_windows_writes_them_are_understood_and_lead_nowhere_else(tmp_path: Path) -> None:
    draw(tmp_path / "secret.png", WHITE)
    draw(tmp_path / "in" / "Sub" / "a.png", WHITE)
    draw(tmp_path / "in" / "odd\\name.png", WHITE)
    rows = ["sub\\A.png,one", "odd\\name.png,two", "..\\secret.png,three", "sub\\..\\..\\secret.png,four"]
    (tmp_path / "in" / "metadata.csv").write_text("file_name,text\n" + "\n".join(rows))
    items = read_all(tmp_path / "in")
    assert {key: (item.caption, item.reason) for key, item in items.items()} == {
        "Sub/a.png": ("one", ""), "odd\\name.png": ("two", ""), "..\\secret.png": ("three", "missing"),
        "sub\\..\\..\\secret.png": ("four", "missing")}
