"""Pictures for a report: which inputs to show, and their thumbnails as data URIs."""

import base64
import heapq
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from ...pictures.decode import decode_image
from ...pictures.refusals import Refusal
from ...store.vocabulary import Cause, Reason
from ..deciding.ledger import Ledger
from ..index.read import find_shards, read_images
from ..sources.source import Source, hash_share
from .balance import is_judged

Pictures = Literal["veiled", "clear", "blurred", "none"]
THUMBNAIL_SIZE = 112
BLURRED_SIZE = 7
MAX_PIXELS = 50_000_000
NUM_BINS = 60
SAMPLED_SHARDS = 4


@dataclass(frozen=True)
class Shown:
    """One picture of a gallery.

    Attributes:
        key, caption: of the input; both come from the data and are hostile until escaped.
        score: of the gallery's category; None: no score.
        note: a few words of ours.
    """

    key: str
    caption: str
    score: float | None
    note: str


@dataclass(frozen=True)
class ScoreScan:
    """What one category's scores over all inputs look like.

    Attributes:
        edges: float (61,), of the histogram's bins.
        counts: int (60,), judged inputs per bin.
        num_scored: how many have a score.
        below, above: the inputs nearest to the threshold on the kept and on the dropped side, nearest first.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    num_scored: int
    below: Sequence[Shown]
    above: Sequence[Shown]


def scan_scores(ledger: Ledger, category: str, threshold: float, number: int) -> ScoreScan:
    """Read a category's scores twice: for their range and the nearest to the threshold, then for the histogram.

    Args:
        ledger: of the run.
        category: its name.
        threshold: of its filter.
        number: how many of the nearest are wanted on either side.
    """
    column = f"score_{category}"
    low, high, num_scored = np.inf, -np.inf, 0
    nearest: dict[bool, list[tuple[float, str, str]]] = {False: [], True: []}
    for table in scored_rows(ledger, column, ["key", "caption"]):
        score = table[column].to_numpy().astype(np.float64)
        if not len(score):
            continue
        low, high, num_scored = min(low, score.min()), max(high, score.max()), num_scored + len(score)
        kept = pc.equal(table["reason"], Cause.NOTHING).to_numpy()
        dropped = pc.equal(table["reason"], str(Reason(Cause.FILTER, category))).to_numpy()
        for is_above, chosen in ((False, kept), (True, dropped & (score >= threshold))):
            numbers = np.flatnonzero(chosen)
            numbers = numbers[np.argsort(np.abs(score[numbers] - threshold), kind="stable")[:number]]
            rows = table.select(["key", "caption", column]).take(pa.array(numbers)).to_pylist()
            nearest[is_above] = heapq.nsmallest(number, nearest[is_above] + [(row[column], row["key"], row["caption"] or "") for row in rows],
                                                key=lambda row: (abs(row[0] - threshold), row[1]))
    if not num_scored:
        low, high = threshold - 0.5, threshold + 0.5
    edges = np.linspace(min(low, threshold), max(high, threshold) + 1e-6, NUM_BINS + 1)
    counts = np.zeros(NUM_BINS, dtype=np.int64)
    for table in scored_rows(ledger, column, []):
        counts += np.histogram(table[column].to_numpy().astype(np.float64), edges)[0]
    below, above = ([Shown(key, caption, score, "") for score, key, caption in nearest[side]] for side in (False, True))
    return ScoreScan(edges, counts, num_scored, below, above)


def scored_rows(ledger: Ledger, column: str, others: Sequence[str]) -> Iterator[pa.Table]:
    """The judged rows of each shard that have a score: the score, the reason and other columns."""
    for _, table in ledger.tables(columns=[*others, "reason", column]):
        yield table.filter(pc.and_(is_judged(table["reason"]), pc.is_valid(table[column])))


def sample_rows(ledger: Ledger, reason: Reason, number: int, *, score: str | None = None) -> list[Shown]:
    """Some inputs with a ledger reason, drawn by the hash of their keys.

    Whole shards are looked through in the order of their hashes until there are enough, so that a picture does not cost
    reading a shard of its own.

    Args:
        ledger: of the run.
        reason: what the rows have in common; without a judge, those of every judge; without a cause, kept.
        number: how many are wanted.
        score: category whose score is shown.
    """
    column = [] if score is None else [f"score_{score}"]
    drawn: list[tuple[float, Shown]] = []
    for number_read, shard in enumerate(sorted(ledger.shards, key=lambda name: hash_share("report", name))):
        if number_read >= SAMPLED_SHARDS and len(drawn) >= 4 * number:
            break
        table = ledger.read(shard, columns=["key", "reason", "caption", *column])
        chosen = pc.equal(table["reason"], str(reason))
        if reason.cause != Cause.NOTHING:
            chosen = pc.or_(chosen, pc.starts_with(table["reason"], f"{reason}:"))
        for row in table.filter(chosen).to_pylist():
            shown = Shown(row["key"], row["caption"] or "", row.get(column[0]) if column else None, "")
            drawn.append((hash_share("report", row["key"]), shown))
    return [shown for _, shown in sorted(drawn, key=lambda item: (item[0], item[1].key))[:number]]


def make_thumbnails(source: Source | None, index_dir: Path, keys: Sequence[str], pictures: Pictures) -> dict[str, str]:
    """Key -> thumbnail as a data URI (WebP); what can't be read or decoded is left out.

    Args:
        source, index_dir: of the run; no source gives no thumbnails.
        keys: what to show.
        pictures: `blurred` makes thumbnails of a few pixels, from which nothing can be made out; `none`: no thumbnails.
    """
    if source is None or pictures == "none" or not keys:
        return {}
    thumbnails = {}
    for key, image in read_images(source, find_shards(index_dir, set(keys))):
        try:
            picture = Image.fromarray(decode_image(image, max_pixels=MAX_PIXELS))
        except Refusal:
            continue
        thumbnails[key] = encode_thumbnail(picture, blurred=pictures == "blurred")
    return thumbnails


def encode_thumbnail(picture: Image.Image, *, blurred: bool) -> str:
    """A thumbnail as a data URI."""
    side = BLURRED_SIZE if blurred else THUMBNAIL_SIZE
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    picture.save(sink, format="WEBP", quality=70, method=4)
    return "data:image/webp;base64," + base64.b64encode(sink.getvalue()).decode("ascii")


def missed_rows(missed: Sequence[Mapping[str, Any]], number: int) -> list[Shown]:
    """The held-out positives that a filter keeps, the lowest score first, as filter.json lists them."""
    return [Shown(row["key"], row["caption"] or "", row["score"], "") for row in missed[:number]]


def all_keys(galleries: Mapping[str, Sequence[Shown]]) -> Iterator[str]:
    """The keys of all galleries."""
    return (shown.key for gallery in galleries.values() for shown in gallery)
