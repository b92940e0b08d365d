"""Matplotlib as it comes, while figures are drawn: a reader's own style changes no figure, so that it can be drawn again anywhere."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ..errors import StageError
from ..text.one_line import one_line

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
