"""The one place where 8-bit images meet the models' float range."""


import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Pixels = NDArray[np.uint8]
MAX_RATIO = 32  # long side to short side, up to which a picture is resized whole


def to_model_range(pixels: Tensor) -> Tensor:
    """uint8 (..., H, W) in 0..255 -> float32 of the same shape in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Floats in [-1, 1], clamped -> uint8 of the same shape."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_pil(x: Tensor) -> list[Image.Image]:
    """(N, 3, H, W) in [-1, 1] -> N RGB images."""
    return [Image.fromarray(picture) for picture in to_uint8(x).permute(0, 2, 3, 1).cpu().numpy()]


def fit_square(pixels: Pixels, image_size: int) -> Pixels:
    """Scale the short side to `image_size` (antialiased) and crop the middle: uint8 (H, W, 3) -> (S, S, 3).

    A picture more than MAX_RATIO times as long as wide is cropped first, so that its cost stays bounded.
    """
    height, width = pixels.shape[:2]
    if max(height, width) > MAX_RATIO * min(height, width):
        longest = MAX_RATIO * min(height, width)
        top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
        pixels = pixels[top:top + longest, left:left + longest]
        height, width = pixels.shape[:2]
    scale = image_size / min(height, width)
    size = (max(image_size, round(width * scale)), max(image_size, round(height * scale)))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    left, top = (size[0] - image_size) // 2, (size[1] - image_size) // 2
    return np.asarray(image.crop((left, top, left + image_size, top + image_size)))
