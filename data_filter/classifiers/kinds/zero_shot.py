"""The kind `zero_shot`: a CLIP as it is, without training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....errors import FilterError
from ....recipe.filters import ClipConfig
from .classifier import Classifier, Preparation
from .estimator import Estimator, Task, TrainingSet
from .linear import LINEAR_SHAPES, Linear


@dataclass(frozen=True)
class ZeroShotEstimator(Estimator):
    """What images are compared with.

    Attributes:
        prompts: captions that describe the category.
        clip: the CLIP of the index.
        text_dir: the finished stage `clip`, where the CLIP's text tower was trained by the run.
    """

    kind: ClassVar[str] = "zero_shot"
    SHAPES: ClassVar[Mapping[str, str]] = LINEAR_SHAPES
    NEEDS_TEXT: ClassVar[bool] = True
    prompts: tuple[str, ...]
    clip: ClipConfig
    text_dir: Path | None = None

    @classmethod
    def grid(cls, task: Task) -> "Sequence[Estimator]":
        """The recipe's prompts, or the category's name."""
        return [cls(task.category.prompts or (task.category.name.replace("_", " "),), task.clip, task.text_dir)]

    def fit(self, data: TrainingSet, *, seed: int = 0) -> Linear:
        """The CLIP itself: no label counts."""
        return self._classifier

    @cached_property
    def _classifier(self) -> Linear:
        from ....clip.model import load_clip

        loaded = load_clip(self.clip, text_dir=self.text_dir)
        return compare_with(None if loaded.image_mean is None else loaded.image_mean.numpy(), loaded.encode_text(self.prompts))

    @classmethod
    def build(cls, preparation: Preparation, tensors: Mapping[str, Tensor]) -> Classifier:
        """The comparison of its tensors."""
        return Linear(cls.kind, preparation, **tensors)

    def settings(self) -> dict[str, float]:
        """None: the report names prompts and CLIP elsewhere."""
        return {}


def compare_with(image_mean: NDArray[Any] | None, prompts: NDArray[Any]) -> Linear:
    """A CLIP as it is: the cosine of an image with the mean of the prompts.

    Args:
        image_mean: (D,), taken off image embeddings before they are compared with text; None: nothing.
        prompts: (P, D), embeddings of the prompts, each of length 1.

    Raises:
        FilterError: the prompts cancel out or are not finite.
    """
    mean = np.asarray(prompts, dtype=np.float64).mean(0)
    length = float(np.linalg.norm(mean))
    if not length > 1e-6:
        raise FilterError("zero_shot: the prompts' embeddings cancel out; word them otherwise")
    center = np.zeros_like(mean) if image_mean is None else np.asarray(image_mean, dtype=np.float64)
    preparation = Preparation(torch.from_numpy(center), torch.ones(len(mean), dtype=torch.float64))
    return Linear("zero_shot", preparation, torch.from_numpy(mean / length), torch.tensor(0.0, dtype=torch.float64))
