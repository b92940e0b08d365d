"""PNG files without what no pixel depends on (PNG specification, third edition).

Texts and private chunks are not unpacked. What sits beside the pixels is set aside, bounded in size:
orientation and colour profile are read from it by their own modules.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from .colour import MAX_PROFILE_BYTES
from .refusals import Refusal

MAGIC = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
MAX_TEXT_BYTES = 1 << 20  # of XMP, and of EXIF in a text, unpacked; more is not read
XMP_KEYWORD = b"XML:com.adobe.xmp\0"
EXIF_KEYWORD = b"Raw profile type exif\0"  # as ImageMagick wrote it before PNG had a chunk for it
GREY, COLOUR = 0, 2  # PNG's colour types that one value or one colour makes transparent


@dataclass(frozen=True)
class Contents:
    """A PNG taken apart.

    Attributes:
        data: the file with the chunks that pixels depend on, and no other.
        num_frames: 1, or more of an animation.
        exif, xmp, profile: what lies beside the pixels, unpacked as far as the limits allow.
        clear_colour: of a picture of three 16-bit channels, the colour that is transparent; None: there is none.
    """

    data: bytes
    num_frames: int
    exif: bytes | None
    xmp: bytes | None
    profile: bytes | None
    clear_colour: tuple[int, int, int] | None


def take_apart(data: bytes) -> Contents:
    """Split a PNG into pixels and metadata.

    Raises:
        Refusal: a chunk that pixels depend on has another checksum than it states.
    """
    kept: list[bytes | memoryview] = [MAGIC]
    beside: dict[bytes, bytes] = {}
    num_frames, header, clear_colour, last_kind, had_pixels = 0, b"\0" * 13, None, b"", False
    for kind, start, stop in chunks(data):
        if kind not in PIXEL_CHUNKS:
            if kind in (b"acTL", b"fcTL") and not had_pixels:
                num_frames = count_frames(kind, data[start:stop], num_frames)
            key = name_metadata(kind, data, start, stop)
            if key and key not in beside and is_sound(data, start, stop):
                beside[key] = data[start:stop]
        elif kind != b"IDAT" or not had_pixels or last_kind == b"IDAT":  # the pixels lie in one run of chunks
            if stop + 4 <= len(data) and not is_sound(data, start, stop):
                raise Refusal(f"image is damaged: the chunk {kind.decode()} at byte {start - 8} has another checksum than it states")
            if kind == b"IHDR":
                header = data[start:stop].ljust(13, b"\0")
            if kind == b"tRNS":
                values, clear_colour = fit_transparency(data[start:stop], header[8], header[9])
                kept.append(chunk(kind, values))
            else:
                kept.append(memoryview(data)[start - 8:stop + 4])
            had_pixels = had_pixels or kind == b"IDAT"
        last_kind = kind
    return Contents(b"".join(kept), max(1, num_frames), read_exif(beside), read_xmp(beside), read_profile(beside), clear_colour)


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk up to the end chunk, and where its content starts and stops; the last one may be cut."""
    place, kind = len(MAGIC), b""
    while place + 8 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, place + 8, place + 8 + length
        place += length + 12


def is_sound(data: bytes, start: int, stop: int) -> bool:
    """Whether a chunk is there whole and has the checksum that it states."""
    return data[stop:stop + 4] == zlib.crc32(memoryview(data)[start - 4:stop]).to_bytes(4, "big")


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk as it is stored."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def count_frames(kind: bytes, content: bytes, num_frames: int) -> int:
    """How many frames there are after one more control chunk before the pixels: those announced, and a still one that is no frame.

    The still picture is a frame where a frame control chunk comes before it.
    """
    if kind == b"acTL" and len(content) >= 8:
        announced = int.from_bytes(content[:4], "big")
        return max(num_frames, announced + 1 if 0 < announced <= 1 << 31 else 0)
    return num_frames - 1 if kind == b"fcTL" and num_frames > 1 else num_frames


def fit_transparency(content: bytes, depth: int, colour_type: int) -> tuple[bytes, tuple[int, int, int] | None]:
    """The transparent value in the scale that the decoder's pixels have, and where that has too few bits the colour itself."""
    if colour_type not in (GREY, COLOUR) or len(content) < (2 if colour_type == GREY else 6) or depth not in (1, 2, 4, 8, 16):
        return content, None
    values = struct.unpack_from(">H" if colour_type == GREY else ">3H", content)
    if depth == 16:
        return content, None if colour_type == GREY else (values[0], values[1], values[2])
    scale = 1 if depth == 1 else 255 // ((1 << depth) - 1)
    return b"".join(struct.pack(">H", (value & ((1 << depth) - 1)) * scale) for value in values), None


def name_metadata(kind: bytes, data: bytes, start: int, stop: int) -> bytes:
    """What a chunk beside the pixels is, of the few that are read; else nothing."""
    if kind in (b"eXIf", b"iCCP"):
        return kind
    if kind == b"iTXt" and data.startswith(XMP_KEYWORD, start):
        return XMP_KEYWORD
    return EXIF_KEYWORD + kind if kind in (b"zTXt", b"tEXt") and data.startswith(EXIF_KEYWORD, start) else b""


def read_exif(beside: dict[bytes, bytes]) -> bytes | None:
    """The EXIF block: of its own chunk, else of a text of hexadecimal digits after a line each for nothing, the name and the length."""
    if b"eXIf" in beside:
        return beside[b"eXIf"]
    for kind in (b"zTXt", b"tEXt"):
        text = beside.get(EXIF_KEYWORD + kind)
        if text is not None:
            text = text[len(EXIF_KEYWORD):]
            text = (unpack(text[1:], MAX_TEXT_BYTES) or b"") if kind == b"zTXt" else text
            try:
                return bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))
            except ValueError:
                return None
    return None


def read_xmp(beside: dict[bytes, bytes]) -> bytes | None:
    """The XMP packet, at most its first MAX_TEXT_BYTES."""
    text = beside.get(XMP_KEYWORD, b"")[len(XMP_KEYWORD):]
    fields = text[2:].split(b"\0", 2)
    if len(text) < 2 or len(fields) < 3:
        return None
    return fields[2][:MAX_TEXT_BYTES] if text[0] == 0 else unpack(fields[2], MAX_TEXT_BYTES)


def read_profile(beside: dict[bytes, bytes]) -> bytes | None:
    """The colour profile; None where there is none, it cannot be unpacked, or it is larger than any that is applied."""
    _, found, packed = beside.get(b"iCCP", b"").partition(b"\0")
    profile = unpack(packed[1:], MAX_PROFILE_BYTES + 1) if found else None
    return None if profile is None or len(profile) > MAX_PROFILE_BYTES else profile


def unpack(packed: bytes, max_bytes: int) -> bytes | None:
    """The first bytes of a zlib stream; None where it is none."""
    try:
        return zlib.decompressobj().decompress(packed, max_bytes)
    except zlib.error:
        return None


def read_size(data: bytes) -> tuple[int, int]:
    """Width and height by the header.

    Raises:
        Refusal: the file ends before them, or starts with another chunk.
    """
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise Refusal("image is truncated or damaged: a PNG without its header")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def load(contents: Contents) -> Image.Image:
    """The picture; a transparent colour of 16 bits is compared in all its bits and becomes an alpha channel."""
    image: Image.Image = PngImagePlugin.PngImageFile(io.BytesIO(contents.data))
    image.load()
    if contents.clear_colour is None or image.mode != "RGB":
        return image
    low = PngImagePlugin.PngImageFile(io.BytesIO(contents.data))
    low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]  # the lower byte of each value
    low.load()
    values: NDArray[np.uint16] = np.asarray(image).astype(np.uint16) << 8 | np.asarray(low)
    is_clear = (values == np.array(contents.clear_colour, dtype=np.uint16)).all(axis=2)
    image = image.copy()
    image.info.pop("transparency", None)
    image.putalpha(Image.fromarray(np.where(is_clear, 0, 255).astype(np.uint8)))
    return image
