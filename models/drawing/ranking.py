"""Ranking with a CLIP other than the noised one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...device.torch_state import PlainTorch
from ...errors import RequestError
from ...pictures.decode import Pixels
from ..diffusion.clip_guidance import ImageTextModel, embed_captions, embed_images
from .masks import fit_picture
from .pixels import to_model_range


class ImageTextScorer(Protocol):
    """Whatever scores images against captions; `glideslope.clip.model.Clip` does, and `CosineScorer` makes any CLIP one."""

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

    @PlainTorch()
    def score(self, images: Sequence[Pixels], captions: Sequence[str]) -> NDArray[np.float32]:
        """Cosine of each image with its caption; long captions are cut where the CLIP's tokenizer cuts them.

        Raises:
            RequestError: the CLIP has no text tower.
        """
        if self.clip.tokenize is None:
            raise RequestError("rank: this CLIP has no text tower; give one that reads captions")
        pixels = torch.from_numpy(np.stack([fit_picture(image, self.clip.image_size) for image in images])).permute(0, 3, 1, 2)
        of_images = embed_images(self.clip, to_model_range(pixels))
        return (of_images * embed_captions(self.clip, captions).to(of_images.device)).sum(dim=-1).numpy()
