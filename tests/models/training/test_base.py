import json
import resource
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from glideslope.errors import RecipeError, StorageError, TrainingError
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.training import base as base_training
from glideslope.models.training import checkpoints
from glideslope.models.training.base import sample_prompts
from glideslope.models.training.data import open_split
from glideslope.models.training.loop import Progress
from glideslope.models.training.stage import TrainingData, train_network
from glideslope.recipe.components import BaseTraining
from glideslope.store.digests import sha256_json
from glideslope.store.records import Record

from ...hostile_torch import SURROUNDINGS
from ..conftest import curated_rows

pytestmark = pytest.mark.processors

CONFIG = BaseTraining(preset="glide-micro-16", num_images=40, batch_size=4, learning_rate=1e-3, warmup_images=8, checkpoint_images=12,
                      sample_images=24, vocab_size=300, text_images=0)
FILES = ["config.json", "ema.safetensors", "held_back.jsonl", "metrics.jsonl", "model.safetensors", "samples/images-000000024.png",
         "samples/images-000000040.png", "samples/prompts.json", "scheduler_config.json", "tokenizer.json"]


def train_base(config: BaseTraining, curated: Path, directory: Path, *, seed: int, curated_digest: str = "d",
               progress: Progress | None = None) -> Record:
    data = TrainingData(curated, curated_digest, Path("no index is read"), Path("nothing trained earlier is read"))
    return train_network("base", config, data, directory, seed=seed, progress=progress)


class Stopped(Exception):
    """Stands for a process that is killed."""


@pytest.fixture(autouse=True)
def _quick_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_training, "SAMPLE_STEPS", 2)
    monkeypatch.setattr(base_training, "NUM_SAMPLES", 2)


def test_a_stage_that_was_stopped_ends_with_the_record_of_an_undisturbed_one(curated: Path, tmp_path: Path) -> None:
    whole = train_base(CONFIG, curated, tmp_path / "whole", seed=1)

    def stop(done: int, total: int, line: str) -> None:
        if done == 32:
            raise Stopped

    with pytest.raises(Stopped):
        train_base(CONFIG, curated, tmp_path / "stopped", seed=1, progress=stop)
    assert not (tmp_path / "stopped").exists()
    told: list[int] = []
    resumed = train_base(CONFIG, curated, tmp_path / "stopped", seed=1,
                         progress=lambda done, total, line: told.append(done))
    assert told[0] == 28  # from the checkpoint at 24 images
    assert resumed.digest == whole.digest
    assert [entry.path for entry in whole.outputs.files] == FILES
    assert (tmp_path / "stopped" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def stop_at_32(directory: Path, curated: Path) -> None:
    def stop(done: int, total: int, line: str) -> None:
        if done == 32:
            raise Stopped

    with pytest.raises(Stopped):
        train_base(CONFIG, curated, directory, seed=1, progress=stop)


def test_how_often_something_is_written_may_change_while_training(curated: Path, tmp_path: Path) -> None:
    stop_at_32(tmp_path / "base", curated)
    told: list[int] = []
    config = CONFIG.model_copy(update={"checkpoint_images": 8, "sample_images": 8})
    record = train_base(config, curated, tmp_path / "base", seed=1, progress=lambda done, *_: told.append(done))
    assert told[0] == 28
    assert train_base(CONFIG, curated, tmp_path / "base", seed=1) == record, "nor does it undo a finished training"
    train_base(CONFIG, curated, tmp_path / "whole", seed=1)
    for name in ("model.safetensors", "ema.safetensors", "metrics.jsonl"):
        assert (tmp_path / "base" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(("damage", "first"), [("model.safetensors", 16), ("state.json", 16), ("../../metrics.jsonl", 28)])
def test_a_power_cut_costs_no_more_than_one_checkpoint(curated: Path, tmp_path: Path, damage: str, first: int) -> None:
    stop_at_32(tmp_path / "base", curated)
    path = tmp_path / "base.partial" / "checkpoints" / "step-00000006" / damage
    path.write_bytes(b"")
    told: list[int] = []
    record = train_base(CONFIG, curated, tmp_path / "base", seed=1, progress=lambda done, *_: told.append(done))
    assert told[0] == first
    assert record.digest == train_base(CONFIG, curated, tmp_path / "whole", seed=1).digest


@pytest.mark.parametrize("file", ["step-00000006.partial/optimizer.safetensors", "step-00000006.partial/state.json"])
def test_a_disk_that_is_full_in_mid_checkpoint_is_one_clear_error_and_loses_nothing(curated: Path, tmp_path: Path, file: str,
                                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    directory, before = tmp_path / "base", resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(done: int, total: int, line: str) -> None:
        if done == 24:  # the second checkpoint comes now: a limit that its optimiser, or its last file, does not keep
            monkeypatch.setattr(checkpoints, "sha256_file" if file.endswith("json") else "optimizer_tensors", limited(before[1], file))

    try:
        with pytest.raises(StorageError, match=rf"cannot write .*{file}: File too large; free space .* run the same command again"):
            train_base(CONFIG, curated, directory, seed=1, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "base.partial/checkpoints").glob("step-*")) == ["step-00000003"]
    told: list[int] = []
    record = train_base(CONFIG, curated, directory, seed=1, progress=lambda done, *_: told.append(done))
    assert told[0] == 16
    assert record.digest == train_base(CONFIG, curated, tmp_path / "whole", seed=1).digest


def limited(hard: int, file: str) -> Any:
    """The function of `checkpoints` that comes before a file is written, which leaves room for a few bytes only."""
    function = getattr(checkpoints, "sha256_file" if file.endswith("json") else "optimizer_tensors")

    def call(*args: Any) -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
        return function(*args)
    return call


def test_settings_that_matter_keep_what_was_trained_aside(curated: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stop_at_32(tmp_path / "base", curated)
    train_base(CONFIG.model_copy(update={"num_images": 4}), curated, tmp_path / "base", seed=1)
    assert "training/base: num_images was 40 and is 4; what had been done so far is kept in" in caplog.text
    told: list[int] = []
    train_base(CONFIG, curated, tmp_path / "base", seed=1, progress=lambda done, *_: told.append(done))
    assert told[0] == 28


ACCELERATE = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_USE_CPU": "true",
              "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_USE_FSDP": "true", "ACCELERATE_USE_DEEPSPEED": "true",
              "ACCELERATE_ALLOW_TF32": "1", "ACCELERATE_TORCH_DEVICE": "meta", "ACCELERATE_DOWNCAST_BF16": "true", "WORLD_SIZE": "2",
              "RANK": "1", "LOCAL_RANK": "1"}


@pytest.mark.parametrize("name", [*SURROUNDINGS, "variables of other tools"])
def test_nothing_that_the_program_around_has_set_changes_a_training(curated: Path, tmp_path: Path, name: str,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.model_copy(update={"num_images": 8})
    alone = train_base(config, curated, tmp_path / "alone", seed=1)
    for variable, value in ACCELERATE.items() if name not in SURROUNDINGS else ():
        monkeypatch.setenv(variable, value)
    with SURROUNDINGS[name]() if name in SURROUNDINGS else nullcontext():
        surrounded = train_base(config, curated, tmp_path / "surrounded", seed=1)
    assert surrounded.digest == alone.digest


def test_a_finished_training_states_what_it_consumed_and_can_be_drawn_from(curated: Path, tmp_path: Path) -> None:
    record = train_base(CONFIG, curated, tmp_path / "base", seed=0, curated_digest="digest of the curated set")
    lines = [json.loads(line) for line in (tmp_path / "base" / "metrics.jsonl").read_text().splitlines()]
    assert record.inputs == {"curated": "digest of the curated set"}
    assert record.summary["consumed_sha256"] == sha256_json(sorted(str(row["sha256"]) for row in curated_rows()[:-1]))
    assert (record.summary["num_steps"], record.summary["num_images_seen"], record.summary["num_train_examples"]) == (10, 40, 11)
    assert record.summary["final_loss"] == lines[-1]["loss"]
    assert record.environment["images_per_second"] > 0
    assert Image.open(tmp_path / "base" / "samples" / "images-000000040.png").size == (8 * 100 + 4, 104)
    pipe = GlidePipeline.from_training(tmp_path)
    assert pipe("a red square", num_steps=1).images[0].size == (16, 16)
    assert record.summary["num_parameters"] == sum(p.numel() for p in pipe.networks.base.parameters())


def test_finished_training_is_not_done_again(curated: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"num_images": 4})
    first = train_base(config, curated, tmp_path / "base", seed=0)
    told: list[int] = []
    again = train_base(config, curated, tmp_path / "base", seed=0, progress=lambda done, *_: told.append(done))
    assert again == first
    assert told == []


def test_an_unknown_preset_and_an_empty_split_are_refused(curated: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"base\.preset: 'x' is unknown"):
        train_base(CONFIG.model_copy(update={"preset": "x"}), curated, tmp_path / "base", seed=0)
    with pytest.raises(TrainingError, match="holds no image"):
        train_base(CONFIG, tmp_path, tmp_path / "base", seed=0)


def test_sample_prompts_are_spread_over_the_training_set(curated: Path, tmp_path: Path) -> None:
    assert sample_prompts(open_split(curated, "train", 16, tmp_path)) == ("a red square", "a yellow bar")
