import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from glideslope.errors import CheckpointError
from glideslope.models.drawing.pixels import to_model_range
from glideslope.models.loading.components import load_component
from glideslope.models.networks.noised_clip import NoisedClip
from glideslope.models.networks.presets import noised_clip_preset
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.models.training.checkpoints import load_tensors
from glideslope.models.training.data import open_split
from glideslope.models.training.loop import Progress
from glideslope.models.training.noised_clip import ContrastiveBatches
from glideslope.models.training.stage import TrainingData, train_network
from glideslope.recipe.components import NoisedClipTraining
from glideslope.store.digests import sha256_file
from glideslope.store.records import Record

CONFIG = NoisedClipTraining(preset="noised-clip-micro-16", num_images=64, batch_size=8, learning_rate=1e-3, warmup_images=8,
                            checkpoint_images=24)


class Stopped(Exception):
    """Stands for a process that is killed."""


def train_noised_clip(config: NoisedClipTraining, curated: Path, tokenizer_path: Path, directory: Path, *, seed: int,
                      progress: Progress | None = None) -> Record:
    data = TrainingData(curated, "d", curated, tokenizer_path.parent.parent)
    return train_network("noised_clip", config, data, directory, seed=seed, progress=progress)


@pytest.fixture
def tokenizer_path(tmp_path: Path, tokenizer: CaptionTokenizer) -> Path:
    path = tmp_path / "base" / "tokenizer.json"
    path.parent.mkdir()
    tokenizer.save(path)
    return path


def test_a_stage_that_was_stopped_ends_with_the_record_of_an_undisturbed_one(curated: Path, tokenizer_path: Path, tmp_path: Path) -> None:
    whole = train_noised_clip(CONFIG, curated, tokenizer_path, tmp_path / "whole", seed=1)

    def stop(done: int, total: int, line: str) -> None:
        if done == 40:
            raise Stopped

    with pytest.raises(Stopped):
        train_noised_clip(CONFIG, curated, tokenizer_path, tmp_path / "stopped", seed=1, progress=stop)
    resumed = train_noised_clip(CONFIG, curated, tokenizer_path, tmp_path / "stopped", seed=1)
    assert resumed.digest == whole.digest
    assert [entry.path for entry in whole.outputs.files] == ["config.json", "metrics.jsonl", "model.safetensors"]
    assert whole.inputs == {"curated": "d", "tokenizer": sha256_file(tokenizer_path)}
    assert whole.summary["num_train_examples"] == 11


def test_training_teaches_it_which_caption_belongs_to_which_picture(curated: Path, tokenizer_path: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"num_images": 1440})
    train_noised_clip(config, curated, tokenizer_path, tmp_path / "clip", seed=0)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "clip" / "metrics.jsonl").read_text().splitlines()]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    model, data = load_component(tmp_path / "clip", weights_name="model.safetensors"), open_split(curated, "train", 16, tmp_path)
    assert isinstance(model, NoisedClip)
    tokens, lengths = CaptionTokenizer.load(tokenizer_path).encode_delimited(list(data.texts), model.config.max_text_len)
    pixels = torch.from_numpy(np.stack([data.square(number, data.rows[number]) for number in range(len(data))]))
    logits = model(to_model_range(pixels), torch.zeros(len(data), dtype=torch.int64), tokens, lengths)
    assert (logits.argmax(dim=1) == torch.arange(len(data))).float().mean() > 0.3  # guessing is right once in eleven


def test_the_first_loss_of_a_model_that_knows_nothing_is_that_of_guessing(curated: Path, tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    class Ignorant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor, lengths: torch.Tensor,
                    gather: object) -> torch.Tensor:
            return torch.zeros(len(x), len(tokens)) * self.weight

    preset = noised_clip_preset("noised-clip-micro-16")
    batches = ContrastiveBatches(CONFIG, open_split(curated, "train", 16, tmp_path), tokenizer, preset.max_text_len, 0)
    torch.testing.assert_close(batches.loss(Ignorant(), 0), torch.tensor(8.0).log())


def test_a_tokenizer_that_is_none_is_refused(curated: Path, tmp_path: Path) -> None:
    path = tmp_path / "base" / "tokenizer.json"
    path.parent.mkdir()
    path.write_text("{}")
    with pytest.raises(CheckpointError, match="not a tokenizer"):
        train_noised_clip(CONFIG, curated, path, tmp_path / "clip", seed=0)
    assert not (tmp_path / "clip").exists()


def test_the_stored_weights_fit_the_tokenizer(curated: Path, tokenizer_path: Path, tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    train_noised_clip(CONFIG.model_copy(update={"num_images": 8}), curated, tokenizer_path, tmp_path / "clip", seed=0)
    weights = load_tensors(tmp_path / "clip" / "model.safetensors")
    assert weights["text_encoder.blocks.input.w_voc"].shape[0] == tokenizer.vocab_size
