"""The test of captions: its null is exact, whatever the judge and the captions."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glideslope.errors import ReleaseError
from glideslope.release.claims.evaluation import (
    GUIDANCE_PATH,
    compare_with_middle,
    count_wins,
    deal_captions,
    list_worst,
    mean_and_error,
    measure_guidance,
    own_place,
)
from glideslope.release.evidence.contents import open_evidence

CONFIDENT = 0.5  # the bound that a release must exceed


def judged_pair(own: int, scores: list[float], means: list[float]) -> dict[str, Any]:
    """A pair whose own caption has this place in its hand."""
    return {"index": 0, "prompt": str(own), "others": [str(n) for n in range(len(scores)) if n != own], "own_score": scores[own],
            "own_mean": means[own], "other_scores": scores[:own] + scores[own + 1:], "other_means": means[:own] + means[own + 1:]}


def is_win(own: int, scores: list[float], means: list[float]) -> bool:
    return count_wins([judged_pair(own, scores, means)])["num_wins"] == 1


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=4).map(lambda half: half * 2))
def test_at_most_half_of_the_captions_of_a_hand_could_have_won(drawn: list[tuple[int, int]]) -> None:
    scores, means = [float(score) for score, _ in drawn], [float(mean) for _, mean in drawn]
    assert sum(is_win(own, scores, means) for own in range(len(scores))) <= len(scores) / 2


@given(st.permutations(range(8)))
def test_without_ties_exactly_half_of_the_captions_of_a_hand_win(order: list[int]) -> None:
    assert sum(is_win(own, [float(n) for n in order], [0.0] * 8) for own in range(8)) == 4


@settings(max_examples=20)
@given(st.lists(st.lists(st.integers(-2, 2), min_size=4, max_size=4), min_size=3, max_size=3))
def test_over_all_coins_the_wins_are_at_most_binomial(matrix: list[list[int]]) -> None:
    wins = Counter(sum(is_win(own, [float(n) for n in row], [0.0] * 4) for own, row in zip(coins, matrix, strict=True))
                   for coins in itertools.product(range(4), repeat=3))
    for least in range(4):
        chance = sum(number for count, number in wins.items() if count >= least) / 4**3
        assert chance <= sum(comb(3, k) for k in range(least, 4)) / 2**3


def never_looks(caption: str, picture: float) -> float:
    return float(int(caption) * 7919 % 101)


def loves_the_first(caption: str, picture: float) -> float:
    return -float(caption)


def answers_all_alike(caption: str, picture: float) -> float:
    return 0.25


def mixes_both(caption: str, picture: float) -> float:
    return float(np.sin(1000 * picture + 37 * float(caption)))


@pytest.mark.parametrize("judge", [never_looks, loves_the_first, answers_all_alike, mixes_both])
@pytest.mark.parametrize("num_captions", [2, 3, 5, 12, 600])
def test_pictures_that_ignore_their_captions_pass_at_most_one_time_in_twenty(judge: Callable[[str, float], float], num_captions: int) -> None:
    captions, num_passed, num_tries, num_pairs = [str(n) for n in range(num_captions)], 0, 200, 64
    for seed in range(num_tries):
        pictures = random.Random(seed).choices([n / 64 for n in range(64)], k=num_pairs)
        pairs = []
        for index, hand in enumerate(deal_captions(captions, num_pairs, seed)):
            scores = [judge(caption, pictures[index]) for caption in hand]
            pairs.append(judged_pair(own_place(seed, index, len(hand)), scores, [0.0] * len(hand)))
        num_passed += count_wins(pairs)["share_lower_bound"] > CONFIDENT
    assert num_passed <= 17  # a chance of 1 in 20 each gives more than that one time in fifty; 40 of 64 have a chance of 3 in 100


def test_more_captions_in_a_hand_find_a_weak_link_more_often() -> None:
    rng, wins = np.random.default_rng(0), {}
    for size in (2, 8):
        hands = rng.normal(size=(2000, size))
        hands[:, 0] += 0.4
        wins[size] = count_wins([judged_pair(0, row.tolist(), [0.0] * size) for row in hands])["share"]
    assert wins[2] == pytest.approx(0.61, abs=0.02) and wins[8] == pytest.approx(0.645, abs=0.02)


def test_the_coin_is_fair_and_follows_from_seed_and_number() -> None:
    thrown = Counter(own_place(seed, index, 4) for seed in range(50) for index in range(64))
    assert set(thrown) == {0, 1, 2, 3} and all(abs(number - 800) < 100 for number in thrown.values())
    assert [own_place(3, index, 8) for index in range(9)] == [own_place(3, index, 8) for index in range(9)]


def test_a_caption_that_lies_close_to_every_picture_gains_nothing() -> None:
    assert not is_win(0, [0.9, 0.2, 0.3, 0.4], [0.9, 0.1, 0.1, 0.1])
    assert is_win(3, [0.9, 0.2, 0.3, 0.4], [0.9, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("change", [{"other_scores": [0.1, 0.2]}, {"other_means": [0.0]}, {"own_score": float("inf")}])
def test_scores_without_a_middle_or_not_finite_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ReleaseError, match="odd number of other captions"):
        compare_with_middle(judged_pair(0, [0.1, 0.2, 0.3, 0.4], [0.0] * 4) | change)


def test_what_guidance_does_is_counted_from_its_rows(release_dir: Path) -> None:
    assert measure_guidance(open_evidence(release_dir)) == []
    rows = [{"guidance_scale": scale, "index": i, "own_score": 0.1 * scale + 0.01 * i, "own_mean": 0.0, "other_scores": [0.15],
             "other_means": [0.0]} for scale in (3.0, 1.0) for i in (0, 1)]
    (release_dir / GUIDANCE_PATH).write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain, guided = measure_guidance(open_evidence(release_dir))
    assert (plain["guidance_scale"], plain["num_wins"], plain["num_pairs"]) == (1.0, 0, 2)
    assert (guided["guidance_scale"], guided["num_wins"], guided["share"]) == (3.0, 2, 1.0)
    assert guided["mean_own_score"] == pytest.approx(0.305) and guided["own_error"] == pytest.approx(0.005)
    (release_dir / GUIDANCE_PATH).write_text('{"index": 0}\n')
    with pytest.raises(ReleaseError, match="guidance_scale"):
        measure_guidance(open_evidence(release_dir))


def test_the_standard_error_of_one_score_is_nothing_and_of_many_falls_with_their_root() -> None:
    assert mean_and_error([0.5], "own") == {"mean_own_score": 0.5, "own_error": 0.0}
    few, many = mean_and_error([0.0, 1.0] * 8, "own"), mean_and_error([0.0, 1.0] * 800, "own")
    assert few["own_error"] / many["own_error"] == pytest.approx(10, rel=0.05)


def test_the_worst_pictures_come_worst_first_and_ties_by_number() -> None:
    pairs = [{"index": i, "prompt": str(i), "others": ["r"], "own_score": own, "own_mean": 0.0, "other_scores": [0.2], "other_means": [0.0]}
             for i, own in enumerate((0.3, 0.1, 0.1, 0))]
    assert [row["index"] for row in list_worst(pairs)] == [3, 1, 2, 0]
