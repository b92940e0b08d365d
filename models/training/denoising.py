"""What the trainings of GLIDE's U-Nets share: the batches of their steps, the files that they write, how long they take."""

import copy
import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...device.dtype_device import choose_device
from ...device.processes import ALONE, Processes
from ...recipe.components import CONFIG_NAME, SCHEDULERS, scheduler_config
from ...recipe.training import DenoiserTraining
from ...store.stage_places import CHECKPOINTS
from ...store.strict_json import load_lines
from ...store.whole_files import write_bytes, write_json
from ..diffusion.process import GaussianDiffusion, training_loss, weigh_errors
from ..drawing.pixels import to_model_range
from ..networks.components import component_config
from ..networks.unet import TextConditionedUNet, UNetConfig
from ..tokenizer import CaptionTokenizer
from .checkpoints import save_tensors
from .data import WHOLE, BatchReader, CuratedSplit, Share, has_split, open_split
from .loop import TrainedModel, seed_share, seed_step
from .pace import time_training

HELD_BACK_NAME = "held_back.jsonl"
NUM_HELD_BACK_STEPS = 4

Condition = Callable[[Tensor, Tensor, Share], Tensor]


class DenoisingBatches:
    """Draws the step's images, captions, timesteps and noise, and computes the loss."""

    def __init__(self, config: DenoiserTraining, data: CuratedSplit, tokenizer: CaptionTokenizer, *, schedule: str, text_ctx: int, seed: int,
                 horizontal_flip: bool = False, condition: Condition | None = None, processes: Processes = ALONE) -> None:
        """Nothing is read before the first step.

        Args:
            config: settings of the training.
            data: what is drawn from.
            tokenizer: of the captions.
            schedule: of the noise.
            text_ctx: tokens that the network reads.
            seed: of everything that a step draws.
            horizontal_flip: mirror half of the images.
            condition: noised images of a share (B, 3, H, W), those images without noise, and the share -> what the network sees; `None`: the
                noised images alone.
            processes: that train together.
        """
        self.config, self.seed, self.horizontal_flip, self.condition = config, seed, horizontal_flip, condition
        self.diffusion = GaussianDiffusion.create(schedule, device=choose_device(None))
        self.error_weights = weigh_errors(self.diffusion, config.prediction_type, min_snr_gamma=config.min_snr_gamma)
        self.reader = BatchReader(config, data, functools.partial(tokenizer.encode_padded, text_ctx=text_ctx), seed, processes=processes)
        self.empty_tokens, self.empty_mask = tokenizer.encode_padded([""], text_ctx)

    def of_other_data(self, data: CuratedSplit) -> "DenoisingBatches":
        """The same steps, drawn from other data by this process alone."""
        other = copy.copy(self)
        other.reader = BatchReader(self.config, data, self.reader.encode, self.seed)
        return other

    def loss(self, model: nn.Module, step: int, share: Share = WHOLE) -> Tensor:
        """Mean weighted loss of a share of a step. What is drawn is drawn for the whole step, so that it does not depend on the shares."""
        # --- draw images, captions, timesteps and noise
        device, size = next(model.parameters()).device, self.config.batch_size
        batch, rows = self.reader.read(step, share), share.rows(size)
        seed_step(self.seed, step)
        x_start = to_model_range(batch.pixels)
        if self.horizontal_flip:
            x_start = torch.where(torch.rand(size)[rows].view(-1, 1, 1, 1) < 0.5, x_start.flip(-1), x_start)
        is_dropped = (torch.rand(size) < self.config.caption_dropout)[rows]
        tokens = torch.where(is_dropped[:, None], self.empty_tokens, batch.tokens[0])
        mask = torch.where(is_dropped[:, None], self.empty_mask, batch.tokens[1])
        steps = stratified_steps(size, self.diffusion.num_steps)[rows]
        noise = torch.randn(size, *x_start.shape[1:])[rows]
        # --- predict and compare
        x_start, noise, steps, tokens, mask = (t.to(device) for t in (x_start, noise, steps, tokens, mask))
        x = self.diffusion.add_noise(x_start, steps, noise)
        seen = x if self.condition is None else self.condition(x, x_start, share)
        seed_share(self.seed, step, share)
        output = model(seen, steps, tokens, mask)
        losses = training_loss(self.diffusion, output, x_start=x_start, x=x, noise=noise, steps=steps,
                               prediction_type=self.config.prediction_type, error_weights=self.error_weights)
        return (losses * batch.weights.to(device)).mean()


@dataclass(frozen=True)
class HeldBackLoss:
    """The loss on images that are not trained on, with the same images, timesteps and noise each time, so that overfitting shows.

    Attributes:
        batches: of the held-back images, or None where none are held back.
        path: the file that keeps what was measured.
    """

    batches: DenoisingBatches | None
    path: Path

    @classmethod
    def of(cls, batches: DenoisingBatches, curated: Path, partial: Path, image_size: int, *, processes: Processes = ALONE) -> "HeldBackLoss":
        """For a training that writes into `partial`, with the images that the curated set holds back; the first process alone measures."""
        if not processes.is_first or not has_split(curated, "validation"):
            return cls(None, partial / HELD_BACK_NAME)
        held_back = open_split(curated, "validation", image_size, partial / CHECKPOINTS)
        return cls(batches.of_other_data(held_back), partial / HELD_BACK_NAME)

    @torch.no_grad()
    def measure(self, network: TextConditionedUNet, num_images: int) -> None:
        """Measure a network that has seen so many images; a line that an earlier attempt wrote for as many is replaced."""
        if self.batches is None:
            return
        state = torch.get_rng_state()
        losses = [self.batches.loss(network, step).item() for step in range(NUM_HELD_BACK_STEPS)]
        torch.set_rng_state(state)
        rows = [row for row in self.rows() if row["num_images"] < num_images]
        rows.append({"num_images": num_images, "loss": round(math.fsum(losses) / len(losses), 6)})
        write_bytes(self.path, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def rows(self) -> list[dict[str, Any]]:
        """What was measured so far: images seen, and the loss."""
        return load_lines(self.path.read_bytes()) if self.path.is_file() else []

    def summary(self) -> dict[str, Any]:
        """The last loss for the stage's record; nothing where no images are held back."""
        rows = self.rows()
        return {"held_back_loss": rows[-1]["loss"]} if rows else {}


def averaged_network(model: TextConditionedUNet, weights: Mapping[str, Tensor]) -> TextConditionedUNet:
    """A copy of a network with other weights, to draw with; the model keeps its own."""
    averaged = copy.deepcopy(model).eval()
    averaged.load_state_dict(dict(weights))
    return averaged


def stratified_steps(batch_size: int, num_steps: int) -> Tensor:
    """Uniform timesteps, one from each of `batch_size` equal strata, shuffled: int64 (B,). Lowers the loss's variance."""
    positions = (torch.randperm(batch_size) + torch.rand(batch_size)) / batch_size
    return (positions * num_steps).long().clamp(max=num_steps - 1)


def write_denoiser(partial: Path, trained: TrainedModel, scheduler: str, prediction_type: str) -> None:
    """Write weights, averaged weights, configuration and the noise schedule of that name."""
    assert isinstance(trained.model, TextConditionedUNet)
    save_tensors(partial / "model.safetensors", trained.model.state_dict())
    save_tensors(partial / "ema.safetensors", trained.ema or trained.model.state_dict())
    write_json(partial / CONFIG_NAME, component_config(trained.model))
    write_json(partial / SCHEDULERS[scheduler].file, scheduler_config(scheduler, prediction_type))


def time_denoiser(config: DenoiserTraining, architecture: UNetConfig) -> float:
    """Seconds that an image takes in the training of a U-Net, from a few real steps on random numbers."""

    def loss(network: nn.Module, step: int, share: Share) -> Tensor:
        device, num_images = next(network.parameters()).device, config.batch_size // share.of
        size = (num_images, architecture.text_ctx)
        x = torch.randn(num_images, architecture.in_channels, architecture.image_size, architecture.image_size, device=device)
        output = network(x, torch.full((len(x),), 500, device=device), torch.zeros(size, dtype=torch.int64, device=device),
                         torch.ones(size, dtype=torch.bool, device=device))
        return torch.as_tensor(output.float().square().mean())

    return time_training(config, TextConditionedUNet(architecture), loss, ema_half_life_images=config.ema_half_life_images)
