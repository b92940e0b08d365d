"""GLIDE's three crops (arXiv 2112.10741, Appendix F): short side to the model's size, crops along the long side."""

import numpy as np
from PIL import Image

from ..pictures.decode import Pixels

MAX_RATIO = 32  # long side to short side, up to which a picture is resized whole; longer ones are cropped before


def three_crops(pixels: Pixels, size: int) -> tuple[list[Pixels], list[float]]:
    """Resize the short side to `size` and crop squares at both ends and in the middle of the long side.

    Args:
        pixels: uint8 (height, width, 3).
        size: side of the crops in pixels.

    Returns:
        The distinct crops, one to three uint8 arrays (size, size, 3), and the weight of each in the mean of three: a
        square image gives one crop of weight 1, for its three are identical.
    """
    height, width = pixels.shape[:2]
    if max(height, width) > MAX_RATIO * min(height, width):
        return crop_long(pixels, size), [1 / 3] * 3
    scale = size / min(height, width)
    new_height, new_width = max(size, round(height * scale)), max(size, round(width * scale))
    if (new_height, new_width) != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.BICUBIC))
    room = max(new_height, new_width) - size
    offsets = [0, room // 2, room]
    distinct = sorted(set(offsets))
    weights = [offsets.count(offset) / 3 for offset in distinct]
    if new_height > new_width:
        return [pixels[offset:offset + size] for offset in distinct], weights
    return [pixels[:, offset:offset + size] for offset in distinct], weights


def crop_long(pixels: Pixels, size: int) -> list[Pixels]:
    """The three crops of a picture so long that resizing it whole would take more memory than it is worth."""
    height, width = pixels.shape[:2]
    side, room = min(height, width), max(height, width) - min(height, width)
    squares = [pixels[offset:offset + side] if height > width else pixels[:, offset:offset + side] for offset in (0, room // 2, room)]
    return [np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC)) for square in squares]
