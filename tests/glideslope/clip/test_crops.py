import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from glideslope.clip.crops import MAX_RATIO, crop_long, three_crops


def test_a_square_image_gives_one_crop() -> None:
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    crops, weights = three_crops(pixels, 8)
    assert len(crops) == 1 and weights == [1.0]
    assert np.array_equal(crops[0], pixels)


@pytest.mark.parametrize("is_wide", [True, False])
def test_crops_lie_at_both_ends_and_in_the_middle_of_the_long_side(is_wide: bool) -> None:
    wide = np.zeros((8, 20, 3), dtype=np.uint8)
    wide[:, :, 0] = np.arange(20)
    crops, weights = three_crops(wide if is_wide else wide.transpose(1, 0, 2), 8)
    starts = [int(crop[0, 0, 0]) for crop in crops]
    assert starts == [0, 6, 12]
    assert weights == pytest.approx([1 / 3] * 3)
    assert all(crop.shape == (8, 8, 3) for crop in crops)


def test_crops_that_fall_together_keep_their_weight_in_the_mean() -> None:
    crops, weights = three_crops(np.zeros((8, 9, 3), dtype=np.uint8), 8)
    assert len(crops) == 2
    assert weights == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize("shape", [(5, 500), (500, 5), (1, 1), (224, 225), (31, 33)])
def test_the_short_side_always_becomes_the_size_asked(shape: tuple[int, int]) -> None:
    crops, weights = three_crops(np.full((*shape, 3), 7, dtype=np.uint8), 16)
    assert all(crop.shape == (16, 16, 3) and (crop == 7).all() for crop in crops)
    assert sum(weights) == pytest.approx(1)


@given(short=st.integers(1, 4), ratio=st.integers(MAX_RATIO + 1, 4000), is_wide=st.booleans(), size=st.sampled_from([1, 8, 64]))
def test_a_thin_picture_costs_no_more_than_its_crops(short: int, ratio: int, is_wide: bool, size: int) -> None:
    pixels = np.zeros((short, short * ratio, 3) if is_wide else (short * ratio, short, 3), dtype=np.uint8)
    pixels[tuple(slice(-short, None) if side > short else slice(None) for side in pixels.shape[:2])] = 200
    crops, weights = three_crops(pixels, size)
    assert [crop.shape for crop in crops] == [(size, size, 3)] * 3 and weights == pytest.approx([1 / 3] * 3)
    assert [int(crop.max()) for crop in crops] == [0, 0, 200] and int(crops[2].min()) == 200


@pytest.mark.parametrize("shape", [(60_000, 1), (1, 60_000), (4_000, 1), (1, 20_000_000)])
def test_the_longest_pictures_are_cropped_in_little_memory(shape: tuple[int, int]) -> None:
    pixels = np.zeros((*shape, 3), dtype=np.uint8)
    tracemalloc.start()
    assert len(three_crops(pixels, 336)[0]) == 3
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("height", [20, 40])
def test_cropping_before_resizing_shows_what_cropping_afterwards_shows(height: int) -> None:
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (2, 12, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((height * 30, height), Image.Resampling.BICUBIC))
    whole, _ = three_crops(pixels, 16)
    for first, second in zip(whole, crop_long(pixels, 16), strict=True):
        assert np.abs(first.astype(int) - second.astype(int)).mean() < 2
