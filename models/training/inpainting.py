"""What both inpainting fine-tunes share (arXiv 2112.10741, section 4.3): a trained network learns to continue pictures known in part.

The network begins as the one that it continues, average and all. What it sees more, known pixels and their mask, enters through weights
that begin at zero, so that its first step is the other's last.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError, RecipeError
from ...recipe.components import NETWORKS, SCHEDULERS, InpaintTraining, Training, UpsamplerInpaintTraining
from ...store.stage_places import CHECKPOINTS
from ..loading.components import load_component
from ..networks.unet import TextConditionedUNet, condition_input
from ..tokenizer import CaptionTokenizer
from .checkpoints import latest_checkpoint
from .data import Share, open_split
from .denoising import DenoisingBatches, HeldBackLoss, averaged_network, write_denoiser
from .loop import count_cut_captions, stage_summary, train
from .stage import TrainingTask
from .upsampler import degrade

STEM_WEIGHT = "input_blocks.0.0.weight"
MAX_REGIONS = 3
MIN_SIDE, MAX_SIDE = 0.2, 0.8  # of an erased region, as shares of the picture's side


def train_inpainting(network: str, task: TrainingTask[Any], partial: Path,
                     degraded: Callable[[Tensor, Share], Tensor] | None = None) -> dict[str, Any]:
    """Continue a trained network in the stage's partial directory; returns the summary for the record.

    Args:
        network: name of the one to train.
        task: what to do; its settings are of this network.
        partial: the stage's directory.
        degraded: images (N, 3, S, S) in [-1, 1] of a share -> the small ones that the network enlarges; None: it enlarges none.
    """
    model, row, config = widen(task.data.trained / str(NETWORKS[network].continues)), NETWORKS[network], task.config
    data = open_split(task.data.curated, "train", model.config.image_size, partial / CHECKPOINTS, processes=task.processes)
    tokenizer = CaptionTokenizer.load(task.data.tokenizer)
    cut = count_cut_captions(f"training/{network}", tokenizer, data, model.config.text_ctx)

    def condition(x: Tensor, x_start: Tensor, share: Share) -> Tensor:
        num_images = len(x) * share.of  # of the whole step, so that what is drawn does not depend on the shares
        mask = erase_regions(num_images, model.config.image_size, config.whole_share)[share.rows(num_images)].to(x.device)
        return condition_input(x, inpaint_image=x_start, inpaint_mask=mask, low_res=None if degraded is None else degraded(x_start, share))

    batches = DenoisingBatches(config, data, tokenizer, schedule=SCHEDULERS[row.scheduler].schedule, text_ctx=model.config.text_ctx,
                               seed=task.seed, condition=condition, processes=task.processes)
    held_back = HeldBackLoss.of(batches, task.data.curated, partial, model.config.image_size, processes=task.processes)

    def look(weights: Mapping[str, Tensor], num_images: int) -> None:
        held_back.measure(averaged_network(model, weights), num_images)

    if task.processes.is_first and latest_checkpoint(partial / CHECKPOINTS) is None:
        look(model.state_dict(), 0)
    trained = train(config, model, batches.loss, partial, ema_half_life_images=config.ema_half_life_images, progress=task.progress,
                    at_checkpoint=look, processes=task.processes, keys_of_step=batches.reader.keys)
    if not task.processes.is_first:
        return {}
    look(trained.ema or model.state_dict(), trained.num_images)
    write_denoiser(partial, trained, row.scheduler, config.prediction_type)
    return stage_summary(trained, data, task.seed) | cut | held_back.summary()


def widen(training: Path) -> TextConditionedUNet:
    """A trained network that sees known pixels and their mask too, through weights of zero.

    Args:
        training: the directory of its training.

    Raises:
        CheckpointError: it has not finished, or holds another network.
    """
    name = training.name
    trained = load_component(training, weights_name=NETWORKS[name].trained_file)
    if not isinstance(trained, TextConditionedUNet) or trained.config.inpaint:
        raise CheckpointError(f"{training}: holds no network to continue; train {name} again")
    model, state = TextConditionedUNet(trained.config.model_copy(update={"inpaint": True})), trained.state_dict()
    stem = state[STEM_WEIGHT]
    more = stem.new_zeros(len(stem), model.config.in_channels - trained.config.in_channels, *stem.shape[2:])
    state[STEM_WEIGHT] = torch.cat([stem[:, :3], more, stem[:, 3:]], dim=1)  # see `condition_input` for the order
    model.load_state_dict(state)
    return model


def erase_regions(num_images: int, size: int, whole_share: float) -> Tensor:
    """Masks with one to three rectangles erased, of 0.2 to 0.8 of the side each; some images are erased whole.

    Args:
        num_images: how many, N.
        size: side S of the images.
        whole_share: share of the images that are erased whole.

    Returns:
        float32 (N, 1, S, S): 1 where pixels are known, 0 where they are erased.
    """
    sides = size * (MIN_SIDE + (MAX_SIDE - MIN_SIDE) * torch.rand(num_images, MAX_REGIONS, 2))
    starts = torch.rand(num_images, MAX_REGIONS, 2) * (size - sides)
    is_used = torch.arange(MAX_REGIONS) < torch.randint(1, MAX_REGIONS + 1, (num_images, 1))
    place = torch.arange(size) + 0.5
    inside = (place >= starts[..., None]) & (place < (starts + sides)[..., None])  # (N, regions, 2, S)
    erased = (inside[:, :, 0, :, None] & inside[:, :, 1, None, :] & is_used[..., None, None]).any(dim=1, keepdim=True)
    erased |= (torch.rand(num_images) < whole_share).view(-1, 1, 1, 1)
    return (~erased).float()


def check_inpainting(network: str, config: InpaintTraining | UpsamplerInpaintTraining, trainings: Mapping[str, Training]) -> None:
    """Refuse settings that are not those of the network that is continued.

    Raises:
        RecipeError: the recipe does not train it, or says something else of it.
    """
    continued = str(NETWORKS[network].continues)
    if continued not in trainings:
        raise RecipeError(f"{network}: continues {continued}, which this recipe does not train; add {continued}, or leave {network} out")
    for key in ("preset", "prediction_type", *(("low_res_size",) if isinstance(config, UpsamplerInpaintTraining) else ())):
        expected, found = getattr(trainings[continued], key), getattr(config, key)
        if found != expected:
            raise RecipeError(f"{network}.{key}: is {found!r}, but {continued}.{key} is {expected!r}, and {network} continues {continued}; "
                              f"set it to {expected!r}")


def degrade_as(config: UpsamplerInpaintTraining) -> Callable[[Tensor, Share], Tensor]:
    """How an upsampler's settings make images small."""
    return lambda x_start, share: degrade(x_start, config.low_res_size, config.low_res_noise, share)
