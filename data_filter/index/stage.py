"""The index: one row per input with digest, size, caption, what is wrong with it, and its CLIP embedding.

A shard of the source becomes one parquet file; a file's content depends on the source, the configuration and nothing
else, so a killed run goes on where it stopped and ends with the same digests, wherever its shards were worked on.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...clip import lite0
from ...clip.model import Clip, Crops, load_clip
from ...errors import StageError
from ...pictures.decode import decode_picture
from ...pictures.refusals import Refusal, TooLarge
from ...recipe.filters import ClipConfig, IndexConfig
from ...recipe.sources import SourceSettings
from ...store.digests import sha256_bytes, sha256_json
from ...store.records import Record, run_stage
from ...store.stage_places import INTENT_NAME, StagePlaces
from ...store.vocabulary import Cause, Status
from ...store.whole_files import write_bytes, write_json
from ..sources.kind import as_kind, open_source
from ..sources.source import Shard, Source, SourceItem
from ..workers.engine import available_threads, run_tasks, worker_number
from ..workers.read_ahead import map_ahead
from .parquet import read_table, write_table
from .repeated_keys import find_repeated, read_duplicates, refuse_repeated, write_duplicates
from .withheld import withhold_secrets

Progress = Callable[[int, int, str], None]
log = logging.getLogger(__name__)

INDEX_FORMAT = "glideslope.index/5"  # changes whenever the same input would give another row
# status, reason: of `Status` and `Cause`.
# captions: all of them where an input has several, `caption` the first; else null.
# A sound image that only lacks a caption is `ok` with the reason `caption`.
INDEX_SCHEMA = pa.schema([
    pa.field("key", pa.string(), nullable=False),
    pa.field("concept", pa.string(), nullable=False),
    pa.field("sha256", pa.string()),
    pa.field("size_bytes", pa.int64(), nullable=False),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("caption", pa.string()),
    pa.field("captions", pa.list_(pa.string())),
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("error", pa.string()),
    pa.field("embedding", pa.list_(pa.float16())),
])


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to write one index file; plain data, so that it can be sent to another process.

    Attributes:
        source, clip, index: the recipe's parts.
        shard: what to read.
        path: the index file to write.
    """

    source: SourceSettings
    clip: ClipConfig
    index: IndexConfig
    shard: Shard
    path: Path

    @property
    def name(self) -> str:
        """The shard's name."""
        return self.shard.name


@dataclass(frozen=True)
class ShardResult:
    """What came of one shard: its name and how many rows its index file has."""

    name: str
    num_rows: int


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


def image_settings(clip: ClipConfig) -> dict[str, Any]:
    """The part of a CLIP's configuration that image embeddings depend on; how many are embedded at once only rounds them otherwise."""
    settings = clip.model_dump(mode="json", include={"model", "pretrained"})
    return settings | ({"images": lite0.IMAGES_FORMAT} if clip.model == "lite0" else {})


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
    """How many rows the finished ones of `num_shards` shards have; `num_expected` is how many all will have, where that is known."""

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


def index_shard_file(task: ShardTask) -> ShardResult:
    """Write the index file of one shard."""
    source, clip = open_source_once(task.source, task.index.shard_size), load_clip_once(task.clip)
    table = index_shard(source, task.shard, clip, task.index)
    write_table(task.path, table.replace_schema_metadata(identity_of(task)))
    return ShardResult(task.name, len(table))


@lru_cache(maxsize=1)
def open_source_once(config: SourceSettings, shard_size: int) -> Source:
    """The source of this process."""
    return open_source(config, shard_size=shard_size)


@lru_cache(maxsize=1)
def load_clip_once(config: ClipConfig) -> Clip:
    """The CLIP of this process, on a GPU where there is one; several workers take the GPUs in turn."""
    import torch

    device = f"cuda:{worker_number() % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    return load_clip(config, device=device)


def identity_of(task: ShardTask) -> dict[str, str]:
    """What an index file's content depends on, as its parquet metadata holds it."""
    settings = sha256_json({"format": INDEX_FORMAT, "clip": image_settings(task.clip), "index": task.index.model_dump(mode="json")})
    return {"glideslope.shard": task.shard.fingerprint, "glideslope.settings": settings}


def is_finished(path: Path, task: ShardTask) -> bool:
    """Whether a file is the whole and current index file of a shard."""
    try:
        found = pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    return all(found.get(name.encode()) == value.encode() for name, value in identity_of(task).items())


def read_index(directory: Path, *, columns: Sequence[str] | None = None,
               names: Collection[str] | None = None) -> Iterator[tuple[str, pa.Table]]:
    """Read an index shard by shard, in order: name and rows, in which a repeated key is a bad input; with `names` only those shards.

    Raises:
        StageError: a file is missing or damaged.
    """
    repeated = read_duplicates(directory)
    paths = list(directory.glob("shard-*.parquet")) if names is None else [directory / f"{name}.parquet" for name in names]
    for path in sorted(paths, key=lambda path: (len(path.name), path.name)):
        table = read_table(path, columns=columns)
        yield path.stem, mark_repeated(table, repeated.get(path.stem), path)


def read_images(source: Source, index_dir: Path, keys: Collection[str]) -> dict[str, bytes]:
    """The original bytes of some inputs, by key; only the shards that hold them are read. What cannot be had is left out."""
    shards = {shard.name: shard for shard in source.shards()}
    images: dict[str, bytes] = {}
    for name, table in read_index(index_dir, columns=["key", "reason"]):
        here = {row["key"] for row in table.to_pylist() if row["key"] in keys and row["reason"] != Cause.DUPLICATE_KEY}
        if here and name in shards:
            for item in source.read(shards[name], keys=here):
                if item.image is not None:
                    images.setdefault(item.key, item.image)
    return images


def mark_repeated(table: pa.Table, rows: NDArray[np.int32] | None, path: Path) -> pa.Table:
    """Make the given rows of an index table bad inputs with the reason `duplicate key`."""
    if rows is None:
        return table
    is_repeated = np.zeros(len(table), dtype=bool)
    is_repeated[rows] = True
    values: dict[str, Any] = {"status": Status.BAD, "reason": Cause.DUPLICATE_KEY, "embedding": None}
    if "error" in table.column_names:
        keys = read_table(path, columns=["key"])["key"]
        values["error"] = pc.binary_join_element_wise("duplicate key ", keys, ": an earlier input has the same one", "")
    for place, field in enumerate(table.schema):
        if field.name in values:
            value = values[field.name]
            new = value if isinstance(value, pa.ChunkedArray) else pa.scalar(value, type=field.type)
            table = table.set_column(place, field, pc.if_else(pa.array(is_repeated), new, table[field.name]))
    return table


def index_shard(source: Source, shard: Shard, clip: Clip, config: IndexConfig) -> pa.Table:
    """Read, check and embed one shard: one row per input whatever happens."""
    rows: list[dict[str, Any]] = []
    waiting: list[tuple[int, Crops]] = []

    def embed_waiting() -> None:
        embeddings = clip.embed_crops([crops for _, crops in waiting])
        for (place, _), embedding in zip(waiting, embeddings, strict=True):
            if np.isfinite(embedding).all():  # else it stays null, and curation drops the image for its missing score
                rows[place]["embedding"] = embedding.astype(np.float16)
        waiting.clear()

    def check(item: SourceItem) -> tuple[dict[str, Any], Crops | None]:
        return check_input(item, clip, max_pixels=config.max_pixels)

    for row, crops in map_ahead(check, source.read(shard), num_threads=num_decoders(clip), depth=clip.batch_size + 32):
        if crops is not None:
            waiting.append((len(rows), crops))
        rows.append(row)
        if len(waiting) >= clip.batch_size:
            embed_waiting()
    embed_waiting()
    if shard.num_inputs is not None and len(rows) != shard.num_inputs:
        raise StageError(f"index: the source gave {len(rows)} of {shard.num_inputs} inputs of {shard.name}; "
                         "it changed while it was read: run the command again")
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


def num_decoders(clip: Clip) -> int:
    """How many threads decode: on a CPU half of them, for the forward pass needs the others; beside a GPU all."""
    return available_threads() if clip.device.type == "cuda" else max(1, available_threads() // 2)


def check_input(item: SourceItem, clip: Clip, *, max_pixels: int) -> tuple[dict[str, Any], Crops | None]:
    """One input as an index row without embedding, and its crops where its image is sound; the first thing wrong is named."""
    reason, error, picture, crops = item.reason, item.error, None, None
    if reason not in (Cause.NOTHING, Cause.CAPTION):
        pass  # the source knows what is wrong with it
    elif item.image is None:
        reason, error = Cause.MISSING, f"image {item.key} is missing"
    else:
        try:
            picture = decode_picture(item.image, max_pixels=max_pixels, short_side=clip.image_size)
            crops = clip.crop(picture.pixels)
        except Refusal as refusal:
            hint = "; index.max_pixels in the recipe sets the limit" if isinstance(refusal, TooLarge) else ""
            reason, error = refusal.reason, f"{refusal}{hint}"
    if not reason and item.caption is None:
        reason, error = Cause.CAPTION, f"caption of {item.key} is missing"
    row = {"key": item.key, "concept": item.concept, "caption": item.caption, "captions": list(item.captions) or None,
           "reason": reason, "error": error, "status": Status.BAD if picture is None else Status.OK, "embedding": None,
           "sha256": None if item.image is None else sha256_bytes(item.image), "size_bytes": len(item.image or b""),
           "width": None if picture is None else picture.width, "height": None if picture is None else picture.height}
    withhold_secrets(row)
    return row, None if row["status"] == Status.BAD else crops
