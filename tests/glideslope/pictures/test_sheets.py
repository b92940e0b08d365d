import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.ft2font import FT2Font
from PIL import Image

from glideslope.pictures.sheets import (
    CELL_SIZE,
    LABEL_HEIGHT,
    caption_font,
    captioned_sheet,
    contact_sheet,
    drawable,
    fit_line,
    font_path,
    labelled_sheet,
    png_bytes,
    wrap,
)


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


def test_a_labelled_sheet_has_a_cell_per_picture_and_cuts_long_captions() -> None:
    pictures = [(Image.new("RGB", (300, 100), "red"), "a very long caption " * 10, "note") for _ in range(8)]
    sheet = labelled_sheet(pictures)
    assert sheet.size == (6 * CELL_SIZE, 2 * (CELL_SIZE + LABEL_HEIGHT))
    assert sheet.getpixel((CELL_SIZE // 2, CELL_SIZE // 2 - 40)) == (255, 0, 0)
    labels = np.asarray(sheet)[CELL_SIZE:CELL_SIZE + LABEL_HEIGHT].min(axis=2) < 128
    assert labels[:18].any() and labels[18:].any() and not labels[:, CELL_SIZE - 4:CELL_SIZE].any()
    assert pictures[0][0].size == (300, 100)  # the caller's picture is left alone


@given(st.text(max_size=60), st.integers(20, 200))
def test_a_line_fits_and_is_the_text_or_its_beginning(text: str, width: int) -> None:
    line, whole = fit_line(text, font := caption_font(), width), "".join(" " if character.isspace() else character for character in text)
    assert font.getlength(line) <= width
    assert line == whole or (line.endswith("…") and whole.startswith(line[:-1]))


def test_both_spellings_of_a_png_hold_the_same_picture() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    for optimize in (True, False):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(picture, optimize=optimize)))), np.asarray(picture))
