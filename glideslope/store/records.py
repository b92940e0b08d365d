"""Stages: each writes one directory, whole or not at all, with a record of what went in and what came out.

A stage works in `<directory>.partial` and is renamed when its record is written. What a killed stage had finished
stays in the partial directory and is used again when configuration and inputs are still the same. A finished stage
with the same configuration and inputs is skipped after its files were hashed again. `stage_places` does the renaming.
"""

import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import GlideslopeError, StageError
from .digests import canonical_json, sha256_json
from .file_lists import FileEntry
from .litter import who_left
from .stage_manifest import Manifest
from .stage_places import CHECKPOINTS, INTENT_NAME, RECORD_NAME, StagePlaces, remove
from .whole_files import UNWRITABLE, read_json, storage_error, sync_tree, write_json

UNRECORDED = (RECORD_NAME, INTENT_NAME, f"{CHECKPOINTS}/")
RECORD_FORMAT = "glideslope.record/1"
ABSENT, THIS_VERSION = object(), "this version"
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
        if value.get("format") != RECORD_FORMAT:
            raise StageError(f"{where}: format is {value.get('format')!r:.80}, expected {RECORD_FORMAT!r}; "
                             "remove the directory and run the stage again")
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
    added = record.outputs.unlisted(directory, exclude=(RECORD_NAME, INTENT_NAME))
    if added and len(added) == len(problems):
        which = "that file" if len(added) == 1 else "these files"
        raise StageError(f"{directory}: holds {', '.join(added[:5])}{f' and {len(added) - 5} more' if len(added) > 5 else ''}, which the stage "
                         f"did not write; remove {which}, then run the same command again: the stage itself is whole")
    if problems:
        raise StageError(f"{directory}: changed since the stage finished: {'; '.join(problems)}; "
                         "remove the directory and run the stage again")


def run_stage(directory: Path, *, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str],
              work: Callable[[Path], Mapping[str, Any]], record_path: Path | None = None, is_costly: bool = False,
              pace: Collection[str] = ()) -> Record:
    """Run a stage unless a finished one with the same configuration and inputs is already there.

    Args:
        directory: the finished stage's directory; a link to one stays a link.
        stage: its name in the record.
        config: plain data; part of the stage's identity.
        inputs: name -> digest of what the stage reads; part of its identity.
        work: gets the partial directory, which may hold finished pieces of a killed run with the same identity,
            fills it, and returns the summary for the record (deterministic plain data). A key `environment` in it
            is taken out and added to the record's environment instead (times, rates). What it keeps in the folder
            `checkpoints` is not recorded, and removed once the record stands.
        record_path: where the record goes when it may not lie among the files, outside the directory (a release holds
            only what is published); none: `record.json` in the directory.
        is_costly: the work takes hours. With another configuration, what was done before is kept aside, and taken up
            again when the configuration is set back.
        pace: keys of the configuration that no result depends on. They are not in `config`; records of older versions state them.

    Returns:
        The record, new or found.

    Raises:
        StageError: the directory was changed after the stage had finished.
        StorageError: the directory cannot be written, or could not be replaced at the end; then nothing was begun.
    """
    identity: dict[str, Any] = {"stage": stage, "config": dict(config), "inputs": dict(inputs)}
    places = StagePlaces.of(directory, record_path, is_costly=is_costly)
    try:
        found = finished_record(places, identity, pace)
        if found is not None:
            return found
        places.try_exchange()
        prepare_partial(places, identity)
        record = whole_record(places.partial, identity)
        if record is None:
            record = _work(places.partial, identity, work)
        places.exchange()
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise storage_error(Path(error.filename) if isinstance(error.filename, str) else places.partial, error) from error
        raise
    return record


def _work(partial: Path, identity: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]) -> Record:
    """Do a stage's work; its record is the last that is written, when all else is on the disk."""
    started = time.time()
    with plain_torch():
        summary = dict(work(partial))
    environment = describe_environment(started) | dict(summary.pop("environment", {}))
    for path in [path for path in partial.rglob("*") if not path.is_dir()]:
        if path.name.endswith(".tmp") or who_left(path.name):  # what kills, desktops and NFS leave in any folder
            path.unlink(missing_ok=True)
    sync_tree(partial)
    outputs = Manifest.of_directory(partial, exclude=UNRECORDED)
    record = Record(identity["stage"], identity["config"], identity["inputs"], outputs, summary, environment)
    write_json(partial / RECORD_NAME, record.to_json())
    return record


def plain_torch() -> AbstractContextManager[None]:
    """A block in which nothing counts that was set in torch for the whole process; torch that is not loaded yet has its own settings."""
    if "torch" not in sys.modules:
        return nullcontext()
    from ..device.torch_state import PlainTorch

    return PlainTorch(gradients=True)


def finished_record(places: StagePlaces, identity: Mapping[str, Any], pace: Collection[str] = ()) -> Record | None:
    """The record of a finished stage of this identity, its files hashed again, or none."""
    places.mend()
    if not (places.directory.is_dir() and places.record.is_file()):
        return None
    record = Record.from_json(read_json(places.record), where=str(places.record))
    before = {"stage": record.stage, "config": dict(record.config), "inputs": dict(record.inputs)}
    if before | {"config": {key: value for key, value in record.config.items() if key not in pace}} != identity:
        is_told, change = places.is_costly and before["config"] != identity["config"], describe_change(before, identity)
        aside = f", then it is kept in {places.aside(before)}: {way_back(change)} to have it again" if is_told else ""
        log.log(logging.WARNING if is_told else logging.INFO, "%s: %s; running again. What was finished stays until the new one stands%s",
                record.stage, change, aside)
        return None
    check_outputs(places.directory, record)
    log.info("%s: already done", record.stage)
    return record


def whole_record(partial: Path, identity: Mapping[str, Any]) -> Record | None:
    """The record in a partial directory whose work is done, so that only the renaming is left; else none."""
    try:
        record = Record.from_json(read_json(partial / RECORD_NAME), where=str(partial))
        is_same = {"stage": record.stage, "config": dict(record.config), "inputs": dict(record.inputs)} == identity
        return record if is_same and not record.outputs.differences(partial, exclude=UNRECORDED) else None
    except GlideslopeError:  # none there, or damaged: the work is done again
        return None


def prepare_partial(places: StagePlaces, identity: Mapping[str, Any]) -> None:
    """Take up what a stopped stage of this identity has finished; another's is kept aside if it was costly, or of unknown origin."""
    partial, before = places.partial, places.read_identity(places.partial)
    if before != identity:
        if places.is_empty(partial) or (before is not None and not places.is_costly):
            remove(partial)
        elif os.path.lexists(partial):
            aside = places.set_aside(partial, before)
            why = "of unknown origin" if before is None else describe_change(before, identity)
            log.warning("%s: %s; what had been done so far is kept in %s: %s", identity["stage"], why, aside,
                        f"remove it, or {way_back(why)} to go on with it" if before else "look at it, then remove it")
        if places.is_costly and places.take_back(identity):
            log.warning("%s: goes on with what was kept aside with these settings", identity["stage"])
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / INTENT_NAME, identity)


def describe_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What is different between two identities of a stage, in a few words: settings with both values, inputs by name."""
    settings = _differences(before.get("config", {}), now["config"])
    old, new = before.get("inputs", {}), now["inputs"]
    inputs = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    told = settings[:4] + ([f"{len(settings) - 4} more settings changed"] if len(settings) > 4 else [])
    return ", ".join(told + ([f"other {', '.join(inputs[:4])}"] if inputs else [])) or "the stage is another"


def way_back(change: str) -> str:
    """What takes a change back that `describe_change` describes: a setting that another version does not know cannot be set back."""
    return "take the version of glideslope that wrote it" if f"{THIS_VERSION} knows" in change else "set the settings back"


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*before, *now])
        return [told for key in keys
                for told in _differences(before.get(key, ABSENT), now.get(key, ABSENT), f"{name}.{key}" if name else str(key))]
    if before is ABSENT:
        return [f"{THIS_VERSION} knows the setting {name}"]
    if now is ABSENT:
        return [f"{THIS_VERSION} knows no setting {name}"]
    return [] if before == now else [f"{name} was {canonical_json(before)[:40]} and is {canonical_json(now)[:40]}"]


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
