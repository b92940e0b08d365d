from pathlib import Path

import pytest
import torch
from torch import nn

from glideslope.errors import CheckpointError, StorageError
from glideslope.models.training.checkpoints import (
    MetricsLog,
    latest_checkpoint,
    list_checkpoints,
    load_tensors,
    restore_checkpoint,
    save_checkpoint,
    save_tensors,
)
from glideslope.store.whole_files import write_bytes


def small_training(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.99))


def save(directory: Path, num_steps: int, ema: dict[str, torch.Tensor] | None = None) -> tuple[nn.Module, torch.optim.Optimizer]:
    model, optimizer = small_training(0)
    metrics = directory / "metrics.jsonl"
    write_bytes(metrics, b"".join(b"line %d\n" % number for number in range(num_steps)))
    save_checkpoint(directory, num_steps=num_steps, model=model, optimizer=optimizer, ema=ema, metrics=metrics)
    return model, optimizer


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
    write_bytes(tmp_path / "metrics.jsonl", b"")
    save_checkpoint(tmp_path, num_steps=5, model=model, optimizer=optimizer, ema=ema, metrics=tmp_path / "metrics.jsonl")
    expected = steps(model, optimizer, range(5, 12))

    other_model, other_optimizer = small_training(1)
    other_ema = {name: torch.zeros_like(value) for name, value in ema.items()}
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert restore_checkpoint(checkpoint, other_model, other_optimizer, other_ema) == 5
    assert all(torch.equal(other_ema[name], ema[name]) for name in ema)
    assert steps(other_model, other_optimizer, range(5, 12)) == expected


def test_the_newest_two_checkpoints_stay(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for num_steps in (8, 9, 10):
        save(tmp_path, num_steps)
    (tmp_path / "step-00000011.partial").mkdir()
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000010"
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000009", "step-00000010"]
    assert list(tmp_path.rglob("*.tmp")) == []


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "ema.safetensors", "metrics.jsonl", "state.json"])
@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "missing", "longer"])
def test_the_checkpoint_before_serves_where_any_file_of_the_newest_is_damaged(tmp_path: Path, name: str, damage: str,
                                                                              caplog: pytest.LogCaptureFixture) -> None:
    ema = {"a": torch.ones(3)}
    for num_steps in (9, 10):
        save(tmp_path, num_steps, ema)
    path = tmp_path / "step-00000010" / name
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": data[:-3], "zeros": bytes(len(data)), "missing": b"", "longer": data + b"x"}[damage])
    if damage == "missing":
        path.unlink()
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000009"
    assert f"{name} is missing or damaged; training goes on from the checkpoint before it" in caplog.text
    save(tmp_path, 10, ema)  # training comes by again
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000010"


def test_a_damaged_checkpoint_of_later_steps_makes_way(tmp_path: Path) -> None:
    for num_steps in (9, 20):
        save(tmp_path, num_steps)
    (tmp_path / "step-00000020" / "state.json").unlink()
    save(tmp_path, 12)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000009", "step-00000012"]


def test_without_a_whole_checkpoint_training_begins_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 9)
    (tmp_path / "step-00000009" / "state.json").write_text('{"num_steps": 9}')
    assert latest_checkpoint(tmp_path) is None
    assert "or from the start where there is none" in caplog.text


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
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


def test_the_log_begins_with_the_lines_of_the_checkpoint_whatever_became_of_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for later in (b"line 0\nline 1\nline 2\nlin", b"line 0\n", b""):
        save(tmp_path, 2)
        path.write_bytes(later)
        with MetricsLog(path, tmp_path / "step-00000002") as metrics:
            metrics.append("more")
        assert path.read_text() == "line 0\nline 1\nmore\n"
    with MetricsLog(path, None) as metrics:
        metrics.append("again")
    assert path.read_text() == "again\n"
