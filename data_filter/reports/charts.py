"""Small charts as SVG for a page that carries everything with it: crisp at any size, coloured by the page's style sheet."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440, 290
LEFT, RIGHT, TOP = 62, 22, 12
BASE = HEIGHT - 44
Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One axis: its range, its title and where its marks are.

    Attributes:
        low, high: range of the values.
        title: text beside it.
        ticks: values with a mark.
        show: value -> text of its mark.
    """

    low: float
    high: float
    title: str
    ticks: Sequence[float]
    show: Callable[[float], str]

    def place(self, value: float) -> float:
        """Where a value is on the axis, from 0 to 1."""
        return (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)


def share_axis(title: str, low: float = 0.0) -> Axis:
    """An axis of shares from `low` to 1, marked in percent."""
    step = next((step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if (1 - low) / step <= 5), 0.25)
    first = math.ceil(low / step - 1e-9)
    return Axis(low, 1.0, title, [round(k * step, 4) for k in range(first, round(1 / step) + 1)], lambda value: f"{100 * value:g} %")


def score_axis(title: str, low: float, high: float) -> Axis:
    """An axis of scores with about five round marks."""
    if not high > low:
        low, high = low - 0.5, low + 0.5
    raw = (high - low) / 5
    scale = 10 ** math.floor(math.log10(raw))
    step = scale * next(k for k in (1, 2, 5, 10) if raw <= k * scale)
    ticks = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return Axis(low, high, title, ticks, lambda value: f"{value:g}" if abs(value) > 1e-12 else "0")


def count_axis(title: str, highest: int) -> Axis:
    """A logarithmic axis of counts, as powers of ten; the values on it are log10(1 + count)."""
    high = max(1.0, 1.05 * math.log10(1 + highest))
    ticks = [0.0, *(mark for mark in (math.log10(1 + 10**k) for k in range(16)) if mark <= high)]
    return Axis(0.0, high, title, ticks, lambda value: f"{round(10**value - 1):,}")


@dataclass(frozen=True)
class Layer:
    """Something drawn into a chart.

    Attributes:
        kind: `line`, `area`, `dot` or `rule` (a vertical line at the first point's x).
        style: class of the style sheet, which gives the colour.
        title: text of the legend.
        points: in the axes' values.
    """

    kind: str
    style: str
    title: str
    points: Sequence[Point]


def draw_chart(x: Axis, y: Axis, layers: Sequence[Layer], *, title: str) -> Markup:
    """A chart with axes, layers and nothing that runs: SVG.

    Args:
        x, y: its axes.
        layers: drawn in their order.
        title: said to those who can't see it.
    """
    parts = [Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, title)]
    for value in y.ticks:
        _, top = spot(x, y, (x.low, value))
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="tick" x="{}" y="{}" text-anchor="end">{}</text>')
                     .format(LEFT, WIDTH - RIGHT, top, top, LEFT - 6, top + 4, y.show(value)))
    for value in x.ticks:
        left, _ = spot(x, y, (value, y.low))
        parts.append(Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(left, BASE + 16, x.show(value)))
    parts += [draw_layer(x, y, layer) for layer in layers]
    parts.append(Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, BASE, BASE))
    parts.append(Markup('<text class="title" x="{}" y="{}" text-anchor="middle">{}</text>')
                 .format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x.title))
    parts.append(Markup('<text class="title" transform="translate(12 {}) rotate(-90)" text-anchor="middle">{}</text>')
                 .format((TOP + BASE) / 2, y.title))
    return Markup("").join([*parts, Markup("</svg>"), draw_legend(layers)])


def spot(x: Axis, y: Axis, point: Point) -> Point:
    """Where a point is in the picture."""
    return round(LEFT + x.place(point[0]) * (WIDTH - LEFT - RIGHT), 1), round(BASE - y.place(point[1]) * (BASE - TOP), 1)


def draw_layer(x: Axis, y: Axis, layer: Layer) -> Markup:
    """One layer as SVG."""
    spots = [spot(x, y, point) for point in layer.points]
    if not spots:
        return Markup("")
    if layer.kind == "dot":
        return Markup("").join(Markup('<circle class="dot {}" cx="{}" cy="{}" r="5"/>').format(layer.style, *place) for place in spots)
    if layer.kind == "rule":
        return Markup('<line class="rule {}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(layer.style, spots[0][0], spots[0][0], TOP, BASE)
    text = " ".join(f"{left},{top}" for left, top in spots)
    if layer.kind == "area":
        text = f"{spots[0][0]},{BASE} {text} {spots[-1][0]},{BASE}"
        return Markup('<polygon class="area {}" points="{}"/>').format(layer.style, text)
    return Markup('<polyline class="line {}" points="{}"/>').format(layer.style, text)


def draw_legend(layers: Sequence[Layer]) -> Markup:
    """The legend below a chart."""
    entries = [Markup('<li><span class="key {} {}"></span>{}</li>').format(layer.kind, layer.style, escape(layer.title)) for layer in layers]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(entries))


def steps(edges: Sequence[float], counts: Sequence[int]) -> list[Point]:
    """The outline of a histogram on a logarithmic axis of counts.

    Args:
        edges: (N + 1,) of the bins.
        counts: (N,).
    """
    return [(edge, math.log10(1 + number)) for left, right, number in zip(edges, edges[1:], counts, strict=False) for edge in (left, right)]
