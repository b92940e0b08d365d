"""What no pixel depends on is not read, and so can neither be too large nor be damaged."""

import io
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from glideslope.pictures.decode import decode_image
from glideslope.pictures.refusals import Refusal, TooLarge

from .writers import LIMIT, chunk, encode, photograph, put_chunks, put_riff, put_segments, tiff

PICTURE = photograph(64, 48)
MEGABYTES = bytes(3_000_000)
SWELLING = zlib.compress(bytes(200_000_000), 9)


@pytest.mark.parametrize("chunks", [
    chunk(b"iCCP", b"name\0\0" + zlib.compress(MEGABYTES)), chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(MEGABYTES)),
    chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + MEGABYTES), chunk(b"tEXt", b"parameters\0" + MEGABYTES),
    chunk(b"zTXt", b"a\0\0" + SWELLING), chunk(b"zTXt", b"Raw profile type exif\0\0" + SWELLING),
    chunk(b"iTXt", b"a\0\1\0\0\0" + SWELLING) * 20, chunk(b"iCCP", b"a\0\0" + SWELLING),
    chunk(b"iCCP", b"a\0\x07" + MEGABYTES), chunk(b"zTXt", b"a\0\x07bad method"), chunk(b"eXIf", MEGABYTES), chunk(b"prVt", MEGABYTES),
    chunk(b"gAMA", b""), chunk(b"cHRM", b"1"), chunk(b"pHYs", b""), chunk(b"sRGB", b""), chunk(b"tEXt", b"") * 50_000,
    b"\0\0\0\x04tEXtabcd\0\0\0\0"], ids=lambda chunks: f"{chunks[4:8].decode()} {len(chunks)}")
def test_a_png_is_read_whatever_lies_beside_its_pixels(chunks: bytes) -> None:
    data = encode(PICTURE, "PNG")
    for given in (put_chunks(data, chunks), data[:-12] + chunks + data[-12:], put_chunks(data, chunks)[:-12]):
        assert np.array_equal(decode_image(given, max_pixels=LIMIT), np.asarray(PICTURE))


@pytest.mark.parametrize("segments", [
    [(0xE2, b"ICC_PROFILE\0" + bytes([i + 1, 60]) + bytes(60_000)) for i in range(60)], [(0xE1, b"Exif\0\0" + bytes(65_000))] * 100,
    [(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + bytes(65_000))] * 50, [(0xED, b"Photoshop 3.0\x008BIM")],
    [(0xED, b"Photoshop 3.0\x008BIM\4\4")],
    [(0xE0, b"JFIF")], [(0xE0, b"JFIF\0")], [(0xEE, b"Adobe")], [(0xE2, b"MPF\0garbage")], [(0xE2, b"FPXR\0")], [(0xFE, bytes(65_000))] * 50,
    [(0xE2, b"ICC_PROFILE\0")], [(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")]])
def test_a_jpeg_is_read_whatever_its_applications_segments_hold(segments: list[tuple[int, bytes]]) -> None:
    data = encode(PICTURE, "JPEG")
    assert np.array_equal(decode_image(put_segments(data, *segments), max_pixels=LIMIT), decode_image(data, max_pixels=LIMIT))


def test_webp_tiff_and_avif_are_read_with_megabytes_of_metadata() -> None:
    webp = encode(PICTURE, "WEBP", lossless=True)
    for kind, flag in ((b"EXIF", 8), (b"XMP ", 4)):
        assert np.array_equal(decode_image(put_riff(webp, kind, MEGABYTES, flag), max_pixels=LIMIT), np.asarray(PICTURE))
    for tag in (700, 34675, 37500, 34377, 33723):
        data = encode(PICTURE, "TIFF", tiffinfo={tag: MEGABYTES})
        assert np.array_equal(decode_image(data, max_pixels=LIMIT), np.asarray(PICTURE))
    assert decode_image(encode(PICTURE, "AVIF", xmp=MEGABYTES, icc_profile=MEGABYTES), max_pixels=LIMIT).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"PLTE", b"tRNS"])
def test_a_png_whose_pixels_have_another_checksum_is_damaged(kind: bytes) -> None:
    data = encode(PICTURE.quantize(16), "PNG", transparency=bytes(range(16)))
    place = data.index(kind)
    length = struct.unpack_from(">I", data, place - 4)[0]
    damaged = data[:place + 4 + length] + b"\0\0\0\0" + data[place + 8 + length:]
    with pytest.raises(Refusal, match=f"image is damaged: the chunk {kind.decode()} at byte {place - 4} has another checksum than it states"):
        decode_image(damaged, max_pixels=LIMIT)


def test_frames_are_counted_without_decoding_them() -> None:
    still = [Image.new("L", (2, 2), i % 256) for i in range(1500)]
    for kind, told in (("GIF", "animated image with 1500 frames"), ("WEBP", "animated image with 1500 frames"),
                       ("PNG", "animated image with 1500 frames"), ("TIFF", "image with more than 100 pages; only images of one page")):
        frames = [image.convert("RGB") for image in still] if kind == "WEBP" else still
        settings = {"lossless": True, "method": 0} if kind == "WEBP" else {}
        with pytest.raises(Refusal, match=told):
            decode_image(encode(frames[0], kind, save_all=True, append_images=frames[1:], **settings), max_pixels=LIMIT)


def test_an_animation_of_one_frame_is_a_picture() -> None:
    control = struct.pack(">IIIIIHHBB", 0, 64, 48, 0, 0, 1, 10, 0, 0)
    data = put_chunks(encode(PICTURE, "PNG"), chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fcTL", control))
    assert np.array_equal(decode_image(data, max_pixels=LIMIT), np.asarray(PICTURE))
    still_beside = put_chunks(encode(PICTURE, "PNG"), chunk(b"acTL", struct.pack(">II", 1, 0)))
    with pytest.raises(Refusal, match="animated image with 2 frames"):
        decode_image(still_beside, max_pixels=LIMIT)


@pytest.mark.parametrize("data", [
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", b"\xc5\xd0\xd3\xc6" + bytes(60), b"%PDF-1.7\n", b"8BPS\0\1" + bytes(60),
    b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", b"\0\0\1\0\xff\xff" + bytes(100), b"\0\0\0\x18ftypheic" + bytes(60),
    b"RIFF\x10\0\0\0AVI LIST", b"\0\0\0\x0cJXL \r\n\x87\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"BM",
    b"\0\0\0\x0cjP  \r\n\x87\n", b"RIFF\x10\0\0\0WEBPVP8 ", b"P6\n1 1\n", b"\0\0\0\x1cftypavif"], ids=repr)
def test_other_types_and_bare_beginnings_are_refused_in_one_sentence(data: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        decode_image(data, max_pixels=LIMIT)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


def test_a_tiff_of_gigantic_tiles_is_refused_before_anything_is_allocated() -> None:
    fields = {258: (3, (8,)), 259: (3, (8,)), 262: (3, (1,)), 277: (3, (1,)), 322: (4, (60_000,)), 323: (4, (60_000,)), 324: (4, (8,)),
              325: (4, (100,))}
    with pytest.raises(TooLarge, match="its tiles have 60000 x 60000 pixels, at most"):
        decode_image(tiff(16, 16, zlib.compress(bytes(256)), fields=fields), max_pixels=LIMIT)


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded() -> None:
    data = encode(PICTURE, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(Refusal, match="more than 100 scans"):
        decode_image(data[:-2] + data[last:-2] * 200 + b"\xff\xd9", max_pixels=LIMIT)


def test_no_picture_takes_more_memory_than_its_size_allows() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for size in ((60_000, 1), (1, 60_000), (4_000, 1)):
        for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
            if kind != "WEBP" or max(size) < 16_384:
                assert decode_image(encode(Image.new("RGB", size), kind), max_pixels=LIMIT).shape == (size[1], size[0], 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_pillows_own_limits_are_left_as_they_are() -> None:
    from PIL import ImageFile, PngImagePlugin

    known = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, ImageFile.LOAD_TRUNCATED_IMAGES
    decode_image(put_chunks(encode(PICTURE, "PNG"), chunk(b"tEXt", b"a\0" + MEGABYTES)), max_pixels=LIMIT)
    assert known == (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, ImageFile.LOAD_TRUNCATED_IMAGES)
    assert Image.open(io.BytesIO(encode(PICTURE, "PNG"))).size == (64, 48)
