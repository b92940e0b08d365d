import numpy as np
import pytest

from glideslope.data_filter.crops import three_crops


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
