"""Pictures to edit, and masks that say where: read strictly, squared alike, brought to a model's resolution.

One polarity everywhere: white is drawn anew, black is kept.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import RequestError
from ...pictures.decode import INTEGER_MODES, Pixels, find_orientation, split_alpha, to_rgb
from ...pictures.orientation import turn_upright
from ...pictures.refusals import Refusal
from ...text.one_line import one_line
from .pixels import fit_square

Mask = NDArray[np.bool_]
MaskLike = Image.Image | NDArray[Any]
ArrayT = TypeVar("ArrayT", Pixels, Mask)

WHITE_FROM = 128
MAX_GREY_SHARE = 0.1
NEARLY = 32  # levels from black or white that count as such: JPEG's ringing, and what screens make of them
MAX_TINT = 16  # levels between the channels of a grey
POLARITY = "white is drawn anew, black is kept"


def read_picture(image: Image.Image, *, name: str = "image") -> Pixels:
    """Pixels of a picture of any mode: colour profile and orientation applied, alpha laid on white, 16 bits scaled to 8.

    Args:
        image: from Pillow.
        name: what the caller calls it, for messages.

    Returns:
        uint8 (H, W, 3).

    Raises:
        RequestError: no Pillow image, without pixels, damaged, or of samples whose white is not known.
    """
    if not isinstance(image, Image.Image):
        expected = "a PIL.Image.Image or a numpy array" if name == "mask" else "a PIL.Image.Image"
        raise RequestError(f"{name}: expected {expected}, got {type(image).__name__}; open files with PIL.Image.open")
    if 0 in image.size:
        raise RequestError(f"{name}: {image.width} x {image.height}, which is no pixel at all; give a picture")
    try:
        return to_rgb(image)
    except Refusal as refusal:
        raise RequestError(f"{name}: {refusal} (mode {image.mode}); convert it to RGB first") from refusal
    except (OSError, SyntaxError, ValueError) as error:  # Pillow loads late, and its decoders raise these on damaged files
        raise RequestError(f"{name}: cannot be read: {one_line(error)}") from error


def read_mask(mask: MaskLike, *, size: tuple[int, int]) -> Mask:
    """Where to draw: a black-and-white picture as large as the image, white is drawn anew, black is kept.

    However stored (1 bit, greyscale, palette, RGB, JPEG), it must be grey and opaque. Values of nothing but 0 and 1 are black
    and white. The greys that a brush's soft edge leaves are cut at 128; a picture with more grey than an edge has is refused,
    it is no mask.

    Args:
        mask: from Pillow; or an array (H, W) or (H, W, 1), of booleans, of integers 0 and 1 or 0 to 255, or of floats 0 to 1.
        size: (width, height) of the image.

    Returns:
        bool (H, W), true where to draw.

    Raises:
        RequestError: neither image nor array, of another size, coloured, transparent, grey, all black or all white, or an array
            of other values.
    """
    grey = grey_of_array(mask) if isinstance(mask, np.ndarray) else grey_of_image(mask)
    if (grey.shape[1], grey.shape[0]) != size:
        raise RequestError(f"mask: {grey.shape[1]} x {grey.shape[0]} pixels, but the image has {size[0]} x {size[1]}; "
                           "paint the mask over the image, and save it in the same size")
    share = float(((grey >= NEARLY) & (grey <= 255 - NEARLY)).mean())
    if share > MAX_GREY_SHARE:
        raise RequestError(f"mask: {share:.0%} of its pixels are grey, at most {MAX_GREY_SHARE:.0%} (soft edges) are accepted; make it "
                           f"black and white, for example mask.convert('L').point(lambda level: 255 * (level >= {WHITE_FROM})): {POLARITY}")
    draw = grey >= WHITE_FROM
    if not draw.any():
        raise RequestError(f"mask: is black everywhere (its brightest level is {grey.max()} of 255), so nothing would be drawn; {POLARITY}")
    if draw.all():
        raise RequestError(f"mask: is white everywhere, so nothing would be kept; {POLARITY}; to draw all anew, draw without an image")
    return np.asarray(draw)


def grey_of_image(mask: Image.Image) -> NDArray[np.uint8]:
    """Levels of a mask from Pillow: uint8 (H, W).

    Raises:
        RequestError: it is no image, or has colours or transparent pixels.
    """
    pixels = read_picture(mask, name="mask")
    _, alpha = split_alpha(mask)
    if alpha is not None and np.asarray(alpha).min() < 255:
        raise RequestError(f"mask: has transparent pixels, which say nothing here; fill them: {POLARITY}")
    if int(np.ptp(pixels, axis=2).max()) > MAX_TINT:
        raise RequestError(f"mask: has colours; a mask is black and white: {POLARITY} (were image and mask exchanged?)")
    if mask.mode in INTEGER_MODES:  # of 16 bits: labels, and 8-bit levels, would both be black
        stored = np.asarray(turn_upright(mask, find_orientation(mask)))
        if stored.max() == 1 or set(np.unique(stored)) == {0, 255}:
            return np.where(stored > 0, 255, 0).astype(np.uint8)
    return spread_labels(pixels[..., 0])


def grey_of_array(mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Levels of a mask in numpy: uint8 (H, W).

    Raises:
        RequestError: another shape, type or range.
    """
    expected = "expected booleans, integers 0 and 1 or 0 to 255, or floats 0 to 1, as (height, width)"
    flat = mask[..., 0] if mask.ndim == 3 and mask.shape[2] == 1 else mask
    if flat.ndim != 2 or flat.size == 0 or flat.dtype.kind not in "buif":
        raise RequestError(f"mask: is an array {mask.shape} of {mask.dtype}; {expected}")
    if flat.dtype.kind == "b":
        return np.where(flat, 255, 0).astype(np.uint8)
    low, high = flat.min(), flat.max()
    limit = 1 if flat.dtype.kind == "f" else 255
    if not (low >= 0 and high <= limit):  # NaN is neither
        raise RequestError(f"mask: is an array of {mask.dtype} from {low} to {high}; {expected}")
    return spread_labels(flat.astype(np.uint8)) if limit == 255 else np.rint(flat * 255).astype(np.uint8)


def spread_labels(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Values of nothing but 0 and 1 as black and white: they are labels, nobody paints in the darkest grey there is."""
    return np.asarray(grey * np.uint8(255) if grey.max() == 1 else grey)


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
