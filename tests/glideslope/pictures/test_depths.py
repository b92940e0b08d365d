"""A grey ramp is the same ramp whatever it is stored in."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from glideslope.pictures.decode import decode_image, to_rgb
from glideslope.pictures.refusals import Refusal

from .writers import LIMIT, chunk, encode, pack_bits, png, tiff

RAMP = np.tile(np.arange(256), (4, 1))  # (4, 256), levels of 8 bits
GREY = Image.fromarray(RAMP.astype(np.uint8))
COLOUR = GREY.convert("RGB")
LAB = ImageCms.profileToProfile(COLOUR, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
BITS, PHOTOMETRIC, SAMPLES, FORMAT, EXTRA, COLOUR_MAP = 258, 262, 277, 339, 338, 320


def levels(depth: int) -> np.ndarray:
    """The ramp in whole steps of a depth: samples (4, 256, 1)."""
    return np.rint(RAMP / 255 * ((1 << depth) - 1)).astype(np.int64)[..., None]


def shown(depth: int) -> np.ndarray:
    """What the samples of a depth mean, in levels of 8 bits."""
    return levels(depth)[..., 0] * 255 / ((1 << depth) - 1)


def distance(data: bytes, expected: np.ndarray = RAMP) -> float:
    return float(np.abs(decode_image(data, max_pixels=LIMIT).astype(float) - expected[..., None]).max())


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in {
    "PNG": "L LA P RGB RGBA I;16", "JPEG": "L RGB CMYK YCbCr", "WEBP": "RGB RGBA", "TIFF": "L LA P PA RGB RGBA CMYK YCbCr LAB I;16",
    "BMP": "L P RGB", "GIF": "L P", "PPM": "L RGB I;16", "TGA": "L LA P RGB RGBA", "JPEG2000": "L LA RGB RGBA I;16", "AVIF": "RGB RGBA",
}.items() for mode in modes.split()])
def test_a_grey_ramp_keeps_its_levels_in_every_format_and_mode(kind: str, mode: str) -> None:
    image = {"LAB": LAB, "I;16": Image.fromarray((RAMP * 257).astype(np.uint16)), "PA": GREY.convert("P").convert("PA")}.get(mode)
    image = image or (COLOUR if mode in ("CMYK", "YCbCr", "RGBA") else GREY).convert(mode)
    settings = {"quality": 100} if kind in ("JPEG", "WEBP", "AVIF") else {}
    assert distance(encode(image, kind, **settings)) <= 2


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "CMYK"])
def test_a_compressed_tiff_keeps_its_levels(compression: str, mode: str) -> None:
    image = Image.fromarray((RAMP * 257).astype(np.uint16)) if mode == "I;16" else COLOUR.convert(mode)
    assert distance(encode(image, "TIFF", compression=compression)) <= 1


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_grey_png_of_any_depth_keeps_its_levels(depth: int) -> None:
    assert distance(png(levels(depth), depth), shown(depth)) <= 1


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_png_of_several_channels_keeps_its_levels(colour_type: int, channels: int, depth: int) -> None:
    values = np.repeat(levels(depth), channels, axis=2)
    if channels % 2 == 0:
        values[..., -1] = (1 << depth) - 1
    assert distance(png(values, depth, colour_type)) <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("depth", "white_is_zero"), [(1, False), (1, True), (2, False), (2, True), (4, False), (4, True), (8, False),
                                                      (8, True), (16, False)])
def test_a_grey_tiff_of_any_depth_byte_order_and_polarity_keeps_its_levels(order: str, depth: int, white_is_zero: bool) -> None:
    values = levels(depth)[..., 0]
    stored = (1 << depth) - 1 - values if white_is_zero else values
    data = pack_bits(stored, depth) if depth < 16 else stored.astype(order + "u2").tobytes()
    fields = {BITS: (3, (depth,)), PHOTOMETRIC: (3, (0 if white_is_zero else 1,)), SAMPLES: (3, (1,))}
    assert distance(tiff(256, 4, data, order=order, fields=fields), shown(depth)) <= 1


def test_a_tiff_of_12_bits_and_one_of_16_where_white_is_zero_keep_their_levels() -> None:
    fields = {BITS: (3, (12,)), PHOTOMETRIC: (3, (1,)), SAMPLES: (3, (1,))}
    assert distance(tiff(256, 4, pack_bits(levels(12)[..., 0], 12), fields=fields)) <= 1
    fields = {BITS: (3, (16,)), PHOTOMETRIC: (3, (0,)), SAMPLES: (3, (1,))}
    assert distance(tiff(256, 4, (65535 - RAMP * 257).astype("<u2").tobytes(), fields=fields)) <= 1


@pytest.mark.parametrize(("photometric", "channels", "extra"), [(2, 3, ()), (2, 4, (2,)), (2, 4, (1,)), (5, 4, ())])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_16_bits_in_several_channels_keeps_its_levels(photometric: int, channels: int, extra: tuple[int, ...], order: str) -> None:
    values = np.repeat(RAMP[..., None] * 257, channels, axis=2)
    if photometric == 5:
        values = 65535 - values
        values[..., 3] = 0
    elif channels == 4:
        values[..., 3] = 65535
    fields = {BITS: (3, (16,) * channels), PHOTOMETRIC: (3, (photometric,)), SAMPLES: (3, (channels,))}
    fields |= {EXTRA: (3, extra)} if extra else {}
    assert distance(tiff(256, 4, values.astype(order + "u2").tobytes(), order=order, fields=fields)) <= 1


@pytest.mark.parametrize(("depth", "sample_format"), [(32, 1), (32, 2), (32, 3), (16, 2)])
def test_samples_whose_white_nobody_knows_are_refused_in_a_sentence(depth: int, sample_format: int) -> None:
    kind = {1: "u", 2: "i", 3: "f"}[sample_format]
    data = (RAMP / 255).astype("<f4") if kind == "f" else (RAMP * 100).astype(f"<{kind}{depth // 8}")
    fields = {BITS: (3, (depth,)), PHOTOMETRIC: (3, (1,)), SAMPLES: (3, (1,)), FORMAT: (3, (sample_format,))}
    with pytest.raises(Refusal, match=r"(integer|floating-point) image.*; no value of it is known to be white: store it with 8 or 16 bits"):
        decode_image(tiff(256, 4, data.tobytes(), fields=fields), max_pixels=LIMIT)


@given(depth=st.sampled_from([1, 2, 4, 8, 16]), data=st.data())
def test_the_transparent_value_of_a_grey_png_is_white_and_no_other_is(depth: int, data: st.DataObject) -> None:
    white = (1 << depth) - 1
    values = np.array(data.draw(st.lists(st.integers(0, white), min_size=12, max_size=12)), dtype=np.int64).reshape(3, 4, 1)
    clear = data.draw(st.one_of(st.sampled_from(values.ravel().tolist()), st.integers(0, white)))
    unused_bits = data.draw(st.sampled_from([0, 1 << 15])) if depth < 16 else 0  # which the specification says count for nothing
    pixels = decode_image(png(values, depth, before=chunk(b"tRNS", struct.pack(">H", clear | unused_bits))), max_pixels=LIMIT)
    expected = np.where(values == clear, 255, values * 255 / white)
    assert np.abs(pixels - expected).max() <= 1
    assert (pixels[(values == clear)[..., 0]] == 255).all()


@given(depth=st.sampled_from([8, 16]), data=st.data())
def test_the_transparent_colour_of_a_png_is_compared_in_all_its_bits(depth: int, data: st.DataObject) -> None:
    white = (1 << depth) - 1
    near = st.sampled_from([0, 1, 255, white - 1]) if depth == 8 else st.sampled_from([0, 1, 255, 256, 257, white - 1])
    values = np.array(data.draw(st.lists(near, min_size=18, max_size=18)), dtype=np.int64).reshape(2, 3, 3)
    clear = values[data.draw(st.integers(0, 1)), data.draw(st.integers(0, 2))]
    pixels = decode_image(png(values, depth, 2, before=chunk(b"tRNS", struct.pack(">3H", *clear.tolist()))), max_pixels=LIMIT)
    is_clear = (values == clear).all(axis=2, keepdims=True)
    assert np.abs(pixels - np.where(is_clear, 255, values * 255 / white)).max() <= 1


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_whatever_is_clear_is_white_in_every_mode_with_an_alpha_channel(mode: str) -> None:
    layer = {"LA": "LA", "La": "LA", "PA": "PA", "RGBA": "RGBA", "RGBa": "RGBA"}[mode]
    image = (GREY.convert("P") if mode == "PA" else GREY).convert(layer)
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, 256, 2))
    image.putalpha(alpha)
    premultiplied = mode in ("La", "RGBa")  # which Pillow reads and does not write
    pixels = to_rgb(image.convert(mode)) if premultiplied else decode_image(encode(image, "TIFF"), max_pixels=LIMIT)
    assert (pixels[:2] == 255).all() and np.abs(pixels[2:].astype(int) - RAMP[2:, :, None]).max() <= 1


def test_a_palette_with_many_degrees_of_transparency_is_laid_on_white() -> None:
    data = encode(GREY.convert("P"), "PNG", transparency=bytes(range(256)))
    palette_alpha = np.arange(256) / 255
    expected = RAMP * palette_alpha + 255 * (1 - palette_alpha)
    assert distance(data, expected) <= 2


