"""JPEG files without what no pixel depends on (ITU-T T.81, annex B), and the damage that libjpeg warns of.

Only the segments that the decoder needs are handed to it. Metadata is set aside; orientation and colour profile are read from it.
Pillow does not pass libjpeg's warnings on, so that a picture with a grey half looks whole; they are heard through TurboJPEG.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import simplejpeg

from .colour import MAX_PROFILE_BYTES
from .refusals import Refusal

MAGIC = b"\xff\xd8\xff"
START_OF_SCAN, END, ADOBE, JFIF, EXIF_OR_XMP, PROFILE, COMMENT = 0xDA, 0xD9, 0xEE, 0xE0, 0xE1, 0xE2, 0xFE
FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
PROGRESSIVE = (0xC2, 0xCA)
BARE = (*range(0xD0, 0xD9), 0x01)  # markers without a length
SCAN_END = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # any marker but restarts, which lie inside of a scan
EXIF_PREFIX, XMP_PREFIX, PROFILE_PREFIX = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
MIN_JFIF_BYTES, MIN_ADOBE_BYTES = 14, 12
MAX_SCANS = 100  # more cost time and show nothing; encoders write about ten
SMALLEST = 8  # JPEG decodes to 1/8 of its side at the least; all bits are read for that too
DAMAGE = re.compile(r"premature end|bad (Huffman|arithmetic) code|found marker", re.IGNORECASE)  # other warnings are of sound pictures too
UNUSED = re.compile(r"(?<!\d)(\d{1,9}) extraneous bytes")
MOST_UNUSED = 32  # bytes


@dataclass(frozen=True)
class Contents:
    """A JPEG taken apart.

    Attributes:
        data: the file without metadata; what follows the first picture is as it was.
        exif, xmp, profile: what lies beside the pixels.
    """

    data: bytes
    exif: bytes | None
    xmp: bytes | None
    profile: bytes | None


def take_apart(data: bytes) -> Contents:
    """Split a JPEG into what its pixels need and its metadata; a structure that makes no sense is left to the decoder.

    Raises:
        Refusal: it has more than MAX_SCANS scans.
    """
    kept: list[bytes | memoryview] = [data[:2]]
    exif: list[bytes] = []
    profiles: list[bytes] = []
    xmp, rest = None, 2
    frame, num_components = 0, 0
    for marker, start, stop in segments(data):
        content = memoryview(data)[start + 4:stop]
        rest = stop
        if marker in FRAMES:
            frame, num_components = marker, len(content[6::3])
        if marker == EXIF_OR_XMP and data.startswith(EXIF_PREFIX, start + 4):
            exif.append(bytes(content[len(EXIF_PREFIX):]))
        elif marker == EXIF_OR_XMP and data.startswith(XMP_PREFIX, start + 4):
            xmp = bytes(content[len(XMP_PREFIX):])
        elif marker == PROFILE and data.startswith(PROFILE_PREFIX, start + 4):
            profiles.append(bytes(content[len(PROFILE_PREFIX):]))
        elif not is_metadata(marker, bytes(content[:MIN_JFIF_BYTES])):
            kept.append(memoryview(data)[start:stop])
        if marker == START_OF_SCAN:
            break
    head = b"".join(kept)
    if frame in PROGRESSIVE or not is_one_scan(data, rest, num_components):
        check_scans(data, rest)
    return Contents(head + data[rest:], b"".join(exif) or None, xmp, join_profile(profiles))


def is_one_scan(data: bytes, stop: int, num_components: int) -> bool:
    """Whether the scan whose header stops here is of all components, so that nothing else is decoded."""
    place = stop - 4 - 2 * num_components  # of the scan's own number of components
    return num_components > 0 and place >= 0 and data[place:place + 1] == bytes([num_components])


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker of each segment, and where it starts and stops, up to where the first scan's bits start."""
    place, marker = 2, 0
    while place + 4 <= len(data) and marker not in (START_OF_SCAN, END):
        if data[place] != 0xFF:
            place += 1  # decoders skip what lies between segments
        elif data[place + 1] == 0xFF or data[place + 1] == 0:
            place += 1
        else:
            marker, start = data[place + 1], place
            place += 2 if marker in (*BARE, END) else 2 + max(2, int.from_bytes(data[place + 2:place + 4], "big"))
            if marker not in BARE and marker != END:
                yield marker, start, place


def is_metadata(marker: int, content: bytes) -> bool:
    """Whether a segment is nothing that the decoder needs: all applications' and comments, but the headers that say what the colours are."""
    if marker == JFIF:
        return not (content.startswith(b"JFIF\0") and len(content) >= MIN_JFIF_BYTES)
    if marker == ADOBE:
        return not (content.startswith(b"Adobe") and len(content) >= MIN_ADOBE_BYTES)
    return 0xE0 <= marker <= 0xEF or marker == COMMENT


def join_profile(parts: list[bytes]) -> bytes | None:
    """A colour profile from its numbered parts; None where there is none, one is missing, or it is larger than any that is applied."""
    parts = sorted(parts)
    if not parts or len(parts[0]) < 2 or parts[0][1] != len(parts) or sum(map(len, parts)) > MAX_PROFILE_BYTES + 2 * len(parts):
        return None
    return b"".join(part[2:] for part in parts)


def check_scans(data: bytes, place: int) -> None:
    """Count a picture's scans, from the first one's bits up to the picture's end marker.

    Raises:
        Refusal: more than MAX_SCANS scans.
    """
    number = 1
    while (match := SCAN_END.search(data, place)) and match[1][0] != END:
        marker, place = match[1][0], match.end()
        if marker not in BARE:
            place += max(2, int.from_bytes(data[place:place + 2], "big"))
        number += marker == START_OF_SCAN
        if number > MAX_SCANS:
            raise Refusal(f"image has more than {MAX_SCANS} scans, which cost time and show nothing; store it again")


def find_damage(data: bytes) -> str | None:
    """What libjpeg warns of while it reads all bits of a JPEG, if it shows that some are missing or wrong; else None.

    Some cameras leave a few bytes, or fill with equal ones, between the last bits and the next marker: these show nothing. Many unequal
    bytes that nothing used do. A kind of JPEG that TurboJPEG does not read is not judged.
    """
    try:
        colours = "CMYK" if simplejpeg.decode_jpeg_header(data)[2] == "CMYK" else "GRAY"
        simplejpeg.decode_jpeg(data, colours, min_height=1, min_width=1, min_factor=SMALLEST, strict=True)
    except ValueError as error:
        warning = str(error)
        unused = UNUSED.search(warning)
        is_damage = leaves_picture(data, int(unused[1])) if unused else DAMAGE.search(warning)
        return warning if is_damage else None
    return None


def leaves_picture(data: bytes, num_unused: int) -> bool:
    """Whether so many bytes before the end marker are more than what sound files leave."""
    end = data.rfind(b"\xff\xd9")
    return num_unused > MOST_UNUSED and len(set(data[max(0, end - num_unused):end])) > 1
