"""GLIDE, the noised CLIP, sampling, training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .drawing.pipeline import GlideOutput, GlidePipeline
    from .training.stage import train_network

_HOMES = {"GlideOutput": "drawing.pipeline", "GlidePipeline": "drawing.pipeline", "train_network": "training.stage"}

__all__ = ["GlideOutput", "GlidePipeline", "train_network"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `glideslope --help` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
