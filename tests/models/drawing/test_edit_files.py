import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glideslope.errors import CheckpointError, GlideslopeError, RequestError, VerificationError
from glideslope.models.drawing.edit_files import Edit, edit_to_files
from glideslope.models.drawing.files import DrawRequest
from glideslope.models.drawing.options import DrawOptions
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.loading.components import WEIGHTS_NAME
from glideslope.store.digests import sha256_file

from ..conftest import picture, sign_again

PROMPT = "a red square"
QUICK = DrawOptions(num_steps=2, seed=7)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a picture, a mask of its right half, and files that are neither."""
    (tmp_path / "photo.png").write_bytes(picture("red", "bar"))
    (tmp_path / "cut.png").write_bytes(picture("red", "bar")[:-60])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    mask = Image.new("L", (24, 24), 0)
    mask.save(tmp_path / "black.png")
    mask.paste(255, (12, 0, 24, 24))
    mask.save(tmp_path / "mask.png")
    mask.resize((48, 24)).save(tmp_path / "wide.png")
    mask.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("L", (24, 24), 9)])
    clear = mask.convert("RGBA")
    clear.putpixel((0, 0), (255, 255, 255, 0))
    clear.save(tmp_path / "clear.png")
    return tmp_path


def made(path: Path) -> dict[str, Any]:
    return dict(json.loads(Image.open(path).text["glideslope"]))  # type: ignore[attr-defined]  # PNG only


def edit_of(files: Path, out: str = "out.png", mask: str | None = None, strength: float | None = None, **request: Any) -> Edit:
    """An edit of the photo, quick, of one result."""
    drawing = DrawRequest([request.pop("prompt", PROMPT)], files / out, request.pop("options", QUICK), **request)
    return Edit(drawing, files / "photo.png", None if mask is None else files / mask, strength)


def test_inpainting_keeps_what_the_mask_leaves_and_remembers_how_it_was_made(whole_release: Path, files: Path) -> None:
    told: list[tuple[int, int]] = []
    edit = edit_of(files, "new/out.png", mask="mask.png")
    written = edit_to_files(whole_release, edit, progress=lambda done, total, text: told.append((done, total)))
    assert written == [files / "new" / "out.png"]
    photo, mask = Image.open(files / "photo.png"), Image.open(files / "mask.png")
    expected = GlidePipeline.from_pretrained(whole_release).inpaint(PROMPT, photo, mask, options=QUICK).images[0]
    assert np.array_equal(np.asarray(Image.open(written[0])), np.asarray(expected))
    assert told == [(1, 2), (2, 2)]
    assert made(written[0]) == {
        "prompt": PROMPT, "seed": 7, "options": json.loads(json.dumps(QUICK.to_json())), "strength": None, "upsampled": False,
        "clip": None, "dtype": "float32", "variant": None, "device": "cpu",
        "image_sha256": sha256_file(files / "photo.png"), "mask_sha256": sha256_file(files / "mask.png"),
        "manifest_sha256": sha256_file(whole_release / "manifest.json")}


def test_without_a_mask_the_picture_is_varied(whole_release: Path, files: Path) -> None:
    edit_to_files(whole_release, edit_of(files, strength=0.3))
    photo = Image.open(files / "photo.png")
    expected = GlidePipeline.from_pretrained(whole_release).vary(photo, PROMPT, 0.3, options=QUICK).images[0]
    assert np.array_equal(np.asarray(Image.open(files / "out.png")), np.asarray(expected))
    assert made(files / "out.png")["strength"] == 0.3
    edit_to_files(whole_release, edit_of(files, "other.png", strength=np.float32(0.5)))  # type: ignore[arg-type]  # numpy's numbers will do
    assert made(files / "other.png")["strength"] == 0.5
    edit_to_files(whole_release, edit_of(files, "third.png"))
    assert made(files / "third.png")["strength"] == 0.6


def test_progress_counts_the_steps_of_a_small_strength(whole_release: Path, files: Path) -> None:
    told: list[tuple[int, int]] = []
    options = dataclasses.replace(QUICK, num_steps=50)
    edit_to_files(whole_release, edit_of(files, strength=0.003, options=options), progress=lambda done, total, text: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_result_is_edited_again_and_its_kept_half_stays(whole_release: Path, files: Path) -> None:
    edit_to_files(whole_release, edit_of(files, "first.png", mask="mask.png"))
    mask = Image.new("1", (16, 16), 0)
    mask.paste(1, (0, 8, 16, 16))
    mask.save(files / "below.png")
    again = edit_of(files, "second.png", mask="below.png", prompt="a blue bar")
    edit_to_files(whole_release, dataclasses.replace(again, image=files / "first.png"))
    first, second = (np.asarray(Image.open(files / name)) for name in ("first.png", "second.png"))
    assert np.array_equal(first[:8], second[:8])
    assert not np.array_equal(first[8:], second[8:])


@pytest.mark.parametrize("mask", ["mask.png", None])
def test_upsampling_enlarges_the_result(full_release: Path, files: Path, mask: str | None) -> None:
    edit_to_files(full_release, edit_of(files, mask=mask, upsample=True))
    assert Image.open(files / "out.png").size == (32, 32)
    assert made(files / "out.png")["upsampled"] is True


@pytest.mark.parametrize("mask", ["mask.png", None])
def test_several_results_become_files_with_their_seeds_and_a_sheet(whole_release: Path, files: Path, mask: str | None) -> None:
    written = edit_to_files(whole_release, edit_of(files, "many", mask=mask, options=dataclasses.replace(QUICK, num_images=3)))
    assert [path.name for path in written] == ["0000.png", "0001.png", "0002.png", "sheet.png"]
    assert [made(path)["seed"] for path in written[:-1]] == [7, 8, 9]
    assert made(written[-1])["seeds"] == [7, 8, 9]
    assert all(Image.open(path).size == (16, 16) for path in written[:-1])


def test_only_the_models_that_an_edit_needs_are_loaded(full_release: Path, files: Path) -> None:
    copy = Path(shutil.copytree(full_release, files / "release"))
    for name in ("noised_clip", "upsampler", "upsampler_inpaint"):
        (copy / name / WEIGHTS_NAME).unlink()  # would be missed
    sign_again(copy)
    edit_to_files(copy, edit_of(files, mask="mask.png", upsample=False))
    for upsample in (True, None):
        with pytest.raises(CheckpointError, match="upsampler_inpaint"):
            edit_to_files(copy, edit_of(files, "other.png", mask="mask.png", upsample=upsample))
    with pytest.raises(CheckpointError, match="noised_clip"):
        edit_to_files(copy, edit_of(files, "other.png", options=dataclasses.replace(QUICK, clip_guidance_scale=1.0), upsample=False))


@pytest.mark.parametrize(("changes", "told"), [
    ({"image": "none.png"}, r"--image .*none\.png: No such file"), ({"image": "."}, "--image .*directory"),
    ({"image": "text.png"}, r"--image .*text\.png: not an image of a known format"), ({"image": "cut.png"}, "--image .*truncated or damaged"),
    ({"image": "empty.png"}, r"--image .*empty\.png: file is empty"), ({"image": "moving.gif"}, "--image .*animated image with 2 frames"),
    ({"mask": "none.png"}, r"--mask .*none\.png: No such file"), ({"mask": "moving.gif"}, "--mask .*animated"),
    ({"mask": "black.png"}, "mask: is black everywhere"), ({"mask": "wide.png"}, "mask: 48 x 24 pixels, but the image has 24 x 24"),
    ({"mask": "photo.png"}, r"mask: has colours; .*were image and mask exchanged\?"), ({"mask": "clear.png"}, "mask: has transparent pixels"),
    ({"strength": 0.0}, r"strength is 0\.0"), ({"strength": 1.5}, r"strength is 1\.5"),
    ({"mask": "mask.png", "strength": 0.5}, r"--strength 0\.5 beside --mask")])
def test_an_impossible_edit_is_refused_before_the_release_is_read(files: Path, changes: dict[str, Any], told: str) -> None:
    changes = {name: files / value if isinstance(value, str) else value for name, value in changes.items()}
    with pytest.raises(RequestError, match=told):
        edit_to_files(files / "no release", dataclasses.replace(edit_of(files), **changes))
    assert not (files / "out.png").exists()


def test_a_mask_that_leaves_nothing_to_do_at_the_models_size_is_refused_before_weights_are_read(whole_release: Path, files: Path) -> None:
    copy = Path(shutil.copytree(whole_release, files / "release"))
    (copy / "manifest.json").unlink()
    (copy / "base" / WEIGHTS_NAME).write_bytes(b"no weights")
    Image.new("RGB", (96, 24), "white").save(files / "strip.png")
    mask = Image.new("L", (96, 24), 0)
    mask.paste(255, (0, 0, 10, 24))
    mask.save(files / "side.png")
    edit = dataclasses.replace(edit_of(files), image=files / "strip.png", mask=files / "side.png")
    with pytest.raises(RequestError, match="black everywhere in the middle 24 x 24"):
        edit_to_files(copy, edit)


def test_the_picture_and_the_mask_are_never_overwritten(files: Path) -> None:
    before = {path: path.read_bytes() for path in files.iterdir()}
    for out, option in (("photo.png", "--image"), ("none/../mask.png", "--mask")):
        (files / "none").mkdir(exist_ok=True)
        with pytest.raises(RequestError, match=rf"--out .*: is the file of {option}; name a new one, nothing is overwritten"):
            edit_to_files(files / "no release", edit_of(files, out, mask="mask.png"))
    with pytest.raises(RequestError, match="is there already"):
        edit_to_files(files / "no release", edit_of(files, "wide.png"))
    assert all(path.read_bytes() == data for path, data in before.items())


@pytest.mark.parametrize(("changes", "told"), [({"prompt": " "}, "caption is empty"), ({"out": "out.jpg"}, r"--out .*end the name with \.png")])
def test_an_impossible_request_is_refused_as_for_drawing(files: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        edit_to_files(files / "no release", edit_of(files, **changes))


@pytest.mark.parametrize(("changes", "told"), [
    ({"upsample": True}, "has no upsampler"), ({"upsample": True, "mask": "mask.png"}, "has no upsampler"),
    ({"options": dataclasses.replace(QUICK, clip_guidance_scale=1.0)}, "has no noised_clip")])
def test_a_release_without_what_is_asked_for_is_refused_before_its_weights_are_read(
        release: Path, files: Path, changes: dict[str, Any], told: str) -> None:
    index = json.loads((release / "model_index.json").read_text())
    index.pop("noised_clip")
    (release / "model_index.json").write_text(json.dumps(index))
    sign_again(release)
    (release / "base" / WEIGHTS_NAME).unlink()
    with pytest.raises(RequestError, match=told):
        edit_to_files(release, edit_of(files, **changes))


def test_a_release_that_was_changed_and_a_folder_that_is_none_are_refused(release: Path, files: Path) -> None:
    (release / "base" / "config.json").write_text("{}")
    with pytest.raises(VerificationError, match=r"base/config\.json"):
        edit_to_files(release, edit_of(files))
    with pytest.raises(GlideslopeError, match="no such directory; give the directory of a release"):
        edit_to_files(files / "nowhere", edit_of(files))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("mask", ["JPEG", "0 and 1", "16 bits"])
def test_masks_as_programs_store_them_and_turned_photographs_are_edited(whole_release: Path, files: Path, mask: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = Image.open(files / "photo.png").convert("RGB").crop((0, 0, 24, 18))
    photo.save(files / "turned.png", exif=exif)
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}
    upright = photo.transpose(turns[orientation]) if orientation in turns else photo
    levels = np.zeros((upright.height, upright.width), dtype=np.uint8)
    levels[:, upright.width // 2:] = 1
    {"JPEG": lambda: Image.fromarray(levels * 255).save(files / "m.jpg"), "0 and 1": lambda: Image.fromarray(levels).save(files / "m.png"),
     "16 bits": lambda: Image.fromarray(levels.astype(np.uint16) * 65535).save(files / "m.png")}[mask]()
    edit = dataclasses.replace(edit_of(files), image=files / "turned.png", mask=files / ("m.jpg" if mask == "JPEG" else "m.png"))
    edit_to_files(whole_release, edit)
    expected = GlidePipeline.from_pretrained(whole_release).inpaint(PROMPT, upright, levels, options=QUICK).images[0]
    assert np.array_equal(np.asarray(Image.open(files / "out.png")), np.asarray(expected))


@pytest.mark.parametrize(("image", "told"), [
    ((60_000, 1), None), ((1, 4_000), None), ((8_000, 8_000), "image is too large: 8000 x 8000 pixels, at most 50000000 are accepted; give a")])
def test_thin_pictures_are_edited_and_gigantic_ones_refused(whole_release: Path, files: Path, image: tuple[int, int], told: str | None) -> None:
    Image.new("1", image, 1).save(files / "odd.png")
    edit = dataclasses.replace(edit_of(files), image=files / "odd.png")
    if told is None:
        edit_to_files(whole_release, edit)
        assert Image.open(files / "out.png").size == (16, 16)
    else:
        with pytest.raises(RequestError, match=told):
            edit_to_files(whole_release, edit)
