"""How fast this machine trains and draws, measured in seconds: for an estimate before the work starts."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...device.dtype_device import choose_device
from ...device.processor import choose_precision
from ...device.torch_state import PlainTorch
from ...recipe.training import BaseModelConfig, ModelConfig, NoisedClipConfig
from ..networks.noised_clip import NoisedClip
from ..networks.presets import noised_clip_preset, unet_preset
from ..networks.unet import TextConditionedUNet
from .loop import LossOfStep, TrainingState

NUM_STEPS = 2
DRAW_BATCH = 32  # sixteen images with guidance


@PlainTorch(gradients=True)
def time_base_training(config: BaseModelConfig) -> float:
    """Seconds that an image takes in the base model's training, from a few real steps on random numbers."""
    preset = unet_preset(config.preset)
    model = TextConditionedUNet(preset)

    def loss(network: nn.Module, step: int) -> Tensor:
        device, size = next(network.parameters()).device, (config.batch_size, preset.text_ctx)
        x = torch.randn(config.batch_size, preset.in_channels, preset.image_size, preset.image_size, device=device)
        output = network(x, torch.full((len(x),), 500, device=device), torch.zeros(size, dtype=torch.int64, device=device),
                         torch.ones(size, dtype=torch.bool, device=device))
        return torch.as_tensor(output.float().square().mean())

    return _time_steps(config, model, loss, ema_half_life_images=config.ema_half_life_images)


@PlainTorch(gradients=True)
def time_clip_training(config: NoisedClipConfig) -> float:
    """Seconds that an image takes in the noised CLIP's training, from a few real steps on random numbers."""
    preset = noised_clip_preset(config.preset)
    model = NoisedClip(preset)

    def loss(network: nn.Module, step: int) -> Tensor:
        device, n = next(network.parameters()).device, config.batch_size
        x = torch.randn(n, 3, preset.image_size, preset.image_size, device=device)
        tokens = torch.zeros(n, preset.max_text_len, dtype=torch.int64, device=device)
        logits = network(x, tokens[:, 0], tokens, torch.full((n,), preset.max_text_len, device=device))
        return functional.cross_entropy(logits.float(), torch.arange(n, device=device))

    return _time_steps(config, model, loss, ema_half_life_images=None)


@PlainTorch()
def time_drawing(preset_name: str) -> float:
    """Seconds that one pass of the base model takes for one image, while drawing on the processor in float32."""
    preset = unet_preset(preset_name)
    model = TextConditionedUNet(preset).eval()
    size = (DRAW_BATCH, preset.text_ctx)
    context = model.encode_text(torch.zeros(size, dtype=torch.int64), torch.ones(size, dtype=torch.bool))
    x = torch.randn(DRAW_BATCH, preset.in_channels, preset.image_size, preset.image_size)
    return _quickest(lambda: model.denoise(x, torch.full((DRAW_BATCH,), 500), context)) / DRAW_BATCH


def _time_steps(config: ModelConfig, model: nn.Module, loss: LossOfStep, *, ema_half_life_images: int | None) -> float:
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
