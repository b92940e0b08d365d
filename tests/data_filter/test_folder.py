from pathlib import Path

import pytest
from glideslope.data_filter.folder import ImageFolder
from glideslope.data_filter.sources import Shard, SourceItem, open_source

from glideslope.config import FolderSource
from glideslope.errors import SourceError

from .conftest import draw

WHITE = (255, 255, 255)


def read_all(root: Path, **settings: str) -> dict[str, SourceItem]:
    source = ImageFolder(root, **settings)
    return {item.key: item for item in source.read(Shard(0, 0, len(source.keys)))}


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
    source = open_source(FolderSource(path=str(tmp_path)))
    assert [item.caption for item in source.read(Shard(0, 0, 1))] == ["zwei Äpfel"]
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
    for kind in ("txt", "csv", "jsonl"):
        (item,) = read_all(tmp_path / kind).values()
        assert (item.reason, item.error, item.caption) == ("caption", "caption of a.png is not UTF-8", None)


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


def test_a_duplicate_row_is_listed_twice_for_the_index_to_refuse(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", WHITE)
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,x\n./a.png,y\n")
    assert list(ImageFolder(tmp_path).keys) == ["a.png", "a.png"]


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
    ("metadata.csv", "name,text\na.png,x\n", "no column file_name in the header \\(found name, text\\)"),
    ("metadata.csv", "", "no column file_name in the header \\(found nothing\\)"),
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
