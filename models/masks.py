"""Pictures to edit, and masks that say where: read strictly, squared alike, brought to a model's resolution.

One polarity everywhere: white is drawn anew, black is kept.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..decode import Pixels, Refusal, to_rgb
from ..errors import RequestError
from .pixels import fit_square

Mask = NDArray[np.bool_]
ArrayT = TypeVar("ArrayT", Pixels, Mask)

WHITE_FROM = 128
MAX_GREY_SHARE = 0.1
POLARITY = "white is drawn anew, black is kept"


def read_picture(image: Image.Image, *, name: str = "image") -> Pixels:
    """Pixels of a picture of any mode: alpha is laid on white, 16 bits scaled to 8, EXIF orientation applied.

    Args:
        image: from Pillow.
        name: what the caller calls it, for messages.

    Returns:
        uint8 (H, W, 3).

    Raises:
        RequestError: no Pillow image, without pixels, or of floating-point samples.
    """
    if not isinstance(image, Image.Image):
        raise RequestError(f"{name}: expected a PIL.Image.Image, got {type(image).__name__}; open files with PIL.Image.open")
    if 0 in image.size:
        raise RequestError(f"{name}: {image.width} x {image.height}, which is no pixel at all; give a picture")
    try:
        return to_rgb(image)
    except Refusal as refusal:
        raise RequestError(f"{name}: {refusal} (mode {image.mode}); convert it to RGB first") from refusal


def read_mask(mask: Image.Image, *, size: tuple[int, int]) -> Mask:
    """Where to draw: a black-and-white picture as large as the image, white is drawn anew, black is kept.

    However stored (1 bit, greyscale, palette, RGB), it must be grey and opaque. The greys that a brush's soft edge
    leaves are cut at 128; a picture with more grey than an edge has is refused, it is no mask.

    Args:
        mask: from Pillow.
        size: (width, height) of the image.

    Returns:
        bool (H, W), true where to draw.

    Raises:
        RequestError: no Pillow image, of another size, coloured, transparent, grey, all black or all white.
    """
    pixels = read_picture(mask, name="mask")
    if (pixels.shape[1], pixels.shape[0]) != size:
        raise RequestError(f"mask: {pixels.shape[1]} x {pixels.shape[0]} pixels, but the image has {size[0]} x {size[1]}; "
                           "paint the mask over the image, and save it in the same size")
    if mask.has_transparency_data and np.asarray(mask.convert("RGBA"))[..., 3].min() < 255:
        raise RequestError(f"mask: has transparent pixels, which say nothing here; fill them: {POLARITY}")
    if (pixels != pixels[..., :1]).any():
        raise RequestError(f"mask: has colours; a mask is black and white: {POLARITY} (were image and mask exchanged?)")
    grey = pixels[..., 0]
    share = float(((grey > 0) & (grey < 255)).mean())
    if share > MAX_GREY_SHARE:
        raise RequestError(f"mask: {share:.0%} of its pixels are grey, at most {MAX_GREY_SHARE:.0%} (soft edges) are accepted; make it "
                           f"black and white: {POLARITY}")
    draw = grey >= WHITE_FROM
    if not draw.any():
        raise RequestError(f"mask: is black everywhere, so nothing would be drawn; {POLARITY}")
    if draw.all():
        raise RequestError(f"mask: is white everywhere, so nothing would be kept; {POLARITY}; to draw all anew, draw without an image")
    return np.asarray(draw)


def fit_picture(pixels: Pixels, image_size: int) -> Pixels:
    """The middle square at a model's resolution: uint8 (H, W, 3) -> (S, S, 3); unchanged where it fits already."""
    return fit_square(middle_square(pixels), image_size)


def fit_mask(draw: Mask, image_size: int) -> Mask:
    """A mask's middle square at a model's resolution: a pixel is drawn anew where any part of it is white.

    So nothing of what shall be replaced remains in a pixel that is kept.

    Args:
        draw: bool (H, W), true where to draw.
        image_size: S.

    Returns:
        bool (S, S).

    Raises:
        RequestError: no white, or no black, is left in the middle square.
    """
    square = middle_square(draw)
    side, edges = len(square), np.arange(image_size + 1)
    low, high = edges[:-1] * side // image_size, -(-edges[1:] * side // image_size)
    totals = np.pad(square.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    rows = totals[high] - totals[low]
    fitted = (rows[:, high] - rows[:, low]) > 0
    if not fitted.any() or fitted.all():
        found = "black" if not fitted.any() else "white"
        raise RequestError(f"mask: is {found} everywhere in the middle {side} x {side} pixels, at the model's {image_size} x {image_size}; "
                           f"crop image and mask to a square that holds both, or give the mask larger areas: {POLARITY}")
    return np.asarray(fitted)


def middle_square(pixels: ArrayT) -> ArrayT:
    """Crop the middle: (H, W, ...) -> (M, M, ...), M the short side."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top:top + side, left:left + side]
