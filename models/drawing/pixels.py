"""The one place where 8-bit images meet the models' float range, and where pictures are laid out on a sheet."""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...pictures.figure_style import load_matplotlib

Pixels = NDArray[np.uint8]
MAX_RATIO = 32  # long side to short side, up to which a picture is resized whole
FONT_SIZE, LINE_HEIGHT, MAX_LINES = 11, 14, 3  # of captions on a sheet, in pixels
MAX_SHEET_SIDE = 4096  # in pixels, which every viewer opens
GAP = 4  # pixels between the pictures of a sheet


def to_model_range(pixels: Tensor) -> Tensor:
    """uint8 (..., H, W) in 0..255 -> float32 of the same shape in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Floats in [-1, 1], clamped -> uint8 of the same shape."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_pil(x: Tensor) -> list[Image.Image]:
    """(N, 3, H, W) in [-1, 1] -> N RGB images."""
    return [Image.fromarray(picture) for picture in to_uint8(x).permute(0, 2, 3, 1).cpu().numpy()]


def from_pil(images: Sequence[Image.Image], image_size: int) -> Tensor:
    """RGB images of any size -> float32 (N, 3, S, S) in [-1, 1], cropped as `fit_square`."""
    squares = np.stack([fit_square(np.asarray(image.convert("RGB")), image_size) for image in images])
    return to_model_range(torch.from_numpy(squares).permute(0, 3, 1, 2))


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


def largest_grid(image: Image.Image, *, scale: int = 1, max_columns: int) -> tuple[int, int]:
    """Columns and rows of pictures of a size, with captions, on a sheet of at most `MAX_SHEET_SIDE` pixels a side; at least one of each."""
    num_columns = (MAX_SHEET_SIDE - GAP) // (image.width * scale + GAP)
    num_rows = (MAX_SHEET_SIDE - GAP) // (image.height * scale + MAX_LINES * LINE_HEIGHT + GAP)
    return min(max_columns, max(1, num_columns)), max(1, num_rows)


def contact_sheet(images: Sequence[Image.Image], *, num_columns: int, scale: int = 1, gap: int = GAP) -> Image.Image:
    """Lay equally large images out in rows on white, each enlarged `scale` times without smoothing."""
    width, height = images[0].width * scale, images[0].height * scale
    num_rows = -(-len(images) // num_columns)
    sheet = Image.new("RGB", (num_columns * (width + gap) + gap, num_rows * (height + gap) + gap), "white")
    for i, image in enumerate(images):
        position = (gap + i % num_columns * (width + gap), gap + i // num_columns * (height + gap))
        sheet.paste(image.resize((width, height), Image.Resampling.NEAREST), position)
    return sheet


def png_bytes(image: Image.Image) -> bytes:
    """A picture as an optimised PNG."""
    file = io.BytesIO()
    image.save(file, format="png", optimize=True)
    return file.getvalue()


def captioned_sheet(images: Sequence[Image.Image], captions: Sequence[str], *, num_columns: int, scale: int = 1, gap: int = GAP) -> Image.Image:
    """A contact sheet with each picture's caption under it, wrapped, and cut after a few lines; see `drawable` for its characters.

    Args:
        images: N of one size.
        captions: N texts; where all are empty there is no room for text.
        num_columns: pictures in a row.
        scale: how often each pixel is repeated along both sides.
        gap: pixels between pictures.
    """
    width, height = images[0].width * scale, images[0].height * scale
    font = caption_font()
    texts = [wrap(drawable(caption), font, width) for caption in captions]
    strip = max((len(lines) for lines in texts), default=0) * LINE_HEIGHT
    cells = []
    for image, lines in zip(images, texts, strict=True):
        cell = Image.new("RGB", (width, height + strip), "white")
        cell.paste(image.resize((width, height), Image.Resampling.NEAREST))
        for i, line in enumerate(lines):
            ImageDraw.Draw(cell).text((0, height + i * LINE_HEIGHT), line, fill="black", font=font)
        cells.append(cell)
    return contact_sheet(cells, num_columns=num_columns, gap=gap)


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a text into at most three lines of a width in pixels; what is left out is told by an ellipsis."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            lines.append(line)
            longer = word
        while font.getlength(longer) > width and len(longer) > 1:  # a word wider than the picture is broken
            fits = max(1, next(n for n in range(len(longer) - 1, -1, -1) if n == 0 or font.getlength(longer[:n]) <= width))
            lines.append(longer[:fits])
            longer = longer[fits:]
        line = longer
    lines += [line] if line else []
    if len(lines) <= MAX_LINES:
        return lines
    last = lines[MAX_LINES - 1]
    while last and font.getlength(last + "…") > width:
        last = last[:-1]
    return [*lines[:MAX_LINES - 1], last + "…"]


def drawable(text: str) -> str:
    """A text with every character that the font does not have as its number, such as `\\u65e5`, instead of a box like all others."""
    lacking = {sign for sign in text if not sign.isspace() and ord(sign) not in font_characters()}
    numbers = {ord(sign): f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else f"\\U{ord(sign):08x}" for sign in lacking}
    return text.translate(numbers)


def caption_font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and covers most scripts that have no ideographs."""
    return ImageFont.truetype(font_path(), FONT_SIZE)


@cache
def font_characters() -> frozenset[int]:
    """The characters that the font has, by number."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_path())).get_charmap())


def font_path() -> Path:
    """Where matplotlib keeps the font."""
    return Path(load_matplotlib().get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
