"""What is done of a run, what is missing, and why a stage would run again. Only records are read: no file is hashed, nothing heavy is loaded.

So files that were edited after their stage had finished are not seen here; the stages themselves hash them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from .errors import StageError
from .recipe.recipe import Recipe
from .recipe.stage_settings import differing_settings, expected_settings
from .store.records import Record
from .store.stage_places import CHECKPOINTS, StagePlaces, record_beside
from .store.whole_files import read_json
from .text.number_text import at_least, percent

READS_FILES_OF = {"tokenizer": "training/base"}  # an input that is a file of another stage


class State(StrEnum):
    """How a stage stands."""

    DONE = "done"
    STALE = "stale"
    STOPPED = "stopped"
    MISSING = "missing"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class StageStatus:
    """How one stage of a run stands.

    Attributes:
        stage: its name.
        command: the command that does it.
        state: how it stands.
        why: why it is not done; empty where it is, and where it never began.
        finished: when it ended; `None` where it did not, or the record does not say.
        seconds: how long it took.
        figures: what it found, in a few words.
    """

    stage: str
    command: str
    state: State
    why: str = ""
    finished: datetime | None = None
    seconds: float | None = None
    figures: str = ""

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {"stage": self.stage, "command": self.command, "state": str(self.state), "why": self.why, "seconds": self.seconds,
                "finished": None if self.finished is None else self.finished.isoformat(), "figures": self.figures}


def read_status(run_dir: Path, recipe: Recipe, stages: Iterable[tuple[str, str]]) -> list[StageStatus]:
    """How the stages of a run stand.

    Args:
        run_dir: the run's directory; it need not exist.
        recipe: what the run is to do.
        stages: the stages in their order, each after the command that does it.
    """
    release = recipe.release.model_dump(mode="json", exclude=set(recipe.release.PLACES))
    expected = expected_settings(recipe) | {"release": {"recipe": {"release": release}}}
    found, digests = dict[str, StageStatus](), dict[str, str]()
    for command, stage in stages:
        places = StagePlaces.of(run_dir / stage, record_beside(run_dir / stage) if stage == "release" else None)
        try:
            record = read_record_file(places.record)
        except StageError as error:
            found[stage] = StageStatus(stage, command, State.DAMAGED, str(error))
            continue
        if record is None:
            found[stage] = StageStatus(stage, command, *describe_partial(places))
            continue
        digests[stage] = record.digest
        why = why_stale(record, expected.get(stage, {}), found, digests)
        found[stage] = StageStatus(stage, command, State.STALE if why else State.DONE, why, read_time(record.environment.get("finished")),
                                   record.environment.get("seconds"), describe_figures(stage.split("/")[0], record.summary))
    return list(found.values())


def why_stale(record: Record, settings: Mapping[str, Any], found: Mapping[str, StageStatus], digests: Mapping[str, str]) -> str:
    """Why a finished stage would run again; empty where it would be skipped.

    Args:
        record: the stage's record.
        settings: what it must state.
        found: how the stages before it stand.
        digests: stage -> digest of its record.
    """
    differing = differing_settings(settings, record.config)
    if differing:
        return differing[0] + (f", and {len(differing) - 1} more settings changed" if len(differing) > 1 else "")
    for name, digest in record.inputs.items():
        stage = READS_FILES_OF.get(name, name)
        if stage in found and found[stage].state is not State.DONE:
            return f"reads {stage}, which is {found[stage].state}"
        if digests.get(name, digest) != digest:
            return f"{name} changed since"
    return ""


def read_record_file(path: Path) -> Record | None:
    """A stage's record; `None` where it has not finished.

    Raises:
        StageError: it cannot be read, or was edited.
    """
    return Record.from_json(read_json(path), where=str(path)) if path.is_file() else None


def describe_partial(places: StagePlaces) -> tuple[State, str]:
    """How a stage without a record stands, and how far it came."""
    if not places.partial.is_dir() or places.is_empty(places.partial):
        return State.MISSING, ""
    steps = sorted(path.name for path in (places.partial / CHECKPOINTS).glob("step-*"))
    return State.STOPPED, f"goes on from step {int(steps[-1].removeprefix('step-')):,}" if steps else "goes on where it was stopped"


def read_time(text: Any) -> datetime | None:
    """A time of a record; `None` where it says none."""
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def describe_figures(kind: str, summary: Mapping[str, Any]) -> str:
    """What a stage found, in a few words; empty where its summary does not say."""
    describe = FIGURES.get(kind)
    try:
        return "" if describe is None else describe(summary)
    except (KeyError, TypeError, ValueError):  # of another version
        return ""


def describe_labels(summary: Mapping[str, Any]) -> str:
    """Judgements in use, by category."""
    counts = {category: sum(sum(one.values()) for one in roles.values()) for category, roles in summary["counts"].items()}
    return ", ".join(f"{count:,} of {category}" for category, count in counts.items())


def describe_training(summary: Mapping[str, Any]) -> str:
    """What a training saw, and how it ended."""
    return f"{summary['num_images_seen']:,} images seen, loss {summary['final_loss']:.3f}"


FIGURES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "index": lambda summary: f"{summary['num_ok']:,} of {summary['num_inputs']:,} images embedded",
    "labels": describe_labels,
    "classifiers": lambda summary: f"{summary['kind']}, {summary['num_train_labels']:,} labels",
    "scores": lambda summary: f"{summary['num_scored']:,} scored",
    "filters": lambda summary: f"recall {percent(summary['recall'])}, {at_least(summary['recall_lower_bound'])}",
    "curated": lambda summary: f"{summary['kept']:,} of {summary['seen']:,} kept",
    "training": describe_training,
    "evaluation": lambda summary: f"{summary['num_wins']} of {summary['num_pairs']} captions count",
    "release": lambda summary: f"{summary['num_files']} files, {summary['size_bytes'] / 1e6:.1f} MB"}
