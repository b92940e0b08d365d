"""Scoring images against a prompt: by any CLIP that a caller brings, or by the release's noised one."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...pictures.decode import Pixels
from ..diffusion.guidance import refuse_not_finite
from ..loading.loaded_networks import Networks, check_lengths
from .editing import to_tensor
from .guided_drawing import embed_prompts, get_noised_clip
from .masks import fit_picture


class ImageTextScorer(Protocol):
    """Whatever scores images against captions; `glideslope.clip.model.Clip` does."""

    def score(self, images: Sequence[Pixels], captions: Sequence[str]) -> NDArray[np.float32]:
        """Score each uint8 (H, W, 3) image against its caption: float32 (N,), higher fits better."""
        ...


def score_with_noised_clip(networks: Networks, pictures: Sequence[Pixels], prompt: str, *, cut_long_prompts: bool) -> list[float]:
    """Cosine of each picture with the prompt, by the noised CLIP, which is told that there is no noise.

    Args:
        networks: with a noised CLIP.
        pictures: uint8 (H, W, 3) each, of any size; the CLIP sees their middle squares.
        prompt: one caption.
        cut_long_prompts: cut a prompt that is longer than the CLIP reads instead of refusing it.

    Raises:
        RequestError: there is no noised CLIP, the prompt is too long, or a score is no number.
    """
    clip = get_noised_clip(networks)
    if not cut_long_prompts:
        check_lengths([prompt], networks.noised_clip_tokenizer, clip.config.max_text_len - 2)
    x = to_tensor([fit_picture(picture, clip.config.image_size) for picture in pictures], networks.device)
    cosines = clip.encode_image(x, torch.zeros(len(x), dtype=torch.int64, device=networks.device)) @ embed_prompts(networks, [prompt])[0]
    refuse_not_finite("the noised CLIP's scores", cosines, next(clip.parameters()).dtype)
    return cosines.tolist()
