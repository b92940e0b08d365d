"""Whatever Hugging Face `datasets` loads: a Hub id, a saved data set, or files through one of its builders.

Images come out with the bytes they went in with: rows are read as Arrow tables, no image is decoded or encoded. A prepared
data set is cut into runs of rows, each known by a digest of its content. A streamed one is cut as `datasets` cuts it, and
known by its files: the digest of a local one, and the path of a remote one, which holds the resolved commit of a Hub
data set.
"""

import glob
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field

from ...errors import SourceError
from ...store.digests import sha256_json
from .files import GLOB_SIGNS, MAX_IMAGE_BYTES, Unreadable, below_root, digest_files, list_files, locate, read_file, split_path
from .kind import Found, Place, SourceKind
from .parquet import ParquetFiles, ParquetSource, survey_parquet
from .source import Shard, SourceItem, SourceLabel, describe_item, digest_shards, refuse_changed, shard_name
from .survey import count, look_at_columns
from .tables import BATCH_ROWS, MOST_LOOKED_AT, Columns, TableRow, check_columns, describe_key_column, read_rows, refuse_rows, used_names

if TYPE_CHECKING:
    import datasets

SAVED_NAMES = ("state.json", "dataset_dict.json")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SPLIT_WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
               "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation"}  # as `datasets` knows them


class DatasetsSource(SourceKind):
    """Anything that Hugging Face `datasets` loads: a Hub id, a local directory or files, downloaded or streamed."""

    kind: Literal["datasets"] = "datasets"
    PLACES = frozenset({"path", "data_files"})
    PACE = frozenset({"streaming"})
    path: str = Field(description="Hub id `org/name`, a local directory, or a builder (`parquet`, `arrow`, `imagefolder`, ...) with data_files")
    name: str | None = Field(None, description="configuration of the data set")
    split: str = Field("train", description="which split; slices like `train[:1000]` are allowed unless streaming")
    revision: str | None = Field(None, description="commit of a Hub data set; none: the newest")
    data_files: tuple[str, ...] | None = Field(None, strict=False, description="files or globs, for a builder or a directory")
    streaming: bool = Field(False, description="read while downloading instead of preparing the whole set first")
    image_column: str = Field("image", description="column of the images")
    caption_column: str | None = Field("text", description="column of the captions; none: there are no captions")
    key_column: str | None = Field(None, description="column of the keys; none: a digest of image and caption")

    @classmethod
    def look_at(cls, place: Place) -> Found | None:
        """A data set that `save_to_disk` wrote, loose Arrow files, or parquet files beside a card that names their splits."""
        if any((place.path / name).is_file() for name in SAVED_NAMES):
            return look_at_saved(place.text)
        if place.holds(".tar"):
            return None
        if place.holds(".arrow"):
            return look_at_arrow(place.text, place.path)
        if place.holds(".parquet") and place.path.is_dir() and has_card(place.path / "README.md"):
            opened = ParquetFiles(ParquetSource(path=place.text))
            schema, told = survey_parquet(opened)
            return look_at_columns(schema, told, cls(path=place.text, split=guess_split(opened.files)))
        return None

    def open(self, *, shard_size: int) -> "LoadedDataset":
        """Open the data set; see `LoadedDataset`."""
        return LoadedDataset(self, shard_size=shard_size)

    def identity(self) -> dict[str, Any]:
        """What the data set is, without where it lies; a Hub id `org/name` stays."""
        return super().identity() | ({"path": self.path} if HUB_ID.fullmatch(self.path) else {})

    def describe_keys(self) -> str:
        """What to do where many inputs have the same key."""
        return super().describe_keys() if self.key_column is None else describe_key_column(self.key_column)


class LoadedDataset:
    """A data set of `datasets` as a source."""

    def __init__(self, config: DatasetsSource, *, shard_size: int = 256) -> None:
        """Nothing is loaded before the shards are listed or read."""
        if locate(config.path).is_dir():
            config = config.model_copy(update={"path": str(locate(config.path))})
        self.config, self.shard_size = config, shard_size
        self.name = Path(config.path).name if Path(config.path).is_dir() else config.path  # in rows: wherever the folder lies
        self.is_stream = config.streaming and not is_saved(config)
        self.columns = Columns(config.image_column, config.caption_column, config.key_column)

    @cached_property
    def _rows(self) -> "datasets.Dataset | datasets.IterableDataset":
        """The split, as Arrow tables of the columns that are used."""
        loaded = load_split(self.config)
        if (schema := schema_of(loaded)) is not None:
            check_columns(schema, self.columns, f"data set {self.config.path}")
            loaded = loaded.select_columns(used_names(schema, self.columns))
        return loaded.with_format("arrow")

    @cached_property
    def _shards(self) -> list[Shard]:
        if self.is_stream:
            digest, total = self._digest_files(), self._rows.num_shards
            marks = [sha256_json({"source": "datasets", "stream": digest, "part": [number, total]}) for number in range(total)]
            return [Shard(shard_name(number), mark, number, number + 1, None) for number, mark in enumerate(marks)]
        found = []
        for number, start in enumerate(range(0, len(self._rows), self.shard_size)):
            stop = min(start + self.shard_size, len(self._rows))
            rows = [describe_item(row.item) for row in self._read_rows(start, stop)]
            found.append(Shard(shard_name(number), fingerprint_of(rows), start, stop, stop - start))
        return found

    def look_ahead(self, *, needs_captions: bool) -> None:
        """Look at the columns and the first rows; see `refuse_rows`."""
        rows = self._stream_rows(0) if self.is_stream else self._read_rows(0, min(MOST_LOOKED_AT, len(self._rows)))
        refuse_rows(rows, self.columns, f"data set {self.config.path}", needs_captions=needs_captions)

    def fingerprint(self) -> str:
        """Digest of every input's content, or, when streaming, of the files and the settings."""
        return digest_shards(self._shards)

    def shards(self) -> Sequence[Shard]:
        """Runs of rows, or the parts that `datasets` streams.

        Raises:
            SourceError: it cannot be loaded, or a column is missing or has the wrong type.
        """
        return self._shards

    def read(self, shard: Shard, *, keys: Collection[str] | None = None) -> Iterator[SourceItem]:
        """Read some rows; what a stream did not give to its end is one bad row."""
        if self.is_stream:
            yield from (row.item for row in self._stream_rows(shard.start) if keys is None or row.item.key in keys)
            return
        rows = []
        for row in self._read_rows(shard.start, shard.stop):
            if keys is None:
                rows.append(describe_item(row.item))
            if keys is None or row.item.key in keys:
                yield row.item
        if keys is None:
            refuse_changed(shard, fingerprint_of(rows))

    def notes(self) -> list[str]:
        """Nothing: every row is an input."""
        return []

    def labels(self, categories: Collection[str]) -> list[SourceLabel]:
        """None: labels are imported."""
        return []

    def _read_rows(self, start: int, stop: int) -> Iterator[TableRow]:
        for place in range(start, stop, BATCH_ROWS):
            table = self._rows[place:min(place + BATCH_ROWS, stop)]
            yield from read_rows(table, self.columns, read_path=self._read_image, where=self.name, first_row=place)

    def _stream_rows(self, number: int) -> Iterator[TableRow]:
        tables = self._rows.shard(num_shards=self._rows.num_shards, index=number).iter(batch_size=BATCH_ROWS)
        where, row = f"part {number} of {self.name}", 0
        while True:
            try:
                table = next(tables, None)
            except Exception as error:  # a builder, a file system or the network fails with any type
                key = f"{self.name}#{number}#truncated"
                told = f"{where} cannot be read beyond row {row}: {describe(error)}; the rest is lost"
                yield TableRow(SourceItem(key, key, None, None, "unreadable", told), is_external=False)
                return
            if table is None:
                return
            check_columns(table.schema, self.columns, f"data set {self.config.path}")
            yield from read_rows(table, self.columns, read_path=self._read_image, where=where, first_row=row)
            row += table.num_rows

    def _read_image(self, path: str) -> bytes:
        """The bytes of an image that lies in a file of its own, or in an archive that is streamed.

        Raises:
            Unreadable: it is no part of the data set, is missing, or cannot be read.
        """
        base = path.rpartition("::")[2]
        if is_remote(base):
            own = [f"hf://datasets/{self.config.path}@", f"hf://datasets/{self.config.path}/", *(self.config.data_files or ())]
            is_own = base.startswith(tuple(own[:2])) or base in own
        else:
            is_own = Path(base).is_absolute() and any(below_root(folder, base) is not None for folder in self._folders)
        if not is_own:
            raise Unreadable("missing", "lies outside of the data set")
        if not is_remote(path):
            return read_file(Path(path), max_bytes=MAX_IMAGE_BYTES)
        import fsspec  # type: ignore[import-untyped]  # a part of datasets

        try:
            with fsspec.open(path, "rb") as file:
                data = bytes(file.read(MAX_IMAGE_BYTES + 1))
        except Exception as error:  # every file system fails in its own way
            raise Unreadable("unreadable", f"cannot be read: {describe(error)}") from error
        if len(data) > MAX_IMAGE_BYTES:
            raise Unreadable("too large", f"is too large: at most {MAX_IMAGE_BYTES} bytes are read")
        return data

    @cached_property
    def _folders(self) -> list[Path]:
        """Where images of this data set may lie: its own folder, those of its files, and the caches of what was downloaded."""
        import datasets
        from huggingface_hub.constants import HF_HUB_CACHE

        local = [file for file in self.config.data_files or () if not is_remote(file)]
        own = [Path(self.config.path)] if Path(self.config.path).is_dir() else []
        folders = [*own, *(split_path(file)[0] for file in local), Path(datasets.config.HF_DATASETS_CACHE), Path(HF_HUB_CACHE)]
        return [folder.absolute() for folder in folders]

    def _digest_files(self) -> list[Any]:
        """What a stream depends on: settings and files."""
        import datasets

        config = self.config
        builder = load_or_refuse(config, lambda: datasets.load_dataset_builder(
            config.path, config.name, data_files=files_of(config), revision=config.revision))
        settings = [config.name, config.split, config.image_column, config.caption_column, config.key_column]
        return [settings, *digest_data_files(builder.config.data_files or {}, config.path)]


def digest_data_files(found: Mapping[Any, Any], path: str) -> list[Any]:
    """Local files of a data set by name and digest, remote ones by path and what their server says of them.

    Args:
        found: files by split, as the builders of `datasets` hold them.
        path: the data set, for messages.

    Raises:
        SourceError: there is no file, or one cannot be read.
    """
    splits = sorted(found, key=str)
    files = [str(file) for split in splits for file in found[split]]
    if not files:
        raise SourceError(f"data set {path}: it names no files, so that no change of them could be noticed; set source.streaming to false")
    local, remote = ([file for file in files if is_remote(file) == wanted] for wanted in (False, True))
    named = [[Path(file).name, digest] for file, digest in zip(local, digest_files(Path(), local), strict=True)]
    return [named, remote, [list(map(list, found[split].origin_metadata)) for split in splits] if remote else []]


def load_split(config: DatasetsSource) -> Any:
    """The split that a recipe names: a Dataset, or an IterableDataset where it is streamed.

    Raises:
        SourceError: it cannot be loaded.
    """
    import datasets

    if is_saved(config):
        return load_or_refuse(config, lambda: load_saved(config))
    refuse_pattern(config.path)
    return load_or_refuse(config, lambda: datasets.load_dataset(
        config.path, config.name, split=config.split, data_files=files_of(config), revision=config.revision, streaming=config.streaming))


def is_saved(config: DatasetsSource) -> bool:
    """Whether the path is a data set that `save_to_disk` wrote."""
    return any((Path(config.path) / name).is_file() for name in SAVED_NAMES)


def load_saved(config: DatasetsSource) -> Any:
    """The split of a data set that `save_to_disk` wrote; where it has just one, any name stands for it."""
    import datasets

    loaded = datasets.load_from_disk(config.path)
    splits = loaded if isinstance(loaded, datasets.DatasetDict) else {config.split.partition("[")[0]: loaded}
    wanted = datasets.ReadInstruction.from_spec(config.split).to_absolute({name: len(rows) for name, rows in splits.items()})
    parts = [splits[part.splitname].select(range(part.from_, part.to)) for part in wanted]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


def load_or_refuse(config: DatasetsSource, load: Callable[[], Any]) -> Any:
    """What a function of `datasets` returns.

    Raises:
        SourceError: it raised something.
    """
    try:
        return load()
    except Exception as error:  # builders raise any type
        told = f"datasets cannot load it ({describe(error)}); check source.path, name, split and data_files"
        raise SourceError(f"data set {config.path}: {told}") from error


def files_of(config: DatasetsSource) -> list[str] | None:
    """The data files as `datasets` takes them: it reads every path as a pattern, so that what exists as it is written is escaped."""
    return None if config.data_files is None else [escape_existing(file) for file in config.data_files]


def escape_existing(file: str) -> str:
    """A local path or pattern whose existing part means only itself, whatever signs are in it."""
    if is_remote(file):
        return file
    root, pattern = split_path(file)
    whole = root / pattern
    if whole.exists() and GLOB_SIGNS.search(str(whole.absolute())):
        return glob.escape(str(whole.absolute()))
    if root != Path() and GLOB_SIGNS.search(str(root.absolute())):
        return os.path.join(glob.escape(str(root.absolute())), pattern)  # noqa: PTH118  (a pattern is no path)
    return file if not file.startswith("~") else str(whole)


def refuse_pattern(path: str) -> None:
    """Refuse a folder that `datasets` would take for a pattern: it would read other folders, without a word.

    Raises:
        SourceError: it has such signs in its path.
    """
    folder = Path(path).absolute()
    if folder.is_dir() and GLOB_SIGNS.search(str(folder)):
        raise SourceError(f"data set {path}: datasets takes the signs [ ] * ? in the path of a folder for a pattern, and would read other "
                          f"files; "
                          "rename the folder, or name a builder as source.path and the files in source.data_files")


def schema_of(loaded: Any) -> pa.Schema | None:
    """The Arrow schema of a data set; None where a stream does not know it beforehand."""
    return None if loaded.features is None else loaded.features.arrow_schema


def is_remote(path: str) -> bool:
    """Whether a path is a web address or lies in an archive, and `fsspec` has to open it."""
    return "://" in path


def fingerprint_of(rows: Sequence[Sequence[Any]]) -> str:
    """Fingerprint of a run of rows."""
    return sha256_json({"source": "datasets", "inputs": rows})


def describe(error: Exception) -> str:
    """An exception, with the one that caused it, as one short line."""
    told = [" ".join(f"{type(one).__name__}: {one}".split())[:200] for one in (error, error.__cause__) if one is not None]
    return "; ".join(told)


def look_at_saved(images: str) -> Found:
    """A data set that `save_to_disk` wrote; of several splits `train` is taken, or the first."""
    import datasets

    source = DatasetsSource(path=images)
    loaded: Any = load_or_refuse(source, lambda: datasets.load_from_disk(str(locate(images))))
    splits = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {}
    split = "train" if "train" in splits or not splits else next(iter(splits))
    rows = splits.get(split, loaded)
    told = f"{images}: a saved data set" + (f" with the splits {', '.join(splits)}" if splits else "") + f"; {split} has {len(rows)} rows"
    return look_at_columns(rows.features.arrow_schema, told, source.model_copy(update={"split": split}))


def look_at_arrow(images: str, path: Path) -> Found:
    """Loose Arrow files go to the builder of `datasets`."""
    pattern = str(Path(images) / "**/*.arrow") if path.is_dir() else images
    source = DatasetsSource(path="arrow", data_files=(pattern,))
    root = path if path.is_dir() else path.parent
    files = list_files(str(path), suffix=".arrow") if path.is_dir() else (path.name,)
    told = f"{images}: {count(len(files), 'Arrow file')}"
    return look_at_columns(read_arrow_schema(root / files[0]), told, source)


def read_arrow_schema(path: Path) -> pa.Schema:
    """The schema of an Arrow file, in either of the two formats.

    Raises:
        SourceError: it is none.
    """
    for opener in (pa.ipc.open_stream, pa.ipc.open_file):
        try:
            with pa.memory_map(str(path)) as file:
                return opener(file).schema
        except (OSError, pa.ArrowException):
            continue
    raise SourceError(f"{path}: cannot be read as an Arrow file")


def guess_split(files: Sequence[str]) -> str:
    """The split that `datasets` makes of files by their names: `train` where there is one or none is named, else the first."""
    words = [word for name in files for word in re.split(r"[/._\-]+", name.lower())]
    named = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
    return "train" if "train" in named or not named else named[0]


def has_card(readme: Path) -> bool:
    """Whether a README begins with the settings by which `datasets` tells the splits of a data set apart."""
    try:
        with readme.open("rb") as file:
            return file.read(3) == b"---"
    except OSError:
        return False
