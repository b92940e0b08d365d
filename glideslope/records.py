"""Stages: each writes one directory, whole or not at all, with a record of what went in and what came out.

A stage works in `<directory>.partial` and is renamed when its record is written. What a killed stage had finished
stays in the partial directory and is used again when configuration and inputs are still the same. A finished stage
with the same configuration and inputs is skipped after its files were hashed again.
"""

import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from .errors import StageError
from .manifest import UNWRITABLE, FileEntry, Manifest, read_json, sha256_json, storage_error, write_json

RECORD_NAME = "record.json"
INTENT_NAME = "intent.json"
RECORD_FORMAT = "glideslope.record/1"
RECORDED_PACKAGES = ("glideslope", "torch", "open_clip_torch", "timm", "scikit-learn", "numpy", "pillow", "safetensors")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """What a finished stage did.

    Attributes:
        stage: its name, for example `index`.
        config: its resolved configuration, plain data.
        inputs: name -> digest of everything it read; stage inputs carry the digest of that stage's record.
        outputs: the files it wrote.
        summary: figures of the run (counts, seeds), deterministic.
        environment: versions, machine, times; the only part that may differ between two equal runs.
    """

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Manifest
    summary: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Digest of everything but the environment: the link of the provenance chain."""
        return sha256_json({"stage": self.stage, "config": self.config, "inputs": self.inputs,
                            "outputs": self.outputs.to_json()["files"], "summary": self.summary})

    def to_json(self) -> dict[str, Any]:
        """The record as plain data, its digest included."""
        return {"format": RECORD_FORMAT, "stage": self.stage, "config": dict(self.config), "inputs": dict(self.inputs),
                "outputs": self.outputs.to_json()["files"], "summary": dict(self.summary),
                "environment": dict(self.environment), "digest": self.digest}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str) -> "Record":
        """Read a record and check its digest.

        Raises:
            StageError: malformed, or the digest is not that of the content.
        """
        try:
            outputs = Manifest(tuple(FileEntry(f["path"], f["size_bytes"], f["sha256"]) for f in value["outputs"]))
            record = cls(value["stage"], value["config"], value["inputs"], outputs, value["summary"], value["environment"])
            expected = value["digest"]
        except (KeyError, TypeError) as error:
            raise StageError(f"{where}: malformed record ({error!r}); remove the directory and run the stage again") from error
        if record.digest != expected:
            raise StageError(f"{where}: the record's digest is {record.digest[:12]}…, it states {expected[:12]}…: "
                             "the record was edited; remove the directory and run the stage again")
        return record


def read_record(directory: Path) -> Record:
    """Read the record of a finished stage.

    Raises:
        StageError: the stage has not finished, or its record was damaged.
    """
    path = directory / RECORD_NAME
    if not path.is_file():
        raise StageError(f"{directory}: no finished stage here ({RECORD_NAME} is missing); run the stage first")
    return Record.from_json(read_json(path), where=str(path))


def check_outputs(directory: Path, record: Record) -> None:
    """Hash a finished stage's files again.

    Raises:
        StageError: a file was changed, added or removed since the record was written.
    """
    problems = record.outputs.differences(directory, exclude=(RECORD_NAME, INTENT_NAME))
    if problems:
        raise StageError(f"{directory}: changed since the stage finished: {'; '.join(problems)}; "
                         "remove the directory and run the stage again")


def run_stage(directory: Path, *, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str],
              work: Callable[[Path], Mapping[str, Any]], record_path: Path | None = None) -> Record:
    """Run a stage unless a finished one with the same configuration and inputs is already there.

    Args:
        directory: the finished stage's directory.
        stage: its name in the record.
        config: plain data; part of the stage's identity.
        inputs: name -> digest of what the stage reads; part of its identity.
        work: gets the partial directory, which may hold finished pieces of a killed run with the same identity,
            fills it, and returns the summary for the record (deterministic plain data). A key `environment` in it
            is taken out and added to the record's environment instead (times, rates).
        record_path: where the record goes when it may not lie among the files, outside the directory (a release holds
            only what is published); none: `record.json` in the directory.

    Returns:
        The record, new or found.

    Raises:
        StageError: the directory was changed after the stage had finished.
        StorageError: the directory cannot be written.
    """
    identity: dict[str, Any] = {"stage": stage, "config": dict(config), "inputs": dict(inputs)}
    kept_at = record_path or directory / RECORD_NAME
    found = finished_record(directory, kept_at, identity)
    if found is not None:
        return found
    partial = directory.with_name(directory.name + ".partial")
    started = time.time()
    try:
        prepare_partial(partial, identity)
        summary = dict(work(partial))
        environment = describe_environment(started) | dict(summary.pop("environment", {}))
        for leftover in partial.rglob("*.tmp"):
            leftover.unlink()
        outputs = Manifest.of_directory(partial, exclude=(RECORD_NAME, INTENT_NAME))
        record = Record(stage, identity["config"], identity["inputs"], outputs, summary, environment)
        if record_path is None:
            write_json(partial / RECORD_NAME, record.to_json())
        else:
            record_path.unlink(missing_ok=True)
        if directory.exists():
            shutil.rmtree(directory)
        partial.rename(directory)
        (directory / INTENT_NAME).unlink()
        if record_path is not None:
            write_json(record_path, record.to_json())
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise storage_error(Path(error.filename) if isinstance(error.filename, str) else partial, error) from error
        raise
    return record


def finished_record(directory: Path, kept_at: Path, identity: Mapping[str, Any]) -> Record | None:
    """The record of a finished stage of this identity, its files hashed again, or none."""
    if not (directory.is_dir() and kept_at.is_file()):
        return None
    record = Record.from_json(read_json(kept_at), where=str(kept_at))
    if {"stage": record.stage, "config": dict(record.config), "inputs": dict(record.inputs)} != identity:
        log.info("%s: configuration or inputs changed, running again", record.stage)
        return None
    check_outputs(directory, record)
    log.info("%s: already done", record.stage)
    return record


def prepare_partial(partial: Path, identity: Mapping[str, Any]) -> None:
    """Keep what a stopped stage of this identity has finished; throw anything else away."""
    intent = partial / INTENT_NAME
    if partial.exists() and (not intent.is_file() or read_json(intent) != identity):
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(intent, identity)


def describe_environment(started: float) -> dict[str, Any]:
    """Versions, machine and times of a stage that ends now; `started` is a Unix time in seconds."""
    versions = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "machine": f"{platform.system()} {platform.machine()}", "num_cores": os.cpu_count(),
            "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(time.time() - started, 1)}
