"""Audit, curate, audit again: what a bound is worth then."""

import hashlib
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.audits.plan import (
    Candidate,
    Plan,
    bind_seed,
    digest_population,
    digest_seed,
    measure_audit,
    plan_simple,
    redraw,
)
from glideslope.data_filter.audits.series import (
    OtherAudit,
    count_elsewhere,
    find_gaps,
    find_reused_seeds,
    normalize_seed,
    number_of,
    spend_confidence,
)
from glideslope.store.digests import sha256_json

NUM_IMAGES, NUM_POSITIVE, NUM_DRAWN, CLAIM = 240, 48, 60, 0.1
IMAGES = [Candidate(f"k{n:03d}", hashlib.sha256(str(n).encode()).hexdigest(), 0.0) for n in range(NUM_IMAGES)]
POSITIVE = {image.key for image in sorted(IMAGES, key=lambda image: hashlib.sha256(image.key.encode()).digest())[:NUM_POSITIVE]}


def simulate(seed: str, num_rounds: int, *, stopping: str, bound: bool) -> list[tuple[int, int, str]]:
    """Audit with stored labels, drop what was found, audit again with the same seed; for each round the bound, the truth and the status.

    Without `bound` the seed alone draws, as it did before the population was part of the draw key.
    """
    kept, rounds = IMAGES, []
    for _ in range(num_rounds):
        plan = Plan(CLAIM, 0.95, "simple", stopping, len(kept), 0, plan_simple(CLAIM, len(kept)))  # type: ignore[arg-type]
        draw_key = bind_seed(seed, digest_population(kept)) if bound else bytes.fromhex(seed)
        drawn = redraw(kept, plan, draw_key, NUM_DRAWN)
        found = {image.key for image in drawn} & POSITIVE
        result = measure_audit(plan, [[int(image.key in found)] for image in drawn])
        rounds.append((result["max_positive_images"], sum(image.key in POSITIVE for image in kept), result["status"]))
        kept = [image for image in kept if image.key not in found]
    return rounds


def count_false(num_runs: int, number: int, **how: Any) -> int:
    """How often the bound of the so-manieth audit is below the truth."""
    last = [simulate(f"{run:064x}", number, **how)[-1] for run in range(num_runs)]
    return sum(limit < truth for limit, truth, _ in last)


@pytest.mark.parametrize("stopping", ["fixed", "anytime"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_the_bound_of_each_audit_in_a_loop_holds_as_often_as_it_says_though_seed_and_labels_are_used_again(stopping: str, number: int) -> None:
    num_runs = 200
    highest = num_runs * 0.05 + 3 * math.sqrt(num_runs * 0.05 * 0.95)  # three standard deviations above the error that is allowed
    assert count_false(num_runs, number, stopping=stopping, bound=True) <= highest


@pytest.mark.parametrize("stopping", ["fixed", "anytime"])
def test_a_draw_that_knows_nothing_of_the_population_selects_its_sample_on_the_outcome(stopping: str) -> None:
    assert count_false(60, 4, stopping=stopping, bound=False) > 50, "nearly every bound is false, as it was before"
    limit, truth, status = simulate("7" * 64, 6, stopping=stopping, bound=False)[-1]
    assert status == "met" and limit < CLAIM * NUM_IMAGES < truth + limit


def test_over_a_whole_series_the_chances_of_a_false_bound_add_up_to_little() -> None:
    spent = [1 - spend_confidence(0.95, num) for num in range(10_000)]
    assert spend_confidence(0.95, 0) == 0.95 and spent[1] == pytest.approx(0.0125)
    assert all(later < earlier for earlier, later in pairwise(spent))
    assert sum(spent) < 0.05 * math.pi**2 / 6 < 0.083


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_seed_draws_otherwise_from_each_population(seed: bytes, one: bytes, other: bytes) -> None:
    keys = {bind_seed(seed.hex(), digest.hex()) for digest in {one, other}}
    assert len(keys) == len({one, other}) and all(len(key) == 32 for key in keys)


@given(st.text(max_size=30))
def test_writing_the_same_words_otherwise_gives_no_new_seed(text: str) -> None:
    words = normalize_seed(text)
    assert normalize_seed(f"  {text}\t") == words and normalize_seed(words) == words


@pytest.mark.parametrize(("one", "other", "is_same"), [
    ("dice: 4 1 6", "Dice 4-1-6", True), ("dice: 4 1 6", "dice: 4 1 5", False), ("\ufb01ve \uff11", "FIVE 1", True), ("!!!", "! ! !", True),
    ("!", "?", False), ("4 1 6", "416", False)])
def test_words_are_compared_without_case_signs_and_spaces(one: str, other: str, is_same: bool) -> None:
    assert (normalize_seed(one) == normalize_seed(other)) is is_same


def commit(number: int, earlier: list[dict[str, Any]], *, ledger: str = "a" * 64, seed: str | None = None) -> dict[str, Any]:
    plan = Plan(CLAIM, 0.95, "simple", "anytime", 100, 0, plan_simple(CLAIM, 100))
    return {"format": "glideslope.audit/2", "id": f"red_{number:03d}", "category": "red", "plan": plan.to_json(), "ledger_sha256": ledger,
            "population": {"sha256": "b" * 64, "num_images": 100}, "seed_sha256": digest_seed(seed or f"{number:064x}"),
            "earlier": [{"id": one["id"], "commitment_sha256": sha256_json(one), "ledger_sha256": one["ledger_sha256"]} for one in earlier]}


@pytest.fixture
def series() -> list[dict[str, Any]]:
    """Three commitments of a run: two of one kept set, one of the next."""
    found: list[dict[str, Any]] = []
    for number, ledger in ((1, "a"), (2, "a"), (3, "c")):
        found.append(commit(number, found, ledger=ledger * 64))
    return found


def test_a_whole_series_has_no_gap(series: list[dict[str, Any]]) -> None:
    assert find_gaps(series) == find_gaps([]) == find_reused_seeds(series) == []
    assert [number_of(one) for one in series] == [1, 2, 3]
    assert [count_elsewhere(one["earlier"], one["ledger_sha256"]) for one in series] == [0, 0, 2]


def test_whatever_is_missing_changed_or_added_in_a_series_is_named(series: list[dict[str, Any]]) -> None:
    first, second, third = series
    assert find_gaps([first, third]) == ["audit 'red_003': names the earlier audit 'red_002', which is missing or was changed"]
    assert "names the earlier audit 'red_001', which is missing" in find_gaps([second])[0]
    assert "names the earlier audit 'red_001', which is missing or was changed" in find_gaps([first | {"seed_sha256": "0"}, second])[0]
    assert "names 0 earlier audits, which are not all" in find_gaps([first, second | {"earlier": []}])[0]
    assert "two have the same id" in find_gaps([first, first])[0]
    assert "several categories" in find_gaps([first, first | {"id": "blue_001", "category": "blue"}])[0]
    for name in ("red_1", "blue_001", "red", "red_000"):
        assert number_of(first | {"id": name}) == 0 and find_gaps([first | {"id": name}])


def test_a_seed_that_drew_two_audits_is_named(series: list[dict[str, Any]]) -> None:
    again = commit(4, series, seed=f"{2:064x}")
    assert find_reused_seeds([*series, again]) == ["audits red_002, red_004: were drawn with one seed; each audit needs a seed of its own"]


def test_how_another_audit_ended_is_measured_from_its_labels(series: list[dict[str, Any]]) -> None:
    other = OtherAudit.of_labels(series[0], [[0], [0, 1], [0], [], [1]])
    assert other == OtherAudit.from_json(other.to_json()) and (other.num_drawn, other.judged) == (5, (0, 1, 0))
    assert other.summarize() == {"id": "red_001", "claim": CLAIM, "confidence": 0.95, "num_kept": 100, "num_drawn": 5, "num_labelled": 3,
                                 "num_positive": 1, "status": "open"}
    assert OtherAudit.of_labels(series[0], [[0]] * 60).summarize()["status"] == "met"
    assert OtherAudit.of_labels(series[0], [[1]] * 60).summarize()["status"] == "refuted"
    assert OtherAudit(series[0], 100, ()).summarize()["status"] == "open"


@pytest.mark.parametrize("change", [{"judged": [2]}, {"judged": [True]}, {"judged": None}, {"num_drawn": 1}, {"num_drawn": 101},
                                    {"num_drawn": 9.0}, {"commitment": {}}])
def test_a_malformed_account_of_an_audit_is_refused(series: list[dict[str, Any]], change: dict[str, Any]) -> None:
    value = OtherAudit(series[0], 9, (0, 0)).to_json() | change
    with pytest.raises((KeyError, TypeError, ValueError)):
        OtherAudit.from_json(value)
