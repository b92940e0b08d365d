"""JPEG files without what no pixel depends on, and whether their scans are whole (ITU-T T.81, annex B).

Only the segments that the decoder needs are handed to it. Metadata is set aside; orientation and colour profile are read from it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .colour import MAX_PROFILE_BYTES
from .refusals import Refusal

MAGIC = b"\xff\xd8\xff"
START_OF_SCAN, END, ADOBE, JFIF, EXIF_OR_XMP, PROFILE, COMMENT = 0xDA, 0xD9, 0xEE, 0xE0, 0xE1, 0xE2, 0xFE
FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
PROGRESSIVE = (0xC2, 0xCA)
ARITHMETIC = range(0xC9, 0xD0)
BARE = (*range(0xD0, 0xD9), 0x01)  # markers without a length
SCAN_END = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # any marker but restarts, which lie inside of a scan
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
EXIF_PREFIX, XMP_PREFIX, PROFILE_PREFIX = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
MIN_JFIF_BYTES, MIN_ADOBE_BYTES = 14, 12
MAX_SCANS = 100  # more cost time and show nothing; encoders write about ten
INTERVALS = b"\xff\xdd\0\4"  # the marker that defines them, and its length
PADDING = bytes(i * i * 53 % 251 for i in range(3, 103))  # any bits that are no marker


@dataclass(frozen=True)
class Contents:
    """A JPEG taken apart.

    Attributes:
        data: the file without metadata; what follows the first picture is as it was.
        exif, xmp, profile: what lies beside the pixels.
        start: where the bits of the first scan start in `data`.
        is_progressive: it comes in several passes over the whole picture.
        is_arithmetic: its bits are arithmetic codes, which may go on behind their end as zeros.
        has_restarts: its bits come in intervals, or may do so.
    """

    data: bytes
    exif: bytes | None
    xmp: bytes | None
    profile: bytes | None
    start: int
    is_progressive: bool
    is_arithmetic: bool
    has_restarts: bool

    def with_padding(self) -> bytes:
        """The file with more bits behind each scan: a whole scan does not use them, one that was cut does.

        Where bits come in intervals, the next ones are begun too, for what follows a cut at a border is not looked at before.
        """
        pieces, place = [], 0
        for start, end in scan_ends(self.data, self.start):
            pieces += [self.data[place:end], PADDING]
            if self.has_restarts:
                restarts = RESTART.findall(self.data, start, end)
                number = restarts[-1][1] if restarts else 7
                pieces += [bytes([0xFF, 0xD0 | (number + i & 7)]) + PADDING[i:] for i in range(1, 9)]
            place = end
        return b"".join([*pieces, self.data[place:]])


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
    return Contents(head + data[rest:], b"".join(exif) or None, xmp, join_profile(profiles), len(head), frame in PROGRESSIVE,
                    frame in ARITHMETIC, INTERVALS in data[:rest] or (frame in PROGRESSIVE and INTERVALS in data))


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
    """Look at a picture's scans, seen from the first one's bits.

    Raises:
        Refusal: more than MAX_SCANS scans.
    """
    for number, _ in enumerate(scan_ends(data, place), 1):
        if number > MAX_SCANS:
            raise Refusal(f"image has more than {MAX_SCANS} scans, which cost time and show nothing; store it again")


def scan_ends(data: bytes, place: int) -> Iterator[tuple[int, int]]:
    """Where the bits of each scan start and end, up to the picture's end marker; fill bytes belong to the marker that follows."""
    start, in_scan = place, True
    while match := SCAN_END.search(data, place):
        marker, place = match[1][0], match.end()
        if in_scan:
            yield start, match.start()
            in_scan = False
        if marker == END:
            return
        if marker not in BARE:
            place += max(2, int.from_bytes(data[place:place + 2], "big"))
        if marker == START_OF_SCAN:
            start, in_scan = place, True
