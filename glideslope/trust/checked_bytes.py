"""Small files read once and held against a manifest: the bytes that are hashed are the bytes that are parsed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, VerificationError
from ..store.digests import sha256_bytes
from ..store.file_lists import FileEntry
from ..store.strict_json import parse_object, read_bounded

MAX_CONFIG_BYTES = 1_000_000
Digests = Mapping[Path, FileEntry]  # a file -> what the manifest says of it


def read_bytes(path: Path, max_bytes: int, digests: Digests | None = None) -> bytes:
    """Read a small file whole.

    Args:
        path: the file.
        max_bytes: its largest size.
        digests: what the bytes must fit; `None` looks at no digest.

    Raises:
        CheckpointError: missing, unreadable or too large.
        VerificationError: not in the manifest, or other bytes than the manifest lists.
    """
    try:
        data = read_bounded(path, max_bytes)
    except VerificationError as error:
        raise CheckpointError(f"{path}: {error.problems[0]}") from error
    if digests is not None:
        entry = digests.get(path)
        if entry is None:
            raise VerificationError(str(path), ["file is not in the manifest"])
        if (digest := sha256_bytes(data)) != entry.sha256:
            raise VerificationError(str(path), [f"sha256 is {digest[:12]}…, expected {entry.sha256[:12]}…"])
    return data


def read_object(path: Path, digests: Digests | None = None) -> dict[str, Any]:
    """Read a small JSON file that holds an object; see `read_bytes` for its digest.

    Raises:
        CheckpointError: missing, too large, not strict JSON, or something else than an object.
    """
    data = read_bytes(path, MAX_CONFIG_BYTES, digests)
    try:
        return parse_object(data, where=str(path), max_bytes=MAX_CONFIG_BYTES)
    except VerificationError as error:
        raise CheckpointError(f"{path}: {error.problems[0]}") from error
