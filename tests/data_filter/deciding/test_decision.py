import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.classifiers.score_stage import SHARD_SCHEMA
from glideslope.data_filter.deciding.decision import decide
from glideslope.data_filter.deciding.threshold import Filter
from glideslope.data_filter.index.embed import INDEX_SCHEMA

A, B = Filter("a", "digest of a", 0.5), Filter("b", "digest of b", 0.5)


def index_table(**changes: list[object]) -> pa.Table:
    rows = [{"key": f"k{n}", "concept": f"k{n}", "sha256": "0" * 64, "size_bytes": 1, "width": 1, "height": 1, "caption": "c",
             "status": "ok", "reason": "", "error": None, "embedding": [1.0, 2.0]} for n in range(4)]
    for name, values in changes.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


def scores(*values: float | None, flags: dict[int, list[str]] | None = None) -> pa.Table:
    rows = [{"key": f"k{n}", "score": value, "probability": None, "flags": (flags or {}).get(n, [])} for n, value in enumerate(values)]
    return pa.Table.from_pylist(rows, schema=SHARD_SCHEMA)


def reasons(found: dict[str, pa.Table], labelled: dict[str, str] | None = None, **changes: list[object]) -> list[str]:
    filters = [judge for judge in (A, B) if judge.category in found]
    rows = decide(index_table(**changes), found, filters, labelled or {}, 0.0)
    assert all((row["decision"] == "keep") == (row["reason"] == "") == (row["split"] != "") for row in rows)
    return [row["reason"] for row in rows]


def test_only_a_score_below_the_threshold_keeps_an_image() -> None:
    assert reasons({"a": scores(0.4, 0.5, 0.6, 0.49)}) == ["", "filter:a", "filter:a", ""]


def test_a_missing_score_and_nan_are_dropped_as_missing() -> None:
    assert reasons({"a": scores(None, np.nan, np.inf, 0.0)}) == ["missing score", "missing score", "missing score", ""]


def test_a_judge_beside_the_classifier_names_itself_only_when_the_classifier_lets_pass() -> None:
    found = {"a": scores(0.0, 0.9, 0.0, 0.0, flags={0: ["caption_words", "faces"], 1: ["faces"], 2: ["faces:missing"]})}
    assert reasons(found) == ["filter:a:caption_words", "filter:a", "filter:a:faces:missing", ""]


def test_the_first_filter_in_the_recipe_names_the_reason_and_everything_is_recorded() -> None:
    found = {"a": scores(0.9, 0.1, 0.9, 0.1), "b": scores(0.9, 0.9, 0.1, 0.1, flags={3: ["faces"]})}
    assert reasons(found) == ["filter:a", "filter:b", "filter:a", "filter:b:faces"]
    rows = decide(index_table(), found, [A, B], {}, 0.0)
    assert [row["score_b"] for row in rows] == pytest.approx([0.9, 0.9, 0.1, 0.1])
    assert [row["flags_b"] for row in rows] == [[], [], [], ["faces"]]
    assert {row["classifier_b"] for row in rows} == {"digest of b"}


def test_a_bad_row_is_dropped_for_what_is_wrong_with_it_whatever_its_scores() -> None:
    found = reasons({"a": scores(None, 0.9, 0.9, None)}, {"k0": "a"}, status=["bad", "bad", "ok", "bad"],
                    reason=["caption", "duplicate key", "", ""])
    assert found == ["caption", "duplicate key", "filter:a", "unreadable"]


def test_a_missing_caption_drops_an_image_only_where_captions_are_required() -> None:
    table = index_table(status=["ok", "ok", "ok", "bad"], reason=["caption", "caption", "", "caption"], error=["no caption", "no", None, "x"])
    found = {"a": scores(0.0, 0.9, 0.0, None)}
    assert [row["reason"] for row in decide(table, found, [A], {}, 0.0)] == ["caption", "caption", "", "caption"]
    rows = decide(table, found, [A], {}, 0.0, captions_required=False)
    assert [(row["reason"], row["detail"]) for row in rows] == [("", None), ("filter:a", None), ("", None), ("caption", "x")]
    assert decide(table, found, [A], {"k0": "a"}, 0.0, captions_required=False)[0]["reason"] == "label:a"
    assert decide(table, {"a": scores(None, np.nan, 0.0, None)}, [A], {}, 0.0, captions_required=False)[0]["reason"] == "missing score"


def test_a_label_drops_what_every_filter_lets_pass() -> None:
    assert reasons({"a": scores(0.0, 0.9, 0.0, 0.0), "b": scores(0.0, 0.0, 0.0, 0.0)}, {"k0": "b", "k1": "b"}) == [
        "label:b", "filter:a", "", ""]


@given(st.lists(st.tuples(st.one_of(st.none(), st.floats(width=32)), st.booleans(), st.booleans()), min_size=4, max_size=4))
def test_an_image_is_kept_only_when_nobody_objects(inputs: list[tuple[float | None, bool, bool]]) -> None:
    table = scores(*(score for score, _, _ in inputs), flags={n: ["faces"] for n, (_, flagged, _) in enumerate(inputs) if flagged})
    found = reasons({"a": table}, {f"k{n}": "a" for n, (_, _, named) in enumerate(inputs) if named})
    for reason, (score, flagged, named) in zip(found, inputs, strict=True):
        may_pass = score is not None and score < A.threshold and not flagged and not named
        assert (reason == "") <= may_pass
        assert may_pass <= (reason == "" or score == -np.inf)


def test_variants_of_a_concept_share_a_split() -> None:
    table = index_table(concept=["a", "a", "b", "b"])
    for share in (0.1, 0.5, 0.9):
        splits = [row["split"] for row in decide(table, {"a": scores(0, 0, 0, 0)}, [A], {}, share)]
        assert splits[0] == splits[1] and splits[2] == splits[3]
