"""The classifier: an RBF support vector machine on CLIP embeddings (GLIDE, arXiv 2112.10741, Appendix F).

Fitted by scikit-learn, stored as safetensors, scored as matrix products in torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import FilterError
from ..manifest import write_bytes

FORMAT = "glideslope.rbf_svm/1"
TENSORS = ("support_vectors", "dual_coefficients", "center", "intercept", "gamma")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RbfSvm:
    """A fitted support vector machine.

    score(x) = sum_i dual_i exp(-gamma |z - v_i|^2) + intercept with z = (x - center) / |x - center|.

    The embeddings of one CLIP all point roughly one way; taking their mean off and scaling to length 1 again makes the
    distances tell images apart, whatever the CLIP.

    Attributes:
        support_vectors: float64 (S, D), centred, of length 1.
        dual_coefficients: float64 (S,).
        center: float64 (D,), the mean of the training embeddings.
        intercept, gamma: float64 scalars.
    """

    support_vectors: Tensor
    dual_coefficients: Tensor
    center: Tensor
    intercept: Tensor
    gamma: Tensor

    def score(self, embeddings: NDArray[Any], *, batch_size: int = 4096) -> NDArray[np.float32]:
        """Score embeddings: the higher, the more the image looks like the category.

        Computed in float64 and rounded, so that the scores do not depend on how the inputs were batched.

        Args:
            embeddings: (N, D), any float type.
            batch_size: rows per matrix product.

        Returns:
            float32 (N,).

        Raises:
            FilterError: embeddings of another width, from another CLIP.
        """
        x = torch.from_numpy(np.asarray(embeddings, dtype=np.float64))
        if x.ndim != 2 or x.shape[1] != len(self.center):
            raise FilterError(f"the classifier takes embeddings of {len(self.center)} numbers, got shape {tuple(x.shape)}: "
                              "it was fitted on another CLIP")
        squared = (self.support_vectors**2).sum(1)
        scores = []
        for start in range(0, len(x), batch_size):
            z = torch.from_numpy(centre(x[start:start + batch_size].numpy(), self.center.numpy()))
            distances = (z**2).sum(1, keepdim=True) - 2 * z @ self.support_vectors.T + squared
            scores.append(torch.exp(-self.gamma * distances.clamp_min(0)) @ self.dual_coefficients + self.intercept)
        return torch.cat(scores).float().numpy() if scores else np.zeros(0, np.float32)


def centre(embeddings: NDArray[Any], center: Floats) -> Floats:
    """Take the mean off and scale to length 1: float64 (N, D)."""
    z = np.asarray(embeddings, dtype=np.float64) - center
    return np.asarray(z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12))


def check_training(embeddings: NDArray[Any], labels: NDArray[np.int64]) -> None:
    """Refuse what no classifier can be fitted to.

    Raises:
        FilterError: a class is missing, or a number is not finite.
    """
    finite = np.isfinite(np.asarray(embeddings, dtype=np.float64))
    if not finite.all():
        raise FilterError(f"{int((~finite).any(axis=1).sum())} embeddings hold numbers that are not finite; build the index again")
    num_positive = int((labels == 1).sum())
    if num_positive == 0 or num_positive == len(labels):
        raise FilterError(f"a classifier needs labels of both kinds, got {num_positive} positive and {len(labels) - num_positive} negative "
                          "train labels; label more images")


def fit_rbf_svm(embeddings: NDArray[Any], labels: NDArray[np.int64], *, regularisation: float, gamma: float,
                weights: Floats | None = None) -> RbfSvm:
    """Fit the machine to centred embeddings.

    Args:
        embeddings: (N, D), any float type.
        labels: int64 (N,), 1 or 0; both must occur.
        regularisation: scikit-learn's C.
        gamma: of the kernel exp(-gamma |z - v|^2) on vectors of length 1.
        weights: float64 (N,), of the examples; None: equal. The classes are balanced on top of it.

    Raises:
        FilterError: a class is missing, or a number is not finite.
    """
    from sklearn.svm import SVC

    check_training(embeddings, labels)
    center = np.asarray(embeddings, dtype=np.float64).mean(0)
    machine = SVC(C=regularisation, gamma=gamma, cache_size=500)
    machine.fit(centre(embeddings, center), labels, sample_weight=balance(np.ones(len(labels)) if weights is None else weights, labels))
    return RbfSvm(torch.from_numpy(machine.support_vectors_), torch.from_numpy(machine.dual_coef_[0].copy()), torch.from_numpy(center),
                  torch.tensor(machine.intercept_[0], dtype=torch.float64), torch.tensor(gamma, dtype=torch.float64))


def balance(weights: Floats, labels: NDArray[np.int64]) -> Floats:
    """Scale weights so that both classes weigh N / 2: float64 (N,)."""
    balanced = weights.astype(np.float64)
    for label in (0, 1):
        of_class = labels == label
        balanced[of_class] *= len(labels) / 2 / balanced[of_class].sum()
    return balanced


def save_classifier(classifier: RbfSvm, path: Path) -> None:
    """Write a classifier as safetensors; equal classifiers give equal bytes.

    Raises:
        StorageError: the file cannot be written.
    """
    tensors = {name: getattr(classifier, name).contiguous() for name in TENSORS}
    write_bytes(path, save(tensors, metadata={"format": FORMAT}))


def load_classifier(path: Path) -> RbfSvm:
    """Read a classifier.

    Raises:
        FilterError: missing, damaged, of another format, or with numbers that are not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                raise FilterError(f"{path}: not a classifier of format {FORMAT}")
            found = sorted(file.keys())
            if found != sorted(TENSORS):
                raise FilterError(f"{path}: holds {', '.join(found)}, expected {', '.join(sorted(TENSORS))}")
            classifier = RbfSvm(**{name: file.get_tensor(name) for name in TENSORS})
    except FileNotFoundError as error:
        raise FilterError(f"{path}: classifier is missing; fit the filter first") from error
    except FilterError:
        raise
    except Exception as error:  # safetensors raises its own types
        raise FilterError(f"{path}: classifier cannot be read ({' '.join(str(error).split())[:200]}); fit the filter again") from error
    check_classifier(classifier, path)
    return classifier


def check_classifier(classifier: RbfSvm, path: Path) -> None:
    """Refuse shapes that do not belong together and numbers that are not finite."""
    num_vectors, width = classifier.support_vectors.shape if classifier.support_vectors.ndim == 2 else (-1, -1)
    shapes = {"dual_coefficients": (num_vectors,), "center": (width,), "intercept": (), "gamma": ()}
    for name, shape in shapes.items():
        if tuple(getattr(classifier, name).shape) != shape:
            raise FilterError(f"{path}: {name} has shape {tuple(getattr(classifier, name).shape)}, expected {shape}")
    for name in TENSORS:
        if not bool(torch.isfinite(getattr(classifier, name)).all()):
            raise FilterError(f"{path}: {name} holds numbers that are not finite")
