"""Judges beside the classifier: words in the caption, and scores from detectors outside. An image is dropped if any judge says so.

A judge that cannot say anything about an image, because its score is missing or is no number, says "drop".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...errors import FilterError
from ...recipe.filters import Category, Detector
from ...store.parquet_pages import FREE_BYTES, MAX_REPEATS, check_rows, measure_group
from ...text.caption_words import CAPTION_BREAK, has_words, split_phrase
from ...text.text_files import NotTextError, decode_text
from ...text.text_tables import TableError, read_csv

CAPTION_WORDS = "caption_words"
MISSING = ":missing"
FREE_SCORES = 1 << 20  # rows of a file of any size; keys that count up shrink to next to nothing
NO_SCORE = frozenset({"", "nan", "na", "n/a", "#n/a", "null", "none"})
NUMBER = re.compile(r"[+-]?(?:inf(?:inity)?|(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:e[+-]?[0-9]+)?)", re.IGNORECASE | re.ASCII)


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
        return np.array([self._find(key) for key in keys], dtype=np.int64)

    def _find(self, key: str) -> int:
        low, high, wanted = 0, len(self.keys), key.encode("utf-8", "surrogatepass")
        while low < high:
            middle = (low + high) // 2
            if self.keys[middle].as_buffer().to_pybytes() < wanted:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self.keys) and self.keys[low].as_buffer().to_pybytes() == wanted else -1


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
                          f"column score ({' '.join(str(error).split())[:200]})") from error
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


@dataclass(frozen=True)
class Flags:
    """What the judges beside the classifier say of some inputs.

    Attributes:
        flags: per input the names of those that say "drop", `<name>:missing` where a detector has no score or there is no caption.
        num_found: detector -> how many of the inputs it has a score for.
    """

    flags: list[list[str]]
    num_found: dict[str, int]


def flag(category: Category, keys: Sequence[str], captions: Sequence[tuple[str, ...]], detector_digests: Sequence[str]) -> Flags:
    """Ask every judge beside the classifier about some inputs.

    Args:
        category: its caption words and detectors.
        keys: of the inputs.
        captions: all captions of each input, any of which drops it; where there is none, caption words cannot say that nothing is wrong.
        detector_digests: sha256 of each detector's file.

    Raises:
        FilterError: a detector's file or a word cannot be used.
    """
    flags: list[list[str]] = [[] for _ in keys]
    if category.caption_words:
        has_word = has_words([CAPTION_BREAK.join(texts) for texts in captions], category.caption_words)
        for names, texts, is_hit in zip(flags, captions, has_word.tolist(), strict=True):
            if not texts:
                names.append(CAPTION_WORDS + MISSING)
            elif is_hit:
                names.append(CAPTION_WORDS)
    num_found = {}
    for detector, sha256 in zip(category.detectors, detector_digests, strict=True):
        scores = read_detector_once(detector, sha256)
        found = scores.find(keys)
        num_found[detector.name] = int((found >= 0).sum())
        for names, at in zip(flags, found.tolist(), strict=True):
            if at < 0:
                names.append(detector.name + MISSING)
            elif not scores.scores[at] < detector.threshold:
                names.append(detector.name)
    return Flags(flags, num_found)


def check_judges(category: Category) -> None:
    """Refuse judges that share a name, and caption words that no caption can have.

    Raises:
        FilterError: two detectors of one name, or one that is called like the caption words; a word without a letter or digit.
    """
    names = [CAPTION_WORDS, *(detector.name for detector in category.detectors)]
    if len(set(names)) != len(names):
        raise FilterError(f"{category.name}: detectors need names of their own, other than {CAPTION_WORDS}; got {', '.join(names[1:])}")
    for word in category.caption_words:
        try:
            split_phrase(word)
        except ValueError as error:
            raise FilterError(f"{category.name}: caption_words: {error}") from error
