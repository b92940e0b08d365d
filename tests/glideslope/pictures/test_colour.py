"""Colours are those that viewers show: embedded profiles are applied, or say nothing where they make no sense."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from glideslope.clip.crops import three_crops
from glideslope.models.drawing.masks import read_picture
from glideslope.pictures import colour
from glideslope.pictures.decode import decode_image, decode_picture
from glideslope.pictures.refusals import Refusal

from .writers import LIMIT, chunk, encode, photograph, put_chunks

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FORMATS = [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100, "subsampling": 0}), ("AVIF", {"quality": 100})]
D50 = (0.9642, 1.0, 0.8249)
# columns of the primaries' XYZ under D50, as the profiles of these names have them (ICC.1:2022, annex E; Adobe RGB (1998), 4.3.3)
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB_PRIMARIES = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
SRGB_CURVE = (3, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))  # a parametric curve
PURE = (0, (2.19921875,))  # the power of Adobe RGB


def s15(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def profile(space: bytes, primaries: tuple[tuple[float, ...], ...], curve: tuple[int, tuple[float, ...]], kind: bytes = b"mntr") -> bytes:
    """A matrix or grey profile of version 4, written by hand."""
    xyz = [b"XYZ \0\0\0\0" + b"".join(map(s15, values)) for values in primaries]
    para = b"para\0\0\0\0" + struct.pack(">HH", curve[0], 0) + b"".join(map(s15, curve[1]))
    tags = {b"wtpt": b"XYZ \0\0\0\0" + b"".join(map(s15, D50))}
    if space == b"RGB ":
        tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), xyz, strict=True)) | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), para)
    else:
        tags[b"kTRC"] = para
    table, data, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + b"\0" * (-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s12x4s", start + len(data), b"\0\0\0\0", 0x04200000, kind, space, b"XYZ ", b"acsp")
    return header.ljust(68, b"\0") + b"".join(map(s15, D50)) + b"\0" * 48 + table + data


def to_srgb(pixels: np.ndarray, primaries: tuple[tuple[float, ...], ...], *, power: float | None) -> np.ndarray:
    """The matrices by hand: device to XYZ to sRGB, each with its curve; uint8 in, levels out."""
    device = pixels / 255
    linear = device**power if power else np.where(device <= 0.04045, device / 12.92, ((device + 0.055) / 1.055) ** 2.4)
    srgb = np.clip(linear @ np.array(primaries) @ np.linalg.inv(np.array(SRGB_PRIMARIES)), 0, 1)
    return np.asarray(255 * np.where(srgb <= 0.0031308, 12.92 * srgb, 1.055 * srgb ** (1 / 2.4) - 0.055))


SWAPPED = profile(b"RGB ", (SRGB_PRIMARIES[2], SRGB_PRIMARIES[1], SRGB_PRIMARIES[0]), SRGB_CURVE)


@pytest.mark.parametrize(("kind", "settings"), FORMATS)
@pytest.mark.parametrize(("name", "primaries", "power"), [("P3", DISPLAY_P3, None), ("Adobe", ADOBE_RGB, PURE[1][0])])
def test_display_p3_and_adobe_rgb_come_out_as_their_matrices_say(
        kind: str, settings: dict[str, object], name: str, primaries: tuple[tuple[float, ...], ...], power: float | None) -> None:
    image = photograph(48, 32)
    data = encode(image, kind, icc_profile=profile(b"RGB ", primaries, PURE if power else SRGB_CURVE), **settings)
    stored = decode_image(encode(image, kind, **settings), max_pixels=LIMIT)
    assert np.abs(decode_image(data, max_pixels=LIMIT) - to_srgb(stored, primaries, power=power)).max() <= 2
    assert np.abs(stored - to_srgb(stored, primaries, power=power)).max() > 10


@pytest.mark.parametrize(("kind", "settings"), FORMATS)
@pytest.mark.parametrize("same", [SRGB, profile(b"RGB ", SRGB_PRIMARIES, SRGB_CURVE)], ids=["littleCMS", "by hand"])
def test_a_picture_with_an_srgb_profile_keeps_its_bytes(kind: str, settings: dict[str, object], same: bytes) -> None:
    image = photograph(48, 32)
    without, given = (encode(image, kind, **settings, **extra) for extra in ({}, {"icc_profile": same}))
    assert np.array_equal(decode_image(without, max_pixels=LIMIT), decode_image(given, max_pixels=LIMIT))


def test_index_training_and_edit_see_the_same_colours() -> None:
    red = Image.new("RGB", (500, 400), (255, 0, 0))
    for kind, settings in FORMATS:
        data = encode(red, kind, icc_profile=SWAPPED, **settings)
        shown = [decode_image(data, max_pixels=LIMIT), read_picture(Image.open(io.BytesIO(data))),
                 three_crops(decode_picture(data, max_pixels=LIMIT, short_side=100).pixels, 100)[0][0]]
        for pixels in shown:
            assert np.abs(pixels[5, 5].astype(int) - [0, 0, 255]).max() <= 3


def test_a_grey_profile_changes_the_brightness_of_grey_pictures_with_and_without_transparency() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    old_mac = profile(b"GRAY", (), (0, (1.8,)))
    expected = to_srgb(np.repeat(ramp[..., None], 3, axis=2), SRGB_PRIMARIES, power=1.8)
    grey = Image.fromarray(ramp)
    half = grey.convert("LA")
    for image in (grey, half, Image.fromarray(ramp.astype(np.uint16) * 257)):
        assert np.abs(decode_image(encode(image, "PNG", icc_profile=old_mac), max_pixels=LIMIT) - expected).max() <= 3
    half.putalpha(Image.new("L", half.size, 0))
    assert (decode_image(encode(half, "PNG", icc_profile=old_mac), max_pixels=LIMIT) == 255).all()


def test_colours_are_converted_before_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 8, 4))
    pixels = decode_image(encode(image, "PNG", icc_profile=SWAPPED), max_pixels=LIMIT)
    assert np.abs(pixels[0, 0].astype(int) - [0, 0, 255]).max() <= 2 and (pixels[7] == 255).all()
    palette = image.convert("RGB").quantize(4)
    assert np.abs(decode_image(encode(palette, "PNG", icc_profile=SWAPPED), max_pixels=LIMIT)[0, 0].astype(int) - [0, 0, 255]).max() <= 2


def broken_profiles() -> list[bytes]:
    adobe = profile(b"RGB ", ADOBE_RGB, PURE)
    return [b"", b"garbage", bytes(2_000_000), adobe[:140], adobe[:-30], adobe[:16] + b"CMYK" + adobe[20:], adobe[:12] + b"link" + adobe[16:],
            adobe[:36] + b"ABCD" + adobe[40:], adobe[:128] + b"\xff" * (len(adobe) - 128), adobe + bytes(colour.MAX_PROFILE_BYTES),
            profile(b"GRAY", (), PURE)]


MOST_IN_JPEG = 3_000_000  # bytes of a profile that Pillow's writer has room for


@pytest.mark.parametrize(("kind", "number"), [(kind, number) for kind in ("PNG", "JPEG", "TIFF", "WEBP")
                                              for number, data in enumerate(broken_profiles()) if kind != "JPEG" or len(data) <= MOST_IN_JPEG])
def test_a_profile_that_is_broken_or_of_other_colours_says_nothing(kind: str, number: int) -> None:
    image, given = photograph(48, 32), broken_profiles()[number]
    with_profile = encode(image, kind, icc_profile=given) if given else encode(image, kind)
    assert np.array_equal(decode_image(with_profile, max_pixels=LIMIT), decode_image(encode(image, kind), max_pixels=LIMIT))


def test_random_damage_to_a_profile_costs_no_picture() -> None:
    generator, image, whole = np.random.default_rng(0), photograph(16, 16), profile(b"RGB ", DISPLAY_P3, SRGB_CURVE)
    for _ in range(100):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole), 6):
            damaged[place] = int(generator.integers(256))
        assert decode_image(encode(image, "PNG", icc_profile=bytes(damaged)), max_pixels=LIMIT).shape == (16, 16, 3)


def test_a_packed_profile_that_swells_is_not_unpacked_to_its_end() -> None:
    swelling = b"name\0\0" + zlib.compress(profile(b"RGB ", ADOBE_RGB, PURE) + bytes(300_000_000), 9)
    data = put_chunks(encode(photograph(16, 16), "PNG"), chunk(b"iCCP", swelling) * 3)
    assert np.array_equal(decode_image(data, max_pixels=LIMIT), np.asarray(photograph(16, 16)))


def test_gamma_and_primaries_of_a_png_are_not_applied() -> None:
    chunks = chunk(b"gAMA", struct.pack(">I", 100_000)) + chunk(b"cHRM", struct.pack(">8I", *[31_270, 32_900] + [30_000] * 6))
    data = encode(photograph(16, 16), "PNG")
    assert np.array_equal(decode_image(put_chunks(data, chunks), max_pixels=LIMIT), decode_image(data, max_pixels=LIMIT))


def test_without_littlecms_a_profile_is_a_refusal_and_not_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colour.features, "check", lambda name: name != "littlecms2")
    colour.find_transform.cache_clear()
    with pytest.raises(Refusal, match="has a colour profile, and this Pillow was built without littleCMS; install"):
        decode_image(encode(photograph(16, 16), "PNG", icc_profile=SRGB), max_pixels=LIMIT)
    assert decode_image(encode(photograph(16, 16), "PNG"), max_pixels=LIMIT).shape == (16, 16, 3)


def test_a_transform_is_made_once_for_pictures_of_one_profile() -> None:
    colour.find_transform.cache_clear()
    data = encode(photograph(16, 16), "PNG", icc_profile=SWAPPED)
    for _ in range(5):
        decode_image(data, max_pixels=LIMIT)
    assert colour.find_transform.cache_info().misses == 1
    assert colour.find_transform.cache_info().maxsize == 16
