"""A JPEG that was cut and closed again is damaged; whole ones are never called so."""

import io
import itertools
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from glideslope.pictures.decode import decode_image, decode_picture
from glideslope.pictures.refusals import Refusal

from .writers import LIMIT, encode, photograph

END = b"\xff\xd9"
SETTINGS = [{"quality": quality, "progressive": progressive, "subsampling": subsampling, **restarts}
            for quality, progressive, subsampling, restarts in itertools.product(
                (30, 90), (False, True), (0, 1, 2), ({}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1, "optimize": True}))]
MIDDLE_GREY = Image.new("RGB", (200, 150), (128, 128, 128))


def whole_jpegs() -> list[bytes]:
    pictures = [photograph(200, 150), photograph(33, 17, 1), MIDDLE_GREY, Image.new("RGB", (40, 40)), photograph(64, 64).convert("L"),
                MIDDLE_GREY.convert("L"), photograph(64, 64).convert("CMYK"), Image.new("CMYK", (64, 64), (127, 127, 127, 127))]
    half_grey = photograph(160, 160)
    half_grey.paste((128, 128, 128), (0, 80, 160, 160))
    return [encode(picture, "JPEG", **settings) for picture in (*pictures, half_grey) for settings in SETTINGS]


def test_whole_jpegs_of_all_kinds_are_read_at_full_size_and_reduced() -> None:
    for data in whole_jpegs():
        preview = encode(photograph(16, 16), "JPEG")
        for given_data in (data, data + b"\0" * 500, data + preview, data[:-2] + b"\0" * 9 + END, data[:-2] + b"\xff" * 9 + END):
            size = Image.open(io.BytesIO(data)).size
            assert decode_image(given_data, max_pixels=LIMIT).shape == (size[1], size[0], 3)
            decode_picture(given_data, max_pixels=LIMIT, short_side=8)


def test_a_jpeg_is_decoded_as_pillow_decodes_it() -> None:
    for data in whole_jpegs():
        assert np.array_equal(decode_image(data, max_pixels=LIMIT), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("number", range(len(SETTINGS)))
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_a_jpeg_that_was_cut_and_closed_again_is_damaged(number: int, share: float) -> None:
    for mode in ("RGB", "L", "CMYK"):
        if mode != "RGB" and SETTINGS[number]["subsampling"] != 0:
            continue
        data = encode(photograph(200, 150).convert(mode), "JPEG", **SETTINGS[number])
        start = data.index(b"\xff\xda") + 14
        cut = data[:start + int((len(data) - start) * share)].rstrip(b"\xff") + END
        for short_side in (None, 100):
            with pytest.raises(Refusal, match="image is truncated or damaged: "):
                decode_picture(cut, max_pixels=LIMIT, short_side=short_side)


def test_a_progressive_jpeg_cut_between_two_passes_is_a_coarser_picture() -> None:
    data = encode(photograph(200, 150), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    # nothing tells it from what some encoders write on purpose; the guide states this limit
    assert decode_image(data[:last] + END, max_pixels=LIMIT).shape == (150, 200, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_that_were_overwritten_in_the_middle_are_mostly_heard_of(progressive: bool) -> None:
    heard = 0
    for seed in range(40):
        data = bytearray(encode(photograph(160, 120, seed), "JPEG", progressive=progressive, quality=85))
        data[len(data) // 2:len(data) // 2 + 100] = bytes(100)
        try:
            decode_image(bytes(data), max_pixels=LIMIT)
        except Refusal as refusal:
            heard += "Corrupt JPEG data" in str(refusal)
    assert heard >= 20


def test_the_previews_of_phones_behind_the_picture_change_nothing() -> None:
    photo, preview = photograph(200, 150), photograph(20, 15)
    data = encode(photo, "MPO", save_all=True, append_images=[preview])
    assert np.array_equal(decode_image(data, max_pixels=LIMIT), decode_image(encode(photo, "JPEG"), max_pixels=LIMIT))
    # a preview inside of the metadata has an end marker of its own
    thumbnail = encode(preview, "JPEG")
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0" + thumbnail
    inside = encode(photo, "JPEG")
    inside = inside[:2] + struct.pack(">BBH", 0xFF, 0xE1, len(exif) + 2) + exif + inside[2:]
    assert np.array_equal(decode_image(inside, max_pixels=LIMIT), decode_image(encode(photo, "JPEG"), max_pixels=LIMIT))


@given(st.binary(max_size=300), st.integers(0, 600))
def test_no_bytes_escape_as_another_exception(noise: bytes, place: int) -> None:
    whole = encode(photograph(24, 24), "JPEG", progressive=bool(place % 2))
    for data in (b"\xff\xd8\xff" + noise, whole[:place] + noise + whole[place:], whole[:place] + noise + whole[place + len(noise):]):
        try:
            assert decode_image(data, max_pixels=LIMIT).shape[2] == 3
        except Refusal as refusal:
            assert "\n" not in str(refusal)
