"""Writes `.pt` files for tests: as PyTorch writes them, and as it never would."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def save_as_published(path: Path, state: Mapping[str, Tensor]) -> Path:
    """The format of the published checkpoints; glideslope itself writes no such file, only reads it."""
    torch.save(dict(state), path)
    return path


def write_archive(path: Path, members: Mapping[str, bytes], *, folder: str = "archive", method: int = zipfile.ZIP_STORED) -> Path:
    """A zip archive with the given members."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{folder}/{name}" if folder else name, data)
    return path


def read_archive(path: Path) -> dict[str, bytes]:
    """The members of a zip archive, without its folder."""
    with zipfile.ZipFile(path) as archive:
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
