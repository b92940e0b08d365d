"""What a filter does to the captions: how often words and groups of words occur before and after.

Reads ledgers only, a shard at a time, and holds counts, never captions. The two figures per word are the shares of the
inputs whose caption has it, among all judged inputs and among those that were kept (the figure that OpenAI watched in
"DALL-E 2 pre-training mitigations", 2022). Intervals are exact, and say how sure the change is for further data
of the same kind; for the run itself the shares are plain counts.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...progress import Advance
from ...recipe.recipe import Recipe
from ...store.vocabulary import OF_CATEGORY, Cause
from ...text.caption_words import CaptionTokens, split_phrase
from ..deciding.ledger import read_rows
from ..index.parquet import read_tables
from .ratios import compare_shares, compare_with_all

MAX_WORDS = 1_000_000
MIN_INPUTS = 20
MIN_LETTERS = 2
NUM_LISTED = 20
CONFIDENCE = 0.95

# Words that captions in English use for people; a recipe adds its own (report.word_groups).
WORD_GROUPS: Mapping[str, tuple[str, ...]] = {
    "woman": ("woman", "women", "female", "females", "lady", "ladies", "she", "her", "wife", "mother", "mom", "grandmother", "bride"),
    "man": ("man", "men", "male", "males", "gentleman", "gentlemen", "he", "his", "husband", "father", "dad", "grandfather", "groom"),
    "girl": ("girl", "girls", "daughter", "schoolgirl"),
    "boy": ("boy", "boys", "son", "schoolboy"),
    "child": ("child", "children", "kid", "kids", "baby", "babies", "toddler", "toddlers", "teenager", "teenagers"),
    "older person": ("elderly", "old man", "old woman", "older man", "older woman", "senior", "seniors", "grandmother", "grandfather"),
    "family": ("family", "families", "parent", "parents", "couple", "couples"),
    "dark skin": ("black man", "black woman", "black people", "african", "african american", "dark skin", "medium dark skin"),
    "light skin": ("white man", "white woman", "white people", "caucasian", "european", "light skin", "medium light skin"),
    "asian": ("asian", "chinese", "japanese", "korean", "indian", "vietnamese", "filipino"),
    "latin american": ("latino", "latina", "hispanic", "mexican", "brazilian"),
    "muslim": ("muslim", "muslims", "islamic", "hijab", "headscarf", "mosque"),
    "jewish": ("jewish", "jew", "jews", "kippah", "synagogue"),
    "christian": ("christian", "christians", "priest", "nun", "church"),
    "lgbtq": ("gay", "lesbian", "bisexual", "transgender", "queer", "lgbt", "lgbtq", "drag queen", "same sex"),
    "disability": ("disabled", "wheelchair", "blind", "deaf", "prosthetic", "white cane"),
}


# Single words that are always shown where they occur: those that OpenAI named, and their like.
NAMED_WORDS = ("woman", "man", "women", "men", "girl", "boy", "child", "kid", "parent", "person", "people")


@dataclass
class GroupCounts:
    """Judged inputs and kept ones, and the dropped by reason."""

    num_inputs: int = 0
    num_kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, reasons: pa.Array) -> None:
        """Count judged inputs by their ledger reasons; "" is kept."""
        for entry in pc.value_counts(reasons).to_pylist():
            self.num_inputs += entry["counts"]
            if entry["values"] == "":
                self.num_kept += entry["counts"]
            else:
                self.reasons[entry["values"]] += entry["counts"]


@dataclass
class CaptionCounts:
    """What is counted over a ledger.

    Attributes:
        everyone: all judged inputs: those that were readable and that a filter or a label decided on.
        num_unjudged: inputs that were dropped for another reason (unreadable, no caption, a repeated key), by reason.
        num_without_caption: judged inputs that have no caption.
        groups: name -> the judged inputs whose caption has one of the group's words.
        words: word -> judged inputs whose caption has it, and kept ones among them.
        num_forgotten: a word in at most so many captions may be missing from `words`; the counts of the others are exact.
    """

    everyone: GroupCounts = field(default_factory=GroupCounts)
    num_unjudged: Counter[str] = field(default_factory=Counter)
    num_without_caption: int = 0
    groups: dict[str, GroupCounts] = field(default_factory=dict)
    words: dict[str, tuple[int, int]] = field(default_factory=dict)
    num_forgotten: int = 0


def word_groups(recipe: Recipe) -> dict[str, Sequence[str]]:
    """The built-in groups of caption words and the recipe's own."""
    return {**WORD_GROUPS, **{group.name: group.words for group in recipe.report.word_groups}}


def is_judged(reasons: pa.Array) -> pa.Array:
    """Which ledger rows a filter or a label has decided on, by their reason: bool (N,)."""
    return pc.or_(pc.equal(reasons, Cause.NOTHING), pc.match_substring_regex(reasons, f"^({'|'.join(OF_CATEGORY)}):"))


def count_captions(ledger_dir: Path, groups: Mapping[str, Iterable[str]] = WORD_GROUPS, *, max_words: int = MAX_WORDS,
                   tell: Advance | None = None) -> CaptionCounts:
    """Count words and groups of words over a ledger.

    Args:
        ledger_dir: the ledger of a finished run.
        groups: name -> words and phrases.
        max_words: most words held at a time. Where captions have more, rare ones are let go and the frequent ones are
            counted again, exactly.
        tell: told how many rows are done.

    Raises:
        StageError: there is no ledger, or it is damaged.
    """
    counts = CaptionCounts(groups={name: GroupCounts() for name in groups})
    phrases = {name: [split_phrase(word) for word in words_of] for name, words_of in groups.items()}
    words = WordTable(max_words)
    num_rows = 0
    for reasons, captions, num_here in judged_rows(ledger_dir, counts):
        counts.everyone.add(reasons)
        tokens = CaptionTokens.of(captions.to_pylist())
        for name, found in counts.groups.items():
            found.add(reasons.filter(pa.array(tokens.have(phrases[name]))))
        words.add(tokens, pc.equal(reasons, "").to_numpy(zero_copy_only=False))
        num_rows += num_here
        if tell is not None:
            tell(num_rows)
    counts.num_forgotten = words.num_forgotten
    counts.words = (recount(ledger_dir, words) if words.num_forgotten else words).counts()
    return counts


def measure_balance(counts: CaptionCounts, *, min_inputs: int = MIN_INPUTS, num_listed: int = NUM_LISTED) -> dict[str, Any]:
    """The figures of a balance of captions.

    Args:
        counts: of a ledger.
        min_inputs: rarer words are left out of the lists of losers and gainers.
        num_listed: most words in each of these lists.

    Returns:
        Plain data: num_inputs, num_kept, num_unjudged (reason -> count), num_without_caption; `groups` and `words` (the named ones) with, each,
        num_inputs, num_kept, share_before, share_after, change (share_after / share_before - 1) and its two-sided 95 %
        interval, exclusion_ratio (drop rate with the word to drop rate without it) and its interval; `losers` and
        `gainers`, ranked by the end of the interval that is nearer to no change. There the intervals hold for all
        compared words at once (Bonferroni), and `is_sure` says whether they exclude "no change".
    """
    everyone = counts.everyone
    frequent = {word: found for word, found in counts.words.items() if found[0] >= max(min_inputs, counts.num_forgotten + 1)}
    losers, gainers = rank_words(frequent, everyone, num_listed)
    return {
        "num_inputs": everyone.num_inputs, "num_kept": everyone.num_kept, "num_unjudged": dict(sorted(counts.num_unjudged.items())),
        "num_without_caption": counts.num_without_caption,
        "groups": [{"group": name, **measure_word(found.num_inputs, found.num_kept, everyone), "dropped": dict(sorted(found.reasons.items()))}
                   for name, found in counts.groups.items() if found.num_inputs],
        "absent_groups": [name for name, found in counts.groups.items() if not found.num_inputs],
        "words": [{"word": word, **measure_word(*counts.words[word], everyone)} for word in NAMED_WORDS if word in counts.words],
        "losers": losers, "gainers": gainers, "num_words_compared": len(frequent), "min_inputs": min_inputs,
        "num_words": len(counts.words), "num_forgotten": counts.num_forgotten}


def rank_words(words: Mapping[str, tuple[int, int]], everyone: GroupCounts, num_listed: int) -> list[list[dict[str, Any]]]:
    """The words that lose most and those that gain most, by the cautious end of intervals that hold for all words at once.

    Exact intervals are computed for the foremost of a quick ranking only, five times as many as are listed.
    """
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(words))
    kept_share = everyone.num_kept / max(1, everyone.num_inputs)
    names = sorted(words)
    found = np.array([words[name] for name in names], dtype=np.float64).reshape(-1, 2)
    score = (found[:, 1] - kept_share * found[:, 0]) / np.sqrt(np.maximum(found[:, 0], 1))  # in standard deviations, but for a constant
    order = np.argsort(score, kind="stable")
    listed = []
    for sign, foremost in ((-1, order[:5 * num_listed]), (1, order[::-1][:5 * num_listed])):
        rows = [{"word": names[i], **measure_word(*words[names[i]], everyone, confidence=confidence)} for i in foremost if sign * score[i] > 0]
        for row in rows:
            row["is_sure"] = row["change_upper_bound"] < 0 or row["change_lower_bound"] > 0
        end = "change_lower_bound" if sign > 0 else "change_upper_bound"
        order_by = sorted((-sign * row[end], row["word"], place) for place, row in enumerate(rows))
        listed.append([rows[place] for _, _, place in order_by[:num_listed]])
    return listed


def measure_word(num_inputs: int, num_kept: int, everyone: GroupCounts, *, confidence: float = CONFIDENCE) -> dict[str, Any]:
    """How the share of captions with a word changes, and how much more often they are dropped; see `measure_balance`."""
    change = compare_with_all(num_kept, num_inputs, everyone.num_kept, everyone.num_inputs, confidence=confidence)
    others, others_kept = everyone.num_inputs - num_inputs, everyone.num_kept - num_kept
    exclusion = compare_shares(num_inputs - num_kept, num_inputs, others - others_kept, others, confidence=confidence)
    assert change.upper_bound is not None  # it is, for a group that is not empty
    return {"num_inputs": num_inputs, "num_kept": num_kept, "share_before": num_inputs / everyone.num_inputs,
            "share_after": num_kept / everyone.num_kept if everyone.num_kept else None,
            "change": None if change.value is None else change.value - 1, "change_lower_bound": change.lower_bound - 1,
            "change_upper_bound": change.upper_bound - 1, "drop_rate": (num_inputs - num_kept) / num_inputs,
            "drop_rate_outside": (others - others_kept) / others if others else None, **exclusion.to_json("exclusion_ratio")}


def judged_rows(ledger_dir: Path, counts: CaptionCounts | None = None) -> Iterator[tuple[pa.Array, pa.Array, int]]:
    """Reasons and captions of the judged rows of each ledger file, and how many rows it has in all; the others are counted."""
    for table in read_tables(ledger_dir, columns=["reason", "caption"], read=read_rows):
        reasons, captions = combine(table["reason"]), combine(table["caption"])
        judged = is_judged(reasons)
        if counts is not None:
            counts.num_unjudged.update({entry["values"]: entry["counts"] for entry in
                                        pc.value_counts(reasons.filter(pc.invert(judged))).to_pylist()})
            counts.num_without_caption += captions.filter(judged).null_count
        yield reasons.filter(judged), captions.filter(judged), len(table)


def combine(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def recount(ledger_dir: Path, first: "WordTable") -> "WordTable":
    """Count only the words that the first count still knows, exactly."""
    words = WordTable(len(first.places) + 1, only=first.places.keys())
    for reasons, captions, _ in judged_rows(ledger_dir):
        words.add(CaptionTokens.of(captions.to_pylist()), pc.equal(reasons, "").to_numpy(zero_copy_only=False))
    return words


class WordTable:
    """Counts in how many captions each word stands, in bounded memory (lossy counting: Manku and Motwani, VLDB 2002).

    Attributes:
        places: word -> its place in the counts.
        num_forgotten: a word that was let go, or found late, lacks at most so many inputs; 0: every count is exact.
    """

    def __init__(self, max_words: int, *, only: Collection[str] | None = None) -> None:
        """An empty table; with `only`, no other words are counted."""
        self.max_words, self.only = max_words, None if only is None else set(only)
        self.places: dict[str, int] = {}
        self.num_forgotten = 0
        self._found: NDArray[np.int64] = np.zeros((1024, 2), dtype=np.int64)

    def add(self, tokens: CaptionTokens, kept: NDArray[np.bool_]) -> None:
        """Count the words of some captions, each word once per caption; `kept` says which captions stay, bool (N,)."""
        num_words = max(1, len(tokens.words))
        pairs = np.sort(tokens.rows * num_words + tokens.codes)
        pairs = pairs[np.concatenate([[True], pairs[1:] != pairs[:-1]])] if len(pairs) else pairs
        rows, codes = pairs // num_words, pairs % num_words
        seen = np.bincount(codes, minlength=num_words)
        stayed = np.bincount(codes[kept[rows]], minlength=num_words)
        self._merge(tokens.words, seen, stayed)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Word -> captions that have it, and kept ones among them."""
        return {word: (int(self._found[place, 0]), int(self._found[place, 1])) for word, place in self.places.items()}

    def _merge(self, words: Sequence[str], seen: NDArray[np.int64], stayed: NDArray[np.int64]) -> None:
        chosen = [i for i, word in enumerate(words) if len(word) >= MIN_LETTERS and (self.only is None or word in self.only)]
        at = np.array([self.places.setdefault(words[i], len(self.places)) for i in chosen], dtype=np.int64)
        while len(self._found) < len(self.places):
            self._found = np.concatenate([self._found, np.zeros_like(self._found)])
        self._found[at, 0] += seen[chosen]
        self._found[at, 1] += stayed[chosen]
        if len(self.places) > self.max_words:
            self._forget()

    def _forget(self) -> None:
        """Let the rarer half of the words go."""
        found = self._found[:len(self.places), 0]
        least = int(np.median(found))
        self.num_forgotten += least
        left = [(word, place) for word, place in self.places.items() if found[place] > least]
        self._found = np.concatenate([self._found[[place for _, place in left]], np.zeros((1024, 2), np.int64)])
        self.places = {word: place for place, (word, _) in enumerate(left)}
