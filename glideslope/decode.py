"""Decode image bytes safely: every refusal is one clear sentence, nothing is guessed.

The format is told from the content, not from the name. The size is read from the header and checked before any pixel
is decoded.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
REDUCIBLE_FORMATS = ("JPEG", "MPO")
TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class Refusal(Exception):
    """An image that cannot be used; the text is one sentence. Caught row by row, never seen by a user as an error."""


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        pixels: uint8 (h, w, 3), sRGB as stored; the whole image, at its own size or reduced.
        width, height: of the original as it is looked at, EXIF orientation applied, in pixels.
    """

    pixels: Pixels
    width: int
    height: int


def decode_image(data: bytes, *, max_pixels: int) -> Pixels:
    """Decode to RGB: alpha is laid on white, CMYK converted, 16 bits scaled to 8, EXIF orientation applied.

    Args:
        data: the file's bytes.
        max_pixels: width x height of the largest image accepted.

    Returns:
        uint8 (height, width, 3), sRGB as stored.

    Raises:
        Refusal: empty, of no known format, truncated, larger than allowed, or animated.
    """
    return decode_picture(data, max_pixels=max_pixels).pixels


def decode_picture(data: bytes, *, max_pixels: int, short_side: int | None = None) -> Picture:
    """Decode as `decode_image` does; a JPEG may come out reduced, which costs a fraction of the time.

    The JPEG decoder computes an image at 1/2, 1/4 or 1/8 of its size straight from the coefficients of each block.

    Args:
        data: the file's bytes.
        max_pixels: width x height of the largest image accepted, at full size.
        short_side: a JPEG is decoded at the smallest of these sizes whose short side has at least so many pixels; None: at full size.

    Raises:
        Refusal: as in `decode_image`.
    """
    if not data:
        raise Refusal("file is empty (0 bytes)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns where this function refuses or accepts
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_header(image, max_pixels)
                size = image.size
                is_reduced = short_side is not None and image.format in REDUCIBLE_FORMATS and reduce_jpeg(image, short_side)
                image.load()
                pixels = to_rgb(image)
                if not is_reduced:
                    return Picture(pixels, pixels.shape[1], pixels.shape[0])
                width, height = size[::-1] if image.getexif().get(ExifTags.Base.Orientation, 1) in TRANSPOSED else size
                return Picture(pixels, width, height)
        except Refusal:
            raise
        except Image.DecompressionBombError as error:
            raise Refusal(f"image is too large: {' '.join(str(error).split())}") from error
        except UnidentifiedImageError as error:
            raise Refusal(f"not an image of a known format ({len(data)} bytes, starting with {data[:8]!r})") from error
        except Exception as error:  # Pillow's decoders raise many types on damaged bytes; each means: cannot be decoded
            raise Refusal(f"image is truncated or damaged: {describe(error)}") from error


def reduce_jpeg(image: Image.Image, short_side: int) -> bool:
    """Have a JPEG that is not loaded yet decoded at a smaller size; whether it will be."""
    size = image.size
    image.draft(None, (short_side, short_side))
    return image.size != size


def describe(error: Exception) -> str:
    """An exception as one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def check_header(image: Image.Image, max_pixels: int) -> None:
    """Refuse by what the header says, before pixels are decoded."""
    width, height = image.size
    if width * height > max_pixels:
        raise Refusal(f"image is too large: {width} x {height} pixels, at most {max_pixels} are accepted")
    num_frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a phone's photo with a preview
    if num_frames > 1:
        raise Refusal(f"animated image with {num_frames} frames; only still images are accepted")


def to_rgb(image: Image.Image) -> Pixels:
    """Pixels of a loaded image as uint8 (height, width, 3)."""
    image = ImageOps.exif_transpose(image)
    if image.mode in SIXTEEN_BIT_MODES:
        values = np.asarray(image).astype(np.int64)
        # Pillow gives 16-bit greyscale as 0 … 65535; 257 maps that range onto 0 … 255 exactly
        grey = np.clip((values + 128) // 257, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise Refusal("floating-point image; only integer samples are accepted")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    return np.array(image.convert("RGB"), dtype=np.uint8)
