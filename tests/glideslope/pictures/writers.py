"""Picture files written by hand, where Pillow writes no such ones: bit depths, byte orders, chunks and segments of any content."""

import io
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LIMIT = 10_000_000


def encode(image: Image.Image, kind: str, **settings: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **settings)
    return sink.getvalue()


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with some noise."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((smooth + generator.integers(-5, 6, smooth.shape)).clip(0, 255).astype(np.uint8))


def pack_bits(values: NDArray[np.int64], depth: int) -> bytes:
    """Rows of values (H, W) as bits, the highest first, each row filled up to whole bytes."""
    bits = (values[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: NDArray[np.int64], depth: int, colour_type: int = 0, *, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of samples (H, W, C), with chunks before and after those of the pixels."""
    height, width, channels = values.shape
    rows = pack_bits(values.reshape(height, width * channels), depth)
    stride = len(rows) // height
    raw = b"".join(b"\0" + rows[row * stride:(row + 1) * stride] for row in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)) + before
            + chunk(b"IDAT", zlib.compress(raw)) + after + chunk(b"IEND", b""))


def put_chunks(data: bytes, chunks: bytes) -> bytes:
    """A PNG with chunks behind its header."""
    return data[:33] + chunks + data[33:]


def put_segments(data: bytes, *contents: tuple[int, bytes]) -> bytes:
    """A JPEG with segments behind its start: marker and content each."""
    return data[:2] + b"".join(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in contents) + data[2:]


def put_riff(data: bytes, kind: bytes, content: bytes, flag: int) -> bytes:
    """A WebP with one more chunk, which the flag in its header announces."""
    width, height = Image.open(io.BytesIO(data)).size
    header = b"VP8X" + struct.pack("<IB3x", 10, flag) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + header + data[12:] + kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(width: int, height: int, data: bytes, *, order: str = "<", fields: Mapping[int, tuple[int, tuple[int, ...]]]) -> bytes:
    """A TIFF of one strip: tag -> type (3: 16 bits, 4: 32 bits) and values."""
    entries = {256: (4, (width,)), 257: (4, (height,)), 259: (3, (1,)), 273: (4, (8,)), 278: (4, (height,)), 279: (4, (len(data),)), **fields}
    data += b"\0" * (len(data) % 2)
    start = 8 + len(data)
    beyond = start + 2 + 12 * len(entries) + 4
    table, extra = b"", b""
    for tag, (kind, values) in sorted(entries.items()):
        content = struct.pack(order + {1: "B", 2: "B", 3: "H", 4: "I"}[kind] * len(values), *values)
        if len(content) > 4:
            place, extra = beyond + len(extra), extra + content + b"\0" * (len(content) % 2)
            content = struct.pack(order + "I", place)
        table += struct.pack(order + "HHI", tag, kind, len(values)) + content.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", start) + data + struct.pack(order + "H", len(entries)) + table + b"\0\0\0\0" + extra


def exif_block(orientation: int, *, order: str = "<", kind: int = 3) -> bytes:
    """A TIFF structure that holds an orientation and nothing else."""
    value = struct.pack(order + {1: "B3x", 3: "H2x", 4: "I"}[kind], orientation)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1) + value + b"\0\0\0\0"


def xmp_packet(orientation: int) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
