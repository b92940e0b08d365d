"""Contact sheets: pictures in rows on white, with or without captions, as PNG."""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .figures import load_matplotlib

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FONT_SIZE, LINE_HEIGHT, MAX_LINES = 11, 14, 3  # of captions on a sheet, in pixels
MAX_SHEET_SIDE = 4096  # in pixels, which every viewer opens
GAP = 4  # pixels between the pictures of a sheet
CELL_SIZE, LABEL_HEIGHT, NUM_LABELLED_COLUMNS = 144, 40, 6  # of a sheet with labels: in pixels, and cells in a row


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


def labelled_sheet(pictures: Sequence[tuple[Image.Image, str, str]]) -> Image.Image:
    """A contact sheet of pictures of any sizes: a square cell for each, with its caption and a note in a line each below.

    Args:
        pictures: RGB image, caption, note.
    """
    font = ImageFont.load_default(FONT_SIZE)
    cells = []
    for picture, caption, note in pictures:
        thumbnail = picture.copy()
        thumbnail.thumbnail((CELL_SIZE - 2 * GAP, CELL_SIZE - 2 * GAP), Image.Resampling.BICUBIC)
        cell = Image.new("RGB", (CELL_SIZE, CELL_SIZE + LABEL_HEIGHT), "white")
        cell.paste(thumbnail, ((CELL_SIZE - thumbnail.width) // 2, GAP))
        for line, (text, colour) in enumerate(((caption, "black"), (note, "#57606a"))):
            ImageDraw.Draw(cell).text((GAP, CELL_SIZE + 18 * line), fit_line(text, font, CELL_SIZE - 2 * GAP), fill=colour, font=font)
        cells.append(cell)
    return contact_sheet(cells, num_columns=min(NUM_LABELLED_COLUMNS, len(cells)), gap=0)


def wrap(text: str, font: Font, width: int) -> list[str]:
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
    return [*lines[:MAX_LINES - 1], with_ellipsis(lines[MAX_LINES - 1], font, width)]


def fit_line(text: str, font: Font, width: int) -> str:
    """A text in one line of a width in pixels, with blanks for breaks of lines; what is left out is told by an ellipsis."""
    text = "".join(" " if character.isspace() else character for character in text)
    return text if font.getlength(text) <= width else with_ellipsis(text, font, width)


def with_ellipsis(text: str, font: Font, width: int) -> str:
    """As much of the beginning of a text as fits into a width in pixels with an ellipsis behind it."""
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


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


def png_bytes(image: Image.Image, *, optimize: bool = True) -> bytes:
    """A picture as PNG; `optimize` takes longer and gives fewer bytes."""
    file = io.BytesIO()
    image.save(file, format="png", optimize=optimize)
    return file.getvalue()
