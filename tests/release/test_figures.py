import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glideslope.config import Recipe
from glideslope.errors import ReleaseError
from glideslope.release import pack
from glideslope.release.card_check import check_figures
from glideslope.release.contents import Release
from glideslope.release.figures import MAX_DISTANCE, blur, cut_sheet, draw_figures, measure_distance
from glideslope.release.verify import verify


def png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format="png")
    return sink.getvalue()


def test_figures_drawn_again_are_the_same_bytes_small_and_without_dates(packed_run: Path) -> None:
    release = Release(packed_run / "release")
    drawn = draw_figures(release)
    assert {path: (release.directory / path).read_bytes() for path in drawn} == drawn
    assert {"figures/person_scores.png", "figures/evaluation_worst.png", "figures/evaluation_captions.png"} <= set(drawn)
    for path, data in drawn.items():
        with Image.open(io.BytesIO(data)) as image:
            assert len(data) < 200_000 and not image.info.keys() & {"Software", "Creation Time", "date:create"}, path
    assert check_figures(release.directory) == []


def test_a_figure_of_other_numbers_is_named(release_dir: Path) -> None:
    (release_dir / "figures/person_scores.png").write_bytes((release_dir / "figures/violence_scores.png").read_bytes())
    (release_dir / "figures/ledger.png").write_bytes(b"no picture")
    problems = check_figures(release_dir)
    assert len(problems) == 2 and "person_scores" in " ".join(problems) and "ledger" in " ".join(problems)


def test_a_line_that_moved_by_a_pixel_is_no_other_figure(packed_run: Path) -> None:
    data = (packed_run / "release/figures/ledger.png").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        moved = Image.new("RGB", image.size, "white")
        moved.paste(image.convert("RGB"), (1, 0))
    assert 0 < measure_distance(png(moved), data) < MAX_DISTANCE
    assert measure_distance(data, data) == 0


def test_the_pictures_of_a_sheet_are_cut_out_where_they_lie(tmp_path: Path) -> None:
    from glideslope.models.pixels import contact_sheet

    tiles = [Image.new("RGB", (12, 12), (20 * number, 0, 0)) for number in range(11)]
    contact_sheet(tiles, num_columns=8, scale=2).save(tmp_path / "sheet.png")
    found = cut_sheet(tmp_path / "sheet.png", 11)
    assert [image.getpixel((0, 0)) for image in found] == [(20 * number, 0, 0) for number in range(11)]
    assert {image.size for image in found} == {(24, 24)}
    with pytest.raises(ReleaseError, match="no sheet of 30 pictures"):
        cut_sheet(tmp_path / "sheet.png", 30)


def test_in_a_blurred_picture_nothing_can_be_made_out() -> None:
    board = Image.fromarray(np.kron(np.indices((48, 48)).sum(axis=0) % 2 * 255, np.ones((6, 6))).astype(np.uint8)).convert("RGB")
    with Image.open(io.BytesIO(blur(png(board)))) as image:
        assert image.size == board.size
        assert np.ptp(np.asarray(image.crop((60, 60, 228, 228))).astype(int)) < 64 < np.ptp(np.asarray(board).astype(int))


def test_a_category_that_asks_for_it_is_released_blurred_only(run_dir: Path, recipe: Recipe) -> None:
    hidden = recipe.model_copy(update={"release": recipe.release.model_copy(update={"blurred": ("violence",)})})
    clear = run_dir / "filters/violence/missed.png"
    assert clear.is_file()
    pack(run_dir, hidden, run_dir / "release")
    released = (run_dir / "release/figures/violence_missed.png").read_bytes()
    assert released == blur(clear.read_bytes()) != clear.read_bytes()
    assert verify(run_dir / "release").checked["files"] > 0
    assert "the test images it missed, blurred." in (run_dir / "release/README.md").read_text()
    assert json.loads((run_dir / "release/evidence/claims.json").read_text())["release.blurred"] == ["violence"]
    shutil.rmtree(run_dir / "release")
