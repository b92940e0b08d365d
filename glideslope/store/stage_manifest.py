"""The manifest of a directory: every file below it with its size and digest.

It lists files by relative POSIX path, sorted. Two directories with equal content have equal manifests.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import VerificationError
from .digests import sha256_json
from .file_lists import MANIFEST_NAME, FileEntry, find_differences, list_files, measure_files

MANIFEST_FORMAT = "glideslope.manifest/1"


@dataclass(frozen=True)
class Manifest:
    """The files of a directory, sorted by path."""

    files: tuple[FileEntry, ...]

    @classmethod
    def of_directory(cls, directory: Path, *, exclude: Collection[str] = (MANIFEST_NAME,)) -> "Manifest":
        """Hash every file below a directory, apart from the excluded relative paths; one that ends in `/` stands for a folder.

        Raises:
            VerificationError: something below is no plain file.
        """
        return cls(tuple(sorted(measure_files(directory, _select_files(directory, exclude)).values())))

    @property
    def root(self) -> str:
        """One digest for the whole: SHA-256 of the canonical list of files."""
        return sha256_json(self.to_json()["files"])

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain data, without its root."""
        files = [{"path": f.path, "sha256": f.sha256, "size_bytes": f.size_bytes} for f in self.files]
        return {"format": MANIFEST_FORMAT, "files": files}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Manifest":
        """Read a manifest from plain data.

        Raises:
            VerificationError: another format or a malformed entry.
        """
        try:
            if value["format"] != MANIFEST_FORMAT:
                raise VerificationError("manifest", [f"format is {value['format']!r}, expected {MANIFEST_FORMAT!r}"])
            files = tuple(FileEntry(str(f["path"]), int(f["size_bytes"]), str(f["sha256"])) for f in value["files"])
        except (KeyError, TypeError, ValueError) as error:
            raise VerificationError("manifest", [f"malformed: {error!r}"]) from error
        return cls(tuple(sorted(files)))

    def differences(self, directory: Path, *, exclude: Collection[str] = (MANIFEST_NAME,)) -> list[str]:
        """Compare a directory with this manifest: one sentence for every file changed, missing or added."""
        return find_differences(self.files, directory, _select_files(directory, exclude))

    def unlisted(self, directory: Path, *, exclude: Collection[str] = (MANIFEST_NAME,)) -> list[str]:
        """Relative paths of the files in a directory that this manifest does not list, sorted."""
        return sorted(set(_select_files(directory, exclude)) - {entry.path for entry in self.files})


def _select_files(directory: Path, exclude: Collection[str]) -> list[str]:
    """Relative paths of the files below a directory, without the excluded ones and those in excluded folders (`name/`)."""
    folders = tuple(name for name in exclude if name.endswith("/"))
    return [path for path in list_files(directory) if path not in exclude and not path.startswith(folders)]
