"""GLIDE's noised CLIP, as diffusers loads it."""

from pathlib import Path
from typing import Any

import torch

from ....models.networks.noised_clip import NoisedClip, NoisedClipConfig
from .loading import load_network


class GlideNoisedClip(NoisedClip):
    """Both encoders, with the method that diffusers calls to load a component."""

    @classmethod
    def from_pretrained(cls, directory: str | Path, *, torch_dtype: torch.dtype | None = None, **ignored: Any) -> Any:
        """Load the network that lies in a directory; other arguments of diffusers do not apply."""
        return load_network(cls, NoisedClipConfig, directory, torch_dtype)
