import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from glideslope.errors import RecipeError
from glideslope.models.training import base as base_training
from glideslope.models.training.checkpoints import list_checkpoints
from glideslope.models.training.stage import TrainingData, check_trainings, train_network
from glideslope.run import find_recipe, open_run
from glideslope.store.records import read_record, run_stage
from glideslope.store.whole_files import read_json

from ..conftest import curated_rows, write_curated

OPTIMISATION = {"batch_size": 8, "learning_rate": 1e-3, "warmup_images": 8, "checkpoint_images": 16}
RECIPE: dict[str, Any] = {
    "name": "shared", "source": {"kind": "openmoji"}, "categories": [{"name": "person", "counts": "a human being or a part of one"}],
    "base": OPTIMISATION | {"preset": "glide-micro-16", "num_images": 48, "sample_images": 1000, "vocab_size": 300, "text_images": 0},
    "upsampler": OPTIMISATION | {"preset": "glide-upsampler-micro-32", "num_images": 24, "low_res_size": 16},
    "upsampler_inpaint": OPTIMISATION | {"preset": "glide-upsampler-micro-32", "num_images": 16, "low_res_size": 16},
    "noised_clip": OPTIMISATION | {"preset": "noised-clip-micro-16", "num_images": 48}}


ACCELERATE = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_USE_FSDP": "true"}


def make_run(directory: Path, **changes: Any) -> Path:
    """A recipe in a directory, and a run of it whose curated set is finished."""
    (directory / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"base": RECIPE["base"] | changes}))

    def work(partial: Path) -> dict[str, Any]:
        rows = [row | {"weight": 0.5 + number / 8} for number, row in enumerate(curated_rows(48))]
        write_curated(partial, "train", rows[:-1])
        write_curated(partial, "validation", rows[-1:])
        return {}

    run_stage(directory / "runs" / "shared" / "curated", stage="curated", config={}, inputs={}, work=work)
    return directory / "recipe.yaml"


def train_alone(recipe: Path) -> None:
    with open_run(find_recipe(str(recipe)), recipe.parent / "runs") as run:
        run.train()


class EnoughError(Exception):
    """Ends a training that has shown what was asked."""


class Launcher:
    """Starts processes with the environment that a launcher gives them; see `launching`."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.models.training.launching"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})

    def start(self, recipe: Path, number: int = 2) -> list[int]:
        """Train in several processes; returns their numbers."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        assert self.process.stdin is not None
        self.told = recipe.parent
        asked = {"number": number, "told": str(self.told), "command": ["train", str(recipe), "--runs-dir", str(recipe.parent / "runs")],
                 "env": ACCELERATE | {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return list(self._answer())

    def end(self) -> list[tuple[int, str, str]]:
        """Code, output and errors of each."""
        return [(code, *((self.told / f"{name}-{rank}").read_text() for name in ("out", "err"))) for rank, code in enumerate(self._answer())]

    def _answer(self) -> list[int]:
        assert self.process.stdout is not None
        return list(json.loads(self.process.stdout.readline()))


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    running = Launcher()
    yield running
    running.process.kill()
    running.process.wait()


def figures(recipe: Path, network: str) -> list[dict[str, float]]:
    lines = (recipe.parent / "runs" / "shared" / "training" / network / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_close(found: Sequence[dict[str, float]], expected: Sequence[dict[str, float]]) -> None:
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for name in ("loss", "grad_norm"):
        torch.testing.assert_close([line[name] for line in found], [line[name] for line in expected], rtol=1e-3, atol=1e-5)


@pytest.mark.timeout(400)
def test_two_processes_have_the_losses_of_one_and_the_first_alone_writes(tmp_path_factory: pytest.TempPathFactory, launcher: Launcher,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SAMPLE_STEPS", "NUM_SAMPLES"):
        monkeypatch.setattr(base_training, name, 2)
    alone, shared = (make_run(tmp_path_factory.mktemp(name)) for name in ("alone", "shared"))
    train_alone(alone)
    launcher.start(shared)
    (code, output, _), (other_code, other_output, other_errors) = launcher.end()
    assert (code, other_code, other_output, other_errors) == (0, 0, "", "")
    assert "training/base" in output
    for network in ("base", "upsampler", "upsampler_inpaint", "noised_clip"):
        assert_close(figures(shared, network), figures(alone, network))
        records = [read_record(recipe.parent / "runs" / "shared" / "training" / network) for recipe in (alone, shared)]
        assert [entry.path for entry in records[0].outputs.files] == [entry.path for entry in records[1].outputs.files]
        assert records[0].summary["consumed_sha256"] == records[1].summary["consumed_sha256"]
        assert [record.environment["num_processes"] for record in records] == [1, 2]


@pytest.mark.timeout(400)
def test_a_process_that_dies_ends_the_others_with_one_line_and_one_process_goes_on_from_the_checkpoint(
        tmp_path: Path, launcher: Launcher) -> None:
    recipe = make_run(tmp_path, num_images=4000)
    _, second = launcher.start(recipe)
    checkpoints = recipe.parent / "runs" / "shared" / "training" / "base.partial" / "checkpoints"
    while not list_checkpoints(checkpoints):
        time.sleep(0.05)
    os.kill(second, signal.SIGKILL)
    (code, _, errors), (other_code, *_) = launcher.end()
    assert (code, other_code) == (1, -signal.SIGKILL)
    told = " ".join(errors.split())
    assert "glideslope: another process of this training has ended" in told
    assert "run the same command again: it goes on from the newest checkpoint" in told
    assert "Traceback" not in errors
    kept = int(list_checkpoints(checkpoints)[-1].name.removeprefix("step-"))
    reported: list[int] = []

    def look(done: int, total: int, line: str) -> None:
        reported.append(done)
        raise EnoughError

    with open_run(find_recipe(str(recipe)), recipe.parent / "runs") as run:
        data = TrainingData(run.layout.curated, read_record(run.layout.curated).digest, run.layout.index, run.layout.training("base").parent)
        with pytest.raises(EnoughError):
            train_network("base", run.recipe.base, data, run.layout.training("base"), seed=run.recipe.seed, progress=look)
    assert reported == [(kept + 1) * 8]
    assert read_json(checkpoints / "computing.json")["num_processes"] == 1


@pytest.mark.timeout(400)
def test_an_error_of_the_first_process_is_told_once(tmp_path: Path, launcher: Launcher) -> None:
    launcher.start(make_run(tmp_path, batch_size=9))
    (code, _, errors), (other_code, _, other_errors) = launcher.end()
    assert (code, other_code) == (1, 1)
    assert "base.batch_size: 9 images cannot be shared by 2 process(es); choose a multiple of 2" in " ".join(errors.split())
    assert other_errors == ""


def test_a_step_that_cannot_be_cut_is_refused_with_the_recipe(tmp_path: Path) -> None:
    trainings = find_recipe(str(make_run(tmp_path, batch_size=12, accumulation=2))).trainings
    check_trainings(trainings, 2)
    with pytest.raises(RecipeError, match=r"base.batch_size: 12 images cannot be shared by 4 process\(es\), each in 2 parts \(accumulation\); "
                                          "choose a multiple of 8"):
        check_trainings(trainings, 4)


def test_a_step_in_parts_has_the_losses_of_a_whole_one(tmp_path_factory: pytest.TempPathFactory,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SAMPLE_STEPS", "NUM_SAMPLES"):
        monkeypatch.setattr(base_training, name, 2)
    whole, parts = make_run(tmp_path_factory.mktemp("whole")), make_run(tmp_path_factory.mktemp("parts"), accumulation=4)
    train_alone(whole)
    train_alone(parts)
    assert_close(figures(parts, "base"), figures(whole, "base"))
    assert figures(parts, "noised_clip") == figures(whole, "noised_clip")
