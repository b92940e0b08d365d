from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.index import repeated_keys
from glideslope.data_filter.index.repeated_keys import find_repeated, read_duplicates, refuse_repeated, repeated_hashes, write_duplicates
from glideslope.errors import StageError


def write_keys(directory: Path, shards: list[list[str]]) -> list[Path]:
    paths = []
    for number, keys in enumerate(shards):
        paths.append(directory / f"shard-{number:05d}.parquet")
        pq.write_table(pa.table({"key": pa.array(keys, type=pa.string())}), paths[-1])
    return paths


def brute_force(shards: list[list[str]]) -> list[list[int]]:
    seen: set[str] = set()
    found: list[list[int]] = []
    for keys in shards:
        found.append([row for row, key in enumerate(keys) if key in seen or seen.add(key)])  # type: ignore[func-returns-value]  # None
    return found


@given(st.lists(st.lists(st.text(alphabet="abcé", max_size=2), max_size=8), min_size=1, max_size=5), st.integers(1, 3))
def test_every_second_and_later_occurrence_is_found_and_no_other(tmp_path_factory: pytest.TempPathFactory, shards: list[list[str]],
                                                                 keys_at_once: int) -> None:
    paths = write_keys(tmp_path_factory.mktemp("keys"), shards)
    assert [rows.tolist() for rows in find_repeated(paths, keys_at_once=keys_at_once)] == brute_force(shards)


def test_keys_whose_hashes_collide_are_not_taken_for_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [["a", "b", "ccc"], ["d", "a", "eee"]]
    monkeypatch.setattr(repeated_keys, "hash_keys", lambda keys: np.array([len(key) for key in keys], dtype=np.int64))
    paths = write_keys(tmp_path, shards)
    assert repeated_hashes(paths).tolist() == [1, 3], "every key looks repeated"
    assert [rows.tolist() for rows in find_repeated(paths)] == [[], [1]]


def test_the_file_of_duplicates_is_read_back_by_shard(tmp_path: Path) -> None:
    shards = [["a", "b"], ["b", "c", "a"], ["d"], ["d", "d"]]
    write_keys(tmp_path, shards)
    write_duplicates([f"shard-{number:05d}" for number in range(4)], tmp_path)
    assert {name: rows.tolist() for name, rows in read_duplicates(tmp_path).items()} == {"shard-00001": [0, 2], "shard-00003": [0, 1]}
    assert pq.read_table(tmp_path / "duplicates.parquet")["key"].to_pylist() == ["b", "a", "d", "d"]


def test_no_duplicates_and_no_rows_give_an_empty_file(tmp_path: Path) -> None:
    write_keys(tmp_path, [["a"], []])
    write_duplicates(["shard-00000", "shard-00001"], tmp_path)
    assert read_duplicates(tmp_path) == {}


def shard_of(path: Path, keys: list[str], digests: list[str]) -> Path:
    pq.write_table(pa.table({"key": keys, "sha256": digests}), path)
    return path


@given(st.integers(1, 6), st.integers(1, 40), st.booleans())
def test_shards_are_refused_where_keys_mean_several_pictures_and_not_where_pictures_are_copies(
        tmp_path_factory: pytest.TempPathFactory, num_shards: int, num_rows: int, are_copies: bool) -> None:
    root, keys = tmp_path_factory.mktemp("shards"), [f"{number:04d}" for number in range(num_rows)]
    paths = [shard_of(root / f"shard-{shard:05d}.parquet", keys, [f"{0 if are_copies else shard}/{key}" for key in keys])
             for shard in range(num_shards)]
    if num_shards == 1 or are_copies:
        refuse_repeated(paths, find_repeated(paths), "")
    else:
        told = rf"index: {num_rows * (num_shards - 1)} of the first {num_rows * num_shards} inputs have the key of an earlier one.*Do that"
        with pytest.raises(StageError, match=told):
            refuse_repeated(paths, find_repeated(paths), "Do that")


def test_a_few_keys_that_mean_several_pictures_are_rows_and_no_refusal(tmp_path: Path) -> None:
    keys = [f"{number:04d}" for number in range(95)]
    paths = [shard_of(tmp_path / "a.parquet", keys, keys), shard_of(tmp_path / "b.parquet", keys[:5], ["other"] * 5)]
    refuse_repeated(paths, find_repeated(paths), "")
