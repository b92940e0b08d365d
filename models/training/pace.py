"""How fast this machine trains and draws, measured in seconds: for an estimate before the work starts."""

import time
from collections.abc import Callable

import torch
from torch import nn

from ...device.dtype_device import choose_device
from ...device.processor import choose_precision
from ...device.torch_state import PlainTorch
from ...recipe.training import TrainingConfig
from ..networks.presets import unet_preset
from ..networks.unet import TextConditionedUNet
from .loop import LossOfStep, TrainingState

NUM_STEPS = 2
DRAW_BATCH = 32  # sixteen images with guidance


@PlainTorch()
def time_drawing(preset_name: str, *, num_images: int = DRAW_BATCH) -> float:
    """Seconds that one pass of a U-Net takes for one of so many images, while drawing on the processor in float32."""
    preset = unet_preset(preset_name)
    model = TextConditionedUNet(preset).eval()
    size = (num_images, preset.text_ctx)
    context = model.encode_text(torch.zeros(size, dtype=torch.int64), torch.ones(size, dtype=torch.bool))
    x = torch.randn(num_images, preset.in_channels, preset.image_size, preset.image_size)
    return _quickest(lambda: model.denoise(x, torch.full((num_images,), 500), context)) / num_images


def time_training(config: TrainingConfig, model: nn.Module, loss: LossOfStep, *, ema_half_life_images: int | None) -> float:
    """Seconds that an image takes in the training of a network, from a few real steps.

    Args:
        config: optimisation.
        model: the network.
        loss: of a step, on images of any content.
        ema_half_life_images: of the average; `None`: there is none.
    """
    precision = choose_precision("auto", choose_device(None)) if config.precision == "auto" else config.precision
    state = TrainingState.create(config, model, ema_half_life_images, precision=precision)
    return _quickest(lambda: state.step(loss, 0)) / config.batch_size


def _quickest(work: Callable[[], object]) -> float:
    """Seconds of the quickest of a few calls; the first makes the kernels."""
    found = []
    for _ in range(NUM_STEPS):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)
