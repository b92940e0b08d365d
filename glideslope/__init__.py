"""glideslope: from an image-text data set to a published text-to-image model that somebody can sign off."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import GlideslopeError
    from .models.drawing.pipeline import GlideOutput, GlidePipeline

__version__ = "0.1.0"
__all__ = ["GlideOutput", "GlidePipeline", "GlideslopeError", "__version__"]

_HOMES = {"GlideOutput": "models.drawing.pipeline", "GlidePipeline": "models.drawing.pipeline", "GlideslopeError": "errors"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the package is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
