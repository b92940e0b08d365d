from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glideslope.data_filter.sources.huggingface import DatasetsSource, LoadedDataset, digest_data_files
from glideslope.data_filter.sources.source import SourceItem
from glideslope.data_filter.sources.tables import content_key
from glideslope.errors import SourceError
from glideslope.store.digests import sha256_bytes

from ..conftest import TinyClip
from ..pairs import Pair, bad_rows, count_pairs, encode, image_table, index_rows, some_pairs, write_folder, write_parquet_structs, write_saved


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def open_set(path: Path | str, shard_size: int = 4, **settings: Any) -> LoadedDataset:
    return LoadedDataset(DatasetsSource(path=str(path), **settings), shard_size=shard_size)


def read_all(source: LoadedDataset) -> list[SourceItem]:
    return [item for shard in source.shards() for item in source.read(shard)]


def write_splits(root: Path) -> Path:
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string"), "id": datasets.Value("int64")})

    def rows(count: int, first: int) -> Any:
        pairs = some_pairs(count, first=first)
        values = {"image": [{"bytes": pair.image, "path": None} for pair in pairs], "text": [pair.caption for pair in pairs],
                  "id": list(range(first, first + count))}
        return datasets.Dataset.from_dict(values, features=features)

    datasets.DatasetDict({"train": rows(6, 0), "test": rows(3, 6)}).save_to_disk(str(root))
    return root


def test_a_saved_data_set_gives_the_bytes_that_went_in_and_its_other_columns(tmp_path: Path) -> None:
    items = read_all(open_set(write_splits(tmp_path / "saved")))
    assert [(item.image, item.caption, item.metadata) for item in items] == [
        (pair.image, pair.caption, f'{{"id":{number}}}') for number, pair in enumerate(some_pairs(6))]
    assert items[0].key == content_key(items[0].image, items[0].caption.encode())
    assert [item.key for item in read_all(open_set(tmp_path / "saved", key_column="id", split="test"))] == ["6", "7", "8"]


@pytest.mark.parametrize(("split", "numbers"), [
    ("test", [6, 7, 8]), ("train[2:4]", [2, 3]), ("test[:1]+train[-1:]", [6, 5]), ("train[:50%]", [0, 1, 2])])
def test_splits_and_slices_are_those_of_datasets(tmp_path: Path, split: str, numbers: list[int]) -> None:
    items = read_all(open_set(write_splits(tmp_path / "saved"), split=split))
    assert [item.caption for item in items] == [f"caption of {number}" for number in numbers]


def test_shards_are_runs_of_rows_and_a_change_shows_in_its_own_alone(tmp_path: Path) -> None:
    pairs = some_pairs(10)
    write_saved(tmp_path / "one", pairs)
    pairs[5] = Pair("x", pairs[5].image, "another caption")
    write_saved(tmp_path / "two", pairs)
    one, two = (open_set(tmp_path / name) for name in ("one", "two"))
    assert [(shard.start, shard.stop, shard.num_inputs) for shard in one.shards()] == [(0, 4, 4), (4, 8, 4), (8, 10, 2)]
    assert [a.fingerprint == b.fingerprint for a, b in zip(one.shards(), two.shards(), strict=True)] == [True, False, True]
    with pytest.raises(SourceError, match="shard-00001 changed while it was read"):
        list(two.read(one.shards()[1]))


def test_equal_content_has_equal_fingerprints_however_it_is_stored(tmp_path: Path) -> None:
    pairs = some_pairs(5)
    write_saved(tmp_path / "saved", pairs)
    write_parquet_structs(tmp_path / "parquet", pairs)
    saved, loaded = open_set(tmp_path / "saved"), open_set("parquet", data_files=(str(tmp_path / "parquet" / "a.parquet"),))
    assert saved.fingerprint() == loaded.fingerprint()


def test_only_the_keys_asked_for_are_read(tmp_path: Path) -> None:
    source = open_set(write_splits(tmp_path / "saved"), key_column="id")
    assert [item.key for item in source.read(source.shards()[0], keys={"2", "5"})] == ["2"]


@pytest.mark.parametrize("streaming", [False, True])
def test_an_image_folder_is_loaded_by_its_own_builder(tmp_path: Path, streaming: bool) -> None:
    pairs = some_pairs(5)
    write_folder(tmp_path / "folder", pairs)
    items = read_all(open_set(tmp_path / "folder", streaming=streaming))
    assert count_pairs(items) == count_pairs([SourceItem(pair.name, "", pair.image, pair.caption) for pair in pairs])


def test_streamed_parts_are_shards_known_by_their_files(tmp_path: Path) -> None:
    for number in range(3):
        table = image_table([{"bytes": pair.image, "path": None} for pair in some_pairs(5, first=5 * number)], [f"{number}"] * 5)
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "data" / f"{number}.parquet")
    settings = {"data_files": (str(tmp_path / "data" / "*.parquet"),), "streaming": True}
    source = open_set("parquet", **settings)
    assert [(shard.name, shard.num_inputs) for shard in source.shards()] == [(f"shard-0000{number}", None) for number in range(3)]
    assert [item.caption for item in source.read(source.shards()[1])] == ["1"] * 5
    assert len(read_all(source)) == 15
    assert open_set("parquet", **settings).fingerprint() == source.fingerprint()
    pq.write_table(image_table([{"bytes": b"new", "path": None}], ["new"]), tmp_path / "data" / "1.parquet")
    assert open_set("parquet", **settings).fingerprint() != source.fingerprint()


def test_a_stream_that_breaks_off_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, count in (("0", 3), ("1", 200)):
        pairs = some_pairs(count)
        table = image_table([{"bytes": pair.image, "path": None} for pair in pairs], [pair.caption for pair in pairs])
        pq.write_table(table, tmp_path / "data" / f"{name}.parquet", row_group_size=100, compression="none", use_dictionary=False)
    path = tmp_path / "data" / "1.parquet"
    with pq.ParquetFile(path) as opened:
        place = opened.metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[place:place + 12] = b"\xff" * 12
    path.write_bytes(data)
    items = read_all(open_set("parquet", data_files=(str(tmp_path / "data" / "*.parquet"),), streaming=True))
    assert [item.reason for item in items[:3]] == [""] * 3 and items[-1].reason == "unreadable"
    assert items[-1].key == "parquet#1#truncated" and items[-1].error is not None
    assert items[-1].error.startswith("part 1 of parquet cannot be read beyond row ") and items[-1].error.endswith("; the rest is lost")


def test_a_row_cannot_make_the_reader_open_files_outside_of_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(encode((1, 1, 1)))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.png").write_bytes(b"inside")
    paths = [tmp_path / "secret.png", tmp_path / "data" / ".." / "secret.png", tmp_path / "data" / "in.png", "https://example.org/a.png",
             f"zip://a.png::{tmp_path}/secret.zip", "hf://datasets/other/set@main/a.png", "relative.png"]
    table = image_table([{"bytes": None, "path": str(path)} for path in paths], [f"{n}" for n in range(len(paths))])
    pq.write_table(table, tmp_path / "data" / "a.parquet")
    items = read_all(open_set("parquet", data_files=(str(tmp_path / "data" / "a.parquet"),)))
    assert [item.image for item in items] == [None, None, b"inside", None, None, None, None]
    assert {item.error and item.error.split(") ")[1] for item in items} == {None, "lies outside of the data set"}


def test_an_archive_of_images_is_streamed_without_unpacking_it(tmp_path: Path) -> None:
    import zipfile

    pairs = some_pairs(3)
    write_folder(tmp_path / "folder", pairs)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted((tmp_path / "folder").iterdir()):
            archive.write(path, path.name)
    items = read_all(open_set("imagefolder", data_files=(str(tmp_path / "all.zip"),), streaming=True))
    assert [(item.image, item.caption) for item in items] == [(pair.image, pair.caption) for pair in pairs]


@pytest.mark.parametrize(("settings", "message"), [
    ({"path": "gone/nothing"}, "data set gone/nothing: datasets cannot load it"),
    ({"path": "parquet", "data_files": ("gone.parquet",)}, "datasets cannot load it .*gone.parquet"),
    ({"path": "saved", "split": "nothing"}, 'Unknown split "nothing"'),
    ({"path": "saved", "split": "train[a"}, "datasets cannot load it"),
    ({"path": "saved", "caption_column": "caption"}, r"no column caption \(found image, text, id\)"),
    ({"path": "saved", "image_column": "id"}, "column id is int64, expected bytes"),
    ({"path": "saved", "key_column": "image"}, "column image is struct.*, expected text or integers"),
    ({"path": "broken"}, "datasets cannot load it .*Arrow"),
])
def test_what_cannot_be_loaded_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any],
                                                      message: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    write_splits(tmp_path / "saved")
    write_saved(tmp_path / "broken", some_pairs(3))
    (arrow,) = (tmp_path / "broken").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(SourceError, match=message):
        open_set(**settings).shards()


@pytest.mark.parametrize("streaming", [False, True])
def test_every_kind_of_bad_input_ends_as_a_row_of_the_index(tmp_path: Path, tiny_clip: TinyClip, streaming: bool) -> None:
    good = encode((9, 9, 9))
    cells = {"fine": good, "zero": b"", "cut": encode((1, 2, 3), kind="JPEG", size=(64, 64))[:300], "text": b"no image",
             "huge": encode((1, 2, 3), size=(200, 200)), "none": None, "mute": good, "again": good}
    images = [None if cell is None else {"bytes": cell, "path": None} for cell in cells.values()]
    captions = [None if name == "mute" else name for name in cells]
    keys = ["fine" if name == "again" else name for name in cells]
    (tmp_path / "data").mkdir()
    pq.write_table(image_table(images, captions, id=pa.array(keys)), tmp_path / "data" / "a.parquet")
    config = DatasetsSource(path="parquet", data_files=(str(tmp_path / "data" / "a.parquet"),), key_column="id", streaming=streaming)
    rows = index_rows(config, tmp_path / "index")
    assert {key: reason for key, (reason, _) in bad_rows(rows).items()} == {
        **dict.fromkeys(("zero", "cut", "text"), "unreadable"), "huge": "too large", "none": "missing", "mute": "caption",
        "fine": "duplicate key"}
    assert len(rows) == 8 and sum(row["status"] == "ok" for row in rows) == 2, "the mute one is embedded"


def test_a_stream_that_names_no_files_is_refused() -> None:
    for found in ({}, {"train": []}):
        with pytest.raises(SourceError, match=r"no change of them could be noticed; set source\.streaming to false"):
            digest_data_files(found, "org/name")


def test_a_remote_file_is_known_by_its_path_and_by_what_its_server_says(tmp_path: Path) -> None:
    class Files(list[str]):
        origin_metadata = (("org/name", "5f0c"),)

    (tmp_path / "a.parquet").write_bytes(b"x")
    assert digest_data_files({"train": Files(["hf://datasets/org/name@5f0c/a.parquet", str(tmp_path / "a.parquet")])}, "org/name") == [
        [["a.parquet", sha256_bytes(b"x")]], ["hf://datasets/org/name@5f0c/a.parquet"], [[["org/name", "5f0c"]]]]


def test_signs_of_a_pattern_in_the_path_of_existing_files_mean_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in (("set[1]", 1), ("set1", 2)):
        write_parquet_structs(tmp_path / name, some_pairs(1, first=number))
    monkeypatch.chdir(tmp_path)
    for files in ("set[1]/*.parquet", "set[1]/a.parquet", str(tmp_path / "set[1]" / "*.parquet")):
        assert [item.caption for item in read_all(open_set("parquet", data_files=(files,)))] == ["caption of 1"]
    monkeypatch.chdir(tmp_path / "set[1]")
    assert [item.caption for item in read_all(open_set("parquet", data_files=("a.parquet",)))] == ["caption of 1"]
    write_saved(tmp_path / "saved[1]", some_pairs(1, first=3))
    assert [item.caption for item in read_all(open_set(tmp_path / "saved[1]"))] == ["caption of 3"]
    with pytest.raises(SourceError, match=r"takes the signs \[ \] \* \? in the path of a folder for a pattern, .*rename the folder"):
        open_set(tmp_path / "set[1]").shards()
