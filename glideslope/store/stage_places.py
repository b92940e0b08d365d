"""Where a stage's directories lie, and how a finished one takes its place: whenever the process is killed, nothing is lost.

Beside `<name>` lie `<name>.partial`, where the stage works; `<name>.replaced`, what stood there before, for the moment of
the exchange; and `<name>.aside-<digest>`, costly work that was done with other settings.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StageError, StorageError
from .digests import sha256_json
from .whole_files import sync_directory, write_bytes

RECORD_NAME = "record.json"
INTENT_NAME = "intent.json"
CHECKPOINTS = "checkpoints"  # folder of a partial directory that serves only until the record stands

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StagePlaces:
    """The directories of one stage.

    Attributes:
        directory: where the finished stage lies.
        record: its record.
        is_costly: whether work with other settings is kept aside.
    """

    directory: Path
    record: Path
    is_costly: bool

    @classmethod
    def of(cls, directory: Path, record: Path | None = None, *, is_costly: bool = False) -> "StagePlaces":
        """The places of a stage; where its directory is a link, those of what the link leads to."""
        place = directory.resolve() if directory.is_symlink() else directory
        return cls(place, record or place / RECORD_NAME, is_costly)

    @property
    def partial(self) -> Path:
        """Where the stage works."""
        return self._beside("partial")

    @property
    def replaced(self) -> Path:
        """Where what was finished before lies during the exchange."""
        return self._beside("replaced")

    def aside(self, identity: Mapping[str, Any] | None) -> Path:
        """Where work of another identity is kept; of none that is known, a name that is free."""
        if identity is not None:
            return self._beside(f"aside-{sha256_json(identity)[:8]}")
        return next(path for number in range(1, 1_000_000) if not os.path.lexists(path := self._beside(f"aside-{number}")))

    def try_exchange(self) -> None:
        """Try what ends the stage, before hours of work: the directory is renamed, and back.

        Raises:
            StageError: a file lies where the directory belongs.
            StorageError: the directory is read-only, held open, or the root of a disk.
        """
        if not os.path.lexists(self.directory):
            return
        if not self.directory.is_dir():
            raise StageError(f"{self.directory}: is no directory, and the stage's result belongs there; move it away")
        try:
            if not os.access(self.directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
                raise PermissionError(None, "it is read-only")
            self.directory.rename(self.replaced)
            self.replaced.rename(self.directory)
        except OSError as error:
            raise StorageError(f"{self.directory}: could not be replaced when the stage ends ({error.strerror}); nothing was begun. Make it "
                               "writable, close what holds it open, or move it away, then run the same command again") from error

    def exchange(self) -> None:
        """Put the partial directory, whose record is written, in the finished one's place; may be done again if it was killed.

        Raises:
            StorageError: the old directory does not make way; the new one stays whole beside it.
        """
        try:
            remove(self.partial / CHECKPOINTS)
            (self.partial / INTENT_NAME).unlink(missing_ok=True)
            if os.path.lexists(self.directory):
                if self._is_apart and self.record.is_file():
                    move(self.record, self.directory / RECORD_NAME)
                self.directory.rename(self.replaced)
            self.partial.rename(self.directory)
            sync_directory(self.directory.parent)
        except OSError as error:
            self.mend()
            raise StorageError(f"{self.directory}: cannot be replaced ({error.strerror}). The new result lies whole in {self.partial}: close "
                               "what holds the old one open, or move it away, then run the same command again; no work is lost") from error
        self.mend()

    def mend(self) -> None:
        """End an exchange, or undo one that was killed too soon, so that one result is there, with its record."""
        if os.path.lexists(self.replaced) and not os.path.lexists(self.directory):
            self.replaced.rename(self.directory)
        if os.path.lexists(self.directory):
            self._retire()
        if self._is_apart and (self.directory / RECORD_NAME).is_file():
            move(self.directory / RECORD_NAME, self.record)

    def set_aside(self, path: Path, identity: Mapping[str, Any] | None) -> Path:
        """Rename a directory so that it is out of the way; returns where it lies now."""
        aside = self.aside(identity)
        remove(aside)  # older work of the same settings
        path.rename(aside)
        return aside

    def take_back(self, identity: Mapping[str, Any]) -> bool:
        """Take up what was kept aside with these settings, where there is such work and no partial directory."""
        aside = self.aside(identity)
        if self.read_identity(aside) != identity or os.path.lexists(self.partial):
            return False
        aside.rename(self.partial)
        return True

    @staticmethod
    def read_identity(directory: Path) -> dict[str, Any] | None:
        """What the work in a directory was done with: its intent, or its record once that is done; none that can be read: `None`."""
        for name in (INTENT_NAME, RECORD_NAME):
            try:
                value = json.loads((directory / name).read_bytes())
                return {key: value[key] for key in ("stage", "config", "inputs")}
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return None

    @staticmethod
    def is_empty(directory: Path) -> bool:
        """Whether a directory holds nothing but an intent, be it half written, so that nothing is lost with it."""
        return directory.is_dir() and all(path.name.startswith(INTENT_NAME) for path in directory.iterdir())

    @property
    def _is_apart(self) -> bool:
        """Whether the record lies outside of the directory."""
        return self.record != self.directory / RECORD_NAME

    def _beside(self, ending: str) -> Path:
        return self.directory.with_name(f"{self.directory.name}.{ending}")

    def _retire(self) -> None:
        """Remove what was replaced, or keep it aside where it was costly and had other settings."""
        if not os.path.lexists(self.replaced):
            return
        before, now = self.read_identity(self.replaced), self.read_identity(self.directory)
        if self.is_costly and before is not None and now is not None and before["config"] != now["config"]:
            self.set_aside(self.replaced, before)
            return
        try:
            remove(self.replaced)
        except OSError as error:
            log.warning("%s: cannot be removed (%s); it is not needed any more, remove it by hand", self.replaced, error.strerror)


def record_beside(directory: Path) -> Path:
    """Where the record of a packed release lies: beside it, as it may not lie in it."""
    return directory.with_name(directory.name + ".record.json")


def move(source: Path, target: Path) -> None:
    """Move a file, onto another disk too, so that it is whole in one of the two places at every moment."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        write_bytes(target, source.read_bytes())
        source.unlink()


def remove(path: Path) -> None:
    """Remove a directory, a file or a link, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
