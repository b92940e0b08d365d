"""Fine-tuning of the upsampler for inpainting (stage `training/upsampler_inpaint`; arXiv 2112.10741, section 4.3)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...device.torch_state import PlainTorch
from ...recipe.components import Training, UpsamplerInpaintTraining
from ..networks.presets import unet_preset
from .denoising import time_denoiser
from .inpainting import check_inpainting, degrade_as, train_inpainting
from .stage import TrainingStage, TrainingTask

NAME = "upsampler_inpaint"


def train_upsampler_inpaint(task: TrainingTask[UpsamplerInpaintTraining], partial: Path) -> dict[str, Any]:
    """Continue the upsampler; see `train_inpainting`."""
    return train_inpainting(NAME, task, partial, degrade_as(task.config))


def check_upsampler_inpaint(config: UpsamplerInpaintTraining, trainings: Mapping[str, Training]) -> None:
    """Refuse settings that are not the upsampler's; see `check_inpainting`."""
    check_inpainting(NAME, config, trainings)


@PlainTorch(gradients=True)
def estimate_upsampler_inpaint(config: UpsamplerInpaintTraining, num_images: int, time_step_of_drawing: Callable[[], float]) -> float:
    """Seconds that training on so many images takes; measured in a few real steps on random numbers."""
    preset = unet_preset(config.preset, key=f"{NAME}.preset")
    return num_images * time_denoiser(config, preset.model_copy(update={"inpaint": True}))


STAGE = TrainingStage(train_upsampler_inpaint, check_upsampler_inpaint, estimate_upsampler_inpaint)
