"""Pairs of images and captions, and every way to write them down for a source."""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from glideslope.data_filter.index.read import read_index
from glideslope.data_filter.index.stage import build_index
from glideslope.data_filter.sources.folder import FolderSource
from glideslope.data_filter.sources.huggingface import DatasetsSource
from glideslope.data_filter.sources.kind import open_source
from glideslope.data_filter.sources.parquet import ParquetSource
from glideslope.data_filter.sources.source import Source, SourceItem
from glideslope.data_filter.sources.webdataset import WebDatasetSource
from glideslope.recipe.filters import ClipConfig, IndexConfig
from glideslope.recipe.sources import SourceSettings
from glideslope.store.digests import sha256_bytes


@dataclass(frozen=True)
class Pair:
    """One image with its caption; the name has no dot."""

    name: str
    image: bytes
    caption: str


def encode(colour: tuple[int, int, int], *, kind: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", size, colour).save(target, kind)
    return target.getvalue()


def some_pairs(count: int, *, first: int = 0) -> list[Pair]:
    kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
    return [Pair(f"p{number:04d}", encode((number % 256, 200, 40), kind=kinds[number % len(kinds)]), f"caption of {number}")
            for number in range(first, first + count)]


def write_tar(path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tar_members(pairs: Sequence[Pair], *, suffix: str = "jpg") -> list[tuple[str | tarfile.TarInfo, bytes]]:
    return [member for pair in pairs for member in ((f"{pair.name}.{suffix}", pair.image), (f"{pair.name}.txt", pair.caption.encode()))]


def image_table(images: Sequence[Any], captions: Sequence[Any], **others: Sequence[Any]) -> pa.Table:
    """A table with the struct of `datasets`."""
    kind = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    return pa.table({"image": pa.array(images, type=kind), "text": pa.array(captions, type=pa.string()), **others})


def write_folder(root: Path, pairs: Sequence[Pair]) -> SourceSettings:
    root.mkdir()
    for pair in pairs:
        (root / f"{pair.name}.png").write_bytes(pair.image)
    rows = [{"file_name": f"{pair.name}.png", "text": pair.caption} for pair in pairs]
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FolderSource(path=str(root))


def write_webdataset(root: Path, pairs: Sequence[Pair]) -> SourceSettings:
    for number in range(2):
        write_tar(root / f"part-{number}.tar", tar_members(pairs[number::2]))
    return WebDatasetSource(path=str(root))


def write_parquet_bytes(root: Path, pairs: Sequence[Pair]) -> SourceSettings:
    root.mkdir()
    table = pa.table({"image": pa.array([pair.image for pair in pairs], type=pa.binary()), "text": [pair.caption for pair in pairs]})
    pq.write_table(table, root / "a.parquet", row_group_size=3)
    return ParquetSource(path=str(root))


def write_parquet_structs(root: Path, pairs: Sequence[Pair]) -> SourceSettings:
    root.mkdir()
    pq.write_table(image_table([{"bytes": pair.image, "path": None} for pair in pairs], [pair.caption for pair in pairs]), root / "a.parquet")
    return ParquetSource(path=str(root / "*.parquet"))


def write_parquet_paths(root: Path, pairs: Sequence[Pair]) -> SourceSettings:
    (root / "images").mkdir(parents=True)
    for pair in pairs:
        (root / "images" / f"{pair.name}.dat").write_bytes(pair.image)
    table = pa.table({"file": [f"images/{pair.name}.dat" for pair in pairs], "text": [pair.caption for pair in pairs]})
    pq.write_table(table, root / "a.parquet")
    return ParquetSource(path=str(root / "a.parquet"), image_column="file")


def write_saved(root: Path, pairs: Sequence[Pair]) -> SourceSettings:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = {"image": [{"bytes": pair.image, "path": None} for pair in pairs], "text": [pair.caption for pair in pairs]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(root))
    return DatasetsSource(path=str(root))


def write_datasets_parquet(root: Path, pairs: Sequence[Pair]) -> SourceSettings:
    write_parquet_structs(root, pairs)
    return DatasetsSource(path="parquet", data_files=(str(root / "*.parquet"),))


def write_datasets_stream(root: Path, pairs: Sequence[Pair]) -> SourceSettings:
    write_parquet_structs(root, pairs)
    return DatasetsSource(path="parquet", data_files=(str(root / "*.parquet"),), streaming=True)


def write_imagefolder(root: Path, pairs: Sequence[Pair]) -> SourceSettings:
    write_folder(root, pairs)
    return DatasetsSource(path=str(root))


WRITERS = {writer.__name__.removeprefix("write_"): writer for writer in (
    write_folder, write_webdataset, write_parquet_bytes, write_parquet_structs, write_parquet_paths, write_saved, write_datasets_parquet,
    write_datasets_stream, write_imagefolder)}


def open_small(config: SourceSettings) -> Source:
    return open_source(config, shard_size=4)


def read_items(config: SourceSettings) -> list[SourceItem]:
    source = open_small(config)
    return [item for shard in source.shards() for item in source.read(shard)]


def count_pairs(items: Iterable[SourceItem]) -> Counter[tuple[str, str | None]]:
    return Counter((sha256_bytes(item.image or b""), item.caption) for item in items)


def index_rows(config: SourceSettings, directory: Path) -> list[dict[str, Any]]:
    """Every row of the index of a source; needs the fixture `tiny_clip`."""
    build_index(config, ClipConfig(), IndexConfig(shard_size=4, max_pixels=10_000), directory)
    columns = ["key", "status", "reason", "error", "caption", "sha256"]
    return [row for _, table in read_index(directory, columns=columns) for row in table.to_pylist()]


def bad_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Reason and error of each row with which something is wrong by its key."""
    return {row["key"]: (row["reason"], row["error"]) for row in rows if row["reason"]}
