"""One shard of the index: each input is read, checked and embedded, and becomes one row, whatever is wrong with it."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...clip import lite0
from ...clip.model import Clip, Crops, load_clip
from ...errors import StageError
from ...pictures.decode import decode_picture
from ...pictures.refusals import Refusal, TooLarge
from ...recipe.filters import ClipConfig, IndexConfig
from ...recipe.sources import SourceSettings
from ...store.digests import sha256_bytes, sha256_json
from ...store.vocabulary import Cause, Status
from ..sources.kind import open_source
from ..sources.source import Shard, Source, SourceItem
from ..workers.read_ahead import map_ahead
from ..workers.task import available_threads, worker_number
from .parquet import write_table
from .withheld import withhold_secrets

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


def image_settings(clip: ClipConfig) -> dict[str, Any]:
    """The part of a CLIP's configuration that image embeddings depend on; how many are embedded at once only rounds them otherwise."""
    settings = clip.model_dump(mode="json", include={"model", "pretrained"})
    return settings | ({"images": lite0.IMAGES_FORMAT} if clip.model == "lite0" else {})


def identity_of(task: ShardTask) -> dict[str, str]:
    """What an index file's content depends on, as its parquet metadata holds it."""
    settings = sha256_json({"format": INDEX_FORMAT, "clip": image_settings(task.clip), "index": task.index.model_dump(mode="json")})
    return {"glideslope.shard": task.shard.fingerprint, "glideslope.settings": settings}


def is_finished(path: Path, task: ShardTask) -> bool:
    """Whether a file is the whole and current index file of a shard."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    return all(metadata.get(name.encode()) == value.encode() for name, value in identity_of(task).items())


def index_shard(source: Source, shard: Shard, clip: Clip, config: IndexConfig) -> pa.Table:
    """Read, check and embed one shard: one row per input whatever happens."""
    rows: list[dict[str, Any]] = []
    waiting: list[tuple[int, Crops]] = []

    def embed_waiting() -> None:
        embeddings = clip.embed_crops([crops for _, crops in waiting])
        for (row_number, _), embedding in zip(waiting, embeddings, strict=True):
            if np.isfinite(embedding).all():  # else it stays null, and curation drops the image for its missing score
                rows[row_number]["embedding"] = embedding.astype(np.float16)
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
