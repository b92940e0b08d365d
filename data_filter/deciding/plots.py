"""Plots of a filter's evidence."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from ...pictures.figure_style import plain_style
from ..mutations.image_changes import TITLES


@plain_style
def plot_precision_recall(title: str, curve: Sequence[Sequence[float]], test: Mapping[str, Any]) -> bytes:
    """Draw kept share against recall on the test labels, the chosen point marked: PNG bytes, equal for equal figures.

    Args:
        title: name of the category.
        curve: points of recall, kept share and threshold, as in filter.json.
        test: the figures on test labels, as in filter.json.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    num_positive, num_negative = test["num_positive"], test["num_negative"]
    chosen = [(test["recall"], test["kept_share"])] if None not in (test["recall"], test["kept_share"]) else []
    points = sorted({*((point[0], point[1]) for point in curve), *chosen}, key=lambda point: (-point[0], point[1]))
    recall, kept = [point[0] for point in points], [point[1] for point in points]
    precision = [r * num_positive / max(r * num_positive + (1 - k) * num_negative, 1e-12) for r, k in zip(recall, kept, strict=True)]
    axes.plot(recall, kept, color="#1f6feb", label="share of other images kept")
    axes.plot(recall, precision, color="#8b949e", linestyle="--", label="precision")
    for point in chosen:
        axes.plot(*point, "o", color="#d1242f", label=f"chosen: recall {point[0]:.3f}, kept {point[1]:.3f}")
    axes.set(title=f"{title}: {num_positive} positive and {num_negative} other test labels", xlabel="recall", ylabel="share",
             xlim=(min([0.5, *recall[-1:]]), 1.005) if recall else (0, 1.005), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    return encode_figure(figure)


@plain_style
def plot_mutations(title: str, mutations: Sequence[Mapping[str, Any]], sizes: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw the recall after each mutation and by size of the subject, with lower bounds: PNG bytes.

    Args:
        title: name of the category.
        mutations, sizes: as in mutations.json.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.1 + 0.3 * len(mutations)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    heights = range(len(mutations))
    left.barh(heights, [row["recall"] or 0 for row in mutations], color="#1f6feb", height=0.6, label="known positives found")
    left.hlines(heights, [row["recall_lower_bound"] for row in mutations], [row["recall"] or 0 for row in mutations], color="#0b2e6b",
                linewidth=2, label="down to the 95 % lower bound")
    left.plot([row["drop_rate_others"] or 0 for row in mutations], heights, "D", color="#d1242f", markersize=4, label="other pictures dropped")
    left.set_yticks(list(heights), [TITLES.get(row["mutation"], row["mutation"]) for row in mutations], fontsize=8)
    left.invert_yaxis()
    left.set(xlim=(0, 1.02), xlabel="share", title=f"{title}: recall by mutation")
    figure.legend(loc="outside lower left", fontsize=8, ncols=3, frameon=False)
    measured = [row for row in sizes if row["num_positive"]]
    columns = range(len(measured))
    right.bar(columns, [row["recall"] for row in measured], color="#1f6feb", width=0.6)
    right.vlines(columns, [row["recall_lower_bound"] for row in measured], [row["recall"] for row in measured], color="#0b2e6b", linewidth=2)
    right.set_xticks(list(columns), [f"{100 * row['from']:g}-{100 * row['to']:g} %\n({row['num_positive']})" for row in measured], fontsize=8)
    right.set(ylim=(0, 1.02), xlabel="subject's share of the picture (positives)", title="recall by size")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return encode_figure(figure)


def encode_figure(figure: Any) -> bytes:
    """PNG bytes without dates or versions."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()
