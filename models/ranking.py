"""Ranking with a CLIP other than the noised one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ..decode import Pixels
from ..errors import RequestError
from .clip_guidance import ImageTextModel
from .masks import fit_picture


class ImageTextScorer(Protocol):
    """Whatever scores images against captions; `glideslope.data_filter.clip.Clip` does, and `CosineScorer` makes any CLIP one."""

    def score(self, images: Sequence[Pixels], captions: Sequence[str]) -> NDArray[np.float32]:
        """Score each uint8 (H, W, 3) image against its caption: float32 (N,), higher fits better."""
        ...


@dataclass(frozen=True)
class CosineScorer:
    """Cosines of an ordinary CLIP, which sees each image's middle square.

    Attributes:
        clip: such as `clip_guidance.OpenClip.of(model, tokenizer)`.
    """

    clip: ImageTextModel

    @torch.no_grad()
    def score(self, images: Sequence[Pixels], captions: Sequence[str]) -> NDArray[np.float32]:
        """Cosine of each image with its caption.

        Raises:
            RequestError: the CLIP has no text tower.
        """
        if self.clip.tokenize is None:
            raise RequestError("rank: this CLIP has no text tower; give one that reads captions")
        model: Any = self.clip.model
        device = next(self.clip.model.parameters()).device
        pixels = torch.from_numpy(np.stack([fit_picture(image, self.clip.image_size) for image in images])).permute(0, 3, 1, 2).to(device)
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (self.clip.pixel_mean, self.clip.pixel_std))
        of_images = functional.normalize(model.encode_image((pixels / 255 - mean) / std).float(), dim=-1)
        of_texts = functional.normalize(model.encode_text(self.clip.tokenize(list(captions)).to(device)).float(), dim=-1)
        return np.asarray((of_images * of_texts).sum(dim=-1).cpu().numpy(), dtype=np.float32)
