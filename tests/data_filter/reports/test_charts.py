import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from glideslope.data_filter.reports.charts import COLOURS, draw_curve, draw_histogram
from glideslope.data_filter.reports.galleries import ScoreScan

SCAN = ScoreScan(np.linspace(-3, 3, 61), np.arange(60), int(np.arange(60).sum()), [], [])


def category(**changes: Any) -> dict[str, Any]:
    report = {"curve": [[1.0, 0.2, -1.0], [0.95, 0.7, 0.0], [0.5, 1.0, 1.0]], "target_recall": 0.99, "threshold": 0.25,
              "test": {"num_positive": 20, "num_negative": 40, "recall": 0.95, "kept_share": 0.7}}
    return {"name": "person", "filter": report | changes, "positives": [1.0, 2.0], "negatives": [-1.0] * 300}


def both(one: dict[str, Any], scan: ScoreScan = SCAN) -> list[str]:
    return [str(draw_curve(one)), str(draw_histogram(one, scan))]


def texts(chart: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(chart.replace("xlink:href", "href")).iter("text")]


def test_equal_figures_give_equal_charts_that_hold_nothing_from_elsewhere() -> None:
    charts = both(category())
    assert charts == both(category())
    for chart in charts:
        assert not re.search(r"https?:|url\(|<style|<script|<metadata|\d{4}-\d\d-\d\d", chart)
        assert not re.search(r"#[0-9a-f]{6}\b", chart), "colours are the page's own"
        assert any(f"var({variable})" in chart for variable in COLOURS.values())


def test_no_two_charts_of_a_page_name_a_part_alike() -> None:
    names = [name for chart in both(category()) for name in re.findall(r' id="([^"]*)"', chart)]
    assert names and len(set(names)) == len(names)


def test_the_curve_names_the_filters_place_and_the_target() -> None:
    said = texts(both(category())[0])
    assert "chosen: recall 0.950, kept 0.700" in said and "target recall 99.0 %" in said and "100 %" in said


def test_the_histogram_counts_what_it_shows_and_names_the_threshold() -> None:
    said = texts(both(category())[1])
    assert {"all 1,770 inputs", "held-out others (300)", "held-out positives (2)", "threshold 0.25: dropped from here on"} <= set(said)
    assert {"0", "1", "10", "100"} <= set(said)


def test_a_title_is_escaped() -> None:
    one = category() | {"name": '"><x'}
    assert all('aria-label="&quot;&gt;&lt;x: ' in chart for chart in both(one))


@pytest.mark.parametrize("scan", [SCAN, ScoreScan(np.linspace(-0.5, 0.5, 61), np.zeros(60, dtype=np.int64), 0, [], [])])
def test_a_filter_without_held_out_labels_is_drawn_all_the_same(scan: ScoreScan) -> None:
    nothing = {"num_positive": 0, "num_negative": 0, "recall": None, "kept_share": None}
    one = category(curve=[], test=nothing) | {"positives": [], "negatives": []}
    assert all(chart.startswith('<svg class="chart"') and chart.rstrip().endswith("</svg>") for chart in both(one, scan))
