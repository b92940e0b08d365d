"""Plots of a filter's evidence."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...pictures.figures import figure_png, new_figure, plain_style
from ..mutations.image_changes import TITLES

BLUE, GREY, RED = "#1f6feb", "#8b949e", "#d1242f"


@plain_style
def plot_precision_recall(title: str, curve: Sequence[Sequence[float]], test: Mapping[str, Any]) -> bytes:
    """Draw kept share against recall on the test labels, the chosen point marked: PNG bytes, equal for equal figures.

    Args:
        title: name of the category.
        curve: points of recall, kept share and threshold, as in filter.json.
        test: the figures on test labels, as in filter.json.
    """
    figure = new_figure(6, 4.5)
    axes = figure.add_subplot()
    recalls = draw_recall_curve(axes, curve, test)
    num_positive, num_negative = test["num_positive"], test["num_negative"]
    axes.set(title=f"{title}: {num_positive} positive and {num_negative} other test labels", xlabel="recall", ylabel="share",
             xlim=(min([0.5, *recalls]), 1.005) if recalls else (0, 1.005), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    return figure_png(figure)


def draw_recall_curve(axes: Any, curve: Sequence[Sequence[float]], test: Mapping[str, Any], lowest: float = 0.0) -> list[float]:
    """Draw the kept share and the precision along the recall, the chosen point marked.

    Args:
        axes: of matplotlib.
        curve, test: as in `plot_precision_recall`.
        lowest: the smallest recall that is drawn.

    Returns:
        The recalls that were drawn, the highest first.
    """
    num_positive, num_negative = test["num_positive"], test["num_negative"]
    chosen = [(test["recall"], test["kept_share"])] if None not in (test["recall"], test["kept_share"]) else []
    points = sorted({*((point[0], point[1]) for point in curve), *chosen}, key=lambda point: (-point[0], point[1]))
    points = [point for point in points if point[0] >= lowest]
    recall, kept = [point[0] for point in points], [point[1] for point in points]
    precision = [r * num_positive / max(r * num_positive + (1 - k) * num_negative, 1e-12) for r, k in zip(recall, kept, strict=True)]
    axes.plot(recall, kept, color=BLUE, label="share of other images kept")
    axes.plot(recall, precision, color=GREY, linestyle="--", label="precision")
    for point in chosen:
        axes.plot(*point, "o", color=RED, label=f"chosen: recall {point[0]:.3f}, kept {point[1]:.3f}")
    return recall


@plain_style
def plot_mutations(title: str, mutations: Sequence[Mapping[str, Any]], sizes: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw the recall after each mutation and by size of the subject, with lower bounds: PNG bytes.

    Args:
        title: name of the category.
        mutations, sizes: as in mutations.json.
    """
    figure = new_figure(9, 1.1 + 0.3 * len(mutations))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    heights = range(len(mutations))
    left.barh(heights, [row["recall"] or 0 for row in mutations], color=BLUE, height=0.6, label="known positives found")
    left.hlines(heights, [row["recall_lower_bound"] for row in mutations], [row["recall"] or 0 for row in mutations], color="#0b2e6b",
                linewidth=2, label="down to the 95 % lower bound")
    left.plot([row["drop_rate_others"] or 0 for row in mutations], heights, "D", color=RED, markersize=4, label="other pictures dropped")
    left.set_yticks(list(heights), [TITLES.get(row["mutation"], row["mutation"]) for row in mutations], fontsize=8)
    left.invert_yaxis()
    left.set(xlim=(0, 1.02), xlabel="share", title=f"{title}: recall by mutation")
    figure.legend(loc="outside lower left", fontsize=8, ncols=3, frameon=False)
    measured = [row for row in sizes if row["num_positive"]]
    columns = range(len(measured))
    right.bar(columns, [row["recall"] for row in measured], color=BLUE, width=0.6)
    right.vlines(columns, [row["recall_lower_bound"] for row in measured], [row["recall"] for row in measured], color="#0b2e6b", linewidth=2)
    right.set_xticks(list(columns), [f"{100 * row['from']:g}-{100 * row['to']:g} %\n({row['num_positive']})" for row in measured], fontsize=8)
    right.set(ylim=(0, 1.02), xlabel="subject's share of the picture (positives)", title="recall by size")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure_png(figure)
