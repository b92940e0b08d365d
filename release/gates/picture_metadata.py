"""What a picture file holds beside its pixels: text, EXIF, XMP, comments, bytes after the end.

Containers: PNG (ISO/IEC 15948), JPEG (ITU-T T.81, Annex B), WebP (RFC 9649). Only what a viewer needs to show the pixels
passes; anything else is named, known or not.
"""

import struct
import zlib
from collections.abc import Iterator

PNG_START = b"\x89PNG\r\n\x1a\n"
# Pixels, palette, transparency, and how to show them; eXIf, tEXt, iTXt, zTXt, tIME, iCCP and private chunks may tell more.
PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"pHYs", b"sRGB", b"gAMA", b"cHRM", b"sBIT", b"bKGD"})
WEBP_CHUNKS = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"})
JPEG_COMMENT, JPEG_START_OF_SCAN, JPEG_END = 0xFE, 0xDA, 0xD9
JPEG_JFIF, JPEG_ADOBE = 0xE0, 0xEE
JFIF_LENGTH, ADOBE_LENGTH = 14, 12
JPEG_APPLICATION = range(0xE0, 0xF0)
JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
NAMES = {b"tEXt": "text", b"iTXt": "text", b"zTXt": "text", b"tIME": "time", b"iCCP": "ICC profile", b"ICCP": "ICC profile"}


def is_picture(start: bytes) -> bool:
    """Whether a file that starts like this is a PNG, JPEG or WebP; 12 bytes are enough."""
    return start.startswith((PNG_START, b"\xff\xd8\xff")) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def find_hidden(data: bytes) -> list[tuple[str, bytes]]:
    """What a PNG, JPEG or WebP holds beside its pixels.

    Args:
        data: the whole file.

    Returns:
        A name (`tEXt text`, `APP1 segment`, `bytes after the end`) and the content, unpacked where it was packed.

    Raises:
        ValueError: it is none of the three, or is cut.
    """
    try:
        if data.startswith(PNG_START):
            return list(_png(data))
        if data.startswith(b"\xff\xd8"):
            return list(_jpeg(data))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return list(_webp(data))
    except (struct.error, IndexError) as error:
        raise ValueError(f"the picture is cut ({error})") from error
    raise ValueError("not a PNG, JPEG or WebP")


def _png(data: bytes) -> Iterator[tuple[str, bytes]]:
    place = len(PNG_START)
    while True:
        length, kind = struct.unpack_from(">I4s", data, place)
        content = data[place + 8:place + 8 + length]
        place += 12 + length
        if place > len(data):
            raise ValueError("the picture is cut within a chunk")
        if kind not in PNG_CHUNKS:
            yield _title(kind), _unpack(kind, content)
        if kind == b"IEND":
            if content:
                yield "content of the end", content
            break
    if place < len(data):
        yield "bytes after the end", data[place:]


def _unpack(kind: bytes, content: bytes) -> bytes:
    """Compressed text as text, at most a megabyte of it; what does not unpack stays as it is."""
    packed = b""
    if kind == b"zTXt":
        packed = content.partition(b"\0")[2][1:]
    elif kind == b"iTXt":
        _, _, rest = content.partition(b"\0")
        packed = rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else b""
    try:
        return content + b"\n" + zlib.decompressobj().decompress(packed, 1_000_000) if packed else content
    except zlib.error:
        return content


def _jpeg(data: bytes) -> Iterator[tuple[str, bytes]]:
    place = 2
    while True:
        if data[place] != 0xFF:
            raise ValueError(f"no JPEG marker at byte {place}")
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
        elif marker == JPEG_END:
            place += 2
            break
        elif marker in JPEG_STANDALONE:
            place += 2
        else:
            length = struct.unpack_from(">H", data, place + 2)[0]
            content = data[place + 4:place + 2 + length]
            if place + 2 + length > len(data):
                raise ValueError("the picture is cut within a segment")
            if (marker in JPEG_APPLICATION and not _is_plain(marker, content)) or marker == JPEG_COMMENT:
                yield ("comment" if marker == JPEG_COMMENT else f"APP{marker - 0xE0} segment"), content
            place += 2 + length
            if marker == JPEG_START_OF_SCAN:
                place = _after_scan(data, place)
    if place < len(data):
        yield "bytes after the end", data[place:]


def _is_plain(marker: int, content: bytes) -> bool:
    """Whether an application segment only says how to show the pixels: JFIF without thumbnail, or Adobe's colour transform."""
    jfif = marker == JPEG_JFIF and content[:5] == b"JFIF\0" and len(content) == JFIF_LENGTH
    return jfif or (marker == JPEG_ADOBE and content[:5] == b"Adobe" and len(content) == ADOBE_LENGTH)


def _after_scan(data: bytes, place: int) -> int:
    """Where the next marker is: in packed pixels 0xFF is followed by 0x00 or a restart marker."""
    while True:
        place = data.find(b"\xff", place)
        if place < 0 or place + 1 >= len(data):
            raise ValueError("the picture is cut within its pixels")
        if data[place + 1] != 0 and data[place + 1] not in JPEG_STANDALONE:
            return place
        place += 2


def _webp(data: bytes) -> Iterator[tuple[str, bytes]]:
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise ValueError("the picture is cut")
    place = 12
    while place + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, place)
        if place + 8 + length > end:
            raise ValueError("the picture is cut within a chunk")
        if kind not in WEBP_CHUNKS:
            yield _title(kind), data[place + 8:place + 8 + length]
        place += 8 + length + length % 2
    if end < len(data):
        yield "bytes after the end", data[end:]


def _title(kind: bytes) -> str:
    return " ".join((kind.decode("latin-1").strip(), *([NAMES[kind]] if kind in NAMES else []), "chunk"))
