import hashlib
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.audits.plan import (
    Candidate,
    Plan,
    bind_seed,
    check_claim,
    count_allowed,
    digest_population,
    digest_seed,
    measure_audit,
    plan_simple,
    plan_strata,
    redraw,
    required_labels,
)
from glideslope.data_filter.deciding.statistics import finite_upper_bound
from glideslope.errors import FilterError

SEED = "ab" * 32
KEY = bytes.fromhex(SEED)


def population(num: int) -> list[Candidate]:
    return [Candidate(f"k{n}", hashlib.sha256(str(n).encode()).hexdigest(), float(np.sin(n))) for n in range(num)]


def plan(num: int, *, claim: float = 0.1, stopping: str = "anytime", num_kept: int | None = None, num_unknown: int = 0) -> Plan:
    return Plan(claim, 0.95, "simple", stopping, num_kept or num, num_unknown, plan_simple(claim, num))  # type: ignore[arg-type]


def test_the_order_is_that_of_the_hashes_which_a_third_party_computes_in_three_lines() -> None:
    candidates = population(50)
    digest = digest_population(candidates)
    draw_key = hashlib.sha256(bytes.fromhex(SEED) + bytes.fromhex(digest)).digest()
    by_hand = sorted(candidates, key=lambda c: hashlib.sha256(draw_key + bytes.fromhex(c.sha256) + c.key.encode()).digest())
    assert redraw(candidates, plan(50), bind_seed(SEED, digest), 50) == by_hand
    assert redraw(reversed(candidates), plan(50), draw_key, 7) == by_hand[:7], "in whatever order the ledger is read"
    assert digest_seed(SEED) == hashlib.sha256(bytes.fromhex(SEED)).hexdigest()


@given(st.integers(1, 60), st.data())
def test_a_longer_sample_goes_on_where_a_shorter_one_stopped(num: int, data: st.DataObject) -> None:
    short, long = sorted((data.draw(st.integers(0, num)), data.draw(st.integers(0, num))))
    candidates = population(num)
    for one in (plan(num), stratified(candidates)):
        assert redraw(candidates, one, KEY, long)[:short] == redraw(candidates, one, KEY, short)
        assert len(set(redraw(candidates, one, KEY, long))) == long


def test_copies_of_one_image_are_drawn_apart() -> None:
    copies = [Candidate(f"k{n}", "00" * 32, 0.0) for n in range(100)]
    numbers = [int(image.key[1:]) for image in redraw(copies, plan(100), KEY, 100)]
    assert numbers != sorted(numbers) and sum(abs(a - b) == 1 for a, b in pairwise(numbers)) < 15


def test_over_many_seeds_every_image_is_drawn_equally_often() -> None:
    candidates = population(20)
    counts = Counter(image.key for n in range(2000) for image in redraw(candidates, plan(20), n.to_bytes(32, "big"), 5))
    assert len(counts) == 20
    assert max(abs(count - 500) for count in counts.values()) < 5 * math.sqrt(500 * 0.75)


def stratified(candidates: list[Candidate], *, labelled: list[tuple[float, int]] | None = None) -> Plan:
    scores = np.array([c.score for c in candidates], dtype=np.float64)
    return Plan(0.05, 0.95, "stratified", "anytime", len(candidates), 0, plan_strata(0.05, scores, labelled or []))


def test_strata_hold_every_image_once_and_high_scores_are_drawn_more_often() -> None:
    candidates = population(3000)
    found = stratified(candidates, labelled=[(0.9998, 1), (0.9999, 0), (0.1, 0), (0.2, 0)])
    counts = Counter(found.place(c.score) for c in candidates)
    assert [counts[n] for n in range(len(found.strata))] == [part.num_images for part in found.strata]
    assert len(found.strata) == 4 and found.strata[0].from_score is None
    assert found.strata[-1].expected_rate == 0.5 and found.strata[0].expected_rate < 0.05 / 8 + 1e-9
    drawn = Counter(found.place(c.score) for c in redraw(candidates, found, KEY, 300))
    assert drawn[3] / found.strata[3].num_images > 5 * drawn[0] / found.strata[0].num_images


def test_a_small_population_or_equal_scores_give_one_stratum() -> None:
    assert len(stratified(population(25)).strata) == 1
    assert len(stratified([Candidate(f"k{n}", "00" * 32, 1.0) for n in range(500)]).strata) == 1


def test_the_population_digest_depends_on_each_image_and_key() -> None:
    candidates = population(3)
    digests = {digest_population(candidates), digest_population(candidates[:2]), digest_population([*candidates[:2], candidates[0]]),
               digest_population([*candidates[:2], Candidate("other", candidates[2].sha256, 0.0)])}
    assert len(digests) == 4


@given(st.integers(1, 400), st.floats(0.001, 0.5), st.sampled_from(["anytime", "fixed"]), st.integers(0, 2))
def test_as_many_labels_as_the_planner_asks_for_show_the_claim_and_one_fewer_does_not(num: int, claim: float, stopping: str, hits: int) -> None:
    one = plan(num, claim=claim, stopping=stopping)
    needed = required_labels(one, num_hits=hits)
    if needed is None:
        assert hits > count_allowed(one)
        return
    if hits <= needed > 0:
        labels = [[1]] * hits + [[0]] * (needed - hits)
        assert measure_audit(one, labels)["status"] == "met"
        assert measure_audit(one, labels[:-1] if labels[-1] == [0] else [])["status"] != "met"


def test_a_fixed_sample_states_the_exact_bound_and_only_when_it_is_complete() -> None:
    one = plan(1000, claim=0.05, stopping="fixed")
    result = measure_audit(one, [[0]] * 90 + [[1]] * 2 + [[0]] * 8)
    assert result["max_positive_images"] == finite_upper_bound(2, 100, 1000)
    assert (result["status"], result["num_more"], result["may_stop"]) == ("not shown", None, True)
    assert result["estimate"] == 0.02
    partial = measure_audit(one, [[0]] * 50 + [[]] * 50)
    assert (partial["status"], partial["rate_upper_bound"], partial["num_more"], partial["may_stop"]) == ("open", None, 50, False)
    hopeless = measure_audit(one, [[1]] * 5 + [[]] * 95)
    assert (hopeless["status"], hopeless["num_more"], hopeless["may_stop"]) == ("open", None, True)


def test_an_anytime_audit_says_at_each_moment_what_is_shown_and_how_many_labels_are_missing() -> None:
    one = plan(5000, claim=0.01)
    start = measure_audit(one, [[]] * 400)
    assert (start["status"], start["rate_upper_bound"], start["may_stop"]) == ("open", 1.0, False)
    assert start["num_more"] == required_labels(one)
    half = measure_audit(one, [[0]] * 100 + [[]] * 300)
    assert half["num_more"] == start["num_more"] - 100 and half["rate_upper_bound"] < 0.05
    assert measure_audit(one, [[0]] * start["num_more"])["status"] == "met"
    short = measure_audit(one, [[0]] * 100)
    assert (short["status"], short["may_stop"]) == ("not shown", True)
    assert measure_audit(one, [[1]] * 40 + [[0]] * 60)["status"] == "refuted"
    census = measure_audit(plan(50, claim=0.01), [[0]] * 49 + [[1]])
    assert (census["status"], census["num_more"]) == ("refuted", None)
    assert census["rate_upper_bound"] == census["rate_lower_bound"] == 0.02


def test_labels_behind_a_gap_do_not_count_and_a_disagreement_counts_as_positive() -> None:
    one = plan(200)
    result = measure_audit(one, [[0], [0, 1], [], [1], [0]])
    assert (result["num_labelled"], result["num_positive"], result["num_ambiguous"], result["num_labels_after_gap"]) == (2, 1, 1, 2)
    assert result["double_labels"]["num_split"] == 1
    assert measure_audit(one, [[0]])["double_labels"] is None


def test_images_that_nobody_can_vouch_for_count_as_positive_and_known_negatives_help() -> None:
    without, unknown = plan(100, num_kept=300), plan(100, num_kept=300, num_unknown=10)
    labels = [[0]] * 60
    assert (count_allowed(without), count_allowed(unknown)) == (30, 20)
    high = measure_audit(without, labels)["max_positive_images"]
    assert measure_audit(without, labels)["rate_upper_bound"] == high / 300
    assert measure_audit(unknown, labels)["rate_upper_bound"] == (high + 10) / 300
    hopeless = plan(100, num_kept=300, num_unknown=40)
    assert count_allowed(hopeless) == -10 and required_labels(hopeless) is None
    assert measure_audit(hopeless, labels)["num_more"] is None


def test_a_stratified_audit_forgives_hits_where_it_looked_hard() -> None:
    candidates = population(3000)
    one = stratified(candidates, labelled=[(0.9998, 1), (0.9999, 0), (0.1, 0)])
    order = one.order(400)
    risky = [place for place, stratum in enumerate(order) if stratum == 3]
    labels = [[0] for _ in range(400)]
    for place in risky[:3]:
        labels[place] = [1]
    clustered = measure_audit(one, labels)
    plain = measure_audit(plan(3000, claim=0.05), [[1]] * 3 + [[0]] * 397)
    assert clustered["estimate"] < plain["estimate"] and clustered["max_positive_images"] < plain["max_positive_images"]


def test_a_stratified_plan_says_how_many_labels_it_takes_without_a_positive() -> None:
    one = stratified(population(3000), labelled=[(0.9998, 1), (0.9999, 0), (0.1, 0)])
    needed = required_labels(one)
    assert needed is not None and needed > (required_labels(plan(3000, claim=0.05)) or 0)
    assert measure_audit(one, [[0]] * needed)["status"] == "met"
    assert measure_audit(one, [[0]] * (needed - 1))["num_more"] == 1


def test_a_plan_is_the_same_after_a_round_trip_and_a_malformed_one_is_refused() -> None:
    one = stratified(population(3000))
    assert Plan.from_json(one.to_json()) == one
    for change in ({"design": "odd"}, {"stopping": "never"}, {"strata": []}):
        with pytest.raises(ValueError, match="unknown design"):
            Plan.from_json(one.to_json() | change)


@pytest.mark.parametrize("claim", [0.0, -0.1, 1e-9, 0.9, 1.0, math.nan])
def test_claims_out_of_range_are_refused(claim: float) -> None:
    with pytest.raises(FilterError, match=r"claim is .*, expected a share between"):
        check_claim(claim, 0.95)


@pytest.mark.parametrize("confidence", [0.0, 0.4, 1.0, 95, math.nan])
def test_confidences_out_of_range_are_refused(confidence: float) -> None:
    with pytest.raises(FilterError, match=r"confidence is .*, expected a number between"):
        check_claim(0.001, confidence)
