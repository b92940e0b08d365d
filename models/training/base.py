"""Training of the GLIDE base model on the curated set (stage `training/base`)."""

import logging
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
from ..diffusion.guidance import TextDenoiser, guide_freely, image_process
from ..diffusion.process import GaussianDiffusion, NoiseSchedule, space_timesteps
from ..diffusion.samplers import SeededNoise, ddim, run
from ..drawing.pixels import to_pil
from ..networks.presets import unet_preset
from ..networks.unet import TextConditionedUNet
from ..tokenizer import CaptionTokenizer
from .checkpoints import latest_checkpoint
from .data import CuratedSplit, open_split
from .denoising import DenoisingBatches, HeldBackLoss, averaged_network, time_denoiser, write_denoiser
from .loop import count_cut_captions, stage_summary, train
from .stage import TrainingStage, TrainingTask
from .text_start import BATCH_SIZE, read_pairs, start_text, time_text_start

log = logging.getLogger(__name__)
SCHEDULE = SCHEDULERS["scheduler"].schedule
NUM_SAMPLES = 16
SAMPLE_STEPS = 30
SAMPLE_GUIDANCE = 3.0


def train_base(task: TrainingTask[BaseTraining], partial: Path) -> dict[str, Any]:
    """Train in the stage's partial directory, drawing grids of samples on the way; returns the summary for the record."""
    config, seed, preset = task.config, task.seed, unet_preset(task.config.preset)
    data = open_split(task.data.curated, "train", preset.image_size, partial / CHECKPOINTS, processes=task.processes)
    tokenizer = CaptionTokenizer.train(data.texts, config.vocab_size)
    torch.manual_seed(seed)
    model = TextConditionedUNet(preset.model_copy(update={"n_vocab": tokenizer.vocab_size}))
    cut = count_cut_captions("training/base", tokenizer, data, preset.text_ctx)
    if config.text_images and latest_checkpoint(partial / CHECKPOINTS) is None:
        begin_text(model, task, data, tokenizer)
    batches = DenoisingBatches(config, data, tokenizer, schedule=SCHEDULE, text_ctx=preset.text_ctx, seed=seed,
                               horizontal_flip=config.horizontal_flip, processes=task.processes)
    prompts = sample_prompts(data)

    held_back = HeldBackLoss.of(batches, task.data.curated, partial, preset.image_size, processes=task.processes)

    def look(weights: Mapping[str, Tensor], num_images: int, *, is_last: bool = False) -> None:
        network = averaged_network(model, weights)
        held_back.measure(network, num_images)
        if is_last or num_images % config.sample_images < config.checkpoint_images:
            write_samples(partial / "samples" / f"images-{num_images:09d}.png", network, tokenizer, prompts, task)

    trained = train(config, model, batches.loss, partial, ema_half_life_images=config.ema_half_life_images, progress=task.progress,
                    at_checkpoint=look, processes=task.processes, keys_of_step=batches.reader.keys)
    if not task.processes.is_first:
        return {}
    look(trained.ema or {}, trained.num_images, is_last=True)
    write_denoiser(partial, trained, "scheduler", config.prediction_type)
    tokenizer.save(partial / TOKENIZERS["tokenizer"].file)
    write_json(partial / "samples" / "prompts.json", list(prompts))
    return stage_summary(trained, data, seed) | cut | held_back.summary()


def begin_text(model: TextConditionedUNet, task: TrainingTask[BaseTraining], data: CuratedSplit, tokenizer: CaptionTokenizer) -> None:
    """Let the text transformer learn what the run's CLIP sees in the images, see `text_start`."""
    pairs = read_pairs(task.data.index, data, tokenizer, model.config.text_ctx)
    share = start_text(model, pairs, num_images=task.config.text_images, seed=task.seed)
    log.info("training/base: the text transformer tells %.0f %% of %d images by their captions, among %d", 100 * share,
             len(pairs.embeddings), min(BATCH_SIZE, len(pairs.embeddings)))


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
    preset = unet_preset(config.preset)
    seconds = num_images * time_denoiser(config, preset)
    if num_images == config.num_images:  # else the start lies behind
        seconds += config.text_images * time_text_start(preset)
    num_grids, passes_of_grid = num_images // config.sample_images + 1, NUM_SAMPLES * SAMPLE_STEPS * 2  # with and without the caption
    return seconds + num_grids * passes_of_grid * time_step_of_drawing()


def sample_prompts(data: CuratedSplit) -> tuple[str, ...]:
    """Captions for the sample grids, spread over the training set."""
    positions = np.linspace(0, len(data) - 1, NUM_SAMPLES).round().astype(int)
    return tuple(data.rows[int(i)].captions[0] for i in positions)


@torch.no_grad()
def write_samples(path: Path, network: TextConditionedUNet, tokenizer: CaptionTokenizer,
                  prompts: tuple[str, ...], task: TrainingTask[BaseTraining]) -> None:
    """Draw a grid and write it as a PNG."""
    config, device = network.config, next(network.parameters()).device
    state = torch.get_rng_state()
    context, empty = (network.encode_text(*(part.to(device) for part in tokenizer.encode_padded(texts, config.text_ctx)))
                      for texts in (prompts, ("",)))
    noise = SeededNoise([task.seed + i for i in range(len(prompts))])
    x = noise.draw((3, config.image_size, config.image_size)).to(device)
    process = image_process(NoiseSchedule(SCHEDULE, task.config.prediction_type), device=device)
    denoiser = guide_freely(TextDenoiser(network.denoise, context, process), empty, scale=SAMPLE_GUIDANCE)
    diffusion = GaussianDiffusion.create(SCHEDULE, space_timesteps(SAMPLE_STEPS), device=device)
    images = to_pil(run(ddim(denoiser, x, diffusion, noise)))
    write_bytes(path, png_bytes(contact_sheet(images, num_columns=8, scale=max(1, 96 // config.image_size))))
    torch.set_rng_state(state)


STAGE = TrainingStage(train_base, check_base, estimate_base)
