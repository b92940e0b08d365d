from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.classifiers.calibration import Calibration
from glideslope.data_filter.classifiers.kinds.average import Average
from glideslope.data_filter.classifiers.kinds.classifier import BLOCK_ROWS, Classifier, Preparation
from glideslope.data_filter.classifiers.kinds.estimator import Estimator, TrainingSet, balance
from glideslope.data_filter.classifiers.kinds.linear import Linear
from glideslope.data_filter.classifiers.kinds.logistic import LogisticEstimator
from glideslope.data_filter.classifiers.kinds.mlp import MlpEstimator
from glideslope.data_filter.classifiers.kinds.rbf_svm import RbfSvmEstimator
from glideslope.data_filter.classifiers.kinds.table import build_classifier
from glideslope.errors import FilterError

ESTIMATORS: list[Estimator] = [RbfSvmEstimator(gamma=1.5, C=3.0), LogisticEstimator(10.0), MlpEstimator(width=8)]


def two_clouds(num: int = 120, width: int = 12) -> TrainingSet:
    generator = np.random.default_rng(0)
    labels = (np.arange(num) % 3 == 0).astype(np.int64)
    x = generator.normal(size=(num, width)) + 3 + 1.5 * labels[:, None] * (np.arange(width) < 4)
    return TrainingSet(x.astype(np.float16), labels, generator.uniform(0.5, 2, num))


DATA = two_clouds()
NEW = np.random.default_rng(2).normal(size=(1400, 12)) + 3


def average() -> Average:
    members = [estimator.fit(DATA) for estimator in ESTIMATORS]
    return Average(members, torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64), torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64))


ALL: list[Classifier] = [*(estimator.fit(DATA) for estimator in ESTIMATORS), average()]


@pytest.mark.parametrize("gamma", [0.1, 1.5, 10.0, 400.0])
@pytest.mark.parametrize("regularisation", [0.5, 10.0])
def test_a_machine_scores_as_the_decision_function_of_scikit_learn(gamma: float, regularisation: float) -> None:
    from sklearn.svm import SVC

    ours = RbfSvmEstimator(gamma, regularisation).fit(DATA)
    prepared = Preparation.fit(DATA.embeddings)
    oracle = SVC(C=regularisation, gamma=gamma).fit(prepared.apply(DATA.embeddings).numpy(), DATA.labels,
                                                    sample_weight=balance(DATA.weights, DATA.labels))
    expected = oracle.decision_function(prepared.apply(NEW).numpy())
    np.testing.assert_array_max_ulp(ours.score(NEW), expected.astype(np.float32), maxulp=1)
    for threshold in np.sort(ours.score(NEW))[::140]:
        assert np.array_equal(ours.score(NEW) < threshold, expected.astype(np.float32) < threshold)


def test_logistic_regression_scores_as_the_decision_function_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    prepared = Preparation.fit(DATA.embeddings)
    oracle = LogisticRegression(C=10.0, max_iter=1000).fit(prepared.apply(DATA.embeddings).numpy(), DATA.labels,
                                                           sample_weight=balance(DATA.weights, DATA.labels))
    np.testing.assert_allclose(LogisticEstimator(10.0).fit(DATA).score(NEW),
                               oracle.decision_function(prepared.apply(NEW).numpy()), rtol=1e-6)


def test_a_perceptron_scores_as_the_log_odds_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.neural_network

    fitted = []

    class Kept(sklearn.neural_network.MLPClassifier):  # type: ignore[misc]  # scikit-learn has no types
        def fit(self, *args: object, **settings: object) -> object:
            fitted.append(self)
            return super().fit(*args, **settings)

    monkeypatch.setattr(sklearn.neural_network, "MLPClassifier", Kept)
    ours = MlpEstimator(width=8).fit(DATA, seed=3)
    p = fitted[0].predict_proba(4.0 * Preparation.fit(DATA.embeddings).apply(NEW).numpy())[:, 1]
    np.testing.assert_allclose(ours.score(NEW), np.log(p / (1 - p)), rtol=1e-4, atol=1e-4)


def test_an_average_is_the_mean_of_calibrated_log_odds() -> None:
    whole = average()
    parts = [Calibration(slope, offset).log_odds(member.score(NEW))
             for member, slope, offset in zip(whole.members, (1.0, 0.5, 2.0), (0.0, 1.0, -1.0), strict=True)]
    np.testing.assert_allclose(whole.score(NEW), np.mean(parts, axis=0), rtol=1e-6)


@pytest.mark.parametrize("classifier", ALL, ids=lambda classifier: classifier.kind)
@given(cuts=st.lists(st.integers(0, 1400), max_size=6))
def test_scores_do_not_depend_on_batching(classifier: Classifier, cuts: list[int]) -> None:
    whole = classifier.score(NEW)
    edges = [0, *sorted(cuts), 1400]
    pieces = [classifier.score(NEW[start:stop]) for start, stop in pairwise(edges)]
    np.testing.assert_array_max_ulp(np.concatenate(pieces), whole, maxulp=1)
    assert whole.dtype == np.float32 and whole.shape == (1400,)


@pytest.mark.parametrize("classifier", ALL, ids=lambda classifier: classifier.kind)
def test_half_precision_embeddings_score_as_what_they_hold(classifier: Classifier) -> None:
    half = NEW.astype(np.float16)
    assert np.array_equal(classifier.score(half), classifier.score(half.astype(np.float64)))
    assert np.isfinite(classifier.score(np.zeros((BLOCK_ROWS[1] + 1, 12)))).all()


def test_an_embedding_at_the_center_scores_as_the_formula_says() -> None:
    machine = RbfSvmEstimator(1.5, 3.0).fit(DATA)
    tensors = machine.tensors()
    vectors = Preparation(tensors["center"], tensors["scale"]).apply(tensors["support_embeddings"])
    expected = (torch.exp(-1.5 * vectors.square().sum(1)) @ tensors["dual_coefficients"] + tensors["intercept"]).item()
    assert machine.score(tensors["center"].numpy()[None])[0] == pytest.approx(expected, rel=1e-6)


@given(st.floats(0.001, 1000), st.integers(1, 40))
def test_preparing_gives_length_one_and_forgets_the_scale_of_an_embedding(factor: float, width: int) -> None:
    x = np.random.default_rng(width).normal(size=(20, width)) + 5
    prepared = Preparation.fit(x).apply(x)
    np.testing.assert_allclose(prepared.norm(dim=1).numpy(), 1, rtol=1e-9)
    scaled = Preparation.fit(factor * x).apply(factor * x)
    np.testing.assert_allclose(scaled.numpy(), prepared.numpy(), atol=1e-9)


def test_embeddings_that_are_all_alike_can_be_prepared() -> None:
    assert torch.isfinite(Preparation.fit(np.ones((5, 3))).apply(np.ones((5, 3)))).all()


@pytest.mark.parametrize("classifier", ALL, ids=lambda classifier: classifier.kind)
def test_embeddings_of_another_clip_are_refused(classifier: Classifier) -> None:
    with pytest.raises(FilterError, match=r"takes embeddings of 12 numbers, got shape \(1400, 5\)"):
        classifier.score(NEW[:, :5])


@pytest.mark.parametrize("classifier", ALL, ids=lambda classifier: classifier.kind)
def test_a_classifier_is_made_again_of_its_tensors(classifier: Classifier) -> None:
    again = build_classifier(classifier.kind, classifier.tensors())
    assert again.kind == classifier.kind and again.width == 12
    assert np.array_equal(again.score(NEW), classifier.score(NEW))


def test_tensors_that_do_not_belong_together_are_refused() -> None:
    tensors = ALL[0].tensors()
    cases = {
        "unknown kind 'forest'": ("forest", tensors),
        "holds center, .*, expected": ("rbf_svm", {k: v for k, v in tensors.items() if k != "gamma"}),
        "scale has shape .3,., which does not fit": ("rbf_svm", {**tensors, "scale": torch.ones(3, dtype=torch.float64)}),
        "gamma is torch.float32": ("rbf_svm", {**tensors, "gamma": tensors["gamma"].float()}),
        "intercept holds numbers that are not finite": ("rbf_svm", {**tensors, "intercept": torch.tensor(float("nan"), dtype=torch.float64)}),
        "center has shape .0,.": ("logistic", {**ALL[1].tensors(), "center": torch.zeros(0, dtype=torch.float64)}),
    }
    for message, (kind, changed) in cases.items():
        with pytest.raises(FilterError, match=message):
            build_classifier(kind, changed)


def test_averages_that_are_none_are_refused() -> None:
    whole = average().tensors()
    narrow = Linear("logistic", Preparation.fit(NEW[:, :3]), torch.ones(3, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64))
    mixed = Average([ALL[1], narrow], torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)).tensors()
    cases = {
        "2 members and 3 slopes": {name: tensor for name, tensor in whole.items() if not name.startswith("2.")},
        "3.average.slopes, which is no part": {**whole, "3.average.slopes": whole["slopes"]},
        "unknown kind 'forest'": {**whole, "3.forest.weights": whole["slopes"]},
        "2.mlp, which is no part": {**whole, "2.mlp": whole["slopes"]},
        "1 members and 1 slopes": {"slopes": whole["slopes"][:1], "offsets": whole["offsets"][:1],
                                   **{name: tensor for name, tensor in whole.items() if name.startswith("0.")}},
        "different widths": mixed,
    }
    for message, changed in cases.items():
        with pytest.raises(FilterError, match=message):
            build_classifier("average", changed)
