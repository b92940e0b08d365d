"""Decode image bytes safely: every refusal is one clear sentence, nothing is guessed.

The format is told from the content, not from the name. The size is read from the header and checked before any pixel
is decoded. Metadata is read only for what pixels look like, orientation and colours, and damage to it costs no picture.
"""

import io
import re
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin, TiffTags

from ..text.one_line import one_line
from . import jpeg, png
from .colour import to_srgb
from .orientation import ORIENTATION_TAG, SWAPPING, UPRIGHT, read_orientation, turn_upright
from .refusals import Refusal, TooLarge

Pixels = NDArray[np.uint8]

OTHER_FORMATS = ("AVIF", "BMP", "GIF", "JPEG2000", "PPM", "TGA", "TIFF", "WEBP")
MAX_PAGES_COUNTED = 100
INTEGER_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT, TILE_WIDTH, TILE_LENGTH = 258, 262, 339, 322, 323  # tags of TIFF
# an item of EXIF, whose damage makes libavif refuse the picture, and whose orientation counts for nothing (ISO/IEC 23000-22, 7.3.6)
AVIF_EXIF = re.compile(rb"(infe[\2\3]\0\0.(?:.{4}|.{6}))Exif", re.DOTALL)
ALPHA_OF = {"La": "LA", "RGBa": "RGBA"}


class WholeImages:
    """A block in which Pillow refuses truncated images, whatever `ImageFile.LOAD_TRUNCATED_IMAGES` is set to; for several threads at once."""

    def __init__(self) -> None:
        """Nothing is set before the first block begins."""
        self.lock, self.num_blocks, self.before = threading.Lock(), 0, False

    def __enter__(self) -> None:
        """Put the setting aside, unless another thread has."""
        with self.lock:
            if self.num_blocks == 0:
                self.before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
            self.num_blocks += 1

    def __exit__(self, *_: object) -> None:
        """Set it again when the last thread has left."""
        with self.lock:
            self.num_blocks -= 1
            if self.num_blocks == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self.before


WHOLE_IMAGES = WholeImages()


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        pixels: uint8 (h, w, 3), sRGB; the whole image, at its own size or reduced.
        width, height: of the original as it is looked at, orientation applied, in pixels.
    """

    pixels: Pixels
    width: int
    height: int


def decode_image(data: bytes, *, max_pixels: int) -> Pixels:
    """Decode to sRGB: colour profiles and orientation are applied, alpha is laid on white, 16 bits scaled to 8.

    Args:
        data: the file's bytes.
        max_pixels: width x height of the largest image accepted.

    Returns:
        uint8 (height, width, 3).

    Raises:
        TooLarge: more pixels than allowed, or than there is memory for.
        Refusal: empty, of no known format, truncated, damaged, animated, or of samples whose white is not known.
    """
    with refusals(data):
        return to_rgb(open_image(data, max_pixels, None)[0])


def decode_picture(data: bytes, *, max_pixels: int, short_side: int | None = None) -> Picture:
    """Decode as `decode_image` does; a JPEG may come out reduced, which costs a fraction of the time.

    The JPEG decoder computes an image at 1/2, 1/4 or 1/8 of its size straight from the coefficients of each block.

    Args:
        data: the file's bytes.
        max_pixels: width x height of the largest image accepted, at full size.
        short_side: a JPEG is decoded at the smallest of these sizes whose short side has at least so many pixels; None: at full size.

    Raises:
        TooLarge, Refusal: as in `decode_image`.
    """
    with refusals(data):
        image, (width, height) = open_image(data, max_pixels, short_side)
        if find_orientation(image) in SWAPPING:
            width, height = height, width
        return Picture(to_rgb(image), width, height)


def read_image(data: bytes, *, max_pixels: int) -> Image.Image:
    """A loaded image as it is stored, for what must see more than colours, such as masks; `to_rgb` takes it.

    Raises:
        TooLarge, Refusal: as in `decode_image`.
    """
    with refusals(data):
        image, _ = open_image(data, max_pixels, None)
        to_rgb(image)
        return image


@contextmanager
def refusals(data: bytes) -> Iterator[None]:
    """Whatever goes wrong while bytes are decoded, as a refusal."""
    try:
        with WHOLE_IMAGES, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns where this module refuses or accepts
            yield
    except Refusal:
        raise
    except Image.DecompressionBombError as error:
        raise TooLarge(f"image is too large: {one_line(error)}") from error
    except MemoryError as error:
        raise TooLarge(f"image is too large for the memory of this machine ({len(data)} bytes as stored)") from error
    except Exception as error:  # Pillow's decoders raise many types on damaged bytes; each means: cannot be decoded
        raise Refusal(f"image is truncated or damaged: {one_line(error)}") from error


def open_image(data: bytes, max_pixels: int, short_side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """A loaded image, JPEGs perhaps reduced, and the (width, height) that its header states."""
    if not data:
        raise Refusal("file is empty (0 bytes)")
    if data.startswith(png.MAGIC):
        return open_png(data, max_pixels)
    if data.startswith(jpeg.MAGIC):
        return open_jpeg(data, max_pixels, short_side)
    image = open_other(data)
    check_size(image.size, max_pixels)
    check_frames(count_frames(image), image.format)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        prepare_tiff(image, max_pixels)
    image.load()
    return image, image.size


def open_png(data: bytes, max_pixels: int) -> tuple[Image.Image, tuple[int, int]]:
    """A loaded PNG and its size."""
    size = png.read_size(data)
    check_size(size, max_pixels)
    contents = png.take_apart(data)
    check_frames(contents.num_frames, "PNG")
    image = png.load(contents)
    set_metadata(image, contents)
    return image, image.size


def open_jpeg(data: bytes, max_pixels: int, short_side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """A loaded JPEG, perhaps reduced, and its size."""
    contents = jpeg.take_apart(data)
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(contents.data))
    size = image.size
    check_size(size, max_pixels)
    if short_side is not None:
        image.draft(None, (short_side, short_side))
    image.load()
    set_metadata(image, contents)
    damage = jpeg.find_damage(contents.data)
    if damage is not None:
        raise Refusal(f"image is truncated or damaged: {damage}")
    return image, size


def set_metadata(image: Image.Image, contents: png.Contents | jpeg.Contents) -> None:
    """Put what a container holds beside its pixels where Pillow has it too."""
    image.info.update({name: value for name, value in (("exif", contents.exif), ("xmp", contents.xmp), ("icc_profile", contents.profile))
                       if value is not None})


def open_other(data: bytes) -> ImageFile.ImageFile:
    """An image of the other formats, not loaded; Pillow tells by its first bytes which one it is."""
    Image.init()
    reasons = []
    for name in OTHER_FORMATS:
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(data[:16]) is not True:
            continue
        try:
            return factory(io.BytesIO(AVIF_EXIF.sub(rb"\1free", data) if name == "AVIF" else data), "")
        except (SyntaxError, IndexError, TypeError, KeyError, EOFError, zlib.error) as error:
            if accepts is not None:
                reasons.append(f"{name}: {one_line(error)}")
    if reasons:
        raise Refusal(f"image is damaged, or of a kind that is not read ({'; '.join(reasons)})")
    raise Refusal(f"not an image of a known format ({len(data)} bytes, starting with {data[:8]!r})")


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Refuse by what the header says, before pixels are decoded."""
    width, height = size
    if width * height > max_pixels:
        raise TooLarge(f"image is too large: {width} x {height} pixels, at most {max_pixels} are accepted")


def check_frames(num_frames: int, kind: str | None) -> None:
    """Refuse what holds more than one picture: only one of them could be judged."""
    if num_frames > 1:
        count = f"more than {MAX_PAGES_COUNTED}" if num_frames > MAX_PAGES_COUNTED and kind == "TIFF" else str(num_frames)
        what = "image with {} pages; only images of one page are accepted" if kind == "TIFF" else (
            "animated image with {} frames; only still images are accepted")
        raise Refusal(what.format(count))


def count_frames(image: ImageFile.ImageFile) -> int:
    """How many pictures a file holds, counted without decoding one; of a TIFF's pages no more than MAX_PAGES_COUNTED are looked for."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(getattr(image, "n_frames", 1))
    number = 1
    while image.is_animated and number <= MAX_PAGES_COUNTED:
        try:
            image.seek(number)
        except EOFError:
            break
        number += 1
    if number > 1:
        image.seek(0)
    return number


def prepare_tiff(image: TiffImagePlugin.TiffImageFile, max_pixels: int) -> None:
    """Keep Pillow from what it would do beyond decoding: follow broken directories of metadata, make room for tiles of any size."""
    exif = image.getexif()
    for tag in TiffTags.TAGS_V2_GROUPS:
        exif.pop(tag, None)
    width, length = (image.tag_v2.get(tag, 0) for tag in (TILE_WIDTH, TILE_LENGTH))
    if isinstance(width, int) and isinstance(length, int) and width * length > max(max_pixels, 1 << 20):
        raise TooLarge(f"image is too large: its tiles have {width} x {length} pixels, at most {max_pixels} are accepted")


def find_orientation(image: Image.Image) -> int:
    """The orientation of an image from Pillow, loaded; a TIFF is upright then."""
    exif, xmp = image.info.get("exif"), image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    xmp = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp
    if isinstance(exif, bytes) or isinstance(image, TiffImagePlugin.TiffImageFile):
        return read_orientation(exif if isinstance(exif, bytes) else None, xmp if isinstance(xmp, bytes) else None)
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, UPRIGHT)  # of an image that is no file, or of a kind that only Pillow reads
    except Exception:  # Pillow raises many types on damaged metadata; each means: nothing is known
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT


def to_rgb(image: Image.Image) -> Pixels:
    """Pixels of a loaded image as uint8 (height, width, 3).

    Raises:
        Refusal: samples whose white is not known, or a profile that cannot be applied.
    """
    orientation, profile = find_orientation(image), image.info.get("icc_profile")
    colours, alpha = split_alpha(image)
    rgb = to_srgb(colours, profile)
    if alpha is not None:
        rgb.putalpha(alpha)
        rgb = Image.alpha_composite(Image.new("RGBA", rgb.size, (255, 255, 255, 255)), rgb).convert("RGB")
    return np.array(turn_upright(rgb, orientation), dtype=np.uint8)


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours of a loaded image, in a mode that a colour profile may fit, and its alpha channel where it has one.

    Raises:
        Refusal: samples whose white is not known.
    """
    if image.mode == "F":
        raise Refusal("floating-point image; no value of it is known to be white: store it with 8 or 16 bits")
    if image.mode in INTEGER_MODES:
        image = to_eight_bits(image)
    if image.has_transparency_data:
        layer = to_layers(image)
        return layer.getchannel("L") if layer.mode == "LA" else layer.convert("RGB"), layer.getchannel("A")
    return image.convert({"P": "RGB", "1": "L"}[image.mode]) if image.mode in ("P", "1") else image, None


def to_layers(image: Image.Image) -> Image.Image:
    """An image with transparency in mode LA or RGBA."""
    if image.mode in ALPHA_OF:
        return image.convert(ALPHA_OF[image.mode])
    if image.mode in ("LA", "RGBA"):
        return image
    clear = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:  # of 16 bits, of which Pillow keeps the higher 8
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    return image.convert("LA" if image.mode == "L" else "RGBA")


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of up to 16 bits in mode L, or LA where a value is transparent.

    Raises:
        Refusal: signed samples, or more bits: no value is known to be white.
    """
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    bits, is_signed = max(tags.get(BITS_PER_SAMPLE, (16,))), max(tags.get(SAMPLE_FORMAT, (1,))) != 1
    values = np.asarray(image).astype(np.int64)
    if bits > 16 or is_signed or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise Refusal(f"integer image of {'signed samples' if is_signed else 'more than 16 bits'}; no value of it is known to be white: "
                      "store it with 8 or 16 bits")
    white = (1 << bits) - 1
    grey = np.clip((values * 255 + white // 2) // white, 0, 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == 0:
        grey = 255 - grey
    shown = Image.fromarray(grey)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        shown.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return shown
