import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glideslope.models.drawing.pixels import fit_square, to_model_range, to_pil, to_uint8


def test_every_pixel_value_survives_the_way_into_the_model_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    x = to_model_range(pixels)
    assert (float(x.min()), float(x.max())) == (-1, 1)
    assert torch.equal(to_uint8(x), pixels)


def test_what_lies_outside_the_range_is_clamped() -> None:
    assert to_uint8(torch.tensor([-3.0, -1.0, 0.0, 1.0, 7.0])).tolist() == [0, 0, 128, 255, 255]


def test_a_picture_survives_the_way_through_pil() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    x = to_model_range(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert x.shape == (2, 3, 8, 8)
    assert all(np.array_equal(np.asarray(image), picture) for image, picture in zip(to_pil(x), pixels, strict=True))


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([8, 16, 33]))
def test_any_size_becomes_the_asked_square(height: int, width: int, side: int) -> None:
    square = fit_square(np.full((height, width, 3), 77, dtype=np.uint8), side)
    assert square.shape == (side, side, 3)
    assert (square == 77).all()


@pytest.mark.parametrize("shape", [(30, 90), (90, 30)])
def test_the_middle_is_kept_of_what_is_not_square(shape: tuple[int, int]) -> None:
    pixels = np.zeros((*shape, 3), dtype=np.uint8)
    middle = (slice(None), slice(30, 60)) if shape[1] == 90 else (slice(30, 60), slice(None))
    pixels[middle] = 255
    assert (fit_square(pixels, 30) == 255).mean() > 0.95


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (4_000, 1), (1, 20_000_000)])
def test_the_longest_pictures_are_squared_in_little_memory(shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 7, dtype=np.uint8)
    middle = tuple(slice(side // 2 - 8, side // 2 + 8) for side in shape)
    pixels[middle if min(shape) > 1 else (middle[0], slice(None)) if shape[0] > 1 else (slice(None), middle[1])] = 200
    tracemalloc.start()
    square = fit_square(pixels, 256)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert square.shape == (256, 256, 3) and (square == 200).all()


@pytest.mark.parametrize("ratio", [30, 34])
def test_a_long_picture_shows_its_middle_on_both_sides_of_the_ratio_that_is_cropped_first(ratio: int) -> None:
    columns = np.tile(np.linspace(0, 255, 16 * ratio).astype(np.uint8)[None, :, None], (16, 1, 3))
    square = fit_square(columns, 8)
    assert np.abs(square[..., 0].mean() - 127.5) < 2
