"""Training of the upsampler on the curated set (stage `training/upsampler`; arXiv 2112.10741, section 4.1)."""

import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ...device.torch_state import PlainTorch
from ...errors import RecipeError, TrainingError
from ...pictures.sheets import contact_sheet, png_bytes
from ...recipe.components import NETWORKS, SCHEDULERS, Training, UpsamplerTraining
from ...store.stage_places import CHECKPOINTS
from ...store.whole_files import write_bytes
from ..diffusion.guidance import TextDenoiser, image_process
from ..diffusion.process import GaussianDiffusion, NoiseSchedule, space_timesteps
from ..diffusion.samplers import SeededNoise, ddim, run
from ..drawing.pixels import to_model_range, to_pil
from ..networks.presets import unet_preset
from ..networks.unet import PromptContext, TextConditionedUNet, condition_input
from ..tokenizer import CaptionTokenizer
from .data import WHOLE, CuratedSplit, Share, open_split
from .denoising import DenoisingBatches, HeldBackLoss, averaged_network, time_denoiser, write_denoiser
from .loop import count_cut_captions, stage_summary, train
from .stage import TrainingStage, TrainingTask

log = logging.getLogger(__name__)
SCHEDULER = NETWORKS["upsampler"].scheduler
MAX_LOOKED_AT, MOST_SMALL = 256, 0.5
NUM_SAMPLES = 8
SAMPLE_STEPS = 8


def train_upsampler(task: TrainingTask[UpsamplerTraining], partial: Path) -> dict[str, Any]:
    """Train in the stage's partial directory on the base model's tokens; returns the summary for the record."""
    # Data, network, batches.
    config, preset, schedule = task.config, unet_preset(task.config.preset), SCHEDULERS[SCHEDULER].schedule
    data = open_split(task.data.curated, "train", preset.image_size, partial / CHECKPOINTS, processes=task.processes)
    if task.processes.is_first:
        refuse_small_images(data, config.preset)
    tokenizer = CaptionTokenizer.load(task.data.tokenizer)
    torch.manual_seed(task.seed)
    model = TextConditionedUNet(preset.model_copy(update={"n_vocab": tokenizer.vocab_size}))
    cut = count_cut_captions("training/upsampler", tokenizer, data, preset.text_ctx)

    def condition(x: Tensor, x_start: Tensor, share: Share) -> Tensor:
        return condition_input(x, low_res=degrade(x_start, config.low_res_size, config.low_res_noise, share))

    batches = DenoisingBatches(config, data, tokenizer, schedule=schedule, text_ctx=preset.text_ctx, seed=task.seed, condition=condition,
                               processes=task.processes)
    held_back = HeldBackLoss.of(batches, task.data.curated, partial, preset.image_size, processes=task.processes)

    # Training, with a sheet of pictures at each checkpoint.
    def look(weights: Mapping[str, Tensor], num_images: int) -> None:
        network = averaged_network(model, weights)
        held_back.measure(network, num_images)
        write_samples(partial / "samples" / f"images-{num_images:09d}.png", network, data, tokenizer, task)

    trained = train(config, model, batches.loss, partial, ema_half_life_images=config.ema_half_life_images, progress=task.progress,
                    at_checkpoint=look, processes=task.processes, keys_of_step=batches.reader.keys)
    if not task.processes.is_first:
        return {}
    look(trained.ema or model.state_dict(), trained.num_images)
    write_denoiser(partial, trained, SCHEDULER, config.prediction_type)
    return stage_summary(trained, data, task.seed) | cut | held_back.summary()


def refuse_small_images(data: CuratedSplit, preset: str) -> None:
    """Refuse to teach enlargement by images that were enlarged themselves; a few are let pass, and the log says so.

    Raises:
        TrainingError: of the images looked at, spread over the set, more than half are smaller than the squares of the training.
    """
    size, numbers = data.image_size, np.unique(np.linspace(0, len(data) - 1, min(len(data), MAX_LOOKED_AT)).round().astype(int))
    num_small = 0
    for number in numbers:
        with Image.open(io.BytesIO(data.rows[int(number)].read_image())) as image:  # its head alone
            num_small += min(image.size) < size
    told = f"training/upsampler: {num_small} of {len(numbers)} images looked at are smaller than {size} pixels, the size that {preset} draws"
    if num_small > len(numbers) * MOST_SMALL:
        raise TrainingError(f"{told}; it would learn to draw blurred pictures. Take larger images or a smaller preset, or leave upsampler out "
                            "of the recipe")
    if num_small:
        log.warning("%s; they are enlarged, and it learns some of their blur", told)


def degrade(x_start: Tensor, size: int, noise: float, share: Share = WHOLE) -> Tensor:
    """What an upsampler learns to enlarge: images made small, with a little noise, for what a base model draws is never quite clean.

    Args:
        x_start: (N, 3, S, S) in [-1, 1].
        size: side s of the small images.
        noise: most deviation of the noise; each image gets its own, from none up to that.
        share: of a batch, which the images are; what is drawn is drawn for the whole batch.

    Returns:
        (N, 3, s, s).
    """
    small = functional.interpolate(x_start, (size, size), mode="area")
    num_images = len(small) * share.of
    deviations, rows = noise * torch.rand(num_images, 1, 1, 1), share.rows(num_images)
    return small + (deviations * torch.randn(num_images, *small.shape[1:]))[rows].to(small.device)


def check_upsampler(config: UpsamplerTraining, trainings: Mapping[str, Training]) -> None:
    """Refuse a preset that is unknown or no upsampler's, or sizes that do not fit the base model's.

    Raises:
        RecipeError: they do not fit.
    """
    preset, base = unet_preset(config.preset, key="upsampler.preset"), trainings["base"].preset
    if not preset.super_res or preset.inpaint:
        raise RecipeError(f"upsampler.preset: {config.preset!r} is no upsampler; choose a preset with upsampler, and without inpaint, in "
                          "its name")
    drawn = unet_preset(base).image_size
    if config.low_res_size != drawn:
        raise RecipeError(f"upsampler.low_res_size: is {config.low_res_size}, but base.preset {base!r} draws {drawn}x{drawn}; set it to "
                          f"{drawn}")
    if preset.image_size <= drawn:
        raise RecipeError(f"upsampler.preset: {config.preset!r} draws {preset.image_size}x{preset.image_size}, which is not larger than the "
                          f"{drawn}x{drawn} of base.preset {base!r}; choose a larger one")


@PlainTorch(gradients=True)
def estimate_upsampler(config: UpsamplerTraining, num_images: int, time_step_of_drawing: Callable[[], float]) -> float:
    """Seconds that training on so many images takes; measured in a few real steps on random numbers."""
    return num_images * time_denoiser(config, unet_preset(config.preset, key="upsampler.preset"))


@torch.no_grad()
def write_samples(path: Path, network: TextConditionedUNet, data: CuratedSplit, tokenizer: CaptionTokenizer,
                  task: TrainingTask[UpsamplerTraining]) -> None:
    """Write a sheet of three rows as a PNG: training images made small and enlarged bilinearly, drawn by the network, as they are."""
    config, device, size = network.config, next(network.parameters()).device, network.config.image_size
    rows = {int(number): data.rows[int(number)] for number in np.linspace(0, len(data) - 1, NUM_SAMPLES).round()}
    real = to_model_range(torch.from_numpy(np.stack([data.square(number, row) for number, row in rows.items()]))).to(device)
    low_res = degrade(real, task.config.low_res_size, 0.0)
    context = network.encode_text(*(part.to(device) for part in tokenizer.encode_padded([row.captions[0] for row in rows.values()],
                                                                                        config.text_ctx)))

    def denoise(x: Tensor, timesteps: Tensor, context: PromptContext) -> Tensor:
        return network.denoise(condition_input(x, low_res=low_res), timesteps, context)

    schedule = NoiseSchedule(SCHEDULERS[SCHEDULER].schedule, task.config.prediction_type)
    denoiser = TextDenoiser(denoise, context, image_process(schedule, device=device))
    noise = SeededNoise([task.seed + i for i in range(len(rows))])
    diffusion = GaussianDiffusion.create(schedule.betas, space_timesteps(SAMPLE_STEPS), device=device)
    drawn = run(ddim(denoiser, noise.draw((3, size, size)).to(device), diffusion, noise))
    enlarged = functional.interpolate(low_res, (size, size), mode="bilinear", align_corners=False)
    images = [image for row in (enlarged, drawn, real) for image in to_pil(row)]
    write_bytes(path, png_bytes(contact_sheet(images, num_columns=len(rows), scale=1)))


STAGE = TrainingStage(train_upsampler, check_upsampler, estimate_upsampler)
