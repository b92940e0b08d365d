from collections import Counter
from functools import cached_property
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.classifiers.kinds.average import Average
from glideslope.data_filter.classifiers.kinds.estimator import Task, TrainingSet
from glideslope.data_filter.classifiers.kinds.logistic import LogisticEstimator
from glideslope.data_filter.classifiers.kinds.mlp import MlpEstimator
from glideslope.data_filter.classifiers.kinds.rbf_svm import RbfSvmEstimator
from glideslope.data_filter.classifiers.kinds.zero_shot import ZeroShotEstimator, compare_with
from glideslope.data_filter.classifiers.selection import (
    MARGIN,
    Candidate,
    assign_folds,
    choose,
    choose_training,
    concept_weights,
    fit_chosen,
    kept_shares,
    list_candidates,
    select,
)
from glideslope.data_filter.labels.store import Judgement
from glideslope.errors import FilterError
from glideslope.recipe.filters import ClipConfig

from ..conftest import category


def task(**settings: Any) -> Task:
    return Task(category(**settings), ClipConfig())


def make_labels(spec: list[tuple[str, int, str, int]]) -> list[Judgement]:
    """Concept, label, role and number of variants."""
    return [Judgement(f"{concept}-{n}", concept, "c", role, label, {}, 1) for concept, label, role, count in spec for n in range(count)]


def test_only_train_labels_are_used_and_never_more_than_allowed() -> None:
    labels = make_labels([(f"p{n}", 1, role, 5) for n, role in enumerate(["train", "test", "calibrate"] * 4)]
                         + [(f"n{n}", 0, "train", 1) for n in range(30)])
    for most in (7, 25, 50, 1000):
        chosen = choose_training(labels, most)
        assert all(labels[place].role == "train" for place in chosen)
        assert len(chosen) == min(most, 50) == len(set(chosen))
        assert list(chosen) == sorted(chosen)


def test_concepts_take_turns_and_classes_share_three_to_seven() -> None:
    labels = make_labels([("big", 1, "train", 500), *[(f"p{n}", 1, "train", 3) for n in range(29)],
                          *[(f"n{n}", 0, "train", 1) for n in range(400)]])
    chosen = [labels[place] for place in choose_training(labels, 100)]
    assert Counter(label.label for label in chosen) == {1: 30, 0: 70}
    assert Counter(label.concept for label in chosen if label.label == 1).most_common(1)[0][1] == 1


def test_a_class_that_runs_out_leaves_its_turns_to_the_other() -> None:
    labels = make_labels([("p", 1, "train", 2), *[(f"n{n}", 0, "train", 1) for n in range(50)]])
    assert Counter(labels[place].label for place in choose_training(labels, 20)) == {1: 2, 0: 18}


def test_the_choice_does_not_depend_on_the_order_of_the_labels() -> None:
    labels = make_labels([(f"c{n}", n % 2, "train", 1 + n % 4) for n in range(30)])
    turned = labels[::-1]
    assert {labels[place].key for place in choose_training(labels, 20)} == {turned[place].key for place in choose_training(turned, 20)}


def test_a_concept_of_many_variants_weighs_less_per_variant() -> None:
    weights = concept_weights(np.array(["a"] * 4 + ["b"], dtype=object))
    assert weights.tolist() == [0.5] * 4 + [1.0]


def test_a_label_on_which_people_disagree_is_not_learned_from() -> None:
    labels = [*make_labels([("p", 1, "train", 2), ("n", 0, "train", 2)]), Judgement("x", "x", "c", "train", None, {}, 2)]
    assert choose_training(labels, 10).tolist() == [0, 1, 2, 3]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), min_size=4, max_size=80), st.integers(2, 5))
def test_folds_keep_concepts_whole_and_depend_on_no_order(pairs: list[tuple[int, int]], num_folds: int) -> None:
    concepts = np.array([f"c{concept}" for concept, _ in pairs], dtype=object)
    labels = np.array([label for _, label in pairs])
    folds = assign_folds(concepts, labels, num_folds)
    assert all(len(set(folds[concepts == concept])) == 1 for concept in set(concepts))
    assert np.array_equal(assign_folds(concepts[::-1], labels[::-1], num_folds)[::-1], folds)


def test_folds_share_both_classes_evenly() -> None:
    concepts = np.array([f"c{n}" for n in range(100)], dtype=object)
    folds = assign_folds(concepts, np.array([1] * 15 + [0] * 85), 5)
    assert Counter(folds[:15]) == dict.fromkeys(range(5), 3) and Counter(folds[15:]) == dict.fromkeys(range(5), 17)


def test_kept_shares_are_counted_by_hand() -> None:
    labels = np.array([1] * 100 + [0] * 4)
    scores = np.concatenate([np.arange(100.0), [-1.0, 0.5, 2.5, 4.5]])
    assert kept_shares(scores, labels) == [1.0, 0.75, 0.5, 0.5]  # recall 0.95 leaves 5 out, so the threshold is 5


def test_the_first_candidate_gives_way_only_to_a_clearly_better_one_or_where_all_is_kept_to_the_simplest() -> None:
    svm, logistic = RbfSvmEstimator(1.0), LogisticEstimator(10.0)
    candidates = [Candidate((svm, logistic)), Candidate((svm,)), Candidate((logistic,))]
    assert choose(candidates, [0.7, 0.7 + MARGIN - 0.01, 0.5], 100) == 0
    assert choose(candidates, [0.7, 0.7 + MARGIN + 0.01, 0.5], 100) == 1
    assert choose(candidates, [0.7, 0.7 + MARGIN + 0.01, 0.5], 10) == 0, "ten positives tell nothing apart"
    assert choose(candidates, [1.0, 1.0, 1.0], 100) == 2
    assert choose(candidates, [0.7, 1.0, 1.0], 100) == 2
    assert choose(candidates, [0.9, 0.9, 0.5], 100) == 0


def test_candidates_are_averages_of_two_kinds_and_each_kind_alone() -> None:
    machine, line, network = RbfSvmEstimator, LogisticEstimator, MlpEstimator
    assert [candidate.parts for candidate in list_candidates(task(classifiers=("rbf_svm", "logistic", "mlp")))] == [
        (machine(1.0), machine(3.0)), (machine(3.0), line(10.0)), (machine(3.0), network()), (line(10.0), network()),
        (machine(2.0),), (machine(1.0),), (machine(3.0),), (line(10.0),), (line(100.0),), (network(),)]
    assert [candidate.parts for candidate in list_candidates(task(classifiers=("rbf_svm", "logistic"), kernel_gamma=7.0))] == [
        (machine(7.0),), (machine(7.0), line(10.0)), (line(10.0),), (line(100.0),)]
    assert [candidate.parts for candidate in list_candidates(task(name="gun_fight", classifiers=("zero_shot",)))] == [
        (ZeroShotEstimator(("gun fight",), ClipConfig()),)]


def test_a_candidate_is_reported_with_the_settings_of_its_parts() -> None:
    parts = (RbfSvmEstimator(gamma=3.0), MlpEstimator(), LogisticEstimator(100.0), ZeroShotEstimator(("a",), ClipConfig()))
    assert Candidate(parts).to_json() == {"kind": "average", "parts": [
        {"kind": "rbf_svm", "C": 10.0, "gamma": 3.0}, {"kind": "mlp", "alpha": 0.1, "width": 64}, {"kind": "logistic", "C": 100.0},
        {"kind": "zero_shot"}]}
    assert Candidate(parts[1:2]).to_json()["kind"] == "mlp"


def rings(num: int = 240) -> tuple[TrainingSet, np.ndarray]:
    """A ring around a blob, which no line can tell apart; three examples to a concept."""
    generator = np.random.default_rng(0)
    labels = np.arange(num) // 3 % 2
    angle = generator.uniform(0, 2 * np.pi, num)
    x = np.stack([np.cos(angle), np.sin(angle), np.zeros(num)], 1) * (5 * labels[:, None]) + generator.normal(size=(num, 3)) + [0, 0, 4]
    return TrainingSet(x, labels, np.ones(num)), np.array([f"c{n // 3}" for n in range(num)], dtype=object)


def test_cross_validation_takes_what_keeps_clearly_more() -> None:
    data, concepts = rings()
    single = [Candidate((LogisticEstimator(10.0),)), Candidate((RbfSvmEstimator(gamma=2.0, C=3.0),))]
    found = select(single, data, concepts)
    assert found.chosen.kind == "rbf_svm"
    shares = {row["kind"]: np.mean(row["kept_shares"]) for row in found.report["candidates"]}
    assert shares["rbf_svm"] > shares["logistic"] + MARGIN
    assert found.out_of_fold is not None and kept_shares(found.out_of_fold, data.labels) == found.report["candidates"][1]["kept_shares"]


def test_an_average_is_fitted_with_the_calibrations_of_its_parts() -> None:
    data, concepts = rings()
    pair = Candidate((RbfSvmEstimator(gamma=2.0, C=3.0), LogisticEstimator(10.0)))
    found = select([pair], data, concepts)
    fitted = fit_chosen(found, data)
    assert isinstance(fitted, Average) and [member.kind for member in fitted.members] == ["rbf_svm", "logistic"]
    assert fitted.slopes.tolist() == [found.calibrations[0].slope, found.calibrations[1].slope]


def test_scores_out_of_fold_come_from_classifiers_that_had_not_seen_the_concept() -> None:
    labels = np.random.default_rng(1).integers(0, 2, 300)
    x = np.random.default_rng(2).normal(size=(100, 20)).repeat(3, axis=0)  # three equal examples to a concept, labels drawn per concept
    data = TrainingSet(x, labels[:100].repeat(3), np.ones(300))
    concepts = np.array([f"c{n // 3}" for n in range(300)], dtype=object)
    found = select([Candidate((RbfSvmEstimator(gamma=4.0, C=3.0),))], data, concepts)
    assert found.out_of_fold is not None
    positive, negative = found.out_of_fold[data.labels == 1], found.out_of_fold[data.labels == 0]
    assert abs(np.mean(positive[:, None] > negative) - 0.5) < 0.15, "labels are noise: whoever ranks them has seen them"


class Known(ZeroShotEstimator):
    """Looks along an axis instead of at prompts."""

    @cached_property
    def _text(self) -> tuple[None, np.ndarray]:
        return None, np.eye(3)[:1]


def test_zero_shot_is_scored_without_being_fitted() -> None:
    data, concepts = rings()
    estimator = Known(("a",), ClipConfig())
    found = select([Candidate((estimator,))], data, concepts)
    np.testing.assert_allclose(found.out_of_fold, compare_with(None, np.eye(3)[:1], 3).score(data.embeddings))
    np.testing.assert_array_equal(fit_chosen(found, data).score(data.embeddings), compare_with(None, np.eye(3)[:1], 3).score(data.embeddings))


@pytest.mark.parametrize("concepts", [["p", "p", "n1", "n2"], ["p1", "p2", "n", "n"], ["a", "b", "a", "b"]])
def test_too_few_concepts_leave_the_first_single_kind_without_cross_validation(concepts: list[str]) -> None:
    data = TrainingSet(np.array([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]]), np.array([1, 1, 0, 0]), np.ones(4))
    found = select(list_candidates(task(classifiers=("rbf_svm", "logistic"))), data, np.array(concepts, dtype=object))
    if "a" not in concepts:
        assert found.out_of_fold is None and found.chosen.kind == "rbf_svm" and found.report["method"].startswith("none")
    assert fit_chosen(found, data).score(data.embeddings).shape == (4,)


def test_one_class_is_refused() -> None:
    with pytest.raises(FilterError, match="needs labels of both kinds"):
        select(list_candidates(task()), TrainingSet(np.eye(4), np.ones(4, dtype=np.int64), np.ones(4)),
               np.array(list("abcd"), dtype=object))
