import json
from pathlib import Path

import pytest
from glideslope.models.drawing import draw_to_file
from glideslope.models.options import DrawOptions
from PIL import Image

from glideslope.errors import RequestError, StorageError, VerificationError
from glideslope.manifest import sha256_file

QUICK = DrawOptions(num_steps=2, seed=7)


def test_a_single_picture_is_written_with_how_it_was_made(whole_release: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = tmp_path / "new" / "one.png"
    draw_to_file(whole_release, "a red square", path, QUICK, progress=lambda done, total, text: told.append((done, total)))
    image = Image.open(path)
    assert image.size == (16, 16)
    made = json.loads(image.text["glideslope"])  # type: ignore[attr-defined]  # PNG only
    assert made == {"prompt": "a red square", "options": QUICK.to_json(), "manifest_sha256": sha256_file(whole_release / "manifest.json")}
    assert told == [(1, 2), (2, 2)]


def test_several_pictures_become_an_enlarged_sheet_of_four_columns(whole_release: Path, tmp_path: Path) -> None:
    draw_to_file(whole_release, "a red square", tmp_path / "sheet.PNG", DrawOptions(num_images=5, num_steps=1))
    assert Image.open(tmp_path / "sheet.PNG").size == (4 * 132 + 4, 2 * 132 + 4)


@pytest.mark.parametrize(("prompt", "name", "told"), [
    ("a red square", "out.jpg", r"end the name with \.png"), (" ", "out.png", "caption is empty")])
def test_an_impossible_request_is_refused_before_the_release_is_read(tmp_path: Path, prompt: str, name: str, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        draw_to_file(tmp_path / "no release", prompt, tmp_path / name, QUICK)


def test_a_path_that_cannot_be_written_is_one_clear_error(whole_release: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        draw_to_file(whole_release, "a red square", tmp_path / "file" / "out.png", QUICK)


def test_nothing_is_drawn_from_a_release_that_was_changed(release: Path, tmp_path: Path) -> None:
    (release / "base" / "config.json").write_text("{}")
    with pytest.raises(VerificationError, match=r"base/config\.json"):
        draw_to_file(release, "a red square", tmp_path / "out.png", QUICK)
    assert not (tmp_path / "out.png").exists()
