"""Fine-tuning of the base model for inpainting (stage `training/base_inpaint`; arXiv 2112.10741, section 4.3)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...device.torch_state import PlainTorch
from ...recipe.components import InpaintTraining, Training
from ..networks.presets import unet_preset
from .denoising import time_denoiser
from .inpainting import check_inpainting, train_inpainting
from .stage import TrainingStage, TrainingTask

NAME = "base_inpaint"


def train_base_inpaint(task: TrainingTask[InpaintTraining], partial: Path) -> dict[str, Any]:
    """Continue the base model; see `train_inpainting`."""
    return train_inpainting(NAME, task, partial)


def check_base_inpaint(config: InpaintTraining, trainings: Mapping[str, Training]) -> None:
    """Refuse settings that are not the base's; see `check_inpainting`."""
    check_inpainting(NAME, config, trainings)


@PlainTorch(gradients=True)
def estimate_base_inpaint(config: InpaintTraining, num_images: int, time_step_of_drawing: Callable[[], float]) -> float:
    """Seconds that training on so many images takes; measured in a few real steps on random numbers."""
    preset = unet_preset(config.preset, key=f"{NAME}.preset")
    return num_images * time_denoiser(config, preset.model_copy(update={"inpaint": True}))


STAGE = TrainingStage(train_base_inpaint, check_base_inpaint, estimate_base_inpaint)
