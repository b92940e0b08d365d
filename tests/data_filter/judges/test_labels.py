import pyarrow as pa

from glideslope.data_filter.judges.labels import LabelsJudge, find_labelled
from glideslope.data_filter.labels.store import Judgement


def test_who_is_called_positive_by_anybody_is_found_under_the_first_category() -> None:
    judged = [("x", "b", 1), ("x", "a", 1), ("y", "a", 0), ("y", "b", None), ("z", "a", 0), ("w", "other", 1)]
    judgements = [Judgement(key, key, name, "test", label, {}, 1) for key, name, label in judged]
    assert find_labelled(judgements, ["a", "b"]) == {"x": "a", "y": "b"}


def test_a_row_is_flagged_for_the_category_that_somebody_saw_in_it() -> None:
    assert LabelsJudge({"x": "a", "other": "b"}).flag(pa.table({"key": ["x", "y"]})) == ["label:a", ""]
