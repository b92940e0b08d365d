"""Training of the noised CLIP on the curated set (stage `training/noised_clip`; arXiv 2112.10741, section 4.2)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...recipe.components import CONFIG_NAME
from ...recipe.training import NoisedClipConfig as NoisedClipTraining
from ...store.manifest import sha256_file, write_json
from ...store.records import Record, run_stage
from ..diffusion.process import GaussianDiffusion
from ..networks.components import component_config
from ..networks.noised_clip import NoisedClip
from ..networks.presets import noised_clip_preset
from ..tokenizer import CaptionTokenizer
from .base import SCHEDULE
from .checkpoints import save_tensors
from .data import CuratedSplit, batch_indices, caption_indices, load_split, take
from .loop import Progress, count_cut_captions, seed_step, stage_summary, train


def train_noised_clip(config: NoisedClipTraining, curated: Path, tokenizer_path: Path, directory: Path, *, seed: int,
                      curated_digest: str, progress: Progress | None = None) -> Record:
    """Run the stage `training/noised_clip`.

    Args:
        config: preset and optimisation.
        curated: directory of the curated set.
        tokenizer_path: the base model's tokenizer.json, shared by both models.
        directory: the stage's directory.
        seed: of weights, order and noise.
        curated_digest: digest of the curated set's record.
        progress: told images done, images in all, and a line.

    Raises:
        TrainingError: nothing to train on, or training diverged.
        RecipeError: unknown preset.
    """
    settings = config.model_dump(mode="json", exclude=set(config.PACE)) | {"seed": seed}
    inputs = {"curated": curated_digest, "tokenizer": sha256_file(tokenizer_path)}

    def work(partial: Path) -> Mapping[str, Any]:
        return _train(config, curated, tokenizer_path, partial, seed=seed, progress=progress)

    return run_stage(directory, stage="training/noised_clip", config=settings, inputs=inputs, work=work, is_costly=True,
                     pace=config.PACE)


def _train(config: NoisedClipTraining, curated: Path, tokenizer_path: Path, partial: Path, *, seed: int,
           progress: Progress | None) -> dict[str, Any]:
    preset = noised_clip_preset(config.preset)
    data = load_split(curated, "train", preset.image_size)
    tokenizer = CaptionTokenizer.load(tokenizer_path)
    torch.manual_seed(seed)
    model = NoisedClip(preset.model_copy(update={"n_vocab": tokenizer.vocab_size}))
    cut = count_cut_captions("training/noised_clip", tokenizer, data, preset.max_text_len - 2)
    batches = ContrastiveBatches(config, data, tokenizer, preset.max_text_len, seed)
    trained = train(config, model, batches.loss, partial, ema_half_life_images=None, progress=progress)
    save_tensors(partial / "model.safetensors", model.state_dict())
    write_json(partial / CONFIG_NAME, component_config(model))
    return stage_summary(trained, data, seed) | cut


class ContrastiveBatches:
    """Draws the step's pairs, noises the images at random levels, and computes the contrastive loss."""

    def __init__(self, config: NoisedClipTraining, data: CuratedSplit, tokenizer: CaptionTokenizer, max_text_len: int, seed: int) -> None:
        """Tokenise all captions once."""
        self.config, self.data, self.seed = config, data, seed
        self.diffusion = GaussianDiffusion.create(SCHEDULE)
        self.tokens, self.lengths = tokenizer.encode_delimited(data.texts, max_text_len)
        self.starts = data.starts

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Mean of the two cross-entropies, image to caption and caption to image (arXiv 2103.00020, figure 3)."""
        device = next(model.parameters()).device
        indices = batch_indices(len(self.data), step, self.config.batch_size, self.seed)
        seed_step(self.seed, step)
        x_start = take(self.data, indices)
        steps = torch.randint(0, self.diffusion.num_steps, (len(x_start),))
        x = self.diffusion.add_noise(x_start, steps, torch.randn_like(x_start))
        drawn = caption_indices(self.starts, indices, step, self.seed)
        logits = model(x.to(device), steps.to(device), self.tokens[drawn].to(device), self.lengths[drawn].to(device)).float()
        targets = torch.arange(len(logits), device=device)
        return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2
