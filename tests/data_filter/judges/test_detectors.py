from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.index.parquet import write_table
from glideslope.data_filter.judges.detectors import DetectorJudge, read_detector
from glideslope.errors import FilterError
from glideslope.recipe.filters import Detector


def detector(path: Path, threshold: float = 0.5, name: str = "faces") -> Detector:
    return Detector(name=name, path=str(path), threshold=threshold)


def csv_file(tmp_path: Path, text: str) -> Detector:
    (tmp_path / "scores.csv").write_text(text)
    return detector(tmp_path / "scores.csv")


def flags_of(judge: Detector, keys: list[str]) -> list[str]:
    return DetectorJudge.open(judge).flag(pa.table({"key": keys}))


def test_a_detector_flags_what_reaches_its_threshold_and_what_it_cannot_judge(tmp_path: Path) -> None:
    judge = csv_file(tmp_path, "score,key,more\n0.5,at,x\n0.4999,below,x\nnan,nan,x\n,empty,x\ninf,inf,x\n-inf,low,x\n0.9,00012,x\n")
    keys = ["at", "below", "nan", "empty", "inf", "low", "00012", "12", ""]
    assert flags_of(judge, keys) == ["faces", "", "faces", "faces", "faces", "", "faces", "faces:missing", "faces:missing"]


def test_the_ending_of_a_file_of_scores_may_have_capitals(tmp_path: Path) -> None:
    (tmp_path / "scores.CSV").write_text("key,score\na,0.9\n")
    assert flags_of(detector(tmp_path / "scores.CSV"), ["a", "b"]) == ["faces", "faces:missing"]


def test_the_highest_of_several_scores_counts(tmp_path: Path) -> None:
    assert flags_of(csv_file(tmp_path, "key,score\na,0.1\na,0.9\nb,0.1\nb,nan\nc,0.1\nc,0.2\n"), ["a", "b", "c"]) == ["faces", "faces", ""]


def test_parquet_and_csv_say_the_same(tmp_path: Path) -> None:
    keys, scores = ["b", "a", "\u00fc", "c"], [0.2, 0.7, None, float("nan")]
    write_table(tmp_path / "scores.parquet", pa.table({"key": keys, "score": pa.array(scores, type=pa.float32())}))
    lines = [f"{key},{'' if score is None else score}\n" for key, score in zip(keys, scores, strict=True)]
    same = csv_file(tmp_path, "key,score\n" + "".join(lines))
    asked = ["a", "b", "c", "d", "\u00fc"]
    assert flags_of(detector(tmp_path / "scores.parquet"), asked) == flags_of(same, asked)


@given(st.dictionaries(st.text(max_size=6), st.floats(width=32), max_size=30), st.lists(st.text(max_size=6), max_size=10))
def test_every_key_is_found_where_it_stands(tmp_path_factory: pytest.TempPathFactory, table: dict[str, float], others: list[str]) -> None:
    table = {key.encode("utf-8", "replace").decode(): score for key, score in table.items()}
    others = [key.encode("utf-8", "replace").decode() for key in others]
    path = tmp_path_factory.mktemp("detector") / "scores.parquet"
    write_table(path, pa.table({"key": pa.array(list(table), type=pa.string()), "score": pa.array(list(table.values()), type=pa.float64())}))
    found = read_detector(detector(path))
    for key, place in zip([*table, *others], found.find([*table, *others]), strict=True):
        assert (place >= 0) == (key in table)
        if place >= 0:
            expected = table[key]
            assert found.scores[place] == (np.inf if np.isnan(expected) else expected)


@pytest.mark.parametrize(("text", "message"), [
    ("key,score\na,many\n", "line 2: score is 'many', expected a number"), ("key\na\n", "score"), ("", "found nothing"),
    ("key,score\na\n", "line 2: 1 cells"), ("key,score\na,0,5\n", "line 2: 3 cells"), ("key,score\na,1_000\n", "score is '1_000'"),
    ("key,score,score\na,0,1\n", "stands twice"), ('key,score\n"a,0\n', "line 2: a double quote")])
def test_a_file_that_is_no_list_of_scores_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FilterError, match=f"detector faces: .*scores.csv.*{message}"):
        read_detector(csv_file(tmp_path, text))


def test_odd_parquet_files_are_refused(tmp_path: Path) -> None:
    tables = {"is int64, expected text": {"key": pa.array([1]), "score": pa.array([0.5])},
              "1 rows of .* have no key": {"key": pa.array([None], type=pa.string()), "score": pa.array([0.5])},
              "Column score does not exist": {"key": pa.array(["a"])},
              "text column key": {"key": pa.array(["a"]), "score": pa.array(["high"])}}
    for place, (message, columns) in enumerate(tables.items()):
        write_table(tmp_path / f"{place}.parquet", pa.table(columns))
        with pytest.raises(FilterError, match=message):
            read_detector(detector(tmp_path / f"{place}.parquet"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for path in (tmp_path / "broken.parquet", tmp_path / "none.parquet", tmp_path / "none.csv"):
        with pytest.raises(FilterError, match="detector faces: "):
            read_detector(detector(path))


@pytest.mark.parametrize(("value", "count", "told"), [
    ("k" * 140_000_000, 1, "its pages unfold from"), ("k" * 10_000, 500_000, "unfold to over a thousand times"),
    (None, 5_000_000, "states [0-9]+ rows in")])
def test_scores_that_unfold_beyond_what_scores_do_are_refused(tmp_path: Path, value: str | None, count: int, told: str) -> None:
    keys = pa.nulls(count, pa.string()) if value is None else pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, dtype=np.int32)), [value])
    table = pa.table({"key": keys, "score": pa.array(np.zeros(count))})
    pq.write_table(table, tmp_path / "s.parquet", compression="zstd", write_statistics=False, store_schema=False, row_group_size=count)
    with pytest.raises(FilterError, match=f"detector faces: .*{told}"):
        read_detector(detector(tmp_path / "s.parquet"))


def test_scores_of_many_row_groups_are_read_however_they_are_written(tmp_path: Path) -> None:
    keys = [f"{number:06d}" for number in range(5000)]
    for place, kind in enumerate((pa.string(), pa.large_string())):
        table = pa.table({"more": [[1]] * 5000, "score": pa.array(np.arange(5000), type=pa.int16()), "key": pa.array(keys, type=kind)})
        pq.write_table(table, tmp_path / f"{place}.parquet", row_group_size=700, use_dictionary=False,
                       column_encoding={"key": "DELTA_BYTE_ARRAY"})
        found = read_detector(detector(tmp_path / f"{place}.parquet"))
        assert found.scores[found.find(["004321", "000000"])].tolist() == [4321, 0]


def test_keys_that_no_input_has_are_counted_and_some_are_named(tmp_path: Path) -> None:
    judge = DetectorJudge.open(csv_file(tmp_path, "key,score\n" + "".join(f"{number},0.1\n" for number in range(12))))
    shards = [["1", "2"], ["3", "x"]]
    flags = [flag for keys in shards for flag in judge.flag(pa.table({"key": keys}))]
    assert judge.summary(4, {"faces:missing": flags.count("faces:missing")}, lambda: iter(shards)) == {
        "num_keys": 12, "num_unknown_keys": 9, "unknown_keys": ["0", "10", "11", "4", "5"]}


def test_where_every_key_is_an_input_no_key_is_read_again(tmp_path: Path) -> None:
    judge = DetectorJudge.open(csv_file(tmp_path, "key,score\na,0.1\nb,0.9\n"))
    assert judge.summary(3, {"faces:missing": 1, "faces": 1}, lambda: pytest.fail("read again")) == {
        "num_keys": 2, "num_unknown_keys": 0, "unknown_keys": []}


def test_a_detector_whose_file_is_missing_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(FilterError, match=r"detector faces: .*none\.csv cannot be read"):
        DetectorJudge.open(detector(tmp_path / "none.csv"))
