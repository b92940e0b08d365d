import base64
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glideslope.data_filter.sources.folder import FolderSource
from glideslope.data_filter.sources.huggingface import DatasetsSource
from glideslope.data_filter.sources.kind import open_source
from glideslope.data_filter.sources.kinds import look_at
from glideslope.data_filter.sources.parquet import ParquetSource
from glideslope.data_filter.sources.webdataset import WebDatasetSource
from glideslope.errors import SourceError

from ..pairs import Pair, encode, image_table, some_pairs, tar_members, write_saved, write_tar

PNG = encode((1, 2, 3))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG if name.lower().endswith((".png", ".jpg")) and not text else text.encode())
    return root


@pytest.mark.parametrize(("files", "column", "caption_file"), [
    ({"a.png": "", "a.txt": "x"}, "text", "txt"), ({"a.png": "", "sub/a.png": "", "sub/a.TXT": "x"}, "text", "txt"),
    ({"a.png": "", "a.caption": "x"}, "text", "caption"), ({"a.JPG": "", "a.CAP": "x"}, "text", "cap"),
    ({"a.png": "", "a.json": '{"n": 1, "Caption": "x"}'}, "text", "json:Caption"),
    ({"a.png": "", "a.json": '{"blip_caption": "x", "id": "y"}'}, "text", "json:blip_caption"),
    ({"a.png": "", "a.json": '{"captions": ["x", "y"]}'}, "text", "json:captions"),
    ({"a.png": "", "a.txt": "x", "a.json": '{"caption": "x"}', "a.caption": "y"}, "text", "txt"),
    ({"a.png": "", "metadata.csv": "file_name,text\na.png,x"}, "text", "txt"),
    ({"a.png": "", "metadata.csv": "\ufefffile_name,TEXT\na.png,x"}, "TEXT", "txt"),
    ({"a.png": "", "sub/metadata.jsonl": '\n{"file_name": "../a.png", "caption": "x"}\n'}, "caption", "txt"),
    ({"a.png": "", "x.txt": "a note", "metadata.csv": "file_name,description\na.png,x"}, "description", "txt"),
])
def test_captions_of_a_folder_are_found_where_they_stand(tmp_path: Path, files: dict[str, str], column: str, caption_file: str) -> None:
    found = look_at(str(write(tmp_path / "x", files)))
    assert found.has_captions
    assert found.source == FolderSource(path=str(tmp_path / "x"), caption_column=column, caption_file=caption_file)
    source = open_source(found.source, shard_size=9)
    source.look_ahead(needs_captions=True)
    assert "x" in [item.caption for shard in source.shards() for item in source.read(shard)]


@pytest.mark.parametrize("files", [
    {"a.png": ""}, {"a.png": "", "b.txt": "x"}, {"a.png": "", "labels.csv": "key,text"}, {"a.png": "", ".hidden/a.txt": "x",
                                                                                          ".hidden/a.png": ""},
    {"a.png": "", "metadata.csv": "file_name,label\na.png,3"}, {"a.png": "", "metadata.jsonl": '{"file_name": "a.png", "label": 3}\n'},
    {"a.png": "", "a.json": '{"width": 3}'}, {"a.png": "", "a.json": "damaged"}, {"a.png": "", "captions.txt": "a.png,x"}])
def test_captions_are_missing_only_where_nothing_is_called_so(tmp_path: Path, files: dict[str, str]) -> None:
    found = look_at(str(write(tmp_path, files)))
    assert found.source == FolderSource(path=str(tmp_path)) and not found.has_captions


def test_a_link_to_nothing_is_counted_as_missing(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": "", "a.txt": "x"})
    (tmp_path / "b.png").symlink_to("gone.png")
    assert look_at(str(tmp_path)).told.endswith("1 of the images that are links is missing")


def test_what_was_found_is_counted(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": "", "b.png": "", "a.txt": "x", "c.txt": "y", "notes.md": "z"})
    where = "(.txt file beside the image)"
    assert look_at(str(tmp_path)).told == f"{tmp_path}: 2 images, 1 of them with a caption {where}; 1 caption without an image"
    (tmp_path / "metadata.csv").write_text("file_name,text\nA.PNG,x\ngone.png,y\n")
    assert look_at(str(tmp_path)).told == (f"{tmp_path}: 3 images, 2 of them with a caption (column text of the metadata); "
                                           "1 of the images that the metadata lists is missing")


@pytest.mark.parametrize(("files", "kind"), [
    (["a.png", "a.txt"], FolderSource), (["a.jpg", "metadata.csv"], FolderSource), (["deep/a.png"], FolderSource), (["a.heic", "b.PNG"],
                                                                                                                    FolderSource),
    (["0000.tar", "0001.tar"], WebDatasetSource), (["part/0000.tar", "0000.parquet", "0000_stats.json"], WebDatasetSource),
    (["data/train.parquet"], ParquetSource), (["images/a.png", "table.parquet"], ParquetSource), (["a.arrow"], DatasetsSource),
    (["a.png", "metadata.csv", "x.parquet"], FolderSource), (["a.png", "a.txt", "backup.tar"], FolderSource),
    ([".hidden/a.tar", "__MACOSX/b.tar", "a.png"], FolderSource)])
def test_the_source_follows_what_lies_in_the_folder(tmp_path: Path, files: list[str], kind: type) -> None:
    table = image_table([{"bytes": PNG, "path": None}], ["x"])
    for name in files:
        path = tmp_path / "images" / name
        if name.endswith(".tar"):
            write_tar(path, tar_members(some_pairs(1)))
        elif name.endswith(".parquet"):
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path)
        elif name.endswith(".arrow"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
        else:
            write(tmp_path / "images", {name: "file_name,text\n" if name == "metadata.csv" else ""})
    assert isinstance(look_at(str(tmp_path / "images")).source, kind)


def members(names: list[str], *, seed: int = 0, suffix: str = "txt", data: bytes = b"x") -> list[Any]:
    return [member for number, name in enumerate(names) for member in ((f"{name}.jpg", encode((seed, number, 3))), (f"{name}.{suffix}", data))]


@pytest.mark.parametrize(("tars", "settings"), [
    ([members(["a", "b"])], {}),
    ([members(["a", "b"]), members(["c", "d"])], {}),
    ([members(["a", "b"]), members(["a", "b"], seed=9)], {"keys": "tar/member"}),
    ([members(["22.05", "22.06"])], {"name_until": "last_dot"}),
    ([members(["22.05", "22.06"]), members(["22.05", "22.06"], seed=9)], {"name_until": "last_dot", "keys": "tar/member"}),
    ([members(["a", "b"], suffix="json", data=b'{"Caption": "x"}')], {"caption_member": "json:Caption"}),
    ([members(["a", "b"], suffix="json", data=b'{"id": [3], "captions": ["x", "y"]}')], {"caption_member": "json:captions"}),
    ([members(["a", "b"], suffix="cap")], {"caption_member": "cap"}),
    ([[*members(["a", "b"], suffix="caption"), ("a.txt", b"one only")]], {"caption_member": "caption"}),
    ([[*members(["a", "b"]), ("a.seg.png", PNG), ("b.seg.png", PNG)]], {"image_member": "jpg"}),
])
def test_settings_of_tars_are_those_with_which_no_sample_is_lost(tmp_path: Path, tars: list[list[Any]], settings: dict[str, str]) -> None:
    for number, tar in enumerate(tars):
        write_tar(tmp_path / f"{number}.tar", tar)
    found = look_at(str(tmp_path))
    assert found.source == WebDatasetSource(path=str(tmp_path), **settings) and found.has_captions
    source = open_source(found.source, shard_size=9)
    source.look_ahead(needs_captions=True)
    items = [item for shard in source.shards() for item in source.read(shard)]
    assert len({item.key for item in items}) == len(items) == 2 * len(tars)
    assert all((item.image is not None and item.caption == "x") or item.key == "a" for item in items)


def test_tars_without_captions_are_told_with_their_members(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", members(["a"], suffix="cls"))
    found = look_at(str(tmp_path / "*.tar"))
    assert not found.has_captions
    assert found.told.endswith("none has a caption that is known by its name (there are jpg (1 of 1), cls (1 of 1))")


@pytest.mark.parametrize(("columns", "image", "caption"), [
    (["jpg", "caption"], "jpg", "caption"), (["id", "IMAGE", "TEXT"], "IMAGE", "TEXT"), (["photo", "blip_caption"], "photo", "blip_caption"),
    (["image", "label"], "image", None)])
def test_columns_of_tables_are_looked_up(tmp_path: Path, columns: list[str], image: str, caption: str | None) -> None:
    values = [PNG if name == image else "x" if name != "label" else 3 for name in columns]
    pq.write_table(pa.table({name: [value] for name, value in zip(columns, values, strict=True)}), tmp_path / "a.parquet")
    expected = {"path": str(tmp_path), "image_column": image, "caption_column": caption}
    found = look_at(str(tmp_path))
    assert (found.source, found.has_captions) == (ParquetSource(**expected), caption is not None)
    (tmp_path / "README.md").write_text("# Notes\n")
    assert isinstance(look_at(str(tmp_path)).source, ParquetSource)
    (tmp_path / "README.md").write_text("---\nconfigs: []\n---\n")
    assert look_at(str(tmp_path)).source == DatasetsSource(**expected)
    source = open_source(found.source, shard_size=9)
    source.look_ahead(needs_captions=caption is not None)
    (item,) = source.read(source.shards()[0])
    assert (item.image, item.caption, item.reason) == (PNG, caption and "x", "" if caption else "caption")


def test_saved_data_sets_and_arrow_files_are_known_by_what_they_hold(tmp_path: Path) -> None:
    write_saved(tmp_path / "saved", some_pairs(3))
    assert look_at(str(tmp_path / "saved")).source == DatasetsSource(path=str(tmp_path / "saved"))
    rows = datasets.Dataset.from_dict({"png": [PNG], "prompt": ["x"]})
    datasets.DatasetDict({"validation": rows}).save_to_disk(str(tmp_path / "splits"))
    assert look_at(str(tmp_path / "splits")).source == DatasetsSource(
        path=str(tmp_path / "splits"), split="validation", image_column="png", caption_column="prompt")
    (arrow,) = (tmp_path / "splits").rglob("*.arrow")
    arrow.rename(tmp_path / "splits" / "a.arrow")
    (tmp_path / "splits" / "dataset_dict.json").unlink()
    assert look_at(str(tmp_path / "splits")).source == DatasetsSource(
        path="arrow", data_files=(str(tmp_path / "splits" / "**/*.arrow"),), image_column="png", caption_column="prompt")


@pytest.mark.parametrize(("name", "data", "told"), [
    ("gone", None, "gone: no such file or folder"), ("x.pdf", b"x", "no file of a type that is read"), ("a.png", PNG,
                                                                                                        "one image; name the folder"),
    ("a.tar.gz", b"x", "a compressed tar"), ("in/a.zip", b"x", "packed files"), ("in/a.txt", b"x", "no images in this folder"),
    ("in/a.tar", b"<html>", "no file can be read as a tar"), ("a.parquet", b"damaged", "no file can be read as parquet"),
    ("a.arrow", b"damaged", "cannot be read as an Arrow file"), ("in/a.heic", b"x", "convert those of types that are not read"),
])
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, name: str, data: bytes | None, told: str) -> None:
    path = tmp_path / name
    if data is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    with pytest.raises(SourceError, match=told):
        look_at(str(path.parent if name.startswith("in/") else path))


@pytest.mark.parametrize(("files", "split"), [
    (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"], "train"), (["data/0000.parquet"], "train"),
    (["data/test-00000-of-00001.parquet"], "test"), (["val/0.parquet"], "validation"), (["contest.parquet"], "train")])
def test_the_split_of_a_data_set_for_the_hub_is_one_that_it_has(
        tmp_path: Path, files: list[str], split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "set", {"README.md": "---\nlicense: mit\n---\n"})
    for name in files:
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        pq.write_table(image_table([{"bytes": PNG, "path": None}], [name]), tmp_path / "set" / name)
    found = look_at(str(tmp_path / "set"))
    assert found.source == DatasetsSource(path=str(tmp_path / "set"), split=split)
    source = open_source(found.source, shard_size=9)
    assert [item.caption for item in source.read(source.shards()[0])] == files[:1]


def test_images_as_base64_are_refused_without_printing_them(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [base64.b64encode(PNG * 20).decode()], "text": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"none of the first 1 rows has an image in column image: .*base64, write the column anew as "
                                          "bytes") as caught:
        open_source(look_at(str(tmp_path)).source, shard_size=9).look_ahead(needs_captions=True)
    assert len(str(caught.value)) < 300


def test_a_table_of_web_addresses_is_refused_with_what_to_do(tmp_path: Path) -> None:
    pq.write_table(pa.table({"URL": ["https://example.org/a.jpg"], "TEXT": ["x"], "WIDTH": [3]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"no column holds images \(there are URL, TEXT, WIDTH\)\. It lists web addresses.*img2dataset"):
        look_at(str(tmp_path))
    for settings, told in (({}, "no column image .*img2dataset"), ({"image_column": "URL"}, "none of the first 1 rows has an image "
                                                                                            ".*img2dataset")):
        with pytest.raises(SourceError, match=told):
            open_source(ParquetSource(path=str(tmp_path), caption_column="TEXT", **settings), shard_size=9).look_ahead(needs_captions=True)


@pytest.mark.parametrize("kind", ["parquet", "datasets", "stream"])
def test_a_table_without_captions_where_they_are_needed_is_refused_at_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    pq.write_table(image_table([{"bytes": PNG, "path": None}] * 3, [None, " ", ""], other=["x"] * 3), tmp_path / "a.parquet")
    for settings, told in (({"caption_column": "TEXT"}, r"no column TEXT \(found image, text, other\); name one with "
                                                        r"source\.caption_column, or none"),
                           ({"caption_column": None}, r"source\.caption_column is none, but captions are required"),
                           ({"caption_column": "text"}, "none of the first 3 rows has a caption in column text")):
        path = str(tmp_path / "a.parquet")
        config = ParquetSource(path=path, **settings) if kind == "parquet" else DatasetsSource(
            path="parquet", data_files=(path,), streaming=kind == "stream", **settings)
        source = open_source(config, shard_size=9)
        with pytest.raises(SourceError, match=told):
            source.look_ahead(needs_captions=True)
        if settings["caption_column"] != "TEXT":
            source.look_ahead(needs_captions=False)
            assert [item.reason for shard in source.shards() for item in source.read(shard)] == ["caption"] * 3


def test_paths_in_tables_find_their_files_whatever_the_spelling(tmp_path: Path) -> None:
    (tmp_path / "Bilder").mkdir()
    (tmp_path / "Bilder" / "cafe\u0301.PNG").write_bytes(PNG)
    pq.write_table(pa.table({"image": ["bilder/caf\u00e9.png", "bilder/gone.png"], "text": ["x", "y"]}), tmp_path / "a.parquet")
    source = open_source(look_at(str(tmp_path / "a.parquet")).source, shard_size=9)
    assert [(item.image, item.reason) for item in source.read(source.shards()[0])] == [(PNG, ""), (None, "missing")]


def test_a_pair_in_a_folder_named_as_a_pattern_is_found_by_every_source(tmp_path: Path) -> None:
    for name, number in (("set[1]", 1), ("set1", 2)):
        pair = Pair("a", encode((number, 0, 0)), f"caption {number}")
        write_tar(tmp_path / name / "tars" / "a.tar", tar_members([pair]))
        (tmp_path / name / "tables").mkdir()
        pq.write_table(image_table([{"bytes": pair.image, "path": None}], [pair.caption]), tmp_path / name / "tables" / "a.parquet")
        write(tmp_path / name / "images", {"a.png": "", "metadata.jsonl": json.dumps({"file_name": "a.png", "text": pair.caption})})
    for place in ("tars", "tables", "images", "tars/*.tar", "tables/*.parquet"):
        source = open_source(look_at(str(tmp_path / "set[1]" / place)).source, shard_size=9)
        assert [item.caption for shard in source.shards() for item in source.read(shard)] == ["caption 1"]
