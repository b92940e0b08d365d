"""Canonical JSON, and digests of values, bytes and files: equal content has equal digests, whatever the machine or the day."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")  # SHA-256 in hex; key ids and public keys are written alike


def canonical_json(value: Any) -> str:
    """Write a value as JSON with sorted keys, no spaces and no NaN: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON."""
    return sha256_bytes(canonical_json(value).encode())


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def readable_json(value: Any) -> bytes:
    """JSON as this project writes it for people: sorted keys, two spaces, no NaN, a line end."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
