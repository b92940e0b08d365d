import json
import logging
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from glideslope.device import processor
from glideslope.device.processor import threads
from glideslope.errors import CheckpointError, TrainingError
from glideslope.models.training import loop as training
from glideslope.models.training.data import Share
from glideslope.models.training.loop import (
    CHECKPOINTS,
    COMPUTING_NAME,
    Progress,
    average_decay,
    describe_rate,
    learning_rate,
    mean_final_loss,
    metrics_line,
    plain_summary,
    seed_step,
    train,
    update_average,
)
from glideslope.recipe.training import TrainingConfig
from glideslope.store.whole_files import write_bytes

pytestmark = pytest.mark.processors

CONFIG = TrainingConfig(num_images=40, batch_size=4, learning_rate=0.05, warmup_images=8, checkpoint_images=12)


class Stopped(Exception):
    """Stands for a process that is killed."""


def fresh() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def loss_of_step(model: nn.Module, step: int, share: Share) -> Tensor:
    seed_step(3, step)
    x = torch.randn(4, 2)
    return (model(x) - x.prod(1, keepdim=True)).square().mean()


@pytest.mark.parametrize("stop_at", [4, 24, 36])
def test_a_run_that_was_stopped_ends_like_one_that_was_left_alone(tmp_path: Path, stop_at: int) -> None:
    whole = train(CONFIG, fresh(), loss_of_step, tmp_path / "whole", ema_half_life_images=10)

    def stop(done: int, total: int, line: str) -> None:
        if done == stop_at:
            raise Stopped

    with pytest.raises(Stopped):
        train(CONFIG, fresh(), loss_of_step, tmp_path / "stopped", ema_half_life_images=10, progress=stop)
    resumed = train(CONFIG, fresh(), loss_of_step, tmp_path / "stopped", ema_half_life_images=10)
    assert (tmp_path / "stopped" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert resumed.ema is not None
    assert whole.ema is not None
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value)
        assert torch.equal(resumed.ema[name], whole.ema[name])
    assert plain_summary(resumed) == plain_summary(whole)


def test_the_log_has_a_line_for_every_step_counted_in_images(tmp_path: Path) -> None:
    trained = train(CONFIG, fresh(), loss_of_step, tmp_path, ema_half_life_images=None)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert [line["num_images"] for line in lines] == list(range(4, 44, 4))
    assert all(set(line) == {"step", "num_images", "loss", "learning_rate", "grad_norm"} for line in lines)
    assert trained.ema is None
    assert (trained.num_steps, trained.num_images) == (10, 40)
    assert trained.final_loss == lines[-1]["loss"]


def test_progress_and_checkpoints_are_told_in_images(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    kept: list[int] = []
    train(CONFIG.model_copy(update={"num_images": 38}), fresh(), loss_of_step, tmp_path, ema_half_life_images=None,
          progress=lambda done, total, line: told.append((done, total)), at_checkpoint=lambda weights, num_images: kept.append(num_images))
    assert told[0] == (4, 38)
    assert told[-1] == (38, 38)
    assert kept == [12, 24, 36]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path, value: float) -> None:
    def diverging(model: nn.Module, step: int, share: Share) -> Tensor:
        return loss_of_step(model, step, share) * (value if step == 2 else 1)

    with pytest.raises(TrainingError, match=r"at step 3 \(12 images\): training has diverged; lower learning_rate"):
        train(CONFIG, fresh(), diverging, tmp_path, ema_half_life_images=None)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_training_that_diverges_names_the_images_of_the_step_and_writes_them_down(tmp_path: Path) -> None:
    def diverging(model: nn.Module, step: int, share: Share) -> Tensor:
        return loss_of_step(model, step, share) * (math.nan if step == 2 else 1)

    told = r"at step 3 .12 images.*: training has diverged.* Its 8 images are named in .*diverged\.json \(the first: 2-0, 2-1, 2-2, 2-3, 2-4\)"
    with pytest.raises(TrainingError, match=told):
        train(CONFIG, fresh(), diverging, tmp_path, ema_half_life_images=None,
              keys_of_step=lambda step: [f"{step}-{number}" for number in range(8)])
    written = json.loads((tmp_path / CHECKPOINTS / "diverged.json").read_text())
    assert (written["step"], written["keys"]) == (3, [f"2-{number}" for number in range(8)])
    assert "loss is nan" in written["error"]


def test_a_gradient_that_is_not_finite_stops_the_training_before_it_reaches_the_weights(tmp_path: Path) -> None:
    def infinite_slope(model: nn.Module, step: int, share: Share) -> Tensor:
        weight = next(model.parameters())
        return loss_of_step(model, step, share) + (weight - weight.detach()).sum().sqrt()  # zero, with a vertical tangent

    model = fresh()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(TrainingError, match=r"its gradient's norm (nan|inf) at step 1"):
        train(CONFIG, model, infinite_slope, tmp_path, ema_half_life_images=None)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_models_of_different_precision_train_in_one_process(tmp_path: Path) -> None:
    dtypes: dict[str, set[torch.dtype]] = {"bfloat16": set(), "float32": set()}
    for precision in ("bfloat16", "float32"):

        def loss(model: nn.Module, step: int, share: Share, seen: set[torch.dtype] = dtypes[precision]) -> Tensor:
            output = model(torch.ones(4, 2))
            seen.add(output.dtype)
            return output.float().square().mean()

        model = fresh()
        train(CONFIG.model_copy(update={"precision": precision}), model, loss, tmp_path / precision, ema_half_life_images=None)
        assert model(torch.ones(1, 2)).dtype == torch.float32
    assert dtypes == {"bfloat16": {torch.bfloat16}, "float32": {torch.float32}}


def stop_after(number: int) -> Progress:
    def stop(done: int, total: int, line: str) -> None:
        if done == number:
            raise Stopped
    return stop


def test_a_training_keeps_the_precision_and_the_threads_it_began_with(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="glideslope")
    seen: list[tuple[torch.dtype, int]] = []

    def loss(model: nn.Module, step: int, share: Share) -> Tensor:
        output = model(torch.ones(4, 2))
        seen.append((output.dtype, torch.get_num_threads()))
        return output.float().square().mean()

    config = CONFIG.model_copy(update={"precision": "auto"})
    monkeypatch.setattr(training, "choose_precision", lambda asked, device: "bfloat16")
    before = torch.get_num_threads()
    with threads(before + 1), pytest.raises(Stopped):
        train(config, fresh(), loss, tmp_path, ema_half_life_images=None, progress=stop_after(16))
    monkeypatch.setattr(training, "choose_precision", lambda asked, device: "float32")
    monkeypatch.setattr(training, "instruction_set", lambda: "another kind")
    trained = train(config, fresh(), loss, tmp_path, ema_half_life_images=None)
    assert torch.get_num_threads() == before
    assert set(seen) == {(torch.bfloat16, before + 1)}
    assert (trained.computing.precision, trained.computing.num_threads) == ("bfloat16", before + 1)
    assert [kind.split()[1] for kind in trained.computing.processors][1:] == ["another"]
    assert f"training goes on with {before + 1} threads, as it began; this process has {before}" in caplog.text
    assert "training began on another kind of processor and goes on in bfloat16" in caplog.text


@pytest.mark.parametrize("text", ["", '{"precision": "float32"}',
                                  '{"precision": "float32", "num_threads": "x", "num_processes": 1, "processors": []}'])
def test_a_training_whose_beginning_cannot_be_read_is_refused_with_a_way_out_that_loses_nothing(tmp_path: Path, text: str) -> None:
    with pytest.raises(Stopped):
        train(CONFIG, fresh(), loss_of_step, tmp_path, ema_half_life_images=None, progress=stop_after(28))
    write_bytes(tmp_path / CHECKPOINTS / COMPUTING_NAME, text.encode())
    with pytest.raises(CheckpointError, match=rf"{COMPUTING_NAME}: malformed.* Remove this one file, and it goes on from its newest"):
        train(CONFIG, fresh(), loss_of_step, tmp_path, ema_half_life_images=None)
    (tmp_path / CHECKPOINTS / COMPUTING_NAME).unlink()
    told: list[int] = []
    train(CONFIG, fresh(), loss_of_step, tmp_path, ema_half_life_images=None, progress=lambda done, total, line: told.append(done))
    assert told == [28, 32, 36, 40]


def test_a_training_that_began_in_bfloat16_says_what_that_costs_where_it_goes_on(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    config = CONFIG.model_copy(update={"precision": "auto"})
    monkeypatch.setattr(training, "choose_precision", lambda asked, device: "bfloat16")
    with pytest.raises(Stopped):
        train(config, fresh(), lambda model, step, share: model(torch.ones(4, 2)).float().square().mean(), tmp_path, ema_half_life_images=None,
              progress=stop_after(16))
    caplog.clear()
    monkeypatch.setattr(processor, "half_factor", lambda dtype: 14.0)
    train(config, fresh(), lambda model, step, share: model(torch.ones(4, 2)).float().square().mean(), tmp_path, ema_half_life_images=None)
    assert "it takes 14.0 times as long as float32; use precision: float32, with which the training begins anew" in caplog.text


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, 10**7))
def test_two_seeds_never_draw_the_same_in_a_step(first: int, second: int, step: int) -> None:
    drawn = []
    for seed in (first, second):
        seed_step(seed, step)
        drawn.append(torch.randn(8))
    assert torch.equal(*drawn) is (first == second)


def test_the_learning_rate_rises_linearly_and_falls_to_zero() -> None:
    config = TrainingConfig(num_images=1000, batch_size=10, learning_rate=1.0, warmup_images=100)
    rates = [learning_rate(config, n) for n in range(0, 1001, 10)]
    assert math.isclose(rates[0], 0.1, rel_tol=1e-9)
    assert rates[9] == max(rates)
    assert all(a > b for a, b in pairwise(rates[9:]))
    assert math.isclose(rates[-1], 0, abs_tol=1e-12)


@given(st.integers(1, 256), st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_average_forgets_half_over_its_half_life(batch_size: int, num_images: int, half_life: int) -> None:
    decay = average_decay(batch_size, num_images, half_life)
    assert 0 <= decay < 1
    if half_life <= num_images / 10:
        assert math.isclose(decay ** (half_life / batch_size), 0.5, rel_tol=1e-6)


def test_the_average_moves_towards_the_weights_by_the_share_it_forgets() -> None:
    model = nn.Linear(1, 1)
    ema = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    update_average(ema, model, decay=0.75)
    assert all(torch.allclose(ema[name], 0.25 * value) for name, value in model.state_dict().items())


def test_the_final_loss_is_the_mean_over_the_last_tenth(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(metrics_line(i + 1, i, {"loss": float(i)}) + "\n" for i in range(30)))
    assert mean_final_loss(path) == 28


def test_the_progress_line_tells_loss_rate_and_time_left() -> None:
    assert describe_rate(0.5, 100, 0.0, 0).startswith("loss 0.5000, ")
    assert describe_rate(0.5, 100, 0.0, 0).endswith("images/s, 0:00 left")
