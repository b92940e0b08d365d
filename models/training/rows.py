"""A split of the curated set in one file that is mapped into memory: any row by its number, and none of them held.

The parquet files of the curated set are compressed, so that a row costs the reading of many. A training therefore copies its split once,
row by row and as it lies there, into an Arrow file. The system reads what is asked for, and gives its memory back when others need it. What
becomes of the curated set afterwards does not reach a training that has begun.
"""

import logging
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import TrainingError
from ...store.digests import sha256_bytes
from ...store.parquet_pages import FREE_BYTES, FREE_ROWS, FREE_VALUES, MAX_EXPANSION, ROWS_OF_BYTE, VALUES_OF_BYTE, Budget, open_bounded
from ...store.whole_files import written_whole
from ...text.one_line import one_line

ROWS_OF_BATCH = 64
HEX_DIGITS = "0123456789abcdef"
CURATED_TYPES = {"key": pa.string(), "sha256": pa.string(), "caption": pa.string(), "weight": pa.float32()}
SCHEMA = pa.schema([pa.field("key", pa.string()), pa.field("sha256", pa.string()), pa.field("captions", pa.list_(pa.string())),
                    pa.field("weight", pa.float32()), pa.field("image", pa.binary())], metadata={"format": "glideslope.rows/1"})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One kept image.

    Attributes:
        key: its name in the source.
        sha256: digest of its bytes.
        captions: one or several.
        weight: factor of its loss.
        image: its original bytes, in the mapped file.
    """

    key: str
    sha256: str
    captions: tuple[str, ...]
    weight: float
    image: pa.Buffer

    def read_image(self) -> bytes:
        """The original bytes.

        Raises:
            TrainingError: they are not those that were curated.
        """
        return same_bytes(self.key, self.sha256, self.image.to_pybytes())


class MappedRows:
    """The rows of a file that `write_rows` wrote; several threads may read it at once."""

    def __init__(self, path: Path) -> None:
        """Map it.

        Raises:
            ValueError: it is another file, or damaged.
            OSError: it cannot be read.
        """
        self._file = pa.ipc.open_file(pa.memory_map(str(path)))
        if not self._file.schema.equals(SCHEMA, check_metadata=True):
            raise ValueError("it is no file of rows of this version")
        self._lock = threading.Lock()
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches())]).tolist()

    def __len__(self) -> int:
        """How many rows."""
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> Row:
        """The row of a number from 0."""
        place = bisect_right(self._starts, number) - 1
        key, digest, captions, weight, image = (column[number - self._starts[place]] for column in self._read_batch(place).columns)
        return Row(key.as_py(), digest.as_py(), tuple(captions.as_py()), weight.as_py(), image.as_buffer())

    @property
    def captions(self) -> Iterator[str]:
        """Every caption, those of an image one after the other."""
        for batch in self._batches():
            yield from batch.column("captions").flatten().to_pylist()

    @property
    def consumed_sha256(self) -> str:
        """Digest of the sorted digests of all images, as canonical JSON: says exactly what was trained on."""
        found, is_first = sha256(b"["), True
        for digit in HEX_DIGITS:  # a sixteenth of them at a time
            chosen = [digest for batch in self._batches() for digest in batch.column("sha256").to_pylist() if digest[0] == digit]
            for digest in sorted(chosen):
                found.update(f'{"" if is_first else ","}"{digest}"'.encode())
                is_first = False
        found.update(b"]")
        return found.hexdigest()

    def _batches(self) -> Iterator[Any]:
        return (self._read_batch(number) for number in range(self._file.num_record_batches))

    def _read_batch(self, number: int) -> Any:
        with self._lock:
            return self._file.get_batch(number)


def open_rows(curated: Path, split: str, directory: Path) -> MappedRows:
    """The rows of a split, copied into a directory unless an earlier attempt has done that.

    Args:
        curated: directory of the curated set.
        split: `train` or `validation`.
        directory: of the training, for as long as it lasts.

    Raises:
        TrainingError: as in `write_rows`.
        StorageError: the directory cannot be written, or the disk is full.
    """
    path = directory / f"{split}.arrow"
    if path.exists():
        try:
            return MappedRows(path)
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            log.warning("%s: cannot be used (%s); it is written anew from %s", path, one_line(error), curated)
    write_rows(curated, split, path)
    return MappedRows(path)


def find_rows(split: str, directory: Path) -> MappedRows:
    """The rows that another process has just copied.

    Raises:
        TrainingError: they are not seen from here.
    """
    path = directory / f"{split}.arrow"
    try:
        return MappedRows(path)
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: the first process has written it, and it cannot be read here ({one_line(error)}); the directory of the "
                            "runs must be one that all machines see under the same path") from error


def write_rows(curated: Path, split: str, path: Path) -> None:
    """Copy a split's rows into one Arrow file, whole or not at all.

    Raises:
        TrainingError: no row, one without a caption, an image that is not what was curated, or a file that cannot be read.
        StorageError: the file cannot be written, or the disk is full.
    """
    refuse_missing(curated, split)
    with written_whole(path) as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for batch in read_batches(curated, split, None):
            captions, images = batch.column("caption"), pc.struct_field(batch.column("image"), "bytes")
            several = batch.column("captions").to_pylist() if "captions" in batch.schema.names else [None] * len(batch)
            shown = [texts or [caption] for texts, caption in zip(several, captions.to_pylist(), strict=True)]
            for key, digest, image in zip(batch.column("key"), batch.column("sha256"), images, strict=True):
                same_bytes(key.as_py(), digest.as_py(), image.as_py())
            writer.write_batch(pa.record_batch([batch.column("key"), batch.column("sha256"), pa.array(shown, SCHEMA.field("captions").type),
                                                batch.column("weight"), images], schema=SCHEMA))


def refuse_missing(curated: Path, split: str) -> None:
    """Refuse a split without rows, or with a row that has no caption.

    Raises:
        TrainingError: so it is.
    """
    num_rows, without, first = 0, 0, None
    for batch in read_batches(curated, split, ["key", "caption"]):
        missing = batch.filter(pc.is_null(batch.column("caption")))
        num_rows, without = num_rows + len(batch), without + len(missing)
        first = missing.column("key")[0].as_py() if first is None and len(missing) else first
    if without:
        raise TrainingError(f"{curated / 'data'}: {without} of {num_rows} images of the split {split!r} have no caption (the first: "
                            f"{first!r}), and training needs one for each; curate with curate.captions required")
    if not num_rows:
        raise TrainingError(f"{curated / 'data'}: the split {split!r} holds no image; nothing passed the filters, or "
                            "curate.validation_share leaves none")


def same_bytes(key: str, digest: str, data: bytes | None) -> bytes:
    """The bytes of an image, if they are those that were curated.

    Raises:
        TrainingError: they are others, or there are none.
    """
    if data is None or sha256_bytes(data) != digest:
        raise TrainingError(f"curated image {key!r}: its bytes are not those that were curated (SHA-256 {digest:.12}…); a file of the curated "
                            "set, or the training's copy of it, was changed or damaged: remove the training's partial directory if only "
                            "that was, else run `curate` again")
    return data


def read_batches(curated: Path, split: str, columns: Sequence[str] | None) -> Iterator[Any]:
    """Record batches of a split's parquet files in order.

    Raises:
        TrainingError: a file cannot be read, or takes more than the curation writes into one of its size.
    """
    for path in sorted((curated / "data").glob(f"{split}-*.parquet")):
        size = path.stat().st_size
        budget = Budget(FREE_BYTES + MAX_EXPANSION * size, FREE_VALUES + VALUES_OF_BYTE * size, FREE_ROWS + ROWS_OF_BYTE * size)
        try:
            with open_bounded(path, budget) as opened:
                types = dict(zip(opened.schema_arrow.names, opened.schema_arrow.types, strict=True))
                if lacking := [name for name, kind in CURATED_TYPES.items() if types.get(name) != kind]:
                    raise ValueError(f"its column {lacking[0]} is missing or of another type")
                yield from opened.iter_batches(batch_size=ROWS_OF_BATCH, columns=columns)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise TrainingError(f"{path}: cannot be read ({one_line(error)}); run `curate` again") from error
