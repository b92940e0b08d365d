"""Pictures are upright whatever says so, and damage to what says so costs no picture."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from glideslope.clip.crops import three_crops
from glideslope.models.drawing.masks import read_picture
from glideslope.pictures.decode import decode_image, decode_picture
from glideslope.pictures.orientation import orientation_in_exif, read_orientation

from .writers import LIMIT, chunk, encode, exif_block, put_chunks, put_riff, put_segments, xmp_packet

WIDTH, HEIGHT = 48, 32
GARBAGE = (b"", b"garbage!", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff",
           b"II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\0\0\0\x99")


def corners() -> Image.Image:
    """Four quarters of four colours, so that each turn shows another picture."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "red")
    for colour, place in (("lime", (24, 0)), ("blue", (0, 16)), ("white", (24, 16))):
        image.paste(colour, (*place, place[0] + 24, place[1] + 16))
    return image


def as_looked_at(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Exif 2.32, 4.6.4 A, word for word: which sides of the picture the first row and the first column are."""
    first_row, first_column = {1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"), 5: ("left", "top"),
                               6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom")}[orientation]
    height, width = stored.shape[:2]
    turned = first_row in ("left", "right")
    found = np.zeros((width, height, 3) if turned else stored.shape, dtype=stored.dtype)
    for row in range(height):
        for column in range(width):
            down, across = (column, row) if turned else (row, column)
            if "bottom" in (first_row, first_column):
                down = found.shape[0] - 1 - down
            if "right" in (first_row, first_column):
                across = found.shape[1] - 1 - across
            found[down, across] = stored[row, column]
    return found


def with_exif(kind: str, exif: bytes) -> bytes:
    """The corners in a format, the block put in as it is; Pillow would look at it."""
    data = encode(corners(), kind, **({"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    if kind == "PNG":
        return put_chunks(data, chunk(b"eXIf", exif))
    return put_riff(data, b"EXIF", exif, 8) if kind == "WEBP" else put_segments(data, (0xE1, b"Exif\0\0" + exif))


def with_text(exif: bytes) -> bytes:
    """A PNG whose EXIF is a text of hexadecimal digits."""
    text = f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode()
    return put_chunks(encode(corners(), "PNG"), chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)))


MAKERS: dict[str, Callable[[int], bytes]] = {
    **{f"{kind} {order} {size}": lambda n, kind=kind, order=order, size=size: with_exif(kind, exif_block(n, order=order, kind=size))
       for kind in ("PNG", "JPEG", "WEBP") for order in "<>" for size in (1, 3, 4)},
    "TIFF": lambda n: encode(corners(), "TIFF", tiffinfo={274: n}), "TIFF packed": lambda n: encode(corners(), "TIFF", tiffinfo={274: n},
                                                                                                      compression="tiff_lzw"),
    "PNG text": lambda n: with_text(b"Exif\0\0" + exif_block(n)),
    "PNG XMP": lambda n: put_chunks(encode(corners(), "PNG"), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp_packet(n))),
    "JPEG XMP": lambda n: put_segments(encode(corners(), "JPEG", quality=100, subsampling=0),
                                       (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp_packet(n))),
    "TIFF XMP": lambda n: encode(corners(), "TIFF", tiffinfo={700: xmp_packet(n)}),
    "JPEG in two parts": lambda n: put_segments(encode(corners(), "JPEG", quality=100, subsampling=0), (0xE1, b"Exif\0\0" + exif_block(n)[:9]),
                                                (0xE1, b"Exif\0\0" + exif_block(n)[9:])),
    "AVIF": lambda n: encode(corners(), "AVIF", quality=100, subsampling="4:4:4", exif=b"Exif\0\0" + exif_block(n)),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("maker", MAKERS)
def test_all_orientations_are_applied_in_index_training_and_edit(maker: str, orientation: int) -> None:
    data = MAKERS[maker](orientation)
    expected = as_looked_at(np.asarray(corners()), orientation)
    pixels = decode_image(data, max_pixels=LIMIT)  # as training reads it
    assert pixels.shape == expected.shape and np.abs(pixels.astype(int) - expected).mean() < 3
    picture = decode_picture(data, max_pixels=LIMIT, short_side=8)  # as the index reads it
    assert (picture.height, picture.width) == expected.shape[:2]
    for found, wanted in zip(three_crops(picture.pixels, 8)[0], three_crops(expected, 8)[0], strict=True):
        assert np.abs(found.astype(int) - wanted).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_the_caller_opened_is_upright_too(orientation: int) -> None:
    import io

    expected = as_looked_at(np.asarray(corners()), orientation)
    for maker in ("PNG < 3", "WEBP > 3", "TIFF", "PNG XMP"):
        assert np.abs(read_picture(Image.open(io.BytesIO(MAKERS[maker](orientation)))).astype(int) - expected).mean() < 3
    made = corners()
    made.getexif()[0x0112] = orientation
    assert np.array_equal(read_picture(made), expected)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_with_broken_exif_is_kept_and_upright(kind: str, garbage: bytes) -> None:
    for block in (garbage, b"Exif\0\0" + garbage):
        pixels = decode_image(with_exif(kind, block), max_pixels=LIMIT)
        assert np.abs(pixels.astype(int) - np.asarray(corners())).mean() < 3


def test_an_avif_with_broken_exif_is_kept_and_turned_as_its_own_box_says() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    data = encode(corners(), "AVIF", quality=100, exif=exif)
    place = data.rindex(b"MM\0*")
    assert decode_image(data[:place] + b"garbage!" + data[place + 8:], max_pixels=LIMIT).shape == (WIDTH, HEIGHT, 3)


@pytest.mark.parametrize("value", [0, 9, 255])
def test_an_orientation_that_there_is_none_of_counts_as_upright(value: int) -> None:
    for maker, make in MAKERS.items():
        if maker not in ("AVIF", "TIFF packed"):  # whose writers refuse it
            assert decode_image(make(value), max_pixels=LIMIT).shape == (HEIGHT, WIDTH, 3)


def test_what_can_still_be_read_of_a_damaged_block_is_applied() -> None:
    block = exif_block(6)
    for kind in ("PNG", "JPEG", "WEBP"):
        assert decode_image(with_exif(kind, block[:-4] + b"\xff" * 40), max_pixels=LIMIT).shape == (WIDTH, HEIGHT, 3)
        many = block[:8] + b"\xff\xff" + block[10:]  # says that it has 65,535 fields
        assert decode_image(with_exif(kind, many), max_pixels=LIMIT).shape == (WIDTH, HEIGHT, 3)


def test_a_broken_directory_behind_a_tiffs_own_costs_no_picture() -> None:
    for tag in (34665, 34853, 40965):  # EXIF, GPS, interoperability
        for place in (0, 5, 1 << 31):
            data = encode(corners(), "TIFF", tiffinfo={274: 6, tag: place})
            assert decode_image(data, max_pixels=LIMIT).shape == (WIDTH, HEIGHT, 3)


def test_exif_wins_over_xmp() -> None:
    assert read_orientation(exif_block(3), xmp_packet(6)) == 3
    assert read_orientation(b"garbage!", xmp_packet(6)) == 6
    assert read_orientation(None, b"<tiff:Orientation>8</tiff:Orientation>") == 8
    assert read_orientation(None, None) == read_orientation(b"", b'tiff:Orientation="66"') == 1


@given(st.binary(max_size=200), st.integers(0, 1))
def test_no_block_of_bytes_makes_the_reader_fail(noise: bytes, order: int) -> None:
    for block in (noise, (b"II*\0", b"MM\0*")[order] + noise, (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08")[order] + noise):
        assert orientation_in_exif(block) in (None, *range(1, 9))


def test_a_long_directory_is_read_once() -> None:
    fields = struct.pack("<HHI4x", 0x0100, 3, 1) * 65_534 + struct.pack("<HHIH2x", 0x0112, 3, 1, 6)
    assert orientation_in_exif(b"II*\0\x08\0\0\0" + struct.pack("<H", 65_535) + fields) == 6
