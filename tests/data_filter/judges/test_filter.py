import numpy as np
import pyarrow as pa
import pytest

from glideslope.data_filter.judges.filter import FilterJudge

JUDGE = FilterJudge("a", 0.5)


def rows(*scores: float | None, flags: list[list[str]] | None = None) -> pa.Table:
    return pa.table({"score_a": pa.array(scores, type=pa.float32()),
                     "flags_a": pa.array(flags or [[] for _ in scores], type=pa.list_(pa.string()))})


def test_only_a_score_below_the_threshold_passes() -> None:
    assert JUDGE.flag(rows(0.4, 0.5, 0.6)) == ["", "filter:a", "filter:a"]


def test_what_cannot_be_judged_is_flagged() -> None:
    assert JUDGE.flag(rows(None, np.nan, np.inf, -np.inf)) == ["missing score"] * 4
    assert FilterJudge("a", float("nan")).flag(rows(0.4)) == ["filter:a"]


def test_flags_of_other_judges_count_where_the_classifier_lets_pass() -> None:
    assert JUDGE.flag(rows(0.4, 0.6, flags=[["faces:missing", "hands"], ["faces"]])) == ["filter:a:faces:missing", "filter:a"]


def test_rows_without_the_columns_of_the_category_are_no_rows_to_judge() -> None:
    with pytest.raises(KeyError):
        FilterJudge("b", 0.5).flag(rows(0.4))
