"""GLIDE, the noised CLIP, sampling, training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .drawing.pipeline import GlideOutput, GlidePipeline
    from .training.base import train_base
    from .training.noised_clip import train_noised_clip

_HOMES = {"train_base": "training.base", "train_noised_clip": "training.noised_clip", "GlideOutput": "drawing.pipeline",
          "GlidePipeline": "drawing.pipeline"}

__all__ = ["GlideOutput", "GlidePipeline", "train_base", "train_noised_clip"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `glideslope --help` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
