"""The figures that no stage drew: made while packing, from what the release itself holds, so that they can be made again."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

from ...errors import ReleaseError
from ...model_cards.plots import plot_guidance, plot_ledger, plot_scores, plot_training_loss
from ...pictures import png
from ...pictures.decode import read_image, to_rgb
from ...pictures.figures import load_matplotlib
from ...pictures.refusals import Refusal
from ...recipe.components import NETWORKS
from ...store.whole_files import write_bytes
from ..claims.evaluation import PAIRS_PATH, list_worst, measure_guidance
from .contents import Release, need
from .plan import figure_paths

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLES_PATH = "figures/evaluation_samples.png"
SHEET_COLUMNS, SHEET_GAP = 8, 4  # as `evaluation` lays its pictures out
NUM_CAPTIONED = 16
BLUR_SHARE = 24  # the radius is the picture's short side divided by this
MAX_PIXELS = 100_000_000
TILE_STEP = 16  # pixels; a tile is two steps wide and high
MAX_DISTANCE = 24.0  # of 255, see `measure_distance`
Pairs = Sequence[Mapping[str, object]]
SHEETS: Mapping[str, Callable[[Release], Pairs]] = {
    "figures/evaluation_captions.png": lambda release: release.pairs[:NUM_CAPTIONED],
    "figures/evaluation_worst.png": lambda release: list_worst(release.pairs)}


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
        "figures/training_loss.png": lambda: plot_training_loss(read_losses(release), read_held_back_losses(release)),
        "figures/ledger.png": lambda: plot_ledger(release.curated["kept"], release.curated["dropped"]),
        "figures/guidance.png": lambda: plot_guidance(measure_guidance(release))}
    drawn |= {path: lambda pairs=pairs: draw_captioned(release, pairs(release)) for path, pairs in SHEETS.items()}  # type: ignore[misc]  # bound early
    drawn |= {f"figures/{category.name}_scores.png": lambda name=category.name: draw_scores(release, name)  # type: ignore[misc]  # bound early
              for category in release.categories}
    wanted = figure_paths([category.name for category in release.categories], release.records)
    return {path: draw() for path, draw in drawn.items() if path in wanted}


def can_draw() -> bool:
    """Whether matplotlib is here: it draws the plots, and the captions are set in its font."""
    try:
        load_matplotlib()
    except ImportError:
        return False
    return True


def find_stale_figures(release: Release) -> list[str]:
    """One sentence for each figure that shows something else than the evidence gives, when it is drawn again.

    Pictures of the evaluation must be the same to the pixel. Plots and captions may differ as another version of the drawing
    library draws them: a line or a letter by a pixel, see `measure_distance`.

    Raises:
        ReleaseError: evidence or a figure is missing or malformed.
    """
    problems = []
    for path, data in draw_figures(release).items():
        found = release.path(path).read_bytes()
        if found == data:
            continue
        distance = measure_distance(found, data)
        if distance > MAX_DISTANCE:
            problems.append(f"{path}: is not what the evidence draws (in one place colours lie {distance:.0f} of 255 apart; other drawing "
                            f"libraries explain at most {MAX_DISTANCE:.0f}); pack the release again")
        elif path in SHEETS and (number := count_changed(release, found, data, len(SHEETS[path](release)))):
            problems.append(f"{path}: {number} of its pictures are not those of {SAMPLES_PATH}; pack the release again")
    return problems


def measure_distance(first: bytes, second: bytes) -> float:
    """How far two pictures lie apart where they do most, 0 to 255: the largest distance of mean colours over overlapping tiles.

    Within a tile, lines and letters may move by a pixel or be smoothed otherwise: means hardly change. Measured on the figures of a
    trained run: at most 19 with letters unhinted, unsmoothed or a pixel aside; 130 and more for a patch of 80 × 100 pixels. A library that
    lays the axes out anew is refused: better so than a bound under which a blank plot passes.

    Returns:
        255 where sizes differ, or where the first is no opaque PNG.
    """
    pictures = [read_pixels(data) for data in (first, second)]
    if pictures[0] is None or pictures[1] is None or pictures[0].shape != pictures[1].shape:
        return 255.0
    apart = pictures[0].astype(np.float64) - pictures[1]
    height, width = apart.shape[:2]
    padded = np.pad(apart, ((0, -height % TILE_STEP + TILE_STEP), (0, -width % TILE_STEP + TILE_STEP), (0, 0)))
    steps = padded.reshape(padded.shape[0] // TILE_STEP, TILE_STEP, padded.shape[1] // TILE_STEP, TILE_STEP, 3).mean(axis=(1, 3))
    tiles = (steps[:-1, :-1] + steps[1:, :-1] + steps[:-1, 1:] + steps[1:, 1:]) / 4
    return float(np.abs(tiles).mean(axis=-1).max())


def read_pixels(data: bytes) -> "NDArray[np.uint8] | None":
    """The pixels of a PNG without transparency, (H, W, 3); none for anything else: what shines through would not be compared."""
    try:
        image = read_image(data, max_pixels=MAX_PIXELS) if data.startswith(png.MAGIC) else None
        return to_rgb(image) if image is not None and not image.has_transparency_data else None
    except Refusal:
        return None


def count_changed(release: Release, found: bytes, drawn: bytes, num_pictures: int) -> int:
    """In how many places of a captioned sheet another picture stands; captions are not looked at.

    Args:
        release: says how large a picture of the evaluation is.
        found, drawn: two sheets of one size.
        num_pictures: on each.
    """
    ours, theirs = read_pixels(found), read_pixels(drawn)
    if ours is None or theirs is None or ours.shape != theirs.shape:
        raise ReleaseError("sheets of different sizes cannot be compared; pack the release again")
    side, num_columns = cut_sheet(release.path(SAMPLES_PATH), len(release.pairs))[0].width, min(SHEET_COLUMNS, num_pictures)
    places = [(top, left) for top in _starts(ours.shape[0], -(-num_pictures // num_columns)) for left in _starts(ours.shape[1], num_columns)]
    return sum(not np.array_equal(ours[top:top + side, left:left + side], theirs[top:top + side, left:left + side]) for top, left in places)


def _starts(size: int, number: int) -> list[int]:
    """Where each of a number of equal cells begins, with a gap before, between and after them."""
    return [SHEET_GAP + place * ((size - SHEET_GAP) // number) for place in range(number)]


def read_losses(release: Release) -> dict[str, tuple[list[int], list[float]]]:
    """Title of each trained network -> images seen after each step, loss of each step."""
    rows = {NETWORKS[name].title: release.metrics(name) for name in release.trained_networks}
    return {title: ([row["num_images"] for row in found], [row["loss"] for row in found]) for title, found in rows.items() if found}


def read_held_back_losses(release: Release) -> dict[str, tuple[list[int], list[float]]]:
    """Title of each network whose loss on held-back images was measured -> images seen by then, and that loss."""
    rows = {NETWORKS[name].title: release.held_back_losses(name) for name in release.trained_networks}
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


def draw_captioned(release: Release, pairs: Pairs) -> bytes:
    """Some pictures of the evaluation with their prompts below, cut out of its contact sheet."""
    from ...pictures.sheets import captioned_sheet

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
