from pathlib import Path

import numpy as np
import pytest
import torch
from glideslope.data_filter.classifier import TENSORS, RbfSvm, balance, centre, fit_rbf_svm, load_classifier, save_classifier
from safetensors.torch import save_file
from sklearn.svm import SVC

from glideslope.errors import FilterError, StorageError


def two_clouds(num: int = 120, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = (np.arange(num) % 3 == 0).astype(np.int64)
    return generator.normal(size=(num, width)) + 3 + 1.5 * labels[:, None] * (np.arange(width) < 4), labels


def fit() -> tuple[RbfSvm, np.ndarray, np.ndarray]:
    x, y = two_clouds()
    return fit_rbf_svm(x, y, regularisation=3.0, gamma=1.5), x, y


@pytest.mark.parametrize("gamma", [0.1, 1.5, 10.0])
@pytest.mark.parametrize("regularisation", [0.5, 10.0])
def test_scores_equal_the_decision_function_of_scikit_learn(gamma: float, regularisation: float) -> None:
    x, y = two_clouds()
    weights = np.random.default_rng(1).uniform(0.5, 2, len(x))
    mean = x.mean(0)
    oracle = SVC(C=regularisation, gamma=gamma).fit(centre(x, mean), y, sample_weight=balance(weights, y))
    new = np.random.default_rng(2).normal(size=(500, x.shape[1])) + 3
    ours = fit_rbf_svm(x, y, regularisation=regularisation, gamma=gamma, weights=weights).score(new)
    np.testing.assert_allclose(ours, oracle.decision_function(centre(new, mean)), atol=1e-6)
    assert ours.dtype == np.float32


def test_scores_do_not_depend_on_batching() -> None:
    svm, x, _ = fit()
    assert np.array_equal(svm.score(x), svm.score(x, batch_size=7))
    assert svm.score(x[:0]).shape == (0,)


def test_a_classifier_survives_the_round_trip_with_equal_bytes(tmp_path: Path) -> None:
    svm, x, _ = fit()
    save_classifier(svm, tmp_path / "a.safetensors")
    loaded = load_classifier(tmp_path / "a.safetensors")
    assert np.array_equal(loaded.score(x), svm.score(x))
    save_classifier(loaded, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_both_classes_weigh_the_same_however_few_one_has() -> None:
    labels = np.array([1, 0, 0, 0])
    weights = balance(np.array([1.0, 1.0, 2.0, 1.0]), labels)
    assert weights[labels == 1].sum() == weights[labels == 0].sum() == 2.0


@pytest.mark.parametrize(("labels", "message"), [
    (np.zeros(4, dtype=np.int64), "got 0 positive and 4 negative"),
    (np.ones(4, dtype=np.int64), "got 4 positive and 0 negative"),
])
def test_one_class_is_no_training_set(labels: np.ndarray, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        fit_rbf_svm(np.eye(4), labels, regularisation=1.0, gamma=1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_refused(value: float) -> None:
    x = np.eye(4)
    x[2, 1] = value
    with pytest.raises(FilterError, match="1 embeddings hold numbers that are not finite"):
        fit_rbf_svm(x, np.array([0, 1, 0, 1]), regularisation=1.0, gamma=1.0)


def test_embeddings_of_another_clip_are_refused() -> None:
    svm, x, _ = fit()
    with pytest.raises(FilterError, match=r"takes embeddings of 12 numbers, got shape \(120, 5\)"):
        svm.score(x[:, :5])


def test_damaged_and_foreign_classifier_files_are_refused(tmp_path: Path) -> None:
    svm, _, _ = fit()
    good = tmp_path / "good.safetensors"
    save_classifier(svm, good)
    tensors = {name: getattr(svm, name).contiguous() for name in TENSORS}
    metadata = {"format": "glideslope.rbf_svm/1"}
    cases = {
        "classifier cannot be read": lambda path: path.write_bytes(good.read_bytes()[:200]),
        "not a classifier of format": lambda path: save_file(tensors, path),
        "holds center, .*, expected": lambda path: save_file({k: v for k, v in tensors.items() if k != "gamma"}, path, metadata=metadata),
        "center has shape": lambda path: save_file({**tensors, "center": torch.zeros(3)}, path, metadata=metadata),
        "intercept holds numbers that are not finite":
            lambda path: save_file({**tensors, "intercept": torch.tensor(float("nan"))}, path, metadata=metadata),
        "classifier is missing": lambda path: None,
    }
    for place, (message, write) in enumerate(cases.items()):
        path = tmp_path / f"{place}.safetensors"
        write(path)
        with pytest.raises(FilterError, match=message):
            load_classifier(path)


def test_a_directory_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        save_classifier(fit()[0], tmp_path / "file" / "classifier.safetensors")
