"""What a picture file holds beside its pixels: text, EXIF, XMP, comments, bytes after the end.

Containers: PNG (ISO/IEC 15948), JPEG (ITU-T T.81, Annex B), WebP (RFC 9649). Only what a viewer needs to show the pixels
passes; anything else is named, known or not.
"""

import struct
import zlib
from collections.abc import Collection, Iterator, Mapping

PNG_START = b"\x89PNG\r\n\x1a\n"
# Pixels, palette, transparency, and how to show them; eXIf, tEXt, iTXt, zTXt, tIME, iCCP and private chunks may tell more.
PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"pHYs", b"sRGB", b"gAMA", b"cHRM", b"sBIT", b"bKGD"})
HEADER_LENGTH, PALETTE = 13, 3  # colour type
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # left, top, steps right and down
MAX_PIXEL_BYTES, MAX_EXTRA = 1_000_000_000, 1_000_000
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
    place, seen, header, pixels = len(PNG_START), set[bytes](), b"", []
    while True:
        length, kind = struct.unpack_from(">I4s", data, place)
        content = data[place + 8:place + 8 + length]
        place += 12 + length
        if place > len(data):
            raise ValueError("the picture is cut within a chunk")
        if kind == b"IHDR" and len(content) == HEADER_LENGTH and not seen:
            header = content
        elif kind == b"IDAT":
            pixels.append(content)
        elif kind not in PNG_CHUNKS:
            yield _title(kind), _unpack(kind, content)
        elif kind in seen or length not in _png_lengths(kind, header):
            yield f"{_title(kind)} of a wrong length or twice", content
        seen.add(kind)
        if kind == b"IEND":
            break
    yield from _png_pixels(header, b"".join(pixels))
    if place < len(data):
        yield "bytes after the end", data[place:]


def _png_lengths(kind: bytes, header: bytes) -> Collection[int]:
    """How long a chunk may be that says how to show pixels (PNG, section 11): it depends on bit depth and colour type."""
    if not header:
        return ()
    depth, colour = header[8], header[9]
    entries = 1 << depth if colour == PALETTE else 0
    by_colour: Mapping[bytes, Mapping[int, Collection[int]]] = {
        b"tRNS": {0: (2,), 2: (6,), PALETTE: range(1, entries + 1)},
        b"sBIT": {0: (1,), 2: (3,), PALETTE: (3,), 4: (2,), 6: (4,)},
        b"bKGD": {0: (2,), 2: (6,), PALETTE: (1,), 4: (2,), 6: (6,)}}
    fixed: Mapping[bytes, Collection[int]] = {b"pHYs": (9,), b"sRGB": (1,), b"gAMA": (4,), b"cHRM": (32,), b"IEND": (0,),
                                              b"PLTE": range(3, 3 * entries + 1, 3)}
    return by_colour[kind].get(colour, ()) if kind in by_colour else fixed.get(kind, ())


def _png_pixels(header: bytes, packed: bytes) -> Iterator[tuple[str, bytes]]:
    """What the packed pixels hold beyond the rows of the picture, or after their end."""
    if not header:
        raise ValueError("the picture has no sound header")
    size, unpacker = _png_size(header), zlib.decompressobj()
    if size > MAX_PIXEL_BYTES:
        raise ValueError(f"the picture is of {size} bytes")
    try:
        rows = unpacker.decompress(packed, size + MAX_EXTRA)
    except zlib.error as error:
        raise ValueError(f"the pixels do not unpack ({error})") from error
    if len(rows) < size:
        raise ValueError("the picture is cut within its pixels")
    if len(rows) > size:
        yield "bytes after the last row", rows[size:]
    elif unpacker.unused_data or not unpacker.eof:
        yield "bytes after the pixels", unpacker.unused_data or unpacker.unconsumed_tail


def _png_size(header: bytes) -> int:
    """Bytes of the rows of a picture, each with its filter byte."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * {0: 1, 2: 3, PALETTE: 1, 4: 2, 6: 4}.get(colour, 0)
    if not bits or not width or not height:
        raise ValueError("the picture's header is none of a PNG")
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    sides = [(-(-(width - left) // across), -(-(height - top) // down)) for left, top, across, down in passes]
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sides if columns > 0 and rows > 0)


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
