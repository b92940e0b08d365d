"""The two towers of a CLIP as functions on tensors: images with a gradient, captions, and the factor on their cosines."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import RequestError


class ImageTextModel(Protocol):
    """What guidance needs of a CLIP; `Clip` has it, see `Clip.of`."""

    @property
    def model(self) -> nn.Module:
        """Has open_clip's `encode_image`, `encode_text` and `logit_scale`."""
        ...

    @property
    def image_size(self) -> int:
        """Side of its images in pixels."""
        ...

    @property
    def pixel_mean(self) -> tuple[float, ...]:
        """Per channel, of pixels in [0, 1]."""
        ...

    @property
    def pixel_std(self) -> tuple[float, ...]:
        """Per channel, of pixels in [0, 1]."""
        ...

    @property
    def tokenize(self) -> Callable[[list[str]], Tensor] | None:
        """Captions to int64 (N, context); None where there is no text tower."""
        ...


def embed_images(clip: ImageTextModel, images: Tensor) -> Tensor:
    """Unit embeddings (N, D) of images: (N, 3, H, W) in [-1, 1], resized (bicubic, antialiased) and differentiable."""
    model: Any = clip.model
    weight = next(clip.model.parameters())
    pixels = (images.to(weight.device) + 1) / 2
    if pixels.shape[-2:] != (clip.image_size, clip.image_size):
        pixels = functional.interpolate(pixels, (clip.image_size, clip.image_size), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (clip.pixel_mean, clip.pixel_std))
    embedded = model.encode_image(((pixels - mean) / std).to(weight.dtype))
    return functional.normalize(embedded.float(), dim=-1).to(images.device)


@torch.no_grad()
def embed_captions(clip: ImageTextModel, captions: Sequence[str]) -> Tensor:
    """Unit embeddings (N, D) of captions.

    Raises:
        RequestError: the CLIP has no text tower.
    """
    if clip.tokenize is None:
        raise RequestError("clip: this CLIP reads no captions; give one with a trained text tower")
    model: Any = clip.model
    tokens = clip.tokenize(list(captions)).to(next(clip.model.parameters()).device)
    return functional.normalize(model.encode_text(tokens).float(), dim=-1)


def logit_scale(clip: ImageTextModel) -> float:
    """The CLIP's own factor on cosines; open_clip stores its logarithm."""
    model: Any = clip.model
    return math.exp(float(model.logit_scale.detach()))
