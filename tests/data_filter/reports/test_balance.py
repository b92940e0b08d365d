from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.index.parquet import write_table
from glideslope.data_filter.judges.caption_words import CaptionWordsJudge
from glideslope.data_filter.reports.balance import WORD_GROUPS, count_captions, measure_balance
from glideslope.data_filter.sources.source import joined_captions
from glideslope.errors import StageError

Rows = list[tuple[str | None, str]]
TEXTS = st.lists(st.sampled_from(["gun", "_", " ", "old", "man", "女", "|", "-", "A", "b", "\uff47un"]), min_size=1, max_size=6).map("".join)
GROUPS = {"woman": ("woman", "women"), "dark": ("dark skin",)}
CAPTIONS = st.lists(st.sampled_from(["woman", "Women", "man", "a", "dark", "skin", "dog", "mañana", "-", "'s", "  ", "\n", "42"]), max_size=6)


def write_ledger(directory: Path, rows: Rows, *, shard_size: int = 7) -> Path:
    schema = pa.schema([("caption", pa.string()), ("reason", pa.string())])
    for number, start in enumerate(range(0, len(rows), shard_size)):
        part = [{"caption": caption, "reason": reason} for caption, reason in rows[start:start + shard_size]]
        write_table(directory / f"shard-{number:05d}.parquet", pa.Table.from_pylist(part, schema=schema))
    return directory


def words_by_hand(caption: str) -> list[str]:
    text = "".join(char.lower() if char.isalnum() else " " for char in caption)
    return text.split()


@given(st.lists(st.lists(TEXTS, max_size=3), min_size=1, max_size=12), st.sampled_from([("gun",), ("old man",), ("女", "a b"), ("man",)]))
def test_a_group_counts_the_inputs_that_the_filter_drops_by_its_words(tmp_path_factory: pytest.TempPathFactory, inputs: list[list[str]],
                                                                     words: tuple[str, ...]) -> None:
    captions = [tuple(dict.fromkeys(texts)) for texts in inputs]
    table = pa.table({"caption": pa.nulls(len(captions), pa.string()), "captions": pa.array(map(list, captions), type=pa.list_(pa.string()))})
    flags = CaptionWordsJudge(words).flag(table)
    rows: Rows = [(joined_captions(None, texts) or None, "") for texts in captions]
    counts = count_captions(write_ledger(tmp_path_factory.mktemp("ledger"), rows), {"group": words})
    assert counts.groups["group"].num_inputs == flags.count("caption_words")


@given(rows=st.lists(st.tuples(CAPTIONS, st.sampled_from(["", "filter:person", "label:person", "unreadable"])), min_size=1, max_size=40))
def test_counts_are_those_of_a_slow_count(rows: list[tuple[list[str], str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    flat: Rows = [(" ".join(words), reason) for words, reason in rows]
    counts = count_captions(write_ledger(tmp_path_factory.mktemp("ledger"), flat), GROUPS)
    judged = [(words_by_hand(str(caption)), reason) for caption, reason in flat if reason != "unreadable"]
    seen = Counter(word for words, _ in judged for word in set(words) if len(word) > 1)
    stayed = Counter(word for words, reason in judged for word in set(words) if len(word) > 1 and not reason)
    assert counts.words == {word: (number, stayed[word]) for word, number in seen.items()}
    assert (counts.everyone.num_inputs, sum(counts.num_unjudged.values())) == (len(judged), len(flat) - len(judged))
    assert counts.groups["woman"].num_inputs == sum(bool({"woman", "women"} & set(words)) for words, _ in judged)
    assert counts.groups["woman"].reasons["filter:person"] == sum(bool({"woman", "women"} & set(words)) for words, reason in judged
                                                                  if reason == "filter:person")


def test_with_more_words_than_fit_the_frequent_ones_are_still_counted_exactly(tmp_path: Path) -> None:
    rows: Rows = [(f"rare{number} common{number % 3}", "" if number % 2 else "filter:x") for number in range(300)]
    ledger = write_ledger(tmp_path, rows, shard_size=10)
    exact, bounded = count_captions(ledger, {}), count_captions(ledger, {}, max_words=25)
    assert bounded.num_forgotten > 0
    assert all(exact.words[word] == found for word, found in bounded.words.items())
    assert {word for word, found in exact.words.items() if found[0] > bounded.num_forgotten} <= bounded.words.keys()
    assert len(bounded.words) <= 26


def published_case(tmp_path: Path) -> dict[str, object]:
    """4,000 captions of 20,000 with `woman`, of which the filter keeps fewer; `man` loses less, `dog` nothing."""
    rows: Rows = []
    for word, number, kept in (("woman", 2000, 1376), ("man", 2000, 1504), ("dog", 16_000, 12_920)):
        rows += [(f"a {word}", "" if place < kept else "filter:person") for place in range(number)]
    rows += [(None, "unreadable")] * 5 + [("x woman", "duplicate key")] * 5
    return measure_balance(count_captions(write_ledger(tmp_path, rows, shard_size=1000), WORD_GROUPS))


def test_the_change_of_a_word_is_its_share_after_over_its_share_before(tmp_path: Path) -> None:
    figures = published_case(tmp_path)
    words = {row["word"]: row for row in figures["words"]}  # type: ignore[attr-defined]
    woman = words["woman"]
    assert (woman["num_inputs"], woman["num_kept"], figures["num_inputs"]) == (2000, 1376, 20_000)
    assert woman["share_before"] == 0.1
    assert woman["change"] == pytest.approx(1376 / 15_800 / 0.1 - 1)
    assert woman["change_lower_bound"] < woman["change"] < woman["change_upper_bound"] < 0
    assert woman["exclusion_ratio"] == pytest.approx((624 / 2000) / (3576 / 18_000))
    assert woman["change"] < words["man"]["change"] < 0
    assert figures["num_unjudged"] == {"duplicate key": 5, "unreadable": 5}
    assert figures["num_without_caption"] == 0


def test_judged_inputs_without_a_caption_are_counted_and_belong_to_no_group(tmp_path: Path) -> None:
    rows: list[tuple[str | None, str]] = [(None, ""), ("a woman", ""), (None, "filter:person"), (None, "caption"), ("a dog", "")]
    figures = measure_balance(count_captions(write_ledger(tmp_path, rows, shard_size=2), WORD_GROUPS))
    assert (figures["num_inputs"], figures["num_kept"], figures["num_without_caption"]) == (4, 3, 2)
    assert figures["num_unjudged"] == {"caption": 1}
    assert [(row["group"], row["num_inputs"]) for row in figures["groups"]] == [("woman", 1)]


def test_losers_and_gainers_are_ranked_by_what_is_sure(tmp_path: Path) -> None:
    figures = published_case(tmp_path)
    assert [row["word"] for row in figures["losers"]] == ["woman", "man"]  # type: ignore[attr-defined]
    assert [row["word"] for row in figures["gainers"]] == ["dog"]  # type: ignore[attr-defined]
    assert all(row["is_sure"] for row in figures["losers"])  # type: ignore[attr-defined]


def test_a_rare_word_is_not_called_a_loser(tmp_path: Path) -> None:
    rows: Rows = [("a cat", "")] * 70 + [("a cat", "filter:x")] * 30 + [("a gnu", "filter:x")] * 3
    figures = measure_balance(count_captions(write_ledger(tmp_path, rows), {}))
    assert [row["word"] for row in figures["losers"]] == []
    loose = measure_balance(count_captions(tmp_path, {}), min_inputs=1)
    assert [(row["word"], row["is_sure"]) for row in loose["losers"]] == [("gnu", False)]


def test_a_missing_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="run the stage first"):
        count_captions(tmp_path)


def test_the_guide_lists_the_built_in_words() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "report.md").read_text(encoding="utf-8")
    assert all(f"| {name} | {', '.join(words)} |" in guide for name, words in WORD_GROUPS.items())
