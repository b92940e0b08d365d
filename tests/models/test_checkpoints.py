from pathlib import Path

import pytest
import torch
from torch import nn

from glideslope.errors import CheckpointError, StorageError
from glideslope.models.checkpoints import (
    MetricsLog,
    latest_checkpoint,
    load_tensors,
    remove_checkpoints,
    restore_checkpoint,
    save_checkpoint,
    save_tensors,
)


def small_training(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.99))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> list[float]:
    losses = []
    for number in numbers:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(number))
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_goes_on_bit_for_bit_from_a_checkpoint(tmp_path: Path) -> None:
    model, optimizer = small_training(0)
    ema = {name: value + 1 for name, value in model.state_dict().items()}
    steps(model, optimizer, range(5))
    save_checkpoint(tmp_path, num_steps=5, model=model, optimizer=optimizer, ema=ema)
    expected = steps(model, optimizer, range(5, 12))

    other_model, other_optimizer = small_training(1)
    other_ema = {name: torch.zeros_like(value) for name, value in ema.items()}
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert restore_checkpoint(checkpoint, other_model, other_optimizer, other_ema) == 5
    assert all(torch.equal(other_ema[name], ema[name]) for name in ema)
    assert steps(other_model, other_optimizer, range(5, 12)) == expected


def test_only_the_newest_whole_checkpoint_stays_and_counts(tmp_path: Path) -> None:
    model, optimizer = small_training(0)
    assert latest_checkpoint(tmp_path) is None
    for num_steps in (9, 10):
        save_checkpoint(tmp_path, num_steps=num_steps, model=model, optimizer=optimizer, ema=None)
    (tmp_path / "step-00000011.partial").mkdir()
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000010"
    assert not (tmp_path / "step-00000009").exists()
    save_checkpoint(tmp_path, num_steps=11, model=model, optimizer=optimizer, ema=None)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000011"]
    remove_checkpoints(tmp_path)
    remove_checkpoints(tmp_path)
    assert not tmp_path.exists()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    model, optimizer = small_training(0)
    save_checkpoint(tmp_path, num_steps=1, model=model, optimizer=optimizer, ema=None)
    other = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
    with pytest.raises(CheckpointError, match="step-00000001: weights do not fit the model"):
        restore_checkpoint(tmp_path / "step-00000001", other, torch.optim.AdamW(other.parameters()), None)


def test_equal_tensors_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).view(2, 3).T, "a": torch.ones(2, dtype=torch.bfloat16)}
    save_tensors(tmp_path / "one.safetensors", tensors)
    save_tensors(tmp_path / "two.safetensors", dict(reversed(tensors.items())))
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    loaded = load_tensors(tmp_path / "one.safetensors")
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_unreadable_weights_are_refused_with_their_path(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable safetensors file"):
        load_tensors(path)
    save_tensors(path, {"a": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable safetensors file"):
        load_tensors(path)


def test_weights_that_cannot_be_written_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        save_tensors(tmp_path / "file" / "model.safetensors", {"a": torch.ones(1)})


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("one\ntwo\nthr")
    with MetricsLog(path, 2) as metrics:
        metrics.append("three")
    assert path.read_text() == "one\ntwo\nthree\n"
    with MetricsLog(path, 0) as metrics:
        metrics.append("again")
    assert path.read_text() == "again\n"


def test_a_log_shorter_than_its_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="0 lines, but the checkpoint has 3 steps; remove the partial directory"):
        MetricsLog(tmp_path / "metrics.jsonl", 3)
