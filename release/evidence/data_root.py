"""The digest that names a curated set."""

from ...store.file_lists import FileEntry
from ...store.stage_manifest import Manifest
from .contents import Release


def curated_files(release: Release) -> list[FileEntry]:
    """The files of the curated set with size and digest, as curation recorded them; the release does not hold them."""
    return [entry for entry in release.record("curated").outputs.files if entry.path.startswith("data/")]


def curated_root(release: Release) -> str:
    """One digest for all files of the curated set: the root of their flat manifest."""
    return Manifest(tuple(sorted(curated_files(release)))).root
