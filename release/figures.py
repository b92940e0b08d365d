"""The figures that no stage drew: made while packing, from what the release itself holds, so that they can be made again."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ..errors import ReleaseError
from ..manifest import write_bytes
from ..model_cards.plots import plot_guidance, plot_ledger, plot_scores, plot_training_loss
from .claims.training import PAIRS_PATH, list_worst, measure_guidance
from .contents import Release, need
from .layout import MODELS
from .plan import figure_paths

LOSS_TITLES = {"base": "base model", "noised_clip": "noised CLIP"}
SAMPLES_PATH = "figures/evaluation_samples.png"
SHEET_COLUMNS, SHEET_GAP = 8, 4  # as `evaluation` lays its pictures out
NUM_CAPTIONED = 16
BLUR_SHARE = 24  # the radius is the picture's short side divided by this
MAX_DISTANCE = 5.0  # of 255; all moved by a pixel is about 2


def write_figures(release: Release) -> None:
    """Draw every figure of the release that no stage drew."""
    for path, data in draw_figures(release).items():
        write_bytes(release.directory / path, data)


def draw_figures(release: Release) -> dict[str, bytes]:
    """The figures by their path in the release, as PNG bytes: equal for equal evidence and equal versions of the drawing libraries.

    Raises:
        ReleaseError: evidence is missing or malformed.
    """
    drawn: dict[str, Callable[[], bytes]] = {
        "figures/training_loss.png": lambda: plot_training_loss(read_losses(release)),
        "figures/ledger.png": lambda: plot_ledger(release.curated["kept"], release.curated["dropped"]),
        "figures/evaluation_captions.png": lambda: draw_captioned(release, release.pairs[:NUM_CAPTIONED]),
        "figures/evaluation_worst.png": lambda: draw_captioned(release, list_worst(release.pairs)),
        "figures/guidance.png": lambda: plot_guidance(measure_guidance(release))}
    drawn |= {f"figures/{category.name}_scores.png": lambda name=category.name: draw_scores(release, name)  # type: ignore[misc]  # bound early
              for category in release.categories}
    wanted = figure_paths([category.name for category in release.categories], release.records)
    return {path: draw() for path, draw in drawn.items() if path in wanted}


def find_stale_figures(release: Release) -> list[str]:
    """One sentence for each figure that shows something else than the evidence gives, when it is drawn again.

    Other versions of the drawing library move a line or a letter by a pixel; that passes.
    """
    problems = []
    for path, data in draw_figures(release).items():
        found = release.path(path).read_bytes()
        distance = 0.0 if found == data else measure_distance(found, data)
        if distance > MAX_DISTANCE:
            problems.append(f"{path}: is not what the evidence draws (pixels lie {distance:.1f} of 255 apart on average); "
                            "pack the release again")
    return problems


def measure_distance(first: bytes, second: bytes) -> float:
    """Mean distance of two pictures at a quarter of their size, 0 to 255; 255 where sizes differ or the first is no picture."""
    pictures = []
    for data in (first, second):
        try:
            with Image.open(io.BytesIO(data)) as image:
                pictures.append(np.asarray(image.convert("RGB").reduce(4), dtype=np.float32))
        except (OSError, ValueError, Image.DecompressionBombError):
            return 255.0
    return float(np.abs(pictures[0] - pictures[1]).mean()) if pictures[0].shape == pictures[1].shape else 255.0


def read_losses(release: Release) -> dict[str, tuple[list[int], list[float]]]:
    """Title of each model -> images seen after each step, loss of each step."""
    rows = {LOSS_TITLES[model]: release.metrics(model) for model in MODELS}
    return {title: ([row["num_images"] for row in found], [row["loss"] for row in found]) for title, found in rows.items() if found}


def draw_scores(release: Release, category: str) -> bytes:
    """Histograms of a filter's scores of labelled images that it was not fitted to."""
    table = release.scores(category)
    rows = zip(*(table[name].to_pylist() for name in ("label", "in_training", "score")), strict=True)
    scores: dict[str, list[float]] = {f"labelled as not {category}": [], f"labelled as {category}": []}
    names = list(scores)
    for label, trained, score in rows:
        if not trained:
            scores[names[label]].append(score)
    return plot_scores(category, scores, need(release.filter(category), "threshold", where=f"evidence/filters/{category}/filter.json"))


def draw_captioned(release: Release, pairs: Sequence[Mapping[str, object]]) -> bytes:
    """Some pictures of the evaluation with their prompts below, cut out of its contact sheet."""
    from ..models.pixels import captioned_sheet

    cells = cut_sheet(release.path(SAMPLES_PATH), len(release.pairs))
    pictures = [cells[index] for index in (need(pair, "index", where=PAIRS_PATH) for pair in pairs) if index < len(cells)]
    captions = [str(need(pair, "prompt", where=PAIRS_PATH)) for pair in pairs]
    if len(pictures) != len(captions):
        raise ReleaseError(f"{PAIRS_PATH}: names pictures that {SAMPLES_PATH} does not show; run the evaluation again, then pack")
    return encode(captioned_sheet(pictures, captions, num_columns=min(SHEET_COLUMNS, len(pictures))))


def cut_sheet(path: Path, num_pictures: int) -> list[Image.Image]:
    """The pictures of a contact sheet of the evaluation, in order.

    Raises:
        ReleaseError: it is no sheet of so many pictures.
    """
    try:
        with Image.open(path) as opened:
            sheet = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ReleaseError(f"{path.name}: not readable as a picture ({error}); run the evaluation again, then pack") from error
    num_rows = -(-num_pictures // SHEET_COLUMNS)
    width, height = ((side - SHEET_GAP) // number - SHEET_GAP for side, number in zip(sheet.size, (SHEET_COLUMNS, num_rows), strict=True))
    expected = tuple(number * (side + SHEET_GAP) + SHEET_GAP for number, side in ((SHEET_COLUMNS, width), (num_rows, height)))
    if width != height or width < 1 or sheet.size != expected:
        raise ReleaseError(f"{path.name}: {sheet.width} x {sheet.height} pixels are no sheet of {num_pictures} pictures in rows of "
                           f"{SHEET_COLUMNS}; run the evaluation again, then pack")
    corners = [(SHEET_GAP + place % SHEET_COLUMNS * (width + SHEET_GAP), SHEET_GAP + place // SHEET_COLUMNS * (height + SHEET_GAP))
               for place in range(num_pictures)]
    return [sheet.crop((left, top, left + width, top + height)) for left, top in corners]


def blur(data: bytes) -> bytes:
    """A picture in which nothing can be made out any more: PNG bytes to PNG bytes."""
    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("RGB")
    return encode(small.filter(ImageFilter.GaussianBlur(max(2.0, min(small.size) / BLUR_SHARE))))


def encode(image: Image.Image) -> bytes:
    """PNG bytes without dates or versions."""
    sink = io.BytesIO()
    image.save(sink, format="png", optimize=True)
    return sink.getvalue()
