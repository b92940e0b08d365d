"""The index: one row per input with digest, size, caption, what is wrong with it, and its CLIP embedding.

A shard of the source becomes one parquet file; a file's content depends on the source, the configuration and nothing
else, so a killed run goes on where it stopped and ends with the same digests.
"""

import os
import queue
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..config import ClipConfig, IndexConfig
from ..config import Source as SourceConfig
from ..decode import Pixels, Refusal, decode_image
from ..errors import StageError
from ..manifest import sha256_bytes, sha256_json
from ..records import Record, run_stage
from .clip import Clip, load_clip
from .parquet import read_table, write_table
from .sources import Shard, Source, SourceItem, open_source

Progress = Callable[[int, int, str], None]
Item = TypeVar("Item")

INDEX_SCHEMA = pa.schema([
    pa.field("key", pa.string(), nullable=False),
    pa.field("concept", pa.string(), nullable=False),
    pa.field("sha256", pa.string()),
    pa.field("size_bytes", pa.int64(), nullable=False),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("caption", pa.string()),
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("error", pa.string()),
    pa.field("embedding", pa.list_(pa.float16())),
])

DUPLICATES_NAME = "duplicates.parquet"
DUPLICATES_SCHEMA = pa.schema([pa.field("shard", pa.string(), nullable=False), pa.field("row", pa.int32(), nullable=False),
                               pa.field("key", pa.string(), nullable=False)])


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to write one index file; plain data, so that it can be sent to another process.

    Attributes:
        source, clip, index: the recipe's parts.
        shard: what to read.
        path: the index file to write.
    """

    source: SourceConfig
    clip: ClipConfig
    index: IndexConfig
    shard: Shard
    path: Path


def build_index(source: SourceConfig, clip: ClipConfig, index: IndexConfig, directory: Path, *, progress: Progress | None = None) -> Record:
    """Run the stage `index`.

    Args:
        source: where the inputs are.
        clip: the CLIP; only its image tower counts here.
        index: shard size and the largest image.
        directory: the stage's directory.
        progress: told how many inputs are done.

    Raises:
        SourceError: the source cannot be opened.
        StageError: `directory` holds an index that was changed.
        StorageError: `directory` cannot be written.
    """
    open_source_once.cache_clear()  # the files may have changed since this process last looked
    opened = open_source_once(source, index.shard_size)
    config = {"clip": image_settings(clip), "index": index.model_dump(mode="json")}

    def work(partial: Path) -> dict[str, Any]:
        tasks = [ShardTask(source, clip, index, shard, partial / f"{shard.name}.parquet") for shard in opened.shards()]
        return index_shards(tasks, partial, directory, progress)

    return run_stage(directory, stage="index", config=config, inputs={"source": opened.fingerprint()}, work=work)


def image_settings(clip: ClipConfig) -> dict[str, Any]:
    """The part of a CLIP's configuration that image embeddings depend on."""
    return clip.model_dump(mode="json", include={"model", "pretrained", "batch_size"})


def index_shards(tasks: Sequence[ShardTask], directory: Path, finished: Path, progress: Progress | None) -> dict[str, Any]:
    """Write the missing shards of an index, find repeated keys, and count.

    Args:
        tasks: one per shard, in order.
        directory: where the shards go; those of a stopped run are kept.
        finished: an earlier index of this run, whose unchanged shards are taken over.
        progress: told how many inputs are done.
    """
    total = sum(task.shard.num_inputs or 0 for task in tasks)
    done = 0
    for task in tasks:
        earlier = finished / task.path.name
        if not is_finished(task.path, task) and is_finished(earlier, task):
            os.link(earlier, task.path)
        if not is_finished(task.path, task):
            index_shard_file(task, progress_from(progress, done, total))
        done += pq.read_metadata(task.path).num_rows
        if progress is not None:
            progress(done, max(total, done), "images embedded")
    write_duplicates([task.shard.name for task in tasks], directory)
    reasons: Counter[str] = Counter()
    for _, table in read_index(directory, columns=["reason"]):
        reasons.update(table["reason"].to_pylist())
    num_ok = reasons.pop("", 0)
    return {"num_inputs": done, "num_ok": num_ok, "num_bad": dict(sorted(reasons.items()))}


def index_shard_file(task: ShardTask, tell: Callable[[int], None]) -> None:
    """Write the index file of one shard."""
    source, clip = open_source_once(task.source, task.index.shard_size), load_clip_once(task.clip)
    write_table(task.path, index_shard(source, task.shard, clip, task.index, tell).replace_schema_metadata(identity_of(task)))


@lru_cache(maxsize=1)
def open_source_once(config: SourceConfig, shard_size: int) -> Source:
    """The source of this process."""
    return open_source(config, shard_size=shard_size)


@lru_cache(maxsize=1)
def load_clip_once(config: ClipConfig) -> Clip:
    """The CLIP of this process."""
    return load_clip(config)


def identity_of(task: ShardTask) -> dict[str, str]:
    """What an index file's content depends on, as its parquet metadata holds it."""
    settings = sha256_json({"clip": image_settings(task.clip), "index": task.index.model_dump(mode="json")})
    return {"glideslope.shard": task.shard.fingerprint, "glideslope.settings": settings}


def is_finished(path: Path, task: ShardTask) -> bool:
    """Whether a file is the whole and current index file of a shard."""
    try:
        found = pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    return all(found.get(name.encode()) == value.encode() for name, value in identity_of(task).items())


def progress_from(progress: Progress | None, done: int, total: int) -> Callable[[int], None]:
    """Tell how many inputs of the running shard are done."""
    def tell(num_rows: int) -> None:
        if progress is not None:
            progress(done + num_rows, max(total, done + num_rows), "images embedded")
    return tell


def write_duplicates(names: Sequence[str], directory: Path) -> None:
    """Write which rows repeat the key of an earlier row, over all shards; shard files do not know of each other."""
    seen: set[str] = set()
    repeated: list[dict[str, Any]] = []
    for name in names:
        for row, key in enumerate(read_table(directory / f"{name}.parquet", columns=["key"])["key"].to_pylist()):
            if key in seen:
                repeated.append({"shard": name, "row": row, "key": key})
            seen.add(key)
    write_table(directory / DUPLICATES_NAME, pa.Table.from_pylist(repeated, schema=DUPLICATES_SCHEMA))


def read_index(directory: Path, *, columns: Sequence[str] | None = None) -> Iterator[tuple[str, pa.Table]]:
    """Read an index shard by shard, in order: name and rows, in which a repeated key is a bad input.

    Raises:
        StageError: a file is missing or damaged.
    """
    repeated: dict[str, list[int]] = defaultdict(list)
    for row in read_table(directory / DUPLICATES_NAME).to_pylist():
        repeated[row["shard"]].append(row["row"])
    for path in sorted(directory.glob("shard-*.parquet")):
        table = read_table(path, columns=columns)
        yield path.stem, mark_repeated(table, repeated.get(path.stem, []), path)


def read_images(source: Source, index_dir: Path, keys: Collection[str]) -> dict[str, bytes]:
    """The original bytes of some inputs, by key; only the shards that hold them are read. What cannot be had is left out."""
    shards = {shard.name: shard for shard in source.shards()}
    images: dict[str, bytes] = {}
    for name, table in read_index(index_dir, columns=["key", "reason"]):
        here = {row["key"] for row in table.to_pylist() if row["key"] in keys and row["reason"] != "duplicate key"}
        if here and name in shards:
            for item in source.read(shards[name], keys=here):
                if item.image is not None:
                    images.setdefault(item.key, item.image)
    return images


def mark_repeated(table: pa.Table, rows: Sequence[int], path: Path) -> pa.Table:
    """Make the given rows of an index table bad inputs with the reason `duplicate key`."""
    if not rows:
        return table
    keys = read_table(path, columns=["key"])["key"].to_pylist() if "error" in table.column_names else []
    values: dict[str, Any] = {"status": "bad", "reason": "duplicate key", "embedding": None}
    for name in [name for name in (*values, "error") if name in table.column_names]:
        old = table[name].to_pylist()
        for i in rows:
            old[i] = f"duplicate key {keys[i]}: an earlier input has the same one" if name == "error" else values[name]
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), pa.chunked_array([pa.array(old, type=table.schema.field(name).type)]))
    return table


def index_shard(source: Source, shard: Shard, clip: Clip, config: IndexConfig, tell: Callable[[int], None]) -> pa.Table:
    """Read, check and embed one shard: one row per input whatever happens."""
    rows: list[dict[str, Any]] = []
    waiting: list[tuple[int, Pixels]] = []

    def embed_waiting() -> None:
        embeddings = clip.embed_images([pixels for _, pixels in waiting])
        for (place, _), embedding in zip(waiting, embeddings, strict=True):
            if np.isfinite(embedding).all():  # else it stays null, and curation drops the image for its missing score
                rows[place]["embedding"] = embedding.astype(np.float16)
        waiting.clear()
        tell(len(rows))

    for row, pixels in read_ahead(check_inputs(source, shard, config)):
        if pixels is not None:
            waiting.append((len(rows), pixels))
        rows.append(row)
        if len(waiting) == clip.batch_size:
            embed_waiting()
    embed_waiting()
    if shard.num_inputs is not None and len(rows) != shard.num_inputs:
        raise StageError(f"index: the source gave {len(rows)} of {shard.num_inputs} inputs of {shard.name}; "
                         "it changed while it was read: run the command again")
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


def check_inputs(source: Source, shard: Shard, config: IndexConfig) -> Iterator[tuple[dict[str, Any], Pixels | None]]:
    """Each input of a shard as a row without embedding, and its pixels when it is sound."""
    for item in source.read(shard):
        yield check_input(item, max_pixels=config.max_pixels)


def check_input(item: SourceItem, *, max_pixels: int) -> tuple[dict[str, Any], Pixels | None]:
    """One input as an index row without embedding, and its pixels when it is sound; the first thing wrong is named."""
    reason, error, pixels = item.reason, item.error, None
    if item.image is not None:
        try:
            pixels = decode_image(item.image, max_pixels=max_pixels)
        except Refusal as refusal:
            reason, error = "unreadable", str(refusal)
    if item.image is None and not reason:
        reason, error = "missing", f"image {item.key} is missing"
    elif item.caption is None and not reason:
        reason, error = "caption", f"caption of {item.key} is missing"
    row = {"key": item.key, "concept": item.concept, "caption": item.caption, "reason": reason, "error": error,
           "status": "bad" if reason else "ok", "embedding": None,
           "sha256": None if item.image is None else sha256_bytes(item.image), "size_bytes": len(item.image or b""),
           "width": None if pixels is None else pixels.shape[1], "height": None if pixels is None else pixels.shape[0]}
    return row, None if reason else pixels


def read_ahead(items: Iterator[Item], *, depth: int = 64) -> Iterator[Item]:
    """Run an iterator in a thread, up to `depth` items ahead: inputs are read while others are embedded."""
    ahead: queue.Queue[tuple[Item | None, BaseException | None, bool]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None, bool]) -> None:
        while not stopped.is_set():
            try:
                return ahead.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def fill() -> None:
        try:
            for item in items:
                put((item, None, False))
                if stopped.is_set():
                    return
            put((None, None, True))
        except BaseException as error:  # handed to the reader, which raises it
            put((None, error, True))

    thread = threading.Thread(target=fill, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, is_last = ahead.get()
            if error is not None:
                raise error
            if is_last:
                return
            yield item  # type: ignore[misc]  # only the last entry carries no item
    finally:
        stopped.set()
        thread.join()
