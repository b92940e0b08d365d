"""Training of the GLIDE base model on the curated set (stage `training/base`)."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...device.torch_state import PlainTorch
from ...errors import RecipeError
from ...pictures.sheets import contact_sheet, png_bytes
from ...recipe.components import SCHEDULERS, TOKENIZERS, BaseTraining, Training
from ...store.stage_places import CHECKPOINTS
from ...store.whole_files import write_bytes, write_json
from ..diffusion.guidance import text_denoiser
from ..diffusion.process import GaussianDiffusion, space_timesteps
from ..diffusion.samplers import SeededNoise, ddim, run
from ..drawing.pixels import to_pil
from ..networks.presets import unet_preset
from ..networks.unet import TextConditionedUNet
from ..tokenizer import CaptionTokenizer
from .data import CuratedSplit, open_split
from .denoising import DenoisingBatches, time_denoiser, write_denoiser
from .loop import count_cut_captions, stage_summary, train
from .stage import TrainingStage, TrainingTask

SCHEDULE = SCHEDULERS["scheduler"].schedule
NUM_SAMPLES = 16
SAMPLE_STEPS = 30
SAMPLE_GUIDANCE = 3.0


def train_base(task: TrainingTask[BaseTraining], partial: Path) -> dict[str, Any]:
    """Train in the stage's partial directory, drawing grids of samples on the way; returns the summary for the record."""
    config, seed, preset = task.config, task.seed, unet_preset(task.config.preset)
    data = open_split(task.data.curated, "train", preset.image_size, partial / CHECKPOINTS)
    tokenizer = CaptionTokenizer.train(data.texts, config.vocab_size)
    torch.manual_seed(seed)
    model = TextConditionedUNet(preset.model_copy(update={"n_vocab": tokenizer.vocab_size}))
    cut = count_cut_captions("training/base", tokenizer, data, preset.text_ctx)
    batches = DenoisingBatches(config, data, tokenizer, schedule=SCHEDULE, text_ctx=preset.text_ctx, seed=seed,
                               horizontal_flip=config.horizontal_flip)
    prompts = sample_prompts(data)

    def draw(weights: Mapping[str, Tensor], num_images: int) -> None:
        if num_images % config.sample_images < config.checkpoint_images:
            write_samples(partial / "samples" / f"images-{num_images:09d}.png", model, weights, tokenizer, prompts, seed)

    trained = train(config, model, batches.loss, partial, ema_half_life_images=config.ema_half_life_images, progress=task.progress,
                    at_checkpoint=draw)
    write_denoiser(partial, trained, "scheduler")
    tokenizer.save(partial / TOKENIZERS["tokenizer"].file)
    write_samples(partial / "samples" / f"images-{trained.num_images:09d}.png", model, trained.ema or {}, tokenizer, prompts, seed)
    write_json(partial / "samples" / "prompts.json", list(prompts))
    return stage_summary(trained, data, seed) | cut


def check_base(config: BaseTraining, trainings: Mapping[str, Training]) -> None:
    """Refuse a preset that is unknown, or that of a network that takes another picture beside the noised one.

    Raises:
        RecipeError: it is such a preset.
    """
    preset = unet_preset(config.preset)
    if preset.super_res or preset.inpaint:
        raise RecipeError(f"base.preset: {config.preset!r} is no base model: it takes another picture beside the noised one; choose a preset "
                          "without upsampler or inpaint in its name")


@PlainTorch(gradients=True)
def estimate_base(config: BaseTraining, num_images: int, time_step_of_drawing: Callable[[], float]) -> float:
    """Seconds that training on so many images takes, with its grids of samples; measured in a few real steps on random numbers."""
    seconds = num_images * time_denoiser(config, unet_preset(config.preset))
    num_grids, passes_of_grid = num_images // config.sample_images + 1, NUM_SAMPLES * SAMPLE_STEPS * 2  # with and without the caption
    return seconds + num_grids * passes_of_grid * time_step_of_drawing()


def sample_prompts(data: CuratedSplit) -> tuple[str, ...]:
    """Captions for the sample grids, spread over the training set."""
    positions = np.linspace(0, len(data) - 1, NUM_SAMPLES).round().astype(int)
    return tuple(data.rows[int(i)].captions[0] for i in positions)


@torch.no_grad()
def write_samples(path: Path, model: TextConditionedUNet, weights: Mapping[str, Tensor], tokenizer: CaptionTokenizer,
                  prompts: tuple[str, ...], seed: int) -> None:
    """Draw a grid with the given weights and write it as a PNG; the model keeps its own weights."""
    config, device = model.config, next(model.parameters()).device
    state = torch.get_rng_state()
    averaged = copy.deepcopy(model).eval()
    averaged.load_state_dict(dict(weights))
    context, empty = (averaged.encode_text(*(part.to(device) for part in tokenizer.encode_padded(texts, config.text_ctx)))
                      for texts in (prompts, ("",)))
    noise = SeededNoise([seed + i for i in range(len(prompts))])
    x = noise.draw((3, config.image_size, config.image_size)).to(device)
    denoiser = text_denoiser(averaged.denoise, context, empty, scale=SAMPLE_GUIDANCE)
    diffusion = GaussianDiffusion.create(SCHEDULE, space_timesteps(SAMPLE_STEPS), device=device)
    images = to_pil(run(ddim(denoiser, x, diffusion, noise)))
    write_bytes(path, png_bytes(contact_sheet(images, num_columns=8, scale=max(1, 96 // config.image_size))))
    torch.set_rng_state(state)


STAGE = TrainingStage(train_base, check_base, estimate_base)
