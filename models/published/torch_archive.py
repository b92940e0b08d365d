"""Read the tensors of a `.pt` file without running what it says.

A `.pt` file is a zip archive: a pickle that describes the tensors, and one stored member for the bytes of each storage.
A pickle is a program that may call anything. Here a small interpreter knows only the instructions that name and describe
tensors; their values are inert, everything else is refused with its reason, and no module of pickles is imported.

Nothing is allocated for a tensor either: shapes, strides and sizes are checked against the archive first, and bytes are
read in pieces, each storage against its checksum.
"""

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from ...errors import CheckpointError
from .tensor_description import ELEMENT_BYTES, TensorDescription, describe_tensors

MAX_DIRECTORY_BYTES = 16_000_000
MAX_DESCRIPTION_BYTES = 16_000_000
CHUNK_BYTES = 16 * 1024 * 1024
END_RECORD = struct.Struct("<4sHHHHIIH")
LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
ENCRYPTED = 1
STORAGE_MEMBER = re.compile(r"data/[A-Za-z0-9_]{1,40}")
# What PyTorch writes beside the description and the storages.
SMALL_MEMBERS = frozenset({"version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"})
# What a file may be instead, by its first bytes.
OTHER_FORMATS = ((b"\x80", "a bare pickle, as PyTorch wrote before 1.6; load it where you trust it and save it again"),
                 (b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"\x1f\x8b", "a gzip archive"), (b"<", "a page of text; download the file again"))


@dataclass(frozen=True)
class Member:
    """Where a member of the archive lies: first byte, size in bytes, and its checksum (CRC-32)."""

    offset: int
    size_bytes: int
    crc: int


@dataclass(frozen=True)
class ArchivedTensor:
    """A tensor in the archive.

    Attributes:
        dtype: as safetensors spells it, such as `F32`.
        shape: its shape; elements lie in C order.
        offset: its first byte in the file.
        size_bytes: how many bytes it has.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


class TorchArchive:
    """An open `.pt` file whose description has been checked; use as a context.

    Attributes:
        path: the file.
        tensors: name -> tensor, in the order of the file.
    """

    def __init__(self, path: Path) -> None:
        """Open a file and check everything but the tensors' bytes.

        Raises:
            CheckpointError: not a zip archive of a flat dictionary of plain tensors, damaged, or asking for anything else.
        """
        self.path = path
        try:
            self._file: BinaryIO = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")  # waits for no writer of a pipe
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}") from error
        try:
            self._storages, self.tensors = self._read()
        except CheckpointError as error:
            self._file.close()
            raise CheckpointError(f"{path}: {error}") from error
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        """Use as a context."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        self._file.close()

    @property
    def size_bytes(self) -> int:
        """Size of the whole file."""
        return os.fstat(self._file.fileno()).st_size

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a tensor, in pieces of at most 16 MiB, little-endian, C order.

        Raises:
            CheckpointError: the file became shorter while it was read.
        """
        tensor = self.tensors[name]
        return self._pieces(tensor.offset, tensor.size_bytes)

    def check_storages(self) -> None:
        """Read every storage against its checksum.

        Raises:
            CheckpointError: bytes were damaged.
        """
        for name, member in self._storages.items():
            crc = 0
            for piece in self._pieces(member.offset, member.size_bytes):
                crc = zlib.crc32(piece, crc)
            if crc != member.crc:
                raise CheckpointError(f"{self.path}: {name} has the checksum {crc:08x}, expected {member.crc:08x}; the file is damaged, "
                                      "download it again")

    def sha256(self) -> str:
        """Hex SHA-256 of the whole file, read through the handle that the tensors are read through."""
        digest = sha256()
        for piece in self._pieces(0, self.size_bytes):
            digest.update(piece)
        return digest.hexdigest()

    def _pieces(self, offset: int, size_bytes: int) -> Iterator[bytes]:
        end = offset + size_bytes
        while offset < end:
            piece = os.pread(self._file.fileno(), min(CHUNK_BYTES, end - offset), offset)
            if not piece:
                raise CheckpointError(f"{self.path}: ends at byte {offset}, expected {end}; it changed while it was read")
            offset += len(piece)
            yield piece

    def _read(self) -> tuple[dict[str, Member], dict[str, ArchivedTensor]]:
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            raise CheckpointError("not a plain file")
        members = read_members(self._file)
        _check_members(members, self._small(members))
        described = describe_tensors(b"".join(self._pieces(members["data.pkl"].offset, members["data.pkl"].size_bytes)))
        tensors = {name: _place(name, tensor, members) for name, tensor in described.items()}
        storages = {name: member for name, member in members.items() if STORAGE_MEMBER.fullmatch(name)}
        unused = storages.keys() - {f"data/{tensor.storage.key}" for tensor in described.values()}
        if unused:
            raise CheckpointError(f"{min(unused)} belongs to no tensor ({len(unused)} such members); this is no plain checkpoint")
        return storages, tensors

    def _small(self, members: Mapping[str, Member]) -> dict[str, bytes]:
        """The content of the description's small neighbours, each against its checksum."""
        found = {}
        for name in members.keys() & (SMALL_MEMBERS | {"data.pkl"}):
            limit = MAX_DESCRIPTION_BYTES if name == "data.pkl" else 100
            if members[name].size_bytes > limit:
                raise CheckpointError(f"{name} has {members[name].size_bytes} bytes; at most {limit} are read")
            found[name] = b"".join(self._pieces(members[name].offset, members[name].size_bytes))
            if zlib.crc32(found[name]) != members[name].crc:
                raise CheckpointError(f"{name} does not have its checksum; the file is damaged, download it again")
        return found


def read_members(file: BinaryIO) -> dict[str, Member]:
    """The members of a zip archive without the folder that holds them all; only stored, plain ones that do not overlap.

    Raises:
        CheckpointError: another format, cut off, or with a member that PyTorch does not write.
    """
    size = os.fstat(file.fileno()).st_size
    _check_format(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            infos, directory = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, OSError) as error:
        raise CheckpointError(f"not a whole zip archive ({error}); download it again") from error
    found: dict[str, Member] = {}
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        folder, _, name = info.orig_filename.partition("/")
        if not name or folder != infos[0].orig_filename.partition("/")[0]:
            raise CheckpointError(f"member {info.orig_filename!r:.80} lies outside the folder of the others")
        if name in found:
            raise CheckpointError(f"member {name!r:.80} occurs twice")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise CheckpointError(f"member {name!r:.80} is compressed; PyTorch stores members as they are")
        if info.flag_bits & ENCRYPTED:
            raise CheckpointError(f"member {name!r:.80} is encrypted")
        offset = _data_offset(file, info)
        if info.header_offset < end or offset + info.file_size > directory:
            raise CheckpointError(f"member {name!r:.80} overlaps another one or the archive's directory")
        end = offset + info.file_size
        found[name] = Member(offset, info.file_size, info.CRC)
    return found


def _check_format(file: BinaryIO, size: int) -> None:
    """Refuse what is no zip archive, is cut off, or has a directory too large to be read into memory."""
    start = os.pread(file.fileno(), 512, 0)
    if not start.startswith(b"PK\x03\x04"):
        meaning = next((meaning for magic, meaning in OTHER_FORMATS if start.startswith(magic)), None)
        meaning = "a tar archive, as PyTorch wrote before 0.2" if start[257:262] == b"ustar" else meaning
        raise CheckpointError(f"not a zip archive as PyTorch writes it, but {meaning or f'something that begins with {start[:8]!r}'}")
    tail = os.pread(file.fileno(), END_RECORD.size, max(0, size - END_RECORD.size))
    if len(tail) < END_RECORD.size or not tail.startswith(b"PK\x05\x06"):
        raise CheckpointError("the zip archive has no end; the file is cut off, download it again")
    directory_bytes = END_RECORD.unpack(tail)[5]
    if directory_bytes == 0xFFFFFFFF:  # in the zip64 record instead, 56 bytes long, before a locator of 20 bytes
        record = os.pread(file.fileno(), 56, max(0, size - END_RECORD.size - 20 - 56))
        directory_bytes = struct.unpack_from("<Q", record, 40)[0] if record.startswith(b"PK\x06\x06") else directory_bytes
    if directory_bytes > MAX_DIRECTORY_BYTES:
        raise CheckpointError(f"the archive's directory has {directory_bytes} bytes; at most {MAX_DIRECTORY_BYTES} are read")


def _data_offset(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin, once its own header agrees with the directory."""
    header = os.pread(file.fileno(), LOCAL_HEADER.size, info.header_offset)
    if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise CheckpointError(f"member {info.orig_filename!r:.80} has no header at byte {info.header_offset}; the file is damaged")
    fields = LOCAL_HEADER.unpack(header)
    name = os.pread(file.fileno(), fields[9], info.header_offset + LOCAL_HEADER.size)
    if fields[3] != zipfile.ZIP_STORED or name != info.orig_filename.encode():
        raise CheckpointError(f"member {info.orig_filename!r:.80} is called {name!r:.80} or compressed in its own header; the file was altered")
    return info.header_offset + LOCAL_HEADER.size + int(fields[9]) + int(fields[10])


def _check_members(members: Mapping[str, Member], small: Mapping[str, bytes]) -> None:
    strange = [name for name in members if name not in SMALL_MEMBERS and name != "data.pkl" and not STORAGE_MEMBER.fullmatch(name)]
    if strange:
        raise CheckpointError(f"member {strange[0]!r:.80} does not belong in a checkpoint"
                              + (" (this is a TorchScript program)" if "constants.pkl" in members else ""))
    if "data.pkl" not in small:
        raise CheckpointError("data.pkl is missing; this is no checkpoint of PyTorch")
    if small.get("byteorder", b"little") != b"little":
        raise CheckpointError(f"byte order is {small['byteorder']!r:.40}, expected b'little'")


def _place(name: str, tensor: TensorDescription, members: Mapping[str, Member]) -> ArchivedTensor:
    """Find a tensor's bytes, once its storage, size and strides are those of a plain tensor."""
    storage, item = tensor.storage, ELEMENT_BYTES[tensor.storage.dtype]
    member = members.get(f"data/{storage.key}")
    if member is None:
        raise CheckpointError(f"tensor {name}: its storage data/{storage.key} is missing")
    if member.size_bytes != storage.num_elements * item:
        raise CheckpointError(f"tensor {name}: its storage is said to have {storage.num_elements} elements of {item} bytes, "
                              f"but data/{storage.key} has {member.size_bytes} bytes")
    num_elements = prod(tensor.shape)
    expected = [prod(tensor.shape[i + 1:]) for i in range(len(tensor.shape))]
    steps = zip(tensor.shape, tensor.stride, expected, strict=True)
    if num_elements and any(length > 1 and found != wanted for length, found, wanted in steps):
        raise CheckpointError(f"tensor {name}: strides {list(tensor.stride)} of shape {list(tensor.shape)} are not contiguous")
    if tensor.offset + num_elements > storage.num_elements:
        raise CheckpointError(f"tensor {name}: {num_elements} elements from {tensor.offset} on do not fit into a storage of "
                              f"{storage.num_elements}")
    return ArchivedTensor(storage.dtype, tensor.shape, member.offset + tensor.offset * item, num_elements * item)
