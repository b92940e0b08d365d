import logging
import resource
from pathlib import Path

import pyarrow as pa
import pytest

from glideslope.data_filter.index.parquet import read_table, write_table
from glideslope.errors import StorageError, TrainingError
from glideslope.models.training import rows as training_rows
from glideslope.models.training.rows import MappedRows, open_rows
from glideslope.store.digests import sha256_json

from ..conftest import curated_rows, write_curated


def curated_of(directory: Path, *parts: list[dict[str, object]]) -> Path:
    """A curated set whose training split lies in several files."""
    for number, part in enumerate(parts):
        write_curated(directory / str(number), "train", part)
        (directory / "data").mkdir(exist_ok=True)
        (directory / str(number) / "data" / "train-00000.parquet").rename(directory / "data" / f"train-{number:05d}.parquet")
    return directory


def test_every_row_is_found_by_its_number_over_files_and_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_rows, "ROWS_OF_BATCH", 3)
    expected = curated_rows()
    rows = open_rows(curated_of(tmp_path / "c", expected[:5], expected[5:]), "train", tmp_path)
    assert len(rows) == 12
    for number, row in enumerate(expected):
        found = rows[number]
        assert (found.key, found.sha256, found.captions, found.weight) == (row["key"], row["sha256"], (row["caption"],), row["weight"])
        assert {"bytes": found.read_image(), "path": f"{row['key']}.png"} == row["image"]
    assert list(rows.captions) == [row["caption"] for row in expected]


def test_an_image_with_several_captions_has_all_of_them(tmp_path: Path) -> None:
    write_curated(tmp_path, "train", curated_rows())
    path = tmp_path / "data" / "train-00000.parquet"
    several = pa.array([["one", "two"], None, *[["three"]] * 10], pa.list_(pa.string()))
    write_table(path, read_table(path).append_column("captions", several))
    rows = open_rows(tmp_path, "train", tmp_path)
    assert rows[0].captions == ("one", "two")
    assert rows[1].captions == ("a red bar",)
    assert list(rows.captions) == ["one", "two", "a red bar", *["three"] * 10]


def test_what_was_consumed_is_the_digest_of_the_sorted_digests(tmp_path: Path) -> None:
    write_curated(tmp_path, "train", curated_rows())
    rows = open_rows(tmp_path, "train", tmp_path)
    assert rows.consumed_sha256 == sha256_json(sorted(str(row["sha256"]) for row in curated_rows()))


def test_a_training_that_goes_on_reads_its_own_copy_though_a_shard_was_replaced_or_removed(tmp_path: Path) -> None:
    expected = curated_rows()
    curated = curated_of(tmp_path / "c", expected[:5], expected[5:])
    before = open_rows(curated, "train", tmp_path)
    write_curated(curated, "train", expected[:1])  # the first file, replaced
    (curated / "data" / "train-00001.parquet").unlink()
    assert [before[number].key for number in range(12)] == [row["key"] for row in expected]
    again = open_rows(curated, "train", tmp_path)
    assert again.consumed_sha256 == before.consumed_sha256


@pytest.mark.parametrize("content", [b"", b"ARROW1", None])
def test_a_copy_that_was_damaged_is_written_anew(tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    write_curated(tmp_path, "train", curated_rows())
    whole = open_rows(tmp_path, "train", tmp_path).consumed_sha256
    path = tmp_path / "train.arrow"
    path.unlink()  # not written into: a file that is mapped and loses its end takes the process with it
    if content is None:
        with pa.ipc.new_file(str(path), pa.schema([("key", pa.string())])):
            pass
    else:
        path.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="glideslope"):
        assert open_rows(tmp_path, "train", tmp_path).consumed_sha256 == whole
    assert "train.arrow: cannot be used" in caplog.text


def test_bytes_that_change_in_the_copy_are_noticed_by_the_images_key(tmp_path: Path) -> None:
    write_curated(tmp_path, "train", curated_rows())
    rows = open_rows(tmp_path, "train", tmp_path)
    path = tmp_path / "train.arrow"
    image = rows[4].read_image()
    with path.open("r+b") as file:
        file.seek(path.read_bytes().index(image) + 40)
        file.write(b"\0\1\2\3")
    with pytest.raises(TrainingError, match=f"curated image {rows[4].key!r}: its bytes are not those that were curated"):
        rows[4].read_image()
    assert rows[5].read_image()


def test_an_image_that_is_not_what_was_curated_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    changed, missing = curated_rows(), curated_rows()
    changed[2]["image"] = changed[3]["image"]
    missing[2]["image"] = {"bytes": None, "path": "x.png"}
    for rows in (changed, missing):
        write_curated(tmp_path, "train", rows)
        with pytest.raises(TrainingError, match=r"curated image 'red-corner': its bytes are not those that were curated .*run `curate` again"):
            open_rows(tmp_path, "train", tmp_path)
        assert not (tmp_path / "train.arrow").exists()


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the split 'train' holds no image; nothing passed the filters"):
        open_rows(tmp_path, "train", tmp_path)
    write_curated(tmp_path, "train", [])
    with pytest.raises(TrainingError, match="holds no image"):
        open_rows(tmp_path, "train", tmp_path)


def test_a_picture_without_a_caption_is_refused_by_its_key(tmp_path: Path) -> None:
    rows = curated_rows()
    rows[3]["caption"] = rows[7]["caption"] = None
    write_curated(tmp_path, "train", rows)
    with pytest.raises(TrainingError, match=f"2 of 12 images of the split 'train' have no caption .*{rows[3]['key']}.*captions required"):
        open_rows(tmp_path, "train", tmp_path)


def test_a_curated_file_that_unfolds_beyond_what_curation_writes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_rows, "FREE_BYTES", 1 << 20)
    write_curated(tmp_path, "train", [curated_rows()[0] | {"caption": "x" * 5_000_000}])
    with pytest.raises(TrainingError, match=r"train-00000\.parquet: cannot be read .its [0-9]+ bytes unfold .*; run `curate` again"):
        open_rows(tmp_path, "train", tmp_path)


def test_a_curated_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    write_curated(tmp_path, "train", curated_rows())
    path = tmp_path / "data" / "train-00000.parquet"
    table = read_table(path)
    for changed in (table.drop_columns("weight"), table.set_column(2, "key", pa.array(range(12)))):
        write_table(path, changed)
        with pytest.raises(TrainingError, match=r"00000\.parquet: cannot be read \(its column (weight|key) is missing or of another type"):
            open_rows(tmp_path, "train", tmp_path)


def test_a_disk_that_is_full_is_told_in_one_line_and_leaves_no_half_copy(tmp_path: Path) -> None:
    write_curated(tmp_path, "train", curated_rows())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*train\.arrow: File too large; free space"):
            open_rows(tmp_path, "train", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert isinstance(open_rows(tmp_path, "train", tmp_path), MappedRows)
