"""Parquet files of images and captions: images as bytes, as `datasets` writes them, or as paths to files."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types
from pydantic import Field

from ...errors import SourceError
from ...store.digests import sha256_bytes, sha256_json
from ...store.parquet_pages import FREE_BYTES, MAX_REPEATS, check_rows, measure_group
from ...text.one_line import one_line
from .files import (
    MAX_IMAGE_BYTES,
    MAX_TEXT_BYTES,
    Unreadable,
    below_root,
    digest_file,
    digest_files,
    digest_image,
    find_spelled,
    list_files,
    locate,
    plain_text,
    read_file,
    split_path,
)
from .kind import Found, Place, SourceKind
from .source import Shard, SourceItem, SourceLabel, digest_shards, refuse_changed, shard_name
from .survey import count, look_at_columns
from .tables import (
    BATCH_ROWS,
    Columns,
    ReadPath,
    TableRow,
    check_columns,
    describe_key_column,
    is_path_type,
    read_rows,
    refuse_rows,
    unfolded_bytes,
    used_names,
)

MOST_OPENED = 8
BUFFER_BYTES = 1 << 20  # without a buffer the whole column of a row group would be read at once
DAMAGE = (OSError, ValueError, pa.ArrowException)  # what reading a parquet file raises

GetImage = Callable[[Path, str], bytes]


class ParquetSource(SourceKind):
    """Parquet files with images as bytes, or as paths to files."""

    kind: Literal["parquet"] = "parquet"
    PLACES = frozenset({"path", "image_root"})
    path: str = Field(description="a directory of .parquet files, one file, or a glob")
    image_column: str = Field("image", description="bytes, a struct {bytes, path} as `datasets` writes, or a path")
    caption_column: str | None = Field("text", description="column of the captions; none: there are no captions")
    key_column: str | None = Field(None, description="column of the keys; none: a digest of image and caption")
    image_root: str | None = Field(None, description="where relative image paths count from; none: the parquet file's directory")

    @classmethod
    def look_at(cls, place: Place) -> Found | None:
        """Parquet files."""
        if not place.holds(".parquet"):
            return None
        schema, told = survey_parquet(ParquetFiles(cls(path=place.text)))
        return look_at_columns(schema, told, cls(path=place.text))

    def open(self, *, shard_size: int) -> "ParquetFiles":
        """Open the files; see `ParquetFiles`."""
        return ParquetFiles(self, shard_size=shard_size)

    def describe_keys(self) -> str:
        """What to do where many inputs have the same key."""
        return super().describe_keys() if self.key_column is None else describe_key_column(self.key_column)


@dataclass(frozen=True)
class Slice:
    """Some row groups of one file, `stop` excluded, and how many rows they hold."""

    file: str
    start: int
    stop: int
    num_rows: int


class ParquetFiles:
    """Parquet files as a source; a shard is a run of row groups of one file."""

    def __init__(self, config: ParquetSource, *, shard_size: int = 256) -> None:
        """Nothing is opened before the shards are listed or read."""
        self.path, self.shard_size = config.path, shard_size
        self.columns = Columns(config.image_column, config.caption_column, config.key_column)
        self.root, _ = split_path(config.path)
        self.image_root = None if config.image_root is None else locate(config.image_root)

    @cached_property
    def files(self) -> Sequence[str]:
        """The parquet files, relative to the source's folder, in the order in which they are read.

        Raises:
            SourceError: there is none, or one is missing.
        """
        return list_files(self.path, suffix=".parquet")

    def look_ahead(self, *, needs_captions: bool) -> None:
        """Look at the columns and the first rows of the first file that can be read; see `refuse_rows`."""
        self._check_image_root()
        for file in self.files[:MOST_OPENED]:
            try:
                slices = self._cut(file)
            except DAMAGE:
                continue  # a row of the index says so
            if slices:
                rows = self._read_slice(slices[0], read_external)
                refuse_rows(rows, self.columns, str(self.root / file), needs_captions=needs_captions)
                return

    def _check_image_root(self) -> None:
        if self.image_root is not None and not self.image_root.is_dir():
            raise SourceError(f"source.image_root: {self.image_root}: no such folder")

    @cached_property
    def _shards(self) -> list[Shard]:
        self._check_image_root()
        files = self.files
        digests = digest_files(self.root, files)
        shards: list[Shard] = []
        problems = []
        for file, digest in zip(files, digests, strict=True):
            try:
                slices = self._cut(file)
            except DAMAGE as error:
                problems.append(one_line(error))
                slices = [Slice(file, 0, 0, 1)]  # read as the one row that says so
            for part in slices:
                fingerprint = self._fingerprint(part, digest, self._digest_images(part))
                shards.append(Shard(shard_name(len(shards)), fingerprint, part.start, part.stop, part.num_rows, file))
        if len(problems) == len(files):
            raise SourceError(f"{self.path}: no file can be read as parquet; {files[0]}: {problems[0]}")
        return shards

    def _cut(self, file: str) -> list[Slice]:
        """Row groups of a file in runs of at most `shard_size` rows, at least one row group each.

        Raises:
            SourceError: a column is missing or has the wrong type.
            OSError, ValueError, ArrowException: the file cannot be read as parquet.
        """
        with pq.ParquetFile(self.root / file) as opened:
            check_columns(opened.schema_arrow, self.columns, str(self.root / file))
            check_rows(opened.metadata, (self.root / file).stat().st_size)
            sizes = [opened.metadata.row_group(i).num_rows for i in range(opened.metadata.num_row_groups)]
        slices: list[Slice] = []
        start = num_rows = 0
        for place, size in enumerate(sizes):
            if place > start and num_rows + size > self.shard_size:
                slices.append(Slice(file, start, place, num_rows))
                start, num_rows = place, 0
            num_rows += size
        if sizes:
            slices.append(Slice(file, start, len(sizes), num_rows))
        return slices

    def _digest_images(self, part: Slice) -> list[str]:
        """Digest, or reason of the refusal, of every image file that some row groups name, as `read` will find them."""
        if part.start == part.stop:
            return []
        with pq.ParquetFile(self.root / part.file) as opened:
            if all(is_inside(opened, group, self.columns.image) for group in range(part.start, part.stop)):
                return []
        rows = self._read_slice(part, digest_external)
        return [row.item.reason if row.item.image is None else row.item.image.decode() for row in rows if row.is_external]

    def _fingerprint(self, part: Slice, sha256: str, images: Sequence[str]) -> str:
        return sha256_json({"source": "parquet", "file": plain_text(part.file), "size_bytes": (self.root / part.file).stat().st_size,
                            "sha256": sha256, "row_groups": [part.start, part.stop], "images": list(images),
                            "columns": [self.columns.image, self.columns.caption, self.columns.key]})

    def fingerprint(self) -> str:
        """Digest of every file's path below the source's folder, size and content, and of every image file they name."""
        return digest_shards(self._shards)

    def shards(self) -> Sequence[Shard]:
        """Runs of row groups, file by file in the order of their paths; a file that is no parquet is a shard with one bad row.

        Raises:
            SourceError: no file, none that can be read, or a column that is missing or has the wrong type.
        """
        return self._shards

    def read(self, shard: Shard, *, keys: Collection[str] | None = None) -> Iterator[SourceItem]:
        """Read the rows of some row groups, a few at a time; a damaged row group gives a bad row for each row that it held."""
        part = Slice(shard.file, shard.start, shard.stop, shard.num_inputs or 0)
        images = []
        for row in self._read_slice(part, read_external):
            if row.is_external and keys is None:
                images.append(row.item.reason if row.item.image is None else sha256_bytes(row.item.image))
            if keys is None or row.item.key in keys:
                yield row.item
        if keys is None:
            try:
                found = self._fingerprint(part, digest_file(self.root / part.file), images)
            except OSError as error:
                raise SourceError(f"{self.root / part.file}: cannot be read: {error.strerror}") from error
            refuse_changed(shard, found)

    def notes(self) -> list[str]:
        """Nothing: every row is an input."""
        return []

    def labels(self, categories: Collection[str]) -> list[SourceLabel]:
        """None: parquet files bring no labels."""
        return []

    def _read_slice(self, part: Slice, get_image: GetImage) -> Iterator[TableRow]:
        path, name = self.root / part.file, plain_text(part.file)
        try:
            opened, schema = open_rows(path)
        except DAMAGE as error:
            yield TableRow(lost_row(f"{name}#unreadable", f"file {name} cannot be read as parquet: {one_line(error)}"), False)
            return
        folder, room = self.image_root or path.parent, Room()
        with opened, path.open("rb") as file:
            sizes = [opened.metadata.row_group(i).num_rows for i in range(opened.metadata.num_row_groups)]
            for group in range(part.start, min(part.stop, len(sizes))):
                batches = read_batches(file, opened, group, self.columns, room)
                yield from self._read_group(batches, schema, range(sum(sizes[:group]), sum(sizes[:group + 1])), name=name,
                                            read_path=lambda path: get_image(folder, path))

    def _read_group(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema, rows: range, *, name: str,
                    read_path: ReadPath) -> Iterator[TableRow]:
        """Read one row group; from where it is damaged on, each of its rows is a bad one."""
        row, problem = rows.start, "the row group holds fewer rows than it says"
        while row < rows.stop:
            try:
                batch = next(batches, None)
            except DAMAGE as error:
                batch, problem = None, one_line(error)
            if batch is None:
                break
            if (num_bytes := bytes_beside_image(batch, self.columns)) > MAX_TEXT_BYTES:
                told = f"row {row} of {name} is too large: {num_bytes} bytes beside its image, at most {MAX_TEXT_BYTES} are read"
                yield TableRow(lost_row(f"{name}#row-{row}", told, "too large"), False)
            else:
                plain = batch.cast(pa.schema([schema.field(column) for column in batch.schema.names]))
                yield from read_rows(plain, self.columns, read_path=read_path, where=name, first_row=row)
            row += batch.num_rows
        for lost in range(row, rows.stop):
            yield TableRow(lost_row(f"{name}#row-{lost}", f"row {lost} of {name} cannot be read: {problem}"), False)


def survey_parquet(opened: ParquetFiles) -> tuple[pa.Schema, str]:
    """The columns of the first file that can be read, and how many files and rows there are as the start of a sentence.

    Raises:
        SourceError: no file can be read.
    """
    problem = ""
    for name in opened.files:
        try:
            metadata = pq.read_metadata(opened.root / name)
            schema = metadata.schema.to_arrow_schema()
        except (OSError, pa.ArrowException) as error:
            problem = problem or f"{name}: {one_line(error)}"
            continue
        return schema, f"{opened.path}: {count(len(opened.files), 'parquet file')}, the first with {metadata.num_rows} rows"
    raise SourceError(f"{opened.path}: no file can be read as parquet; {problem}")


@dataclass
class Room:
    """How many bytes the rows of a shard may still unfold to."""

    num_bytes: int = FREE_BYTES


def open_rows(path: Path) -> tuple[pq.ParquetFile, pa.Schema]:
    """A parquet file whose lists of text come out as dictionaries, so that no value takes memory more than once; and its plain schema.

    Raises:
        OSError, ValueError, ArrowException: the file cannot be read as parquet.
    """
    with pq.ParquetFile(path) as plain:
        metadata, schema = plain.metadata, plain.schema_arrow
    check_rows(metadata, path.stat().st_size)
    columns = map(metadata.schema.column, range(metadata.num_columns))
    lists = [column.path for column in columns if column.max_repetition_level > 0 and column.physical_type == "BYTE_ARRAY"]
    return pq.ParquetFile(path, metadata=metadata, read_dictionary=lists, pre_buffer=False, buffer_size=BUFFER_BYTES,
                          page_checksum_verification=True), schema


def read_batches(file: BinaryIO, opened: pq.ParquetFile, group: int, columns: Columns, room: Room) -> Iterator[pa.RecordBatch]:
    """A row group in batches of few enough rows; what it takes is known before anything is unpacked.

    Raises:
        ValueError: it takes more than any data set does.
        OSError, ArrowException: it cannot be read.
    """
    names = used_names(opened.schema_arrow, columns)
    cost = measure_group(file, opened.metadata, group, names)
    room.num_bytes += MAX_REPEATS * cost.packed
    num_rows = max(1, min(BATCH_ROWS, FREE_BYTES // max(1, cost.shared)))
    for batch in opened.iter_batches(batch_size=num_rows, row_groups=[group], columns=names):
        room.num_bytes -= sum(map(unfolded_bytes, batch.columns))
        if room.num_bytes < 0:
            raise ValueError("the same values stand in so many rows that they unfold to over a thousand times their bytes")
        step = batch.num_rows if bytes_beside_image(batch, columns) <= MAX_TEXT_BYTES else 1
        yield from (batch.slice(start, step) for start in range(0, batch.num_rows, step))


def bytes_beside_image(batch: pa.RecordBatch, columns: Columns) -> int:
    """How many bytes caption, key and metadata have."""
    return sum(unfolded_bytes(batch[name]) for name in batch.schema.names if name != columns.image)


def is_inside(opened: Any, group: int, column: str) -> bool:
    """Whether every image of a row group certainly lies in the file itself."""
    kind = opened.schema_arrow.field(column).type
    if not types.is_struct(kind):
        return not is_path_type(kind)
    names = {field.name for field in kind}
    if "path" not in names:
        return True
    metadata = opened.metadata.row_group(group)
    parts = (metadata.column(i) for i in range(metadata.num_columns))
    found = next((part.statistics for part in parts if part.path_in_schema == f"{column}.bytes"), None)
    return found is not None and bool(found.has_null_count) and found.null_count == 0


def lost_row(key: str, error: str, reason: str = "unreadable") -> SourceItem:
    """An input of which nothing is left."""
    return SourceItem(key, key, None, None, reason, error)


def read_external(folder: Path, path: str) -> bytes:
    """The bytes of an image file by its path relative to a folder.

    Raises:
        Unreadable: it lies outside of the folder, is missing, or cannot be read.
    """
    return read_file(place_image(folder, path), max_bytes=MAX_IMAGE_BYTES)


def digest_external(folder: Path, path: str) -> bytes:
    """The digest of what `read_external` gives, in hex digits."""
    return digest_image(place_image(folder, path)).encode()


def place_image(folder: Path, path: str) -> Path:
    """Where an image file lies.

    Raises:
        Unreadable: outside of the folder.
    """
    inside = below_root(folder, path)
    if inside is None:
        raise Unreadable("missing", "lies outside of the folder of the images")
    if not os.path.lexists(folder / inside):
        inside = find_spelled(folder, inside) or inside
    return folder / inside
