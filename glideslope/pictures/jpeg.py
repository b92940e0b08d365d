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
BARE = (*range(0xD0, 0xD9), 0x01)  # markers without a length
SCAN_END = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # any marker but restarts, which lie inside of a scan
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
EXIF_PREFIX, XMP_PREFIX, PROFILE_PREFIX = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
MIN_JFIF_BYTES, MIN_ADOBE_BYTES = 14, 12
MAX_SCANS = 100  # more cost time and show nothing; encoders write about ten
PADDING = bytes(i * i * 53 % 251 for i in range(3, 103))  # any bits that are no marker


@dataclass(frozen=True)
class Contents:
    """A JPEG taken apart.

    Attributes:
        data: the file without metadata; what follows the first picture is as it was.
        exif, xmp, profile: what lies beside the pixels.
        start: where the bits of the first scan start in `data`.
        is_complete: no scan that a progressive picture needs for its full precision is missing.
    """

    data: bytes
    exif: bytes | None
    xmp: bytes | None
    profile: bytes | None
    start: int
    is_complete: bool

    def with_padding(self) -> bytes:
        """The file with more bits behind its last scan: a whole scan does not use them, one that was cut does.

        Where bits come in intervals, the next ones are begun too, for what follows a cut at a border is not looked at before.
        """
        end = walk_scans(self.data, self.start, Precision())
        if end is None:
            return self.data
        restarts = RESTART.findall(self.data, self.data.rfind(b"\xff\xda", 0, end), end)
        number = restarts[-1][1] if restarts else 7
        intervals = b"".join(bytes([0xFF, 0xD0 | (number + i & 7)]) + PADDING[i:] for i in range(1, 9))
        return self.data[:end] + PADDING + intervals + self.data[end:]


def take_apart(data: bytes) -> Contents:
    """Split a JPEG into what its pixels need and its metadata; a structure that makes no sense is left to the decoder.

    Raises:
        Refusal: it has more than MAX_SCANS scans.
    """
    kept: list[bytes | memoryview] = [data[:2]]
    exif: list[bytes] = []
    profiles: list[bytes] = []
    xmp, rest = None, 2
    precision = Precision()
    for marker, start, stop in segments(data):
        content = memoryview(data)[start + 4:stop]
        rest = stop
        if marker in FRAMES:
            precision.begin(marker, bytes(content))
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
    if not precision.is_one_scan(data, rest):
        walk_scans(data, rest, precision)
    return Contents(head + data[rest:], b"".join(exif) or None, xmp, join_profile(profiles), len(head), precision.is_complete)


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


def walk_scans(data: bytes, place: int, precision: "Precision") -> int | None:
    """Where the picture's end marker starts, with the fill bytes before it; its scans are noted. None: there is no end marker.

    Raises:
        Refusal: more than MAX_SCANS scans.
    """
    precision.note_scan(data, place)
    num_scans = 1
    while match := SCAN_END.search(data, place):
        marker, place = match[1][0], match.end()
        if marker == END:
            return match.start()
        if marker not in BARE:
            place += max(2, int.from_bytes(data[place:place + 2], "big"))
        if marker == START_OF_SCAN:
            num_scans += 1
            precision.note_scan(data, place)
        if num_scans > MAX_SCANS:
            raise Refusal(f"image has more than {MAX_SCANS} scans, which cost time and show nothing; store it again")
    return None


class Precision:
    """To how many bits the coefficients of a progressive picture have come, scan by scan (T.81, annex G)."""

    def __init__(self) -> None:
        """Nothing is known; a picture that is not progressive is complete."""
        self.missing_bits: dict[int, list[int]] = {}
        self.num_components = 0

    def begin(self, marker: int, frame: bytes) -> None:
        """Note the components of a frame header."""
        self.num_components = len(frame[6::3])
        if marker in PROGRESSIVE:
            self.missing_bits = {component: [16] * 64 for component in frame[6::3]}

    def note_scan(self, data: bytes, stop: int) -> None:
        """Note the scan whose header stops here: its last bytes are the first and the last coefficient, and the bits."""
        if not self.missing_bits or stop < 3 or stop > len(data):
            return
        start = data.rfind(b"\xff\xda", max(0, stop - 14), stop)
        header = data[start + 4:stop]
        if start < 0 or len(header) < 4 or len(header) != 4 + 2 * header[0]:
            return
        first, last, bits = header[-3:]
        for component in header[1:-3:2]:
            for place in range(first, min(last, 63) + 1):
                if component in self.missing_bits:
                    self.missing_bits[component][place] = bits & 15

    def is_one_scan(self, data: bytes, stop: int) -> bool:
        """Whether the scan whose header stops here is all there is to decode: not progressive, and of all components."""
        place = stop - 4 - 2 * self.num_components  # of the scan's own number of components
        return not self.missing_bits and self.num_components > 0 and place >= 0 and data[place:place + 1] == bytes([self.num_components])

    @property
    def is_complete(self) -> bool:
        """Whether no bit of any coefficient is missing."""
        return not any(any(bits) for bits in self.missing_bits.values())
