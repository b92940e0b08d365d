"""The index: one row per input with digest, size, caption, what is wrong with it, and its CLIP embedding.

A shard of the source becomes one parquet file; a file's content depends on the source, the configuration and nothing
else, so a killed run goes on where it stopped and ends with the same digests.
"""

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..config import ClipConfig, IndexConfig
from ..decode import Pixels, Refusal, decode_image
from ..errors import StageError
from ..manifest import sha256_bytes
from ..records import Record, run_stage
from .clip import Clip, load_clip
from .parquet import read_tables, write_table
from .sources import Shard, Source, SourceItem, cut_shards

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


def build_index(source: Source, clip_config: ClipConfig, index_config: IndexConfig, directory: Path, *,
                progress: Progress | None = None) -> Record:
    """Run the stage `index`.

    Args:
        source: the inputs.
        clip_config: the CLIP; only its image tower counts here.
        index_config: shard size and the largest image.
        directory: the stage's directory.
        progress: told how many inputs are done.

    Raises:
        StageError: `directory` holds an index that was changed.
        StorageError: `directory` cannot be written.
    """
    clip_settings = clip_config.model_dump(mode="json", include={"model", "pretrained", "batch_size"})
    config = {"clip": clip_settings, "index": index_config.model_dump(mode="json")}

    def work(partial: Path) -> dict[str, Any]:
        return index_shards(source, clip_config, index_config, partial, progress)

    return run_stage(directory, stage="index", config=config, inputs={"source": source.fingerprint()}, work=work)


def index_shards(source: Source, clip_config: ClipConfig, index_config: IndexConfig, directory: Path,
                 progress: Progress | None) -> dict[str, Any]:
    """Write the missing shards of an index and count all of them."""
    keys = list(source.keys)
    repeated = find_repeated(keys)
    shards = cut_shards(len(keys), index_config.shard_size)
    clip: Clip | None = None
    done = 0
    for shard in shards:
        path = directory / f"shard-{shard.number:05d}.parquet"
        if not is_finished(path, keys[shard.start:shard.stop]):
            clip = clip or load_clip(clip_config)
            write_table(path, index_shard(source, shard, repeated, clip, index_config, progress_from(progress, done, len(keys))))
        done = shard.stop
        if progress is not None:
            progress(done, len(keys), "images embedded")
    reasons: Counter[str] = Counter()
    for table in read_tables(directory, columns=["reason"]):
        reasons.update(table["reason"].to_pylist())
    num_ok = reasons.pop("", 0)
    return {"num_inputs": len(keys), "num_ok": num_ok, "num_bad": dict(sorted(reasons.items()))}


def progress_from(progress: Progress | None, done: int, total: int) -> Callable[[int], None]:
    """Tell how many inputs of the running shard are done."""
    def tell(num_rows: int) -> None:
        if progress is not None:
            progress(done + num_rows, total, "images embedded")
    return tell


def find_repeated(keys: Sequence[str]) -> frozenset[int]:
    """Positions of the second and later inputs of a key; known before anything is read, wherever a run resumes."""
    seen: set[str] = set()
    repeated = set()
    for position, key in enumerate(keys):
        if key in seen:
            repeated.add(position)
        seen.add(key)
    return frozenset(repeated)


def is_finished(path: Path, keys: Sequence[str]) -> bool:
    """Whether a shard's file is whole: it can be read and has the rows of the shard."""
    try:
        return bool(pq.read_table(path, columns=["key"])["key"].to_pylist() == list(keys))
    except (OSError, pa.ArrowException):
        return False


def index_shard(source: Source, shard: Shard, repeated: frozenset[int], clip: Clip, config: IndexConfig,
                tell: Callable[[int], None]) -> pa.Table:
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

    for row, pixels in read_ahead(check_inputs(source, shard, repeated, config)):
        if pixels is not None:
            waiting.append((len(rows), pixels))
        rows.append(row)
        if len(waiting) == clip.batch_size:
            embed_waiting()
    embed_waiting()
    if len(rows) != shard.stop - shard.start:
        raise StageError(f"index: the source gave {len(rows)} of {shard.stop - shard.start} inputs of shard {shard.number}; "
                         "it changed while it was read: run the command again")
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


def check_inputs(source: Source, shard: Shard, repeated: frozenset[int], config: IndexConfig) -> Iterator[tuple[dict[str, Any], Pixels | None]]:
    """Each input of a shard as a row without embedding, and its pixels when it is sound."""
    for position, item in enumerate(source.read(shard), start=shard.start):
        yield check_input(item, is_repeated=position in repeated, max_pixels=config.max_pixels)


def check_input(item: SourceItem, *, is_repeated: bool, max_pixels: int) -> tuple[dict[str, Any], Pixels | None]:
    """One input as an index row without embedding, and its pixels when it is sound; the first thing wrong is named."""
    reason, error, pixels = item.reason, item.error, None
    if item.image is not None:
        try:
            pixels = decode_image(item.image, max_pixels=max_pixels)
        except Refusal as refusal:
            reason, error = "unreadable", str(refusal)
    if is_repeated:
        reason, error = "duplicate key", f"duplicate key {item.key}: an earlier input has the same one"
    elif item.image is None and not reason:
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
