"""Figures with matplotlib as it comes: a reader's own style changes none of them, and equal figures are equal bytes anywhere."""

import functools
import html
import io
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from ..errors import StageError
from ..text.one_line import one_line

DOTS_PER_INCH = 110
NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}
# What a page that carries everything with it need not hold: declarations, groups' names, fonts, and clips of what is inside anyway.
SVG_FREIGHT = re.compile(r'<style.*?</style>|<clipPath.*?</clipPath>|<!--.*?-->| clip-path="[^"]*"| id="[\w.]*_\d+"|'
                         r"(?<=[ \"])font-family: [^;]*; ", re.DOTALL)
P = ParamSpec("P")
R = TypeVar("R")


def load_matplotlib() -> Any:
    """Import matplotlib.

    Raises:
        ImportError: it is not installed.
        StageError: it cannot start with the settings that it finds on this machine.
    """
    try:
        import matplotlib
    except (ValueError, OSError) as error:  # a settings file that is no text, a backend that does not exist
        raise StageError(f"matplotlib cannot start with the settings of this machine ({one_line(error)}); correct or unset "
                         "MATPLOTLIBRC and MPLBACKEND") from error
    return matplotlib


def plain_style(draw: Callable[P, R]) -> Callable[P, R]:
    """Let a function draw with matplotlib's own defaults, whatever a matplotlibrc, a style sheet or the program around has set."""

    @functools.wraps(draw)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        matplotlib = load_matplotlib()
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            return draw(*args, **kwargs)

    return plain


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches whose parts are laid out so that nothing overlaps."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")


def figure_png(figure: Any) -> bytes:
    """A figure as PNG, without dates or versions."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()


def page_svg(figure: Any, title: str, colours: Mapping[str, str]) -> str:
    """A figure as SVG to stand within a page: nothing but shapes and text in the page's own font and colours.

    Everything that is drawn must lie within its axes, as nothing is clipped.

    Args:
        figure: drawn in `plain_style`.
        title: said to those who cannot see it; no two figures of one page have the same.
        colours: colour as it was drawn -> variable of the page's style sheet, such as `--ink`.
    """
    import matplotlib

    sink = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(sink, format="svg", transparent=True, metadata=NO_METADATA)
    attributes, _, shapes = sink.getvalue().partition("<svg ")[2].partition(">")
    size = attributes.partition('viewBox="')[2].partition('"')[0]
    shapes = SVG_FREIGHT.sub("", shapes)
    for colour, variable in colours.items():
        shapes = shapes.replace(colour, f"var({variable})")
    return f'<svg class="chart" viewBox="{size}" role="img" aria-label="{html.escape(title)}">{shapes}'
