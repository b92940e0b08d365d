from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glideslope.device.dtype_device import choose_device
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.models.training import denoising
from glideslope.models.training.data import Share, open_split
from glideslope.models.training.denoising import DenoisingBatches, stratified_steps
from glideslope.recipe.components import BaseTraining

from ..conftest import curated_rows, write_curated

pytestmark = pytest.mark.processors

CONFIG = BaseTraining(preset="glide-micro-16", num_images=40, batch_size=4, learning_rate=1e-3, vocab_size=300)


class Listener(nn.Module):
    """A network that predicts nothing and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, device=choose_device(None)))
        self.masks: list[Tensor] = []
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        self.masks.append(mask.cpu())
        self.inputs.append(x.cpu())
        return torch.cat([x, x], dim=1) * self.weight


def batches_of(config: BaseTraining, curated: Path, tokenizer: CaptionTokenizer, directory: Path) -> DenoisingBatches:
    return DenoisingBatches(config, open_split(curated, "train", 16, directory), tokenizer, schedule="squaredcos_cap_v2", text_ctx=16, seed=5,
                            horizontal_flip=config.horizontal_flip)


def test_a_step_is_the_same_whenever_it_is_computed(curated: Path, tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    batches, model = batches_of(CONFIG, curated, tokenizer, tmp_path), Listener()
    first = batches.loss(model, 6)
    batches.loss(model, 7)
    assert batches.loss(model, 6).item() == first.item()
    assert torch.equal(model.inputs[0], model.inputs[2])
    assert not torch.equal(model.inputs[0], model.inputs[1])


def test_the_asked_share_of_captions_is_dropped(curated: Path, tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    batches, model = batches_of(CONFIG.model_copy(update={"batch_size": 500, "caption_dropout": 0.2}), curated, tokenizer, tmp_path), Listener()
    batches.loss(model, 0)
    dropped = (~model.masks[0].any(dim=1)).float().mean()
    assert 0.15 < float(dropped) < 0.25


def test_an_image_without_weight_does_not_count(curated: Path, tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    write_curated(tmp_path, "train", [row | {"weight": 0.0} for row in curated_rows()])
    assert batches_of(CONFIG, tmp_path, tokenizer, tmp_path).loss(Listener(), 0).item() == 0
    assert batches_of(CONFIG, curated, tokenizer, tmp_path / "weighted").loss(Listener(), 0).item() > 0


def test_mirroring_happens_only_when_asked_for(curated: Path, tokenizer: CaptionTokenizer, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoising, "stratified_steps", lambda batch_size, num_steps: torch.zeros(batch_size, dtype=torch.int64))
    split = open_split(curated, "train", 16, tmp_path)
    pixels = torch.from_numpy(np.stack([split.square(number, split.rows[number]) for number in range(11)])).float() / 127.5 - 1
    for flip in (False, True):
        batches, model = batches_of(CONFIG.model_copy(update={"batch_size": 44, "horizontal_flip": flip}), curated, tokenizer,
                                     tmp_path), Listener()
        batches.loss(model, 0)
        plain = torch.cdist(model.inputs[0].flatten(1), pixels.flatten(1)).min(dim=1).values
        assert bool((plain > 5).any()) is flip


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_timesteps_are_spread_evenly_over_the_whole_process(batch_size: int) -> None:
    torch.manual_seed(0)
    steps = stratified_steps(batch_size, 1000)
    assert steps.dtype == torch.int64
    assert Counter((steps * batch_size // 1000).tolist()) == Counter(range(batch_size)) or batch_size == 7
    drawn = torch.cat([stratified_steps(batch_size, 10) for _ in range(2000 // batch_size)])
    shares = np.bincount(drawn.numpy(), minlength=10) / len(drawn)
    assert (abs(shares - 0.1) < 0.03).all()


def test_the_network_sees_what_a_condition_makes_of_the_noised_images(curated: Path, tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    data, model = open_split(curated, "train", 16, tmp_path), Listener()

    def add_one(x: Tensor, x_start: Tensor, share: Share) -> Tensor:
        assert x_start.abs().max() <= 1 < x.abs().max()
        return x + 1

    plain, conditioned = (DenoisingBatches(CONFIG, data, tokenizer, schedule="linear", text_ctx=16, seed=5, condition=condition)
                          for condition in (None, add_one))
    plain.loss(model, 3)
    conditioned.loss(model, 3)
    assert torch.equal(model.inputs[0] + 1, model.inputs[1])
