from typing import get_args

import numpy as np
import pytest

from glideslope.data_filter.classifiers.kinds.estimator import Estimator, TrainingSet, balance
from glideslope.data_filter.classifiers.kinds.rbf_svm import RbfSvmEstimator, shorten_exactly
from glideslope.data_filter.classifiers.kinds.table import KINDS, build_classifier, find_kind, simplicity
from glideslope.data_filter.classifiers.kinds.zero_shot import compare_with
from glideslope.errors import FilterError
from glideslope.recipe.filters import ClassifierName

from .test_classifier import DATA, ESTIMATORS, NEW


def test_both_classes_weigh_the_same_however_few_one_has() -> None:
    labels = np.array([1, 0, 0, 0])
    weights = balance(np.array([1.0, 1.0, 2.0, 1.0]), labels)
    assert weights[labels == 1].sum() == weights[labels == 0].sum() == 2.0


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.kind)
@pytest.mark.parametrize(("labels", "message"), [(np.zeros(4, dtype=np.int64), "got 0 positive and 4 negative"),
                                                 (np.ones(4, dtype=np.int64), "got 4 positive and 0 negative")])
def test_one_class_is_no_training_set(estimator: Estimator, labels: np.ndarray, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        estimator.fit(TrainingSet(np.eye(4), labels, np.ones(4)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_refused(value: float) -> None:
    x = np.eye(4)
    x[2, 1] = value
    with pytest.raises(FilterError, match="1 embeddings hold numbers that are not finite"):
        RbfSvmEstimator(1.5).fit(TrainingSet(x, np.array([0, 1, 0, 1]), np.ones(4)))


def test_a_grid_of_machines_scores_as_each_machine_alone() -> None:
    machines = [RbfSvmEstimator(gamma=0.5, C=1.0), RbfSvmEstimator(gamma=4.0, C=3.0)]
    for machine, scores in zip(machines, RbfSvmEstimator.score_held_out(machines, DATA, NEW, seed=0), strict=True):
        np.testing.assert_allclose(scores, machine.fit(DATA).score(NEW), atol=2e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS[1:], ids=lambda estimator: estimator.kind)
def test_held_out_scores_are_those_of_the_fitted_classifier(estimator: Estimator) -> None:
    scores, = type(estimator).score_held_out([estimator], DATA, NEW, seed=3)
    assert scores.dtype == np.float64 and np.array_equal(scores, estimator.fit(DATA, seed=3).score(NEW))


def test_the_seed_decides_the_perceptron_and_nothing_else() -> None:
    for estimator in ESTIMATORS:
        first, again, other = (estimator.fit(DATA, seed=seed).score(NEW) for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert np.array_equal(first, other) == (estimator.kind != "mlp")


def test_the_table_has_every_kind_that_a_recipe_may_name_and_refuses_others() -> None:
    assert sorted(kind.kind for kind in KINDS) == sorted(get_args(ClassifierName))
    assert [find_kind(kind.kind) for kind in KINDS] == list(KINDS)
    for name in ("forest", "average", "", "Mlp"):
        with pytest.raises(FilterError, match=f"unknown kind '{name}', expected one of zero_shot, logistic, rbf_svm, mlp"):
            find_kind(name)


def test_an_average_is_less_simple_than_any_kind() -> None:
    names = ["zero_shot", "logistic", "rbf_svm", "mlp", "average"]
    assert sorted(reversed(names), key=simplicity) == names
    with pytest.raises(FilterError, match="unknown kind 'forest'"):
        simplicity("forest")


def test_rows_are_shortened_only_where_nothing_is_lost() -> None:
    assert shorten_exactly(np.array([[0.5, 1.0]])).dtype == np.float16
    assert shorten_exactly(np.array([[0.1, 1.0]])).dtype == np.float64
    assert shorten_exactly(np.array([[1e9]])).dtype == np.float64


def test_zero_shot_is_the_cosine_with_the_mean_prompt() -> None:
    mean, prompts = np.full(12, 3.0), np.eye(12)[:2]
    direction = prompts.sum(0) / np.sqrt(2)
    x = NEW - mean
    expected = x @ direction / np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(compare_with(mean, prompts, 12).score(NEW), expected, rtol=1e-6)
    with pytest.raises(FilterError, match="cancel out"):
        compare_with(None, np.array([[1.0, 0.0], [-1.0, 0.0]]), 2)


def test_zero_shot_compares_the_leading_numbers_of_an_embedding_where_text_has_fewer() -> None:
    mean, prompts = np.full(5, 3.0), np.eye(5)[:2]
    narrow, wide = compare_with(mean, prompts, 5), compare_with(mean, prompts, 12)
    np.testing.assert_allclose(wide.score(NEW), narrow.score(NEW[:, :5]), rtol=1e-6)
    assert wide.width == 12 and build_classifier("zero_shot", wide.tensors()).width == 12
    with pytest.raises(FilterError, match="prompts have embeddings of 5 numbers, images of 4"):
        compare_with(mean, prompts, 4)
