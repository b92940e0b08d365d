import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from glideslope.data_filter.mutations.image_changes import MUTATIONS, TITLES, Planted, find_subject


def drawing(width: int = 80, height: int = 60) -> np.ndarray:
    """A red block with a white hole on white, 24 x 30 pixels from (10, 20)."""
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    pixels[20:50, 10:34] = (200, 0, 0)
    pixels[30:40, 18:26] = 255
    return pixels


def photograph(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)


OTHERS = [Image.new("RGB", (50, 90), (0, 90, 200)), Image.new("RGB", (90, 50), (0, 200, 90))]


def test_the_subject_of_a_drawing_is_what_the_background_does_not_reach() -> None:
    subject = find_subject(drawing())
    assert subject.mask.getextrema() == (0, 255)
    assert subject.box == (10, 20, 34, 50)
    assert np.asarray(subject.mask)[35, 20] == 255  # the hole belongs to the subject
    assert np.asarray(subject.mask).sum() == 255 * 24 * 30


@pytest.mark.parametrize("pixels", [photograph(), np.full((40, 40, 3), 7, dtype=np.uint8)])
def test_where_the_background_is_not_flat_or_there_is_nothing_else_the_whole_counts(pixels: np.ndarray) -> None:
    subject = find_subject(pixels)
    assert subject.mask.getextrema() == (255, 255)
    assert Planted(subject.image, subject.box).area_share == 1


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("pixels", [drawing(), photograph(), np.zeros((1, 300, 3), np.uint8), np.full((2000, 3, 3), 9, np.uint8)])
def test_every_mutation_gives_a_picture_that_depends_on_the_seed_alone(name: str, pixels: np.ndarray) -> None:
    planted = [MUTATIONS[name](find_subject(pixels), OTHERS, np.random.default_rng(5)) for _ in range(2)]
    assert planted[0].encode() == planted[1].encode()
    with Image.open(io.BytesIO(planted[0].encode())) as image:
        assert image.size == planted[0].image.size
        assert image.format == ("JPEG" if name == "jpeg_10" else "PNG")
    assert 0 < planted[0].area_share <= 1
    assert name in TITLES


@given(st.sampled_from([name for name in MUTATIONS if name.startswith(("tiny", "sticker", "collage", "crop"))]), st.integers(0, 10**6))
def test_the_subject_stays_in_the_picture_wherever_it_falls(name: str, seed: int) -> None:
    subject = find_subject(drawing())
    planted = MUTATIONS[name](subject, OTHERS, np.random.default_rng(seed))
    pixels = np.asarray(planted.image).astype(int)
    red = (pixels[..., 0] > 120) & (pixels[..., 1] < 90) & (pixels[..., 2] < 90)
    left, top, right, bottom = planted.box
    rows, columns = np.nonzero(red)
    assert len(rows)
    assert columns.min() >= left - 2 and columns.max() <= right + 1 and rows.min() >= top - 2 and rows.max() <= bottom + 1
    if not name.startswith("crop"):
        assert left >= -1.5 and top >= -1.5 and right <= planted.image.width + 1.5 and bottom <= planted.image.height + 1.5


@pytest.mark.parametrize(("name", "share"), [("unchanged", 0.15), ("tiny_1_2", 0.15 / 4), ("tiny_1_4", 0.15 / 16), ("collage_2x2", 0.15 / 4),
                                             ("collage_3x3", 0.15 / 9), ("rotated_90", 0.15), ("mirrored", 0.15)])
def test_the_share_of_the_area_is_that_of_the_smaller_subject(name: str, share: float) -> None:
    planted = MUTATIONS[name](find_subject(drawing()), OTHERS, np.random.default_rng(0))
    assert planted.area_share == pytest.approx(share, rel=0.15)


def test_turned_and_mirrored_pictures_are_what_their_names_say() -> None:
    subject, pixels = find_subject(photograph()), photograph()
    made = {name: np.asarray(MUTATIONS[name](subject, OTHERS, np.random.default_rng(0)).image) for name in MUTATIONS}
    assert (made["unchanged"] == pixels).all()
    assert (made["mirrored"] == pixels[:, ::-1]).all()
    assert (made["rotated_180"] == pixels[::-1, ::-1]).all()
    assert (made["rotated_90"] == np.rot90(pixels)).all()
    assert (made["inverted"] == 255 - pixels).all()
    assert (made["grey"][..., 0] == made["grey"][..., 2]).all()
    assert made["crop_25"].shape[0] * made["crop_25"].shape[1] == pytest.approx(60 * 80 / 4, rel=0.02)
    assert made["sticker"].shape == pixels.shape and made["sticker"].min(axis=2).max() > 150  # the outline


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (1, 1)])
def test_thin_pictures_are_mutated_like_any_other(shape: tuple[int, int]) -> None:
    subject = find_subject(np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8))
    for mutation in MUTATIONS.values():
        planted = mutation(subject, OTHERS, np.random.default_rng(0))
        assert planted.image.width * planted.image.height < 1_000_000 and planted.encode()
