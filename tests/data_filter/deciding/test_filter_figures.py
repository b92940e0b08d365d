import json
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.deciding.filter_figures import SCORES_SCHEMA, measure_filter, trace_curve
from glideslope.data_filter.deciding.statistics import lower_bound, upper_bound
from glideslope.data_filter.deciding.threshold import is_dropped


def table(rows: list[tuple[str, int, float, str]], flagged: list[list[str]] | None = None) -> pa.Table:
    """Role, label, score and skin tone; and what other judges say."""
    flagged = flagged or []
    return pa.Table.from_pylist([{"key": f"k{n}", "concept": f"k{n}", "caption": f"caption {n}", "label": label, "role": role,
                                  "in_training": role == "train" and n % 2 == 0, "groups": [("skin_tone", tone), ("gender", "")],
                                  "score": score, "flags": flags or []}
                                 for n, ((role, label, score, tone), flags) in enumerate(zip_longest(rows, flagged))],
                                schema=SCORES_SCHEMA)


ROWS = [("train", 1, 2.0, ""), ("train", 0, -2.0, ""), ("train", 0, -1.0, ""), ("calibrate", 1, 0.5, ""), ("calibrate", 1, 0.9, ""),
        ("calibrate", 0, -3.0, ""), ("test", 1, 1.0, "5"), ("test", 1, 0.4, "1"), ("test", 1, 0.5, "1"), ("test", 0, 0.7, ""),
        ("test", 0, 0.1, ""), ("test", 0, -1.0, ""), ("test", 0, 0.0, "")]


def test_every_figure_is_counted_by_hand() -> None:
    found = measure_filter(table(ROWS), 0.5)
    assert found["train"] == {"num_positive": 1, "num_negative": 1}
    assert found["calibrate"] == {"num_positive": 2, "num_negative": 1, "num_caught": 2, "recall": 1.0, "recall_lower_bound": lower_bound(2, 2)}
    assert found["test"] == {
        "num_positive": 3, "num_negative": 4, "num_caught": 2, "recall": 2 / 3, "recall_lower_bound": lower_bound(2, 3),
        "num_kept_negative": 3, "kept_share": 0.75, "kept_share_lower_bound": lower_bound(3, 4),
        "leak": {"num_kept": 4, "num_positive_kept": 1, "rate": 0.25, "rate_upper_bound": upper_bound(1, 4)}}
    assert found["groups"] == [
        {"group": "gender", "value": "", "num_positive": 3, "num_caught": 2, "recall": 2 / 3, "recall_lower_bound": lower_bound(2, 3)},
        {"group": "skin_tone", "value": "1", "num_positive": 2, "num_caught": 1, "recall": 0.5, "recall_lower_bound": lower_bound(1, 2)},
        {"group": "skin_tone", "value": "5", "num_positive": 1, "num_caught": 1, "recall": 1.0, "recall_lower_bound": lower_bound(1, 1)}]
    assert found["missed"] == [{"key": "k7", "caption": "caption 7", "score": pytest.approx(0.4)}]


def test_an_image_is_dropped_if_any_judge_says_so() -> None:
    flags: list[list[str]] = [[] for _ in ROWS]
    flags[7], flags[10] = ["faces"], ["caption_words", "faces:missing"]  # a test positive below the threshold, and a test negative
    plain, found = measure_filter(table(ROWS), 0.5), measure_filter(table(ROWS, flags), 0.5)
    assert found["test"]["num_caught"] == plain["test"]["num_caught"] + 1 and found["missed"] == []
    assert found["test"]["num_kept_negative"] == plain["test"]["num_kept_negative"] - 1
    assert len(found["curve"]) == 2 and max(recall for recall, _, _ in found["curve"]) == 1.0
    json.dumps(found, allow_nan=False)


@given(st.lists(st.tuples(st.sampled_from(["train", "calibrate", "test"]), st.integers(0, 1), st.floats(-2, 2, width=16), st.booleans()),
                min_size=1, max_size=60), st.floats(-2, 2, width=16))
def test_more_judges_never_keep_more(rows: list[tuple[str, int, float, bool]], threshold: float) -> None:
    plain = measure_filter(table([(role, label, score, "") for role, label, score, _ in rows]), threshold)["test"]
    more = measure_filter(table([(role, label, score, "") for role, label, score, _ in rows], [["d"] if flag else [] for *_, flag in rows]),
                          threshold)["test"]
    assert more["num_caught"] >= plain["num_caught"] and more["num_kept_negative"] <= plain["num_kept_negative"]


def test_groups_may_have_any_name_and_differ_from_row_to_row() -> None:
    rows = table(ROWS)
    place = rows.column_names.index("groups")
    groups = [[("age", "child")] if n in (6, 9) else [] for n in range(len(ROWS))]
    rows = rows.set_column(place, SCORES_SCHEMA.field("groups"), pa.array(groups, type=SCORES_SCHEMA.field("groups").type))
    assert [(row["group"], row["value"], row["num_positive"]) for row in measure_filter(rows, 0.5)["groups"]] == [
        ("age", "", 2), ("age", "child", 1)]


def test_figures_are_plain_json_and_a_share_of_nothing_is_null() -> None:
    found = measure_filter(table([("train", 1, 1.0, ""), ("calibrate", 1, 1.0, "")]), 0.0)
    assert found["test"]["recall"] is None and found["test"]["recall_lower_bound"] == 0.0
    assert found["test"]["leak"] == {"num_kept": 0, "num_positive_kept": 0, "rate": None, "rate_upper_bound": 1.0}
    assert found["curve"] == [] and found["missed"] == []
    json.dumps(found, allow_nan=False)




@given(st.lists(st.tuples(st.integers(0, 1), st.floats(-2, 2, width=16)), min_size=1, max_size=500))
def test_each_point_of_the_curve_is_what_its_threshold_gives(pairs: list[tuple[int, float]]) -> None:
    label = np.array([pair[0] for pair in pairs])
    score = np.array([pair[1] for pair in pairs], dtype=np.float32)
    curve = trace_curve(score, label)
    assert len(curve) <= 200
    for recall, kept, threshold in curve:
        dropped = is_dropped(score, threshold)
        assert recall == pytest.approx(dropped[label == 1].mean())
        assert kept == pytest.approx((~dropped[label == 0]).mean())
    assert [point[2] for point in curve] == sorted(point[2] for point in curve)
