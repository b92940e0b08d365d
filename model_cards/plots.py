"""Figures of a card as PNG: equal figures for equal numbers, small enough for a web page."""

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from types import MappingProxyType
from typing import Any

from ..pictures.figures import figure_png, new_figure, plain_style

WIDTH, HEIGHT, PANEL_WIDTH = 7.0, 3.2, 3.2  # inches
MAX_POINTS = 400
NUM_BINS = 50
TAIL = 0.005
INK, ACCENTS, MUTED = "#24292f", ("#0969da", "#bf8700"), "#d0d7de"
Curve = tuple[Sequence[int], Sequence[float]]
KEPT_COLOUR, DROPPED_COLOUR = "#1a7f37", "#cf222e"


@plain_style
def plot_training_loss(losses: Mapping[str, Curve], held_back: Mapping[str, Curve] = MappingProxyType({})) -> bytes:
    """Draw the training loss of each model over the images it has seen, one panel a model, with its loss on held-back images as points.

    Args:
        losses: title of the model -> images seen after each step, loss of each step.
        held_back: the same after each measurement on held-back images, for the models that were measured.

    Returns:
        PNG bytes.
    """
    figure = new_figure(max(WIDTH, PANEL_WIDTH * len(losses)), HEIGHT)
    panels = figure.subplots(1, len(losses), squeeze=False)[0]
    for panel, (title, (images, values)), colour in zip(panels, losses.items(), cycle(ACCENTS), strict=False):
        x, y, spread = smooth(images, values)
        panel.fill_between(x, [low for low, _ in spread], [high for _, high in spread], color=colour, alpha=0.2, linewidth=0)
        panel.plot(x, y, color=colour, linewidth=1.4)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("images seen", fontsize=9)
        panel.set_ylabel("loss", fontsize=9)
        if title in held_back:
            panel.plot(*held_back[title], color=INK, linestyle="", marker="o", markersize=3.5, label="on held-back images")
            panel.legend(fontsize=8, frameon=False)
        shown = [*values, *(held_back[title][1] if title in held_back else ())]
        if min(shown) > 0 and max(shown) > 10 * min(shown):
            panel.set_yscale("log")
        _tidy(panel)
    return _png(figure)


@plain_style
def plot_ledger(num_kept: int, num_dropped: Mapping[str, int]) -> bytes:
    """Draw how many inputs were kept, and how many were dropped for each reason, as bars with their counts.

    Args:
        num_kept: kept inputs.
        num_dropped: reason -> dropped inputs.

    Returns:
        PNG bytes.
    """
    bars = [("kept", num_kept, KEPT_COLOUR)]
    ordered = sorted(num_dropped.items(), key=lambda item: (-item[1], item[0]))
    bars += [(f"dropped: {reason.replace(':', ' ', 1)}", number, DROPPED_COLOUR) for reason, number in ordered]
    figure = new_figure(WIDTH, 0.8 + 0.36 * len(bars))
    panel = figure.subplots()
    places = range(len(bars))
    panel.barh(places, [number for _, number, _ in bars], color=[colour for _, _, colour in bars], height=0.65)
    largest = max(number for _, number, _ in bars) or 1
    for place, (_, number, _) in zip(places, bars, strict=True):
        panel.text(number + 0.01 * largest, place, f"{number:,}", va="center", fontsize=9, color=INK)
    panel.set_yticks(list(places), [title.replace("$", r"\$") for title, _, _ in bars], fontsize=9)
    panel.set_xlim(0, 1.12 * largest)
    panel.invert_yaxis()
    panel.set_xlabel("images", fontsize=9)
    _tidy(panel)
    return _png(figure)


@plain_style
def plot_scores(title: str, scores: Mapping[str, Sequence[float]], threshold: float) -> bytes:
    """Draw how a filter scores labelled images, as two histograms with the threshold between what stays and what goes.

    The few scores beyond the ends of the axis are counted in the last bar on their side.

    Args:
        title: name of the category.
        scores: what the labels say (legend) -> finite scores; at most two entries, the category itself last.
        threshold: images with a lower score stay.

    Returns:
        PNG bytes.
    """
    import numpy as np

    figure = new_figure(WIDTH, HEIGHT)
    panels = figure.subplots(len(scores), 1, sharex=True, squeeze=False)[:, 0]
    everything = np.array([value for values in scores.values() for value in values] or [threshold])
    low, high = min(threshold, float(np.quantile(everything, TAIL))), max(threshold, float(np.quantile(everything, 1 - TAIL)))
    width = max(high - low, 1e-6) / NUM_BINS
    edges = threshold + width * np.arange(np.floor((low - threshold) / width) - 1, np.ceil((high - threshold) / width) + 2)
    for panel, (name, values), colour in zip(panels, scores.items(), (KEPT_COLOUR, DROPPED_COLOUR), strict=False):
        panel.hist(np.clip(values, edges[0], edges[-1] - width / 2).tolist(), bins=edges.tolist(), color=colour, alpha=0.8)
        panel.axvline(threshold, color=INK, linewidth=1.2)
        num_dropped = sum(not value < threshold for value in values)
        panel.set_title(f"{name}: {len(values):,}, of them {num_dropped:,} dropped", fontsize=9, loc="left")
        panel.set_ylabel("images", fontsize=9)
        _tidy(panel)
    panels[-1].set_xlabel(f"score of the filter {title}; the line is the threshold {threshold:.3f}", fontsize=9)
    return _png(figure)


@plain_style
def plot_guidance(rows: Sequence[Mapping[str, float]]) -> bytes:
    """Draw the mean CLIP score with the own and with other captions for each guidance scale, with standard errors.

    Args:
        rows: guidance_scale, mean_own_score, mean_other_score and the standard errors own_error and other_error of each.

    Returns:
        PNG bytes.
    """
    figure = new_figure(WIDTH, HEIGHT)
    panel = figure.subplots()
    scales = [row["guidance_scale"] for row in rows]
    for kind, title, colour in (("own", "own caption", ACCENTS[0]), ("other", "other captions", ACCENTS[1])):
        panel.errorbar(scales, [row[f"mean_{kind}_score"] for row in rows], yerr=[row[f"{kind}_error"] for row in rows], color=colour,
                       marker="o", markersize=4, linewidth=1.4, capsize=3, label=title)
    panel.set_xticks(scales, [f"{scale:g}" for scale in scales])
    panel.set_xlabel("guidance scale (1: none)", fontsize=9)
    panel.set_ylabel("CLIP score, mean and its standard error", fontsize=9)
    panel.legend(fontsize=8, frameon=False)
    _tidy(panel)
    return _png(figure)


def smooth(images: Sequence[int], values: Sequence[float]) -> tuple[list[float], list[float], list[tuple[float, float]]]:
    """At most 400 points: mean of the values in bins of equal numbers of steps, and their 10th and 90th percentile.

    Returns:
        Images seen at the end of each bin, mean of each bin, (low, high) of each bin.
    """
    import numpy as np

    num_bins = min(MAX_POINTS, max(1, len(values) // 10)) if len(values) >= 20 else len(values)
    bins = np.array_split(np.asarray(values, dtype=np.float64), num_bins)
    ends = np.cumsum([len(part) for part in bins]) - 1
    spread = [(float(np.quantile(part, 0.1)), float(np.quantile(part, 0.9))) for part in bins]
    return [float(images[end]) for end in ends], [float(part.mean()) for part in bins], spread


def _tidy(panel: object) -> None:
    from matplotlib.axes import Axes

    if not isinstance(panel, Axes):
        raise TypeError(f"expected axes, got {type(panel).__name__}")
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(MUTED)
    panel.tick_params(labelsize=8, colors=INK)
    panel.grid(axis="x", color=MUTED, linewidth=0.5)
    panel.set_axisbelow(True)


def _png(figure: Any) -> bytes:
    """Encode with a palette, which makes the file small."""
    from PIL import Image

    encoded = io.BytesIO()
    with Image.open(io.BytesIO(figure_png(figure))) as image:
        image.convert("RGB").quantize(64).save(encoded, format="png", optimize=True)
    return encoded.getvalue()
