"""What lies in a tar file, and where the file stops making sense.

Python's `tarfile` takes any damaged header for the end of the archive. Here the end is looked at: a tar that was cut,
overwritten or continued after its end mark is told from one that is whole, with the byte where it went wrong.
"""

import io
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ...text.one_line import one_line

BLOCK = tarfile.BLOCKSIZE
GZIP_MAGIC = b"\x1f\x8b"
MAX_TIMES_BYTES = 1024
LINK = "is a link, which is not followed; write the tar anew, with tar --dereference --hard-dereference for example"
TIMES = re.compile(rb"(?:\d+ [amc]time=[-\d.]+\n)+")


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a tar.

    Attributes:
        name: its path as it stands there, without a leading `./`; bytes that are not UTF-8 are surrogate escapes.
        offset, size: where its content lies in the tar, in bytes.
        problem: "" or why it must not be used, as the rest of a sentence that begins with its name.
    """

    name: str
    offset: int
    size: int
    problem: str = ""


@dataclass(frozen=True)
class TarContents:
    """The members of a tar.

    Attributes:
        members: all but the folders, in order, as far as the tar can be followed.
        damage: "" or what is wrong with the tar, as the rest of a sentence that begins with its name.
        cut: the member whose content ends with the file, if the tar was cut inside one.
        has_end_mark: whether the members end as they should, so that the last of them is followed by no lost one.
    """

    members: list[Member]
    damage: str = ""
    cut: Member | None = None
    has_end_mark: bool = False


@dataclass(frozen=True)
class Sample:
    """The members of one sample.

    Attributes:
        key: their common name, after that of the tar where the recipe wants it so.
        members: each by its suffix, in small letters.
    """

    key: str
    members: Sequence[tuple[str, Member]]


def list_members(file: BinaryIO, size_bytes: int, *, most: int | None = None) -> TarContents:
    """Read the headers of an uncompressed tar; no content is read.

    Args:
        file: the tar.
        size_bytes: its size.
        most: stop after so many members, and say nothing of what follows; None: read all.

    Raises:
        OSError: the file cannot be read.
    """
    members: list[Member] = []
    archive, place = header_reader(file), 0
    while most is None or len(members) < most:
        block = os.pread(file.fileno(), BLOCK, place)
        if block[156:157] == b"x" and (skipped := skip_times(file, block, place)):
            place = skipped
            continue
        found = read_plain_header(block, place) or read_any_header(archive, file, place)
        if isinstance(found, Exception):
            if place == 0 and (size_bytes == 0 or block.strip(b"\0")):
                return TarContents(members, describe_start(block, found))
            damage, has_end_mark = check_end(file, place, size_bytes)
            return TarContents(members, damage, None, has_end_mark)
        member, following, is_folder = found
        if member.size < 0 or following <= place:
            return TarContents(members, f"is damaged at byte {place}: {member.name} has an impossible size")
        if member.offset + member.size > size_bytes:
            return TarContents(members, f"ends at byte {size_bytes} in the middle of {member.name}", member)
        place = following
        if not is_folder:
            members.append(member)
    return TarContents(members, has_end_mark=True)


def refuse_start(file: BinaryIO) -> str:
    """Why a file cannot be a tar, by its first header; "" when it may be one.

    Raises:
        OSError: the file cannot be read.
    """
    block = os.pread(file.fileno(), BLOCK, 0)
    if block and not block.strip(b"\0"):
        return ""  # an end mark: a tar with nothing in it
    found = read_plain_header(block, 0) or read_any_header(header_reader(file), file, 0)
    return describe_start(block, found) if isinstance(found, Exception) else ""


def header_reader(file: BinaryIO) -> tarfile.TarFile:
    """A `TarFile` that has read nothing yet, for single headers at places that it is told."""
    archive = tarfile.TarFile(fileobj=io.BytesIO(bytes(2 * BLOCK)), encoding="utf-8", errors="surrogateescape")
    archive.fileobj = file
    return archive


def read_plain_header(block: bytes, place: int) -> tuple[Member, int, bool] | None:
    """The member of an ordinary file's header and the place of the next header; None: ask `tarfile`.

    By far most members of data sets are such, and this takes a tenth of the time.
    """
    if block[156:157] not in (b"0", b"\0") or block[257:262] != b"ustar" or block[345:346] != b"\0" or block[124] & 0x80:
        return None
    name, size, checksum = block[:100].partition(b"\0")[0], block[124:136].strip(b" \0"), block[148:156].strip(b" \0")
    if not size.isdigit() or not checksum.isdigit() or not name or name.startswith((b"/", b"./")) or name.endswith(b"/") or b".." in name:
        return None
    try:
        size_bytes, total = int(size, 8), int(checksum, 8)
    except ValueError:
        return None
    if total != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        return None
    start = place + BLOCK
    return Member(name.decode("utf-8", "surrogateescape"), start, size_bytes), start + -(-size_bytes // BLOCK) * BLOCK, False


def skip_times(file: BinaryIO, block: bytes, place: int) -> int | None:
    """The place behind an extended header that holds nothing but times; None: it holds more, or is damaged."""
    size = block[124:136].strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,11}", size) or not 0 < (size_bytes := int(size, 8)) <= MAX_TIMES_BYTES:
        return None
    if not TIMES.fullmatch(os.pread(file.fileno(), size_bytes, place + BLOCK)):
        return None
    return place + BLOCK + -(-size_bytes // BLOCK) * BLOCK


def read_any_header(archive: tarfile.TarFile, file: BinaryIO, place: int) -> tuple[Member, int, bool] | Exception:
    """The member whose header (or run of headers) begins at `place`, the place of the next, and whether it is a folder; or what is wrong."""
    file.seek(place)
    archive.offset = place
    try:
        info = tarfile.TarInfo.fromtarfile(archive)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError, MemoryError) as error:
        return error
    return describe_member(info), archive.offset, info.isdir()


def describe_member(info: tarfile.TarInfo) -> Member:
    """A member as plain data; what is no plain file inside the archive gets a problem."""
    name = info.name
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    problem = ""
    if not info.isreg():
        problem = LINK if info.issym() or info.islnk() else "is no plain file"
    elif info.issparse():
        problem = "is a sparse file"
    elif name.startswith("/"):
        problem = "has an absolute path"
    elif ".." in name.split("/"):
        problem = "leads out of the archive"
    return Member(name, info.offset_data, info.size if info.isreg() and not info.issparse() else 0, problem)


def check_end(file: BinaryIO, place: int, size_bytes: int) -> tuple[str, bool]:
    """What is wrong where the last header was expected ("": nothing), and whether an end mark stands there."""
    if place >= size_bytes:
        return f"ends at byte {size_bytes} without an end mark", False
    file.seek(place)
    block = file.read(BLOCK)
    is_short = len(block) < BLOCK
    if block.strip(b"\0"):
        return f"ends at byte {size_bytes} in the middle of a header" if is_short else f"is damaged at byte {place}: no tar header there", False
    if is_short:
        return f"ends at byte {size_bytes} in the middle of its end mark", True
    place += BLOCK
    while chunk := file.read(1 << 20):
        if rest := chunk.lstrip(b"\0"):
            return f"goes on at byte {place + len(chunk) - len(rest)} after its end mark", True
        place += len(chunk)
    return "", True


def describe_start(block: bytes, error: Exception) -> str:
    """What is wrong with a file that does not begin as a tar."""
    if not block:
        return "is empty (0 bytes)"
    if block.startswith(GZIP_MAGIC):
        return "is compressed with gzip; unpack it first with gunzip"
    return f"is not a tar: no header at byte 0 ({one_line(error, 100)})"
