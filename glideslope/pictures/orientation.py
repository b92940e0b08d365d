"""Which way up a picture is: the orientation in EXIF, else in XMP, read leniently, for metadata is often damaged.

Nothing else of the metadata is read. What cannot be read says nothing: the picture counts as upright.
"""

import re
from typing import Literal

from PIL import Image

UPRIGHT = 1
ORIENTATION_TAG = 0x0112
INTEGER_BYTES = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4}  # of the types of TIFF fields that hold integers
BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}
EXIF_PREFIX = b"Exif\0\0"
XMP_PATTERN = re.compile(rb'tiff:Orientation(?:="|>)([1-8])(?!\d)')
SWAPPING = (5, 6, 7, 8)  # orientations that swap width and height
# Exif 2.32, 4.6.4 A: where row 0 and column 0 of the stored picture lie, and what brings them to the top and the left
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}


def read_orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """The orientation, 1 to 8: of the EXIF where it names one, else of the XMP, else 1.

    Args:
        exif: a TIFF structure, with or without the prefix `Exif`; None: there is none.
        xmp: the packet's XML; None: there is none.
    """
    found = None if exif is None else orientation_in_exif(exif)
    if found is None and xmp is not None and (match := XMP_PATTERN.search(xmp)):
        found = int(match[1])
    return UPRIGHT if found is None else found


def orientation_in_exif(exif: bytes) -> int | None:
    """The orientation in the first directory of a TIFF structure, however damaged the rest is; None: not there, or none of 1 to 8."""
    while exif.startswith(EXIF_PREFIX):
        exif = exif[len(EXIF_PREFIX):]
    order = BYTE_ORDERS.get(exif[:2])
    if order is None or len(exif) < 8:
        return None
    start = int.from_bytes(exif[4:8], order)
    num_fields = int.from_bytes(exif[start:start + 2], order)
    for place in range(start + 2, min(start + 2 + 12 * num_fields, len(exif) - 11), 12):
        tag, kind = (int.from_bytes(exif[at:at + 2], order) for at in (place, place + 2))
        if tag == ORIENTATION_TAG and kind in INTEGER_BYTES:
            value = int.from_bytes(exif[place + 8:place + 8 + INTEGER_BYTES[kind]], order)
            return value if 1 <= value <= 8 else None
    return None


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as it is looked at; the same object where it is upright."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image
