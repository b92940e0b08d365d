"""The index: one row per input with digest, size, caption, what is wrong with it, and its CLIP embedding.

A shard of the source becomes one parquet file; a file's content depends on the source, the configuration and nothing
else, so a killed run goes on where it stopped and ends with the same digests, wherever its shards were worked on.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...progress import Progress
from ...recipe.filters import ClipConfig, IndexConfig
from ...recipe.sources import SourceSettings
from ...store.records import Record, run_stage
from ...store.stage_places import INTENT_NAME, StagePlaces
from ...store.vocabulary import Cause
from ...store.whole_files import write_bytes, write_json
from ..sources.kind import as_kind
from ..workers.engine import run_tasks
from .embed import INDEX_FORMAT, ShardResult, ShardTask, image_settings, index_shard_file, is_finished, open_source_once
from .read import read_index
from .repeated_keys import find_repeated, refuse_repeated, write_duplicates

log = logging.getLogger(__name__)


def build_index(source: SourceSettings, clip: ClipConfig, index: IndexConfig, directory: Path, *, engine: str = "local",
                workers: int | None = None, progress: Progress | None = None) -> Record:
    """Run the stage `index`.

    Args:
        source: where the inputs are.
        clip: the CLIP; only its image tower counts here.
        index: shard size and the largest image.
        directory: the stage's directory.
        engine, workers: where the shards are worked on; see `run_tasks`. They do not change a byte of the files.
        progress: told how many inputs are done.

    Raises:
        SourceError: the source cannot be opened.
        StageError: `directory` holds an index that was changed, or a shard ended its worker process twice.
        StorageError: `directory` cannot be written.
    """
    open_source_once.cache_clear()  # the files may have changed since this process last looked
    opened = open_source_once(source, index.shard_size)
    for note in opened.notes():
        log.warning("%s", note)
    identity = identify(opened.fingerprint(), source, clip, index)
    adopt_partial(StagePlaces.of(directory), identity)

    def work(partial: Path) -> dict[str, Any]:
        tasks = [ShardTask(source, clip, index, shard, partial / f"{shard.name}.parquet") for shard in opened.shards()]
        for stale in set(partial.glob("*.parquet")) - {task.path for task in tasks}:
            stale.unlink()
        index_shards(tasks, directory, engine, workers, progress)
        return summarise(tasks, partial)

    return run_stage(directory, **identity, work=work, is_costly=True)


def identify(fingerprint: str, source: SourceSettings, clip: ClipConfig, index: IndexConfig) -> dict[str, Any]:
    """What makes the stage this one and no other: its name, configuration and inputs."""
    config = {"format": INDEX_FORMAT, "source": source.identity(), "clip": image_settings(clip), "index": index.model_dump(mode="json")}
    return {"stage": "index", "config": config, "inputs": {"source": fingerprint}}


def adopt_partial(places: StagePlaces, identity: Mapping[str, Any]) -> None:
    """Keep the shards of a stopped run whose source has changed since: each file knows whether it is still current."""
    before = places.read_identity(places.partial)
    if before is not None and before != identity and before["config"] == identity["config"]:
        write_json(places.partial / INTENT_NAME, identity)


def index_shards(tasks: Sequence[ShardTask], finished: Path, engine: str, workers: int | None, progress: Progress | None) -> int:
    """Write the missing shards of an index.

    Args:
        tasks: one per shard, in order; files of a stopped run are kept.
        finished: an earlier index of this run, whose unchanged shards are taken over.
        engine, workers: see `run_tasks`.
        progress: told how many inputs are done.

    Returns:
        How many rows the shards have.
    """
    known = [task.shard.num_inputs for task in tasks if task.shard.num_inputs is not None]
    missing, finished_paths, sizes = [], [], Sizes(len(tasks), sum(known) if len(known) == len(tasks) else None)
    for task in tasks:
        if not is_finished(task.path, task) and is_finished(finished / task.path.name, task):
            link_or_copy(finished / task.path.name, task.path)
        if is_finished(task.path, task):
            sizes.add(pq.read_metadata(task.path).num_rows)
            finished_paths.append(task.path)
        else:
            missing.append(task)

    def tell(result: ShardResult) -> None:
        sizes.add(result.num_rows)
        finished_paths.append(tasks[0].path.with_name(f"{result.name}.parquet"))
        if len(finished_paths).bit_count() == 1:  # whenever their number has doubled: soon, and in twice the time of one look at all
            refuse_repeated(finished_paths, find_repeated(finished_paths), as_kind(tasks[0].source).describe_keys())
        if progress is not None:
            progress(sizes.num_rows, sizes.estimate(), "images embedded")

    run_tasks(index_shard_file, missing, engine=engine, workers=workers, progress=tell)
    return sizes.num_rows


@dataclass
class Sizes:
    """Counts the rows of the finished shards.

    Attributes:
        num_shards: how many shards there are.
        num_expected: how many rows all shards will have; None where that is not known.
        num_finished: shards so far.
        num_rows: rows so far.
    """

    num_shards: int
    num_expected: int | None
    num_finished: int = 0
    num_rows: int = 0

    def add(self, num_rows: int) -> None:
        """Count one more shard."""
        self.num_finished += 1
        self.num_rows += num_rows

    def estimate(self) -> int:
        """How many rows there will be: where it is not known, an unfinished shard counts as the mean of the others."""
        if self.num_expected is not None:
            return max(self.num_rows, self.num_expected)
        return round(self.num_rows * self.num_shards / self.num_finished)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a finished file a second place without writing it again, where the file system can."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        write_bytes(target, source.read_bytes())


def summarise(tasks: Sequence[ShardTask], directory: Path) -> dict[str, Any]:
    """Find repeated keys in the finished shards, and count.

    Raises:
        StageError: most inputs would be lost for their keys.
    """
    repeated = write_duplicates([task.name for task in tasks], directory)
    if tasks:
        refuse_repeated([directory / f"{task.name}.parquet" for task in tasks], repeated, as_kind(tasks[0].source).describe_keys())
    reasons: Counter[str] = Counter()
    examples: dict[str, str | None] = {}
    for _, table in read_index(directory, columns=["reason", "error"]):
        for count in table["reason"].value_counts():
            reason = count["values"].as_py()
            if reason not in reasons and reason not in (Cause.NOTHING, Cause.SECRET):
                examples[reason] = table["error"][pc.index(table["reason"], reason).as_py()].as_py()
            reasons[reason] += count["counts"].as_py()
    if reasons[Cause.CAPTION] == reasons.total():
        del examples[Cause.CAPTION]  # images that come without captions
    for reason, error in sorted(examples.items()):
        log.warning("index: %d of %d inputs have the reason %r, for example: %s", reasons[reason], reasons.total(), reason, error)
    if num_withheld := reasons[Cause.SECRET]:
        log.warning("index: %d inputs hold a token, key, mail address or path of a machine in their caption or name and are dropped with the "
                    "reason %r; the ledger names them. Remove it from the data, and index again, to keep them", num_withheld, str(Cause.SECRET))
    num_inputs, num_without_caption = sum(reasons.values()), reasons.pop(Cause.CAPTION, 0)
    num_ok = reasons.pop(Cause.NOTHING, 0) + num_without_caption
    return {"num_inputs": num_inputs, "num_ok": num_ok, "num_without_caption": num_without_caption, "num_bad": dict(sorted(reasons.items()))}
