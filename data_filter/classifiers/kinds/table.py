"""The table of the kinds of classifiers. A new kind is a file of this folder, with a subclass of `Estimator`, and a line here."""

from collections.abc import Mapping

from torch import Tensor

from ....errors import FilterError
from .average import AVERAGE, build_average
from .classifier import Classifier, Preparation, check_tensors
from .estimator import Estimator
from .logistic import LogisticEstimator
from .mlp import MlpEstimator
from .rbf_svm import RbfSvmEstimator
from .zero_shot import ZeroShotEstimator

# The simplest first; averages are less simple than any of them. `recipe.filters.ClassifierName` has the same names.
KINDS: tuple[type[Estimator], ...] = (ZeroShotEstimator, LogisticEstimator, RbfSvmEstimator, MlpEstimator)


def find_kind(name: str) -> type[Estimator]:
    """The kind of that name.

    Raises:
        FilterError: there is none.
    """
    for kind in KINDS:
        if kind.kind == name:
            return kind
    raise FilterError(f"unknown kind {name!r}, expected one of {', '.join(kind.kind for kind in KINDS)}")


def build_classifier(name: str, tensors: Mapping[str, Tensor]) -> Classifier:
    """Make a classifier of its tensors; the opposite of `Classifier.tensors`.

    Raises:
        FilterError: a kind that is none, a tensor that is missing, too many or of a wrong shape, or a number that is not finite.
    """
    return build_average(tensors, build_single) if name == AVERAGE else build_single(name, tensors)


def build_single(name: str, tensors: Mapping[str, Tensor]) -> Classifier:
    """Make a classifier that is no average; see `build_classifier`."""
    kind = find_kind(name)
    check_tensors(tensors, kind.SHAPES)
    rest = {name: tensor for name, tensor in tensors.items() if name not in ("center", "scale")}
    return kind.build(Preparation(tensors["center"], tensors["scale"]), rest)


def simplicity(name: str) -> int:
    """Place of a kind among all, the simplest first."""
    return len(KINDS) if name == AVERAGE else KINDS.index(find_kind(name))
