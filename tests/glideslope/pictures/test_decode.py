import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from glideslope.pictures.decode import decode_image, decode_picture
from glideslope.pictures.refusals import Refusal

LIMIT = 1_000_000


def encode(image: Image.Image, kind: str, **settings: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **settings)
    return sink.getvalue()


def checker(mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)).convert(mode)


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header promises far more pixels than its bytes hold."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def test_a_plain_png_keeps_its_pixels() -> None:
    image = checker()
    pixels = decode_image(encode(image, "PNG"), max_pixels=LIMIT)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.asarray(image))


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_every_accepted_format_decodes_to_rgb(kind: str) -> None:
    assert decode_image(encode(checker(), kind), max_pixels=LIMIT).shape == (24, 32, 3)


@pytest.mark.parametrize(("data", "sentence"), [
    (b"", "file is empty (0 bytes)"),
    (b"just some words, named cat.png\n", "not an image of a known format (31 bytes, starting with b'just som')"),
    (b"%PDF-1.4 \x00\x01", "not an image of a known format"),
])
def test_empty_and_wrongly_named_files_are_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(Refusal) as refusal:
        decode_image(data, max_pixels=LIMIT)
    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize("fills_up", [False, True])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_truncated_file_is_refused_and_not_filled_up_with_grey(kind: str, fills_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", fills_up)  # as a program around may have set it
    data = encode(checker(), kind)
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(Refusal):
            decode_image(data[: int(len(data) * share)], max_pixels=LIMIT)


def test_several_threads_refuse_truncated_files_and_give_the_programs_setting_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(checker(), "BMP")[:-40]

    def is_refused(_: int) -> bool:
        try:
            decode_image(data, max_pixels=LIMIT)
        except Refusal:
            return True
        return False

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(is_refused, range(200)))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    for width, height in ((5_000, 5_000), (60_000, 60_000)):
        with pytest.raises(Refusal, match="too large"):
            decode_image(huge_png(width, height), max_pixels=LIMIT)


def test_the_largest_accepted_size_is_accepted() -> None:
    data = encode(checker(), "PNG")
    assert decode_image(data, max_pixels=24 * 32).shape == (24, 32, 3)
    with pytest.raises(Refusal, match="image is too large: 32 x 24 pixels, at most 767 are accepted"):
        decode_image(data, max_pixels=24 * 32 - 1)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_refused_with_its_number_of_frames(kind: str) -> None:
    frames = [checker(), Image.new("RGB", (32, 24), "red"), Image.new("RGB", (32, 24), "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(Refusal, match="image with 3 pages" if kind == "TIFF" else "animated image with 3 frames"):
        decode_image(data, max_pixels=LIMIT)


def test_cmyk_becomes_rgb() -> None:
    data = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = decode_image(data, max_pixels=LIMIT)[4, 4]
    assert red > 200 and green < 60 and blue < 60


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels = decode_image(encode(Image.fromarray(values), kind), max_pixels=LIMIT)
        assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]
        assert (pixels == pixels[:, :, :1]).all()


def test_transparency_is_laid_on_white_whatever_lies_beneath() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode_image(encode(clear, "PNG"), max_pixels=LIMIT) == 255).all()
    palette = clear.quantize()
    assert (decode_image(encode(palette, "PNG", transparency=0), max_pixels=LIMIT) == 255).all()
    half = decode_image(encode(Image.new("RGBA", (1, 1), (0, 0, 0, 128)), "PNG"), max_pixels=LIMIT)
    assert 125 <= half[0, 0, 0] <= 129


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_colour_modes_decode_to_three_channels(mode: str) -> None:
    assert decode_image(encode(checker(mode), "PNG"), max_pixels=LIMIT).shape == (24, 32, 3)


def test_the_orientation_in_exif_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encode(checker(), "JPEG", exif=exif), max_pixels=LIMIT).shape == (32, 24, 3)


def test_random_damage_never_escapes_as_another_exception() -> None:
    generator = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF"):
        data = bytearray(encode(checker(), kind))
        for _ in range(60):
            damaged = bytearray(data)
            for place in generator.integers(0, len(data), 4):
                damaged[place] = int(generator.integers(256))
            try:
                decode_image(bytes(damaged), max_pixels=LIMIT)
            except Refusal as refusal:
                assert "\n" not in str(refusal)


def photograph(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A smooth picture, bright on the left and dark on the right, its upper half redder."""
    rows, columns = np.mgrid[0:height, 0:width]
    red = np.where(rows < height / 2, 220, 120)
    pixels = np.stack([red, 255 - 200 * columns / width, 60 + 100 * rows / height], axis=2)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


@pytest.mark.parametrize(("short_side", "expected"), [
    (None, (300, 500)), (300, (300, 500)), (151, (300, 500)), (150, (150, 250)), (75, (75, 125)), (37, (38, 63)), (1, (38, 63)),
])
def test_a_jpeg_is_decoded_at_the_smallest_size_that_is_large_enough(short_side: int | None, expected: tuple[int, int]) -> None:
    picture = decode_picture(encode(photograph(500, 300), "JPEG"), max_pixels=LIMIT, short_side=short_side)
    assert picture.pixels.shape == (*expected, 3)
    assert (picture.width, picture.height) == (500, 300)


def test_only_jpegs_are_reduced() -> None:
    for kind in ("PNG", "WEBP", "TIFF", "BMP"):
        picture = decode_picture(encode(photograph(500, 300), kind), max_pixels=LIMIT, short_side=20)
        assert picture.pixels.shape == (300, 500, 3) and (picture.width, picture.height) == (500, 300)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_reduced_jpeg_shows_what_the_full_one_shows(mode: str, progressive: bool) -> None:
    data = encode(photograph(512, 256, mode), "JPEG", quality=95, progressive=progressive)
    full = Image.fromarray(decode_image(data, max_pixels=LIMIT)).resize((128, 64), Image.Resampling.BOX)
    reduced = decode_picture(data, max_pixels=LIMIT, short_side=64).pixels
    assert reduced.shape == (64, 128, 3)
    assert np.abs(np.asarray(full).astype(int) - reduced.astype(int)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_turned_upright_and_states_the_upright_size(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photograph(401, 400), "JPEG", quality=95, exif=exif)
    full = decode_image(data, max_pixels=LIMIT)
    picture = decode_picture(data, max_pixels=LIMIT, short_side=100)
    assert (picture.height, picture.width) == full.shape[:2] == ((401, 400) if orientation >= 5 else (400, 401))
    small = np.asarray(Image.fromarray(full).resize(picture.pixels.shape[1::-1], Image.Resampling.BOX)).astype(int)
    assert np.abs(small - picture.pixels.astype(int)).mean() < 4


def test_a_phone_photograph_with_a_preview_is_reduced_too() -> None:
    data = encode(photograph(500, 300), "MPO", save_all=True, append_images=[photograph(50, 30)])
    picture = decode_picture(data, max_pixels=LIMIT, short_side=70)
    assert picture.pixels.shape == (75, 125, 3) and (picture.width, picture.height) == (500, 300)


def test_a_reduced_jpeg_that_is_cut_off_or_too_large_is_refused_all_the_same() -> None:
    data = encode(photograph(500, 300), "JPEG", quality=95)
    for share in (0.2, 0.5, 0.9, 0.99):
        with pytest.raises(Refusal, match="truncated or damaged"):
            decode_picture(data[: int(len(data) * share)], max_pixels=LIMIT, short_side=30)
    with pytest.raises(Refusal, match="image is too large: 500 x 300 pixels, at most 149999 are accepted"):
        decode_picture(data, max_pixels=500 * 300 - 1, short_side=30)
