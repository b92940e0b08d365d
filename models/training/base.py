"""Training of the GLIDE base model on the curated set (stage `training/base`)."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...recipe.components import CONFIG_NAME, SCHEDULERS, scheduler_config
from ...recipe.training import BaseModelConfig
from ...store.manifest import write_bytes, write_json
from ...store.records import Record, run_stage
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
from .loop import Progress, TrainedModel, count_cut_captions, seed_step, stage_summary, train

SCHEDULE = SCHEDULERS["scheduler"].schedule
NUM_SAMPLES = 16
SAMPLE_STEPS = 30
SAMPLE_GUIDANCE = 3.0


def train_base(config: BaseModelConfig, curated: Path, directory: Path, *, seed: int, curated_digest: str,
               progress: Progress | None = None) -> Record:
    """Run the stage `training/base`.

    Args:
        config: preset and optimisation.
        curated: directory of the curated set.
        directory: the stage's directory.
        seed: of weights, order, noise and dropout.
        curated_digest: digest of the curated set's record.
        progress: told images done, images in all, and a line.

    Raises:
        TrainingError: nothing to train on, or training diverged.
        RecipeError: unknown preset.
    """
    settings = config.model_dump(mode="json", exclude=set(config.PACE)) | {"seed": seed}

    def work(partial: Path) -> Mapping[str, Any]:
        return _train(config, curated, partial, seed=seed, progress=progress)

    return run_stage(directory, stage="training/base", config=settings, inputs={"curated": curated_digest}, work=work,
                     is_costly=True, pace=config.PACE)


def _train(config: BaseModelConfig, curated: Path, partial: Path, *, seed: int, progress: Progress | None) -> dict[str, Any]:
    preset = unet_preset(config.preset)
    data = load_split(curated, "train", preset.image_size)
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

    trained = train(config, model, batches.loss, partial, ema_half_life_images=config.ema_half_life_images, progress=progress,
                    at_checkpoint=draw)
    write_results(partial, trained, tokenizer)
    write_samples(partial / "samples" / f"images-{trained.num_images:09d}.png", model, trained.ema or {}, tokenizer, prompts, seed)
    write_json(partial / "samples" / "prompts.json", list(prompts))
    return stage_summary(trained, data, seed) | cut


class BaseBatches:
    """Draws the step's images, captions, timesteps and noise, and computes the loss."""

    def __init__(self, config: BaseModelConfig, data: CuratedSplit, tokenizer: CaptionTokenizer, diffusion: GaussianDiffusion,
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
