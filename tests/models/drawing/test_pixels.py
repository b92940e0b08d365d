import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.ft2font import FT2Font
from PIL import Image

from glideslope.models.drawing.pixels import (
    caption_font,
    captioned_sheet,
    contact_sheet,
    drawable,
    fit_square,
    font_path,
    from_pil,
    to_model_range,
    to_pil,
    to_uint8,
    wrap,
)


def test_every_pixel_value_survives_the_way_into_the_model_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    x = to_model_range(pixels)
    assert (float(x.min()), float(x.max())) == (-1, 1)
    assert torch.equal(to_uint8(x), pixels)


def test_what_lies_outside_the_range_is_clamped() -> None:
    assert to_uint8(torch.tensor([-3.0, -1.0, 0.0, 1.0, 7.0])).tolist() == [0, 0, 128, 255, 255]


def test_a_picture_survives_the_way_through_pil() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    images = [Image.fromarray(picture) for picture in pixels]
    x = from_pil(images, 8)
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


def test_a_sheet_holds_every_picture_enlarged_in_rows() -> None:
    images = [Image.new("RGB", (2, 2), colour) for colour in ("red", "lime", "blue")]
    sheet = contact_sheet(images, num_columns=2, scale=3, gap=1)
    assert sheet.size == (15, 15)
    assert [sheet.getpixel(p) for p in ((1, 1), (8, 6), (6, 13), (10, 10), (0, 0))] == [
        (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (255, 255, 255)]


def test_captions_stand_under_their_pictures_and_take_no_room_where_there_are_none() -> None:
    images = [Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")]
    assert captioned_sheet(images, ["", ""], num_columns=2).size == contact_sheet(images, num_columns=2).size
    sheet = np.asarray(captioned_sheet(images, ["an apple", "three words here that wrap"], num_columns=2))
    assert (sheet[4:68, 4:68] == (255, 0, 0)).all()
    under = sheet[68:].min(axis=2) < 128
    assert under[:, 4:68].any() and under[:, 72:136].any()
    assert sheet.shape[0] > 64 + 2 * 4 + 14


@given(st.text(max_size=200), st.integers(20, 200))
def test_wrapped_text_fits_and_keeps_its_words_until_it_is_cut(text: str, width: int) -> None:
    font = caption_font()
    lines = wrap(text, font, width)
    assert len(lines) <= 3
    assert all(len(line) <= 1 or font.getlength(line) <= width for line in lines)
    told, whole = "".join(lines), "".join(text.split())
    assert told.replace(" ", "") == whole or (told.endswith("…") and whole.startswith(told[:-1].replace(" ", "")))


def test_characters_that_the_font_lacks_are_told_by_their_numbers_and_all_others_are_drawn() -> None:
    for text in ("a red square, 2 ÷ 3 …", "Äpfel, яблоко, μήλο", "two\nlines"):
        assert drawable(text) == text
    assert drawable("日本 🍎!") == r"\u65e5\u672c \U0001f34e!"


@given(st.text(max_size=30))
def test_nothing_that_is_drawn_is_the_box_of_an_unknown_character(text: str) -> None:
    font = FT2Font(str(font_path()))
    assert all(font.get_char_index(ord(character)) > 0 for character in drawable(text) if not character.isspace())


def test_captions_in_different_ideographs_look_different_on_the_sheet() -> None:
    images = [Image.new("RGB", (64, 64), "red")] * 2
    sheet = np.asarray(captioned_sheet(images, ["日", "本"], num_columns=2, gap=0))
    assert not np.array_equal(sheet[64:, :64], sheet[64:, 64:])


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
