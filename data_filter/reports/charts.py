"""Charts of the report's page: SVG in the page's own colours."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ...pictures.figures import new_figure, page_svg, plain_style
from ...text import number_text as wording
from ..deciding.plots import BLUE, GREY, RED, draw_recall_curve
from .galleries import ScoreScan

WIDTH, HEIGHT = 5.2, 3.9  # inches
INK, SOFT, LINE, AREA = "#1c2128", "#57606a", "#d8dee4", "#afb8c1"
COLOURS = {BLUE: "--blue", GREY: "--soft", RED: "--red", INK: "--ink", SOFT: "--soft", LINE: "--line", AREA: "--grey"}
TEXT = {"text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": SOFT, "xtick.color": SOFT, "ytick.color": SOFT, "grid.color": LINE,
        "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}


@plain_style
def draw_curve(category: Mapping[str, Any]) -> Markup:
    """Share of others kept along the recall on the held-out labels, this filter's place and the target marked.

    Args:
        category: its name and its filter's report, as `filter.json` holds it.
    """
    figure, axes = _start()
    report = category["filter"]
    test, target = report["test"], report["target_recall"]
    lowest = math.floor(10 * min(0.9, target, 1.0 if test["recall"] is None else test["recall"])) / 10
    draw_recall_curve(axes, report["curve"], test, lowest)
    axes.axvline(target, color=SOFT, linestyle=":", label=f"target recall {wording.percent(target)}")
    axes.set(xlabel="recall on held-out positives", ylabel="share", xlim=(lowest, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    return _finish(figure, f"{category['name']}: others kept by recall")


@plain_style
def draw_histogram(category: Mapping[str, Any], scan: ScoreScan) -> Markup:
    """Scores of all inputs, held-out positives and held-out others on a logarithmic axis of counts.

    Args:
        category: its name, its filter's report, and the scores of its held-out `positives` and `negatives`.
        scan: the scores of all inputs.
    """
    figure, axes = _start()
    threshold = category["filter"]["threshold"]
    layers = [("others", category["negatives"], BLUE), ("positives", category["positives"], RED)]
    axes.stairs(scan.counts, scan.edges, fill=True, color=AREA, alpha=0.45, label=f"all {wording.count(scan.num_scored)} inputs")
    for name, scores, colour in layers:
        label = f"held-out {name} ({wording.count(len(scores))})"
        axes.stairs(count_within(scores, scan.edges), scan.edges, color=colour, linewidth=1.5, label=label)
    axes.axvline(threshold, color=INK, linestyle="--", label=f"threshold {threshold:.4g}: dropped from here on")
    axes.set_yscale("function", functions=(np.log1p, np.expm1))
    highest = max([1, *scan.counts, *(number for _, scores, _ in layers for number in count_within(scores, scan.edges))])
    axes.set(xlabel="score", ylabel="images (logarithmic)", xlim=(scan.edges[0], scan.edges[-1]), ylim=(0, 1.2 * highest))
    marks = [0, *(10**power for power in range(16) if 10**power <= 1.2 * highest)]
    axes.set_yticks(marks, [f"{mark:,}" for mark in marks])
    return _finish(figure, f"{category['name']}: scores")


def count_within(scores: Sequence[float], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many scores lie in each bin."""
    return np.histogram(scores, edges)[0]


def _start() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.rcParams.update(TEXT)
    figure = new_figure(WIDTH, HEIGHT)
    return figure, figure.add_subplot()


def _finish(figure: Any, title: str) -> Markup:
    figure.axes[0].grid(axis="y")
    figure.legend(loc="outside lower left", fontsize=9, frameon=False)
    return Markup(page_svg(figure, title, COLOURS))
