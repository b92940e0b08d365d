"""GLIDE's U-Net, as diffusers loads it."""

from pathlib import Path
from typing import Any

import torch

from ....models.networks.unet import TextConditionedUNet, UNetConfig
from .loading import load_network


class GlideUNet(TextConditionedUNet):
    """The denoiser, with the method that diffusers calls to load a component."""

    @classmethod
    def from_pretrained(cls, directory: str | Path, *, torch_dtype: torch.dtype | None = None, **ignored: Any) -> Any:
        """Load the network that lies in a directory; other arguments of diffusers do not apply."""
        return load_network(cls, UNetConfig, directory, torch_dtype)
