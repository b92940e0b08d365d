"""Training of the GLIDE base model on the curated set (stage `training/base`)."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...device.torch_state import PlainTorch
from ...errors import RecipeError
from ...recipe.components import CONFIG_NAME, SCHEDULERS, BaseTraining, Training, scheduler_config
from ...store.manifest import write_bytes, write_json
from ..diffusion.guidance import text_denoiser
from ..diffusion.process import GaussianDiffusion, space_timesteps, training_loss, weigh_errors
from ..diffusion.samplers import SeededNoise, ddim, run
from ..drawing.pixels import contact_sheet, png_bytes, to_pil
from ..networks.components import component_config
from ..networks.presets import unet_preset
from ..networks.unet import TextConditionedUNet
from ..tokenizer import CaptionTokenizer
from .checkpoints import save_tensors
from .data import CuratedSplit, batch_indices, caption_indices, load_split, take
from .loop import TrainedModel, count_cut_captions, seed_step, stage_summary, train
from .pace import time_training
from .stage import TrainingStage, TrainingTask

SCHEDULE = SCHEDULERS["scheduler"].schedule
NUM_SAMPLES = 16
SAMPLE_STEPS = 30
SAMPLE_GUIDANCE = 3.0


def train_base(task: TrainingTask[BaseTraining], partial: Path) -> dict[str, Any]:
    """Train in the stage's partial directory, drawing grids of samples on the way; returns the summary for the record."""
    config, seed, preset = task.config, task.seed, unet_preset(task.config.preset)
    data = load_split(task.data.curated, "train", preset.image_size)
    tokenizer = CaptionTokenizer.train(data.texts, config.vocab_size)
    torch.manual_seed(seed)
    model = TextConditionedUNet(preset.model_copy(update={"n_vocab": tokenizer.vocab_size}))
    diffusion = GaussianDiffusion.create(SCHEDULE)
    cut = count_cut_captions("training/base", tokenizer, data, preset.text_ctx)
    batches = BaseBatches(config, data, tokenizer, diffusion, preset.text_ctx, seed)
    prompts = sample_prompts(data)

    def draw(weights: Mapping[str, Tensor], num_images: int) -> None:
        if num_images % config.sample_images < config.checkpoint_images:
            write_samples(partial / "samples" / f"images-{num_images:09d}.png", model, weights, tokenizer, prompts, seed)

    trained = train(config, model, batches.loss, partial, ema_half_life_images=config.ema_half_life_images, progress=task.progress,
                    at_checkpoint=draw)
    write_results(partial, trained, tokenizer)
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
    preset = unet_preset(config.preset)
    model = TextConditionedUNet(preset)

    def loss(network: nn.Module, step: int) -> Tensor:
        device, size = next(network.parameters()).device, (config.batch_size, preset.text_ctx)
        x = torch.randn(config.batch_size, preset.in_channels, preset.image_size, preset.image_size, device=device)
        output = network(x, torch.full((len(x),), 500, device=device), torch.zeros(size, dtype=torch.int64, device=device),
                         torch.ones(size, dtype=torch.bool, device=device))
        return torch.as_tensor(output.float().square().mean())

    seconds = num_images * time_training(config, model, loss, ema_half_life_images=config.ema_half_life_images)
    num_grids, passes_of_grid = num_images // config.sample_images + 1, NUM_SAMPLES * SAMPLE_STEPS * 2  # with and without the caption
    return seconds + num_grids * passes_of_grid * time_step_of_drawing()


class BaseBatches:
    """Draws the step's images, captions, timesteps and noise, and computes the loss."""

    def __init__(self, config: BaseTraining, data: CuratedSplit, tokenizer: CaptionTokenizer, diffusion: GaussianDiffusion,
                 text_ctx: int, seed: int) -> None:
        """Tokenise all captions once."""
        self.config, self.data, self.diffusion, self.seed = config, data, diffusion, seed
        self.error_weights = weigh_errors(diffusion, min_snr_gamma=config.min_snr_gamma, high_noise_weight=config.high_noise_weight)
        self.tokens, self.mask = tokenizer.encode_padded(data.texts, text_ctx)
        self.starts = data.starts
        self.empty_tokens, self.empty_mask = tokenizer.encode_padded([""], text_ctx)

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Mean weighted loss of a step."""
        device = next(model.parameters()).device
        indices = batch_indices(len(self.data), step, self.config.batch_size, self.seed)
        seed_step(self.seed, step)
        x_start = take(self.data, indices)
        if self.config.horizontal_flip:
            x_start = torch.where(torch.rand(len(x_start)).view(-1, 1, 1, 1) < 0.5, x_start.flip(-1), x_start)
        dropped = torch.rand(len(x_start)) < self.config.caption_dropout
        drawn = caption_indices(self.starts, indices, step, self.seed)
        tokens = torch.where(dropped[:, None], self.empty_tokens, self.tokens[drawn])
        mask = torch.where(dropped[:, None], self.empty_mask, self.mask[drawn])
        steps = stratified_steps(len(x_start), self.diffusion.num_steps)
        noise = torch.randn_like(x_start)
        x_start, noise, steps, tokens, mask = (t.to(device) for t in (x_start, noise, steps, tokens, mask))
        x = self.diffusion.add_noise(x_start, steps, noise)
        output = model(x, steps, tokens, mask)
        losses = training_loss(self.diffusion, output, x_start=x_start, x=x, noise=noise, steps=steps,
                               error_weights=self.error_weights)
        return (losses * self.data.weights[indices].to(device)).mean()


def stratified_steps(batch_size: int, num_steps: int) -> Tensor:
    """Uniform timesteps, one from each of `batch_size` equal strata, shuffled: int64 (B,). Lowers the loss's variance."""
    positions = (torch.randperm(batch_size) + torch.rand(batch_size)) / batch_size
    return (positions * num_steps).long().clamp(max=num_steps - 1)


def sample_prompts(data: CuratedSplit) -> tuple[str, ...]:
    """Captions for the sample grids, spread over the training set."""
    positions = np.linspace(0, len(data) - 1, NUM_SAMPLES).round().astype(int)
    return tuple(data.captions[int(i)][0] for i in positions)


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
    images = to_pil(run(ddim(denoiser, x, GaussianDiffusion.create(SCHEDULE, space_timesteps(SAMPLE_STEPS)), noise)))
    write_bytes(path, png_bytes(contact_sheet(images, num_columns=8, scale=max(1, 96 // config.image_size))))
    torch.set_rng_state(state)


def write_results(partial: Path, trained: TrainedModel, tokenizer: CaptionTokenizer) -> None:
    """Write weights, configuration and tokenizer."""
    save_tensors(partial / "model.safetensors", trained.model.state_dict())
    save_tensors(partial / "ema.safetensors", trained.ema or trained.model.state_dict())
    assert isinstance(trained.model, TextConditionedUNet)
    write_json(partial / CONFIG_NAME, component_config(trained.model))
    write_json(partial / "scheduler_config.json", scheduler_config("scheduler"))
    tokenizer.save(partial / "tokenizer.json")


STAGE = TrainingStage(train_base, check_base, estimate_base)
