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
        image_mean, prompts = self._text
        return compare_with(image_mean, prompts, data.embeddings.shape[1])

    @cached_property
    def _text(self) -> tuple[NDArray[Any] | None, NDArray[Any]]:
        """What is taken off images, and the embeddings of the prompts; the CLIP is loaded once."""
        from ....clip.model import load_clip

        loaded = load_clip(self.clip, text_dir=self.text_dir)
        return None if loaded.image_mean is None else loaded.image_mean.numpy(), loaded.encode_text(self.prompts)

    @classmethod
    def build(cls, preparation: Preparation, tensors: Mapping[str, Tensor]) -> Classifier:
        """The comparison of its tensors."""
        return Linear(cls.kind, preparation, **tensors)

    def settings(self) -> dict[str, float]:
        """None: the report names prompts and CLIP elsewhere."""
        return {}


def compare_with(image_mean: NDArray[Any] | None, prompts: NDArray[Any], width: int) -> Linear:
    """A CLIP as it is: the cosine of an image with the mean of the prompts.

    Args:
        image_mean: (T,), taken off image embeddings before they are compared with text; None: nothing.
        prompts: (P, T), embeddings of the prompts, each of length 1.
        width: D, numbers of an image's embedding; the first T of them are compared with text, the others do not count.

    Raises:
        FilterError: the prompts cancel out, are not finite, or are longer than an image's embedding.
    """
    mean = np.asarray(prompts, dtype=np.float64).mean(0)
    length = float(np.linalg.norm(mean))
    if not length > 1e-6:
        raise FilterError("zero_shot: the prompts' embeddings cancel out; word them otherwise")
    if len(mean) > width:
        raise FilterError(f"zero_shot: prompts have embeddings of {len(mean)} numbers, images of {width}: they are of different CLIPs")
    center, scale, weights = np.zeros((3, width))
    scale[:len(mean)], weights[:len(mean)] = 1, mean / length
    if image_mean is not None:
        center[:len(mean)] = image_mean
    preparation = Preparation(torch.from_numpy(center), torch.from_numpy(scale))
    return Linear(ZeroShotEstimator.kind, preparation, torch.from_numpy(weights), torch.tensor(0.0, dtype=torch.float64))
