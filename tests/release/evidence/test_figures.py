import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glideslope.errors import ReleaseError, VerificationError
from glideslope.recipe.policy import load_policy
from glideslope.recipe.recipe import Recipe
from glideslope.release import pack
from glideslope.release.documents.card_view import check_figures
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.evidence.figures import MAX_DISTANCE, blur, cut_sheet, draw_figures, measure_distance
from glideslope.release.verify import verify
from glideslope.release.vetting.check import run_gates
from glideslope.release.vetting.gates.card import CARD_COMPLETE
from glideslope.release.vetting.gates.gate import Asked


def png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format="png")
    return sink.getvalue()


def test_figures_drawn_again_are_the_same_bytes_small_and_without_dates(packed_run: Path) -> None:
    release = open_evidence(packed_run / "release")
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


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


PLOTS = ("ledger", "training_loss", "person_scores", "violence_scores")


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_that_moved_by_a_pixel_is_no_other_figure(packed_run: Path, name: str) -> None:
    data = (packed_run / f"release/figures/{name}.png").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        moved = Image.new("RGB", image.size, "white")
        moved.paste(image.convert("RGB"), (1, 1))
    assert 0 < measure_distance(png(moved), data) < MAX_DISTANCE
    assert measure_distance(data, data) == 0


@pytest.mark.parametrize("hinting", [{"text.hinting": "none"}, {"text.antialiased": False}, {"lines.antialiased": False}])
def test_plots_that_another_font_library_drew_pass(packed_run: Path, hinting: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    release = open_evidence(packed_run / "release")
    for key, value in hinting.items():
        monkeypatch.setitem(matplotlib.rcParamsDefault, key, value)
    drawn = draw_figures(release)
    distances = [measure_distance(drawn[f"figures/{name}.png"], (release.directory / f"figures/{name}.png").read_bytes()) for name in PLOTS]
    assert 0 < max(distances) < MAX_DISTANCE


STYLE = {"text.usetex": True, "font.family": "serif", "font.size": 30, "axes.facecolor": "black", "savefig.dpi": 20, "savefig.bbox": "tight",
         "savefig.transparent": True, "lines.linewidth": 9, "path.sketch": "3, 100, 2", "text.antialiased": False, "axes.grid": True,
         "axes.formatter.use_locale": True, "figure.constrained_layout.w_pad": 1}


def test_the_style_of_whoever_verifies_changes_no_figure(packed_run: Path) -> None:
    import matplotlib

    release = open_evidence(packed_run / "release")
    with matplotlib.rc_context(STYLE | {"path.sketch": (3, 100, 2)}):
        drawn = draw_figures(release)
        assert matplotlib.rcParams["font.size"] == 30
    assert {path: data == (release.directory / path).read_bytes() for path, data in drawn.items()} == dict.fromkeys(drawn, True)


@pytest.mark.parametrize(("settings", "told"), [
    ("".join(f"{key}: {value}\n" for key, value in STYLE.items()).encode(), None), (b"font.size: \xff\xfe", "matplotlib cannot start with")])
def test_a_sound_release_verifies_under_any_matplotlibrc(packed_run: Path, tmp_path: Path, settings: bytes, told: str | None) -> None:
    (tmp_path / "matplotlibrc").write_bytes(settings)
    done = subprocess.run([sys.executable, "-m", "glideslope", "verify", str(packed_run / "release")], capture_output=True, text=True,
                          env=os.environ | {"MATPLOTLIBRC": str(tmp_path)}, timeout=120, check=False)
    assert done.returncode == (0 if told is None else 1), done.stderr
    assert told is None or told in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("forge", [lambda image: image.paste("red", (100, 60, 200, 140)), lambda image: image.paste("red", (301, 77, 341, 117)),
                                   lambda image: image.paste("white", (0, 0, *image.size))], ids=["red", "small red", "blank"])
def test_a_plot_with_a_patch_or_wiped_blank_is_refused(release_dir: Path, name: str, forge: Any) -> None:
    image = opened(release_dir / f"figures/{name}.png")
    forge(image)
    image.save(release_dir / f"figures/{name}.png")
    assert [problem.split(":")[0] for problem in check_figures(release_dir)] == [f"figures/{name}.png"]


@pytest.mark.parametrize("name", ["evaluation_worst", "evaluation_captions"])
@pytest.mark.parametrize("place", [(10, 10), (110, 90)])
def test_one_pixel_of_a_picture_of_the_evaluation_is_refused(release_dir: Path, name: str, place: tuple[int, int]) -> None:
    image = opened(release_dir / f"figures/{name}.png")
    red, green, blue = image.getpixel(place)  # type: ignore[misc]
    image.putpixel(place, (red ^ 1, green, blue))
    image.save(release_dir / f"figures/{name}.png")
    (problem,) = check_figures(release_dir)
    assert "1 of its pictures are not those of figures/evaluation_samples.png" in problem


def test_a_sheet_whose_letters_are_smoothed_otherwise_passes(release_dir: Path) -> None:
    path = release_dir / "figures/evaluation_worst.png"
    image = opened(path)
    box = (0, 4 + 96, image.width, image.height)
    image.paste(image.crop(box).point(lambda value: min(255, value + 20)), box)
    image.save(path)
    assert check_figures(release_dir) == []


def test_a_figure_that_shows_nothing_as_it_is_transparent_is_refused(release_dir: Path) -> None:
    path = release_dir / "figures/ledger.png"
    image = opened(path)
    image.putalpha(0)
    image.save(path)
    assert len(check_figures(release_dir)) == 1


def test_a_figure_that_moves_or_whose_colours_a_profile_changes_is_refused(release_dir: Path) -> None:
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red:red + 4], profile[blue:blue + 4] = b"bXYZ", b"rXYZ"
    path = release_dir / "figures/ledger.png"
    image = opened(path)
    image.save(path, icc_profile=bytes(profile))
    assert len(check_figures(release_dir)) == 1
    image.save(path, save_all=True, append_images=[Image.new(image.mode, image.size, "red")])
    assert len(check_figures(release_dir)) == 1
    image.save(path)
    assert check_figures(release_dir) == []


@pytest.mark.parametrize(("name", "other"), [("ledger", "training_loss"), ("evaluation_worst", None)])
def test_forged_figures_are_refused_by_verify_and_check_though_the_manifest_fits(tamper: Any, name: str, other: str | None) -> None:
    path = tamper.directory / f"figures/{name}.png"
    if other is None:
        Image.new("RGB", opened(path).size, "white").save(path)
    else:
        path.write_bytes((tamper.directory / f"figures/{other}.png").read_bytes())
    tamper.seal()
    with pytest.raises(VerificationError, match=f"figures/{name}.png: is not what the evidence draws"):
        verify(tamper.directory)
    with pytest.raises(ReleaseError, match=f"gate card complete: figures/{name}.png: is not what the evidence draws"):
        run_gates(open_evidence(tamper.directory), [CARD_COMPLETE], Asked(load_policy(None)), shown=tamper.directory)


def test_a_stage_s_figure_that_another_drew_is_named_by_the_card_s_check(release_dir: Path) -> None:
    Image.new("RGB", (48, 48), "white").save(release_dir / "figures/person_precision_recall.png")
    (problem,) = check_figures(release_dir)
    assert "person_precision_recall.png: is not the precision_recall.png that stage filters/person recorded" in problem


def test_the_pictures_of_a_sheet_are_cut_out_where_they_lie(tmp_path: Path) -> None:
    from glideslope.pictures.sheets import contact_sheet

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


def test_where_nothing_can_be_drawn_verify_says_so_and_the_gate_refuses(packed_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    assert not any("matplotlib" in what for what in verify(packed_run / "release").checked)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert verify(packed_run / "release").checked["figures drawn again (matplotlib is missing)"] == 0
    with pytest.raises(ReleaseError, match=r"gate card complete: .*cannot be checked"):
        run_gates(open_evidence(packed_run / "release"), [CARD_COMPLETE], Asked(load_policy(None)), shown=packed_run)
