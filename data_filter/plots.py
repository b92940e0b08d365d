"""Pictures of a filter's evidence."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

CELL_SIZE = 144
CAPTION_HEIGHT = 40
NUM_COLUMNS = 6
MAX_MISSED = 60


def plot_precision_recall(title: str, curve: Sequence[Sequence[float]], audit: Mapping[str, Any]) -> bytes:
    """Draw kept share against recall on the audit labels, the chosen point marked: PNG bytes, equal for equal figures.

    Args:
        title: name of the category.
        curve: points of recall, kept share and threshold, as in filter.json.
        audit: the audit figures, as in filter.json.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    num_positive, num_negative = audit["num_positive"], audit["num_negative"]
    recall = [point[0] for point in curve]
    kept = [point[1] for point in curve]
    precision = [r * num_positive / max(r * num_positive + (1 - k) * num_negative, 1e-12) for r, k in zip(recall, kept, strict=True)]
    axes.plot(recall, kept, color="#1f6feb", label="share of other images kept")
    axes.plot(recall, precision, color="#8b949e", linestyle="--", label="precision")
    if audit["recall"] is not None and audit["kept_share"] is not None:
        axes.plot([audit["recall"]], [audit["kept_share"]], "o", color="#d1242f",
                  label=f"chosen: recall {audit['recall']:.3f}, kept {audit['kept_share']:.3f}")
    axes.set(title=f"{title}: {num_positive} positive and {num_negative} other audit labels", xlabel="recall",
             xlim=(min([0.5, *recall[-1:]]), 1.005) if recall else (0, 1.005), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()


def draw_contact_sheet(pictures: Sequence[tuple[Image.Image, str, str]]) -> bytes:
    """Lay pictures out with a caption and a second line each: PNG bytes.

    Args:
        pictures: RGB image, caption, second line.
    """
    num_columns = min(NUM_COLUMNS, len(pictures))
    num_rows = math.ceil(len(pictures) / num_columns)
    sheet = Image.new("RGB", (num_columns * CELL_SIZE, num_rows * (CELL_SIZE + CAPTION_HEIGHT)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    for place, (picture, caption, note) in enumerate(pictures):
        left, top = place % num_columns * CELL_SIZE, place // num_columns * (CELL_SIZE + CAPTION_HEIGHT)
        picture.thumbnail((CELL_SIZE - 8, CELL_SIZE - 8), Image.Resampling.BICUBIC)
        sheet.paste(picture, (left + (CELL_SIZE - picture.width) // 2, top + 4))
        for line, text in enumerate((caption, note)):
            draw.text((left + 4, top + CELL_SIZE + 18 * line), shorten(text, font), fill="black" if line == 0 else "#57606a", font=font)
    sink = io.BytesIO()
    sheet.save(sink, format="PNG")
    return sink.getvalue()


def shorten(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Cut a text so that it fits into a cell."""
    if font.getlength(text) <= CELL_SIZE - 8:
        return text
    while text and font.getlength(text + "…") > CELL_SIZE - 8:
        text = text[:-1]
    return text + "…"
