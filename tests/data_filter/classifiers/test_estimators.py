import numpy as np
import pytest

from glideslope.data_filter.classifiers.estimators import TrainingSet, balance, fit_kind, score_rbf_grid, shorten_exactly, zero_shot
from glideslope.errors import FilterError

from .test_classifier import DATA, NEW, SETTINGS


def test_both_classes_weigh_the_same_however_few_one_has() -> None:
    labels = np.array([1, 0, 0, 0])
    weights = balance(np.array([1.0, 1.0, 2.0, 1.0]), labels)
    assert weights[labels == 1].sum() == weights[labels == 0].sum() == 2.0


@pytest.mark.parametrize("kind", sorted(SETTINGS))
@pytest.mark.parametrize(("labels", "message"), [(np.zeros(4, dtype=np.int64), "got 0 positive and 4 negative"),
                                                 (np.ones(4, dtype=np.int64), "got 4 positive and 0 negative")])
def test_one_class_is_no_training_set(kind: str, labels: np.ndarray, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        fit_kind(kind, SETTINGS[kind], TrainingSet(np.eye(4), labels, np.ones(4)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_refused(value: float) -> None:
    x = np.eye(4)
    x[2, 1] = value
    with pytest.raises(FilterError, match="1 embeddings hold numbers that are not finite"):
        fit_kind("rbf_svm", SETTINGS["rbf_svm"], TrainingSet(x, np.array([0, 1, 0, 1]), np.ones(4)))


def test_a_grid_of_machines_scores_as_each_machine_alone() -> None:
    settings = [{"gamma": 0.5, "C": 1.0}, {"gamma": 4.0, "C": 3.0}]
    for setting, scores in zip(settings, score_rbf_grid(DATA, NEW, settings), strict=True):
        np.testing.assert_allclose(scores, fit_kind("rbf_svm", setting, DATA).score(NEW), atol=2e-3)


def test_the_seed_decides_the_perceptron_and_nothing_else() -> None:
    for kind, settings in SETTINGS.items():
        first, again, other = (fit_kind(kind, settings, DATA, seed=seed).score(NEW) for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert np.array_equal(first, other) == (kind != "mlp")


def test_rows_are_shortened_only_where_nothing_is_lost() -> None:
    assert shorten_exactly(np.array([[0.5, 1.0]])).dtype == np.float16
    assert shorten_exactly(np.array([[0.1, 1.0]])).dtype == np.float64
    assert shorten_exactly(np.array([[1e9]])).dtype == np.float64


def test_zero_shot_is_the_cosine_with_the_mean_prompt() -> None:
    mean, prompts = np.full(12, 3.0), np.eye(12)[:2]
    direction = prompts.sum(0) / np.sqrt(2)
    x = NEW - mean
    expected = x @ direction / np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(zero_shot(mean, prompts).score(NEW), expected, rtol=1e-6)
    with pytest.raises(FilterError, match="cancel out"):
        zero_shot(None, np.array([[1.0, 0.0], [-1.0, 0.0]]))
