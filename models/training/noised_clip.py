"""Training of the noised CLIP on the curated set (stage `training/noised_clip`; arXiv 2112.10741, section 4.2)."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...device.processes import ALONE, Processes
from ...device.torch_state import PlainTorch
from ...errors import RecipeError
from ...learning.contrastive import contrastive_loss
from ...recipe.components import CONFIG_NAME, NETWORKS, SCHEDULERS, NoisedClipTraining, Training
from ...store.stage_places import CHECKPOINTS
from ...store.whole_files import write_json
from ..diffusion.process import GaussianDiffusion
from ..drawing.pixels import to_model_range
from ..networks.components import component_config
from ..networks.noised_clip import NoisedClip
from ..networks.presets import noised_clip_preset, unet_preset
from ..tokenizer import CaptionTokenizer
from .checkpoints import save_tensors
from .data import WHOLE, BatchReader, CuratedSplit, Share, open_split
from .loop import count_cut_captions, seed_step, stage_summary, train
from .pace import time_training
from .stage import TrainingStage, TrainingTask

SCHEDULE = SCHEDULERS[NETWORKS["noised_clip"].scheduler].schedule


def train_noised_clip(task: TrainingTask[NoisedClipTraining], partial: Path) -> dict[str, Any]:
    """Train in the stage's partial directory on the base model's tokens; returns the summary for the record."""
    preset = noised_clip_preset(task.config.preset)
    data = open_split(task.data.curated, "train", preset.image_size, partial / CHECKPOINTS, processes=task.processes)
    tokenizer = CaptionTokenizer.load(task.data.tokenizer)
    torch.manual_seed(task.seed)
    model = NoisedClip(preset.model_copy(update={"n_vocab": tokenizer.vocab_size}))
    cut = count_cut_captions("training/noised_clip", tokenizer, data, preset.max_text_len - 2)
    batches = ContrastiveBatches(task.config, data, tokenizer, preset.max_text_len, task.seed, processes=task.processes)
    trained = train(task.config, model, batches.loss, partial, ema_half_life_images=None, progress=task.progress, processes=task.processes,
                    keys_of_step=batches.reader.keys)
    if not task.processes.is_first:
        return {}
    save_tensors(partial / "model.safetensors", model.state_dict())
    write_json(partial / CONFIG_NAME, component_config(model))
    return stage_summary(trained, data, task.seed) | cut


def check_noised_clip(config: NoisedClipTraining, trainings: Mapping[str, Training]) -> None:
    """Refuse a preset that is unknown, or that reads images of another size than the base model draws.

    Raises:
        RecipeError: it is such a preset.
    """
    base = trainings["base"].preset
    size, drawn = noised_clip_preset(config.preset).image_size, unet_preset(base).image_size
    if size != drawn:
        raise RecipeError(f"noised_clip.preset: {config.preset!r} reads {size}x{size} images, but base.preset {base!r} draws {drawn}x{drawn}; "
                          "choose presets of one size")


@PlainTorch(gradients=True)
def estimate_noised_clip(config: NoisedClipTraining, num_images: int, time_step_of_drawing: Callable[[], float]) -> float:
    """Seconds that training on so many images takes, measured in a few real steps on random numbers."""
    preset = noised_clip_preset(config.preset)
    model = NoisedClip(preset)

    def loss(network: nn.Module, step: int, share: Share) -> Tensor:
        device, n = next(network.parameters()).device, config.batch_size
        x = torch.randn(n, 3, preset.image_size, preset.image_size, device=device)
        tokens = torch.zeros(n, preset.max_text_len, dtype=torch.int64, device=device)
        logits = network(x, tokens[:, 0], tokens, torch.full((n,), preset.max_text_len, device=device))
        return contrastive_loss(logits.float())

    return num_images * time_training(config, model, loss, ema_half_life_images=None)


class ContrastiveBatches:
    """Draws the step's pairs, noises the images at random levels, and computes the contrastive loss."""

    def __init__(self, config: NoisedClipTraining, data: CuratedSplit, tokenizer: CaptionTokenizer, max_text_len: int, seed: int, *,
                 processes: Processes = ALONE) -> None:
        """Nothing is read before the first step."""
        self.config, self.seed, self.processes = config, seed, processes
        self.diffusion = GaussianDiffusion.create(SCHEDULE)
        encode = functools.partial(tokenizer.encode_delimited, max_text_len=max_text_len)
        self.reader = BatchReader(config, data, encode, seed, processes=processes)

    def loss(self, model: nn.Module, step: int, share: Share = WHOLE) -> Tensor:
        """Contrastive loss of a step, over the pairs of all processes: each encodes its share."""
        device, size = next(model.parameters()).device, self.config.batch_size
        batch, rows = self.reader.read(step, share), share.rows(size)
        seed_step(self.seed, step)
        x_start = to_model_range(batch.pixels)
        steps = torch.randint(0, self.diffusion.num_steps, (size,))[rows]
        x = self.diffusion.add_noise(x_start, steps, torch.randn(size, *x_start.shape[1:])[rows])
        logits = model(x.to(device), steps.to(device), *(part.to(device) for part in batch.tokens), gather=self.processes.gather)
        return contrastive_loss(logits.float())


STAGE = TrainingStage(train_noised_clip, check_noised_clip, estimate_noised_clip)
