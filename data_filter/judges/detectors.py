"""The judge that goes by scores of a detector outside: a file of keys and numbers."""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...errors import FilterError
from ...recipe.filters import Detector
from ...store.digests import sha256_file
from ...store.parquet_pages import FREE_BYTES, MAX_REPEATS, check_rows, measure_group
from ...text.one_line import one_line
from ...text.text_files import NotTextError, decode_text
from ...text.text_tables import TableError, read_csv
from .judge import MISSING, ReadKeys

FREE_SCORES = 1 << 20  # rows of a file of any size; keys that count up shrink to next to nothing
MAX_NAMED = 5
NO_SCORE = frozenset({"", "nan", "na", "n/a", "#n/a", "null", "none"})
NUMBER = re.compile(r"[+-]?(?:inf(?:inity)?|(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:e[+-]?[0-9]+)?)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class DetectorJudge:
    """Flags an input whose score reaches the threshold, and one without a score.

    Attributes:
        detector: the recipe's part.
        sha256: of its file.
    """

    detector: Detector
    sha256: str

    @classmethod
    def open(cls, detector: Detector) -> "DetectorJudge":
        """The judge of a detector whose file is as it is now.

        Raises:
            FilterError: the file cannot be read.
        """
        try:
            return cls(detector, sha256_file(Path(detector.path)))
        except OSError as error:
            raise FilterError(f"detector {detector.name}: {detector.path} cannot be read ({error.strerror})") from error

    @property
    def name(self) -> str:
        """The detector's."""
        return self.detector.name

    def flag(self, rows: pa.Table) -> list[str]:
        """See `Judge`; reads the column key.

        Raises:
            FilterError: the file cannot be used.
        """
        scores = read_detector_once(self.detector, self.sha256)
        flags = []
        for row in scores.find(rows["key"].to_pylist()).tolist():
            is_kept = row >= 0 and scores.scores[row] < self.detector.threshold
            flags.append("" if is_kept else self.name if row >= 0 else self.name + MISSING)
        return flags

    def inputs(self) -> Mapping[str, str]:
        """See `OutsideJudge`."""
        return {f"detector {self.name}": self.sha256}

    def summary(self, num_inputs: int, num_flagged: Mapping[str, int], read_keys: ReadKeys) -> Mapping[str, Any]:
        """Keys of the file that no input has: how many, and some of them."""
        scores = read_detector_once(self.detector, self.sha256)
        if num_inputs - num_flagged.get(self.name + MISSING, 0) == len(scores.keys):
            return {"num_keys": len(scores.keys), "num_unknown_keys": 0, "unknown_keys": []}
        is_known = np.zeros(len(scores.keys), dtype=bool)
        for keys in read_keys():
            rows = scores.find(keys)
            is_known[rows[rows >= 0]] = True
        examples = [scores.keys[int(row)].as_py() for row in np.flatnonzero(~is_known)[:MAX_NAMED]]
        return {"num_keys": len(scores.keys), "num_unknown_keys": int((~is_known).sum()), "unknown_keys": examples}


@dataclass(frozen=True)
class KeyedScores:
    """A detector's scores, ready to be looked up by key.

    Attributes:
        keys: string (N,), sorted, each once.
        scores: float64 (N,); NaN and absent scores became infinity, so that they say "drop".
    """

    keys: pa.LargeStringArray
    scores: NDArray[np.float64]

    def find(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Where each key stands, -1 where it is not: int64 (M,)."""
        return np.array([self._find(key.encode("utf-8", "surrogatepass")) for key in keys], dtype=np.int64)

    def _find(self, key: bytes) -> int:
        row = bisect_left(range(len(self.keys)), key, key=self._key)
        return row if row < len(self.keys) and self._key(row) == key else -1

    def _key(self, row: int) -> bytes:
        return bytes(self.keys[row].as_buffer().to_pybytes())


def read_detector(detector: Detector) -> KeyedScores:
    """Read a detector's file; where a key stands twice, its highest score counts.

    Raises:
        FilterError: the file is missing or unreadable, lacks a column, or holds something else than text keys and numbers.
    """
    path = Path(detector.path)
    try:
        table = read_score_csv(path) if path.suffix.lower() == ".csv" else read_score_parquet(path)
        if not (pa.types.is_string(table["key"].type) or pa.types.is_large_string(table["key"].type)):
            raise FilterError(f"detector {detector.name}: column key of {path} is {table['key'].type}, expected text")
        table = pa.table({"key": table["key"].cast(pa.large_string()), "score": table["score"].cast(pa.float64())})
    except OSError as error:
        raise FilterError(f"detector {detector.name}: {path} cannot be read ({error.strerror or error})") from error
    except NotTextError as error:
        raise FilterError(f"detector {detector.name}: {path} {error}") from error
    except TableError as error:
        raise FilterError(f"detector {detector.name}: {error.describe(path)}") from error
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise FilterError(f"detector {detector.name}: {path} is no CSV (ending .csv) or parquet file with a text column key and a number "
                          f"column score ({one_line(error)})") from error
    if table["key"].null_count:
        raise FilterError(f"detector {detector.name}: {table['key'].null_count} rows of {path} have no key")
    score = pc.fill_null(table["score"], np.inf)
    sure = table.set_column(1, "score", pc.if_else(pc.is_nan(score), np.inf, score))
    highest = sure.group_by("key").aggregate([("score", "max")]).sort_by("key")
    return KeyedScores(highest["key"].combine_chunks(), highest["score_max"].to_numpy().astype(np.float64))


def read_score_csv(path: Path) -> pa.Table:
    """Keys and scores of a CSV file; a score that is empty or spelled as none is null.

    Raises:
        OSError, NotTextError, TableError: it cannot be read, or holds something else than numbers.
    """
    keys, scores = [], []
    for row in read_csv(decode_text(path.read_bytes()), ("key", "score")):
        word = row.cells["score"].strip()
        if word.lower() not in NO_SCORE and not NUMBER.fullmatch(word):
            raise TableError(f"score is {word!r:.60}, expected a number, or nothing where there is none", row.line)
        keys.append(row.cells["key"])
        scores.append(None if word.lower() in NO_SCORE else float(word))
    return pa.table({"key": pa.array(keys, type=pa.large_string()), "score": pa.array(scores, type=pa.float64())})


def read_score_parquet(path: Path) -> pa.Table:
    """Keys and scores of a parquet file, a few rows at a time: what they take is known before anything is unpacked.

    Raises:
        OSError, ValueError, ArrowException: it cannot be read, or takes more than any file of scores does.
    """
    names, room, batches = ["key", "score"], FREE_BYTES, []
    with pq.ParquetFile(path) as opened, path.open("rb") as file:
        check_rows(opened.metadata, path.stat().st_size, free=FREE_SCORES)
        schema = pa.schema([opened.schema_arrow.field(name) for name in names])
        for group in range(opened.metadata.num_row_groups):
            cost = measure_group(file, opened.metadata, group, names)
            room += MAX_REPEATS * cost.packed
            num_rows = max(1, min(FREE_SCORES, FREE_BYTES // max(1, cost.shared)))
            for batch in opened.iter_batches(batch_size=num_rows, row_groups=[group], columns=names):
                room -= batch.nbytes
                if room < 0:
                    raise ValueError("the same values stand in so many rows that they unfold to over a thousand times their bytes")
                batches.append(batch.select(names))
    return pa.Table.from_batches(batches, schema=schema)


@lru_cache(maxsize=8)
def read_detector_once(detector: Detector, sha256: str) -> KeyedScores:
    """The detector's scores in this process; `sha256` names the file's content."""
    return read_detector(detector)
