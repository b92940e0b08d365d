"""Training state on disk, safetensors and JSON only, so that a killed run goes on as if it had not been killed."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..errors import CheckpointError
from ..manifest import read_json, write_bytes, write_json

STATE_NAME = "state.json"


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors whole or not at all, on the CPU, sorted by name, with one metadata key: equal tensors, equal bytes."""
    plain = {name: tensors[name].detach().to("cpu", copy=False).contiguous() for name in sorted(tensors)}
    write_bytes(path, save(plain, metadata={"format": "pt"}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: missing, or not a safetensors file.
    """
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def save_checkpoint(directory: Path, *, num_steps: int, model: nn.Module, optimizer: torch.optim.Optimizer,
                    ema: Mapping[str, Tensor] | None) -> None:
    """Write `step-<n>` whole or not at all and remove older ones."""
    target = directory / f"step-{num_steps:08d}"
    beside = target.with_name(target.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    save_tensors(beside / "model.safetensors", model.state_dict())
    save_tensors(beside / "optimizer.safetensors", optimizer_tensors(model, optimizer))
    if ema is not None:
        save_tensors(beside / "ema.safetensors", ema)
    write_json(beside / STATE_NAME, {"num_steps": num_steps})
    beside.rename(target)
    for old in directory.glob("step-*"):
        if old != target:
            shutil.rmtree(old)


def latest_checkpoint(directory: Path) -> Path | None:
    """The newest whole checkpoint, or none."""
    whole = [path for path in directory.glob("step-*") if not path.name.endswith(".partial")]
    return max(whole) if whole else None


def restore_checkpoint(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer,
                       ema: dict[str, Tensor] | None) -> int:
    """Load model, optimiser and average in place; returns the number of steps done.

    Raises:
        CheckpointError: a file is missing or does not fit the model.
    """
    try:
        model.load_state_dict(load_tensors(checkpoint / "model.safetensors"))
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint}: weights do not fit the model ({error})") from error
    restore_optimizer(model, optimizer, load_tensors(checkpoint / "optimizer.safetensors"))
    if ema is not None:
        for name, tensor in load_tensors(checkpoint / "ema.safetensors").items():
            ema[name].copy_(tensor)
    return int(read_json(checkpoint / STATE_NAME)["num_steps"])


def remove_checkpoints(directory: Path) -> None:
    """Checkpoints serve only a run that has not finished."""
    shutil.rmtree(directory, ignore_errors=True)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's state as tensors named `<moment>.<parameter>`."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = torch.as_tensor(value)
    return tensors


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`."""
    parameters = dict(model.named_parameters())
    for full_name, tensor in tensors.items():
        key, name = full_name.split(".", 1)
        state: dict[str, Any] = optimizer.state[parameters[name]]
        state[key] = tensor if key == "step" else tensor.to(parameters[name].device)


class MetricsLog:
    """metrics.jsonl: one line per step, cut back to the checkpoint when a run resumes."""

    def __init__(self, path: Path, num_steps: int) -> None:
        """Keep the first `num_steps` lines of an earlier attempt."""
        lines = path.read_bytes().splitlines(keepends=True)[:num_steps] if path.exists() else []
        if len(lines) < num_steps:
            raise CheckpointError(f"{path}: {len(lines)} lines, but the checkpoint has {num_steps} steps; remove the "
                                  "partial directory to train from the start")
        write_bytes(path, b"".join(lines))
        self.file = path.open("a", encoding="utf-8")

    def append(self, line: str) -> None:
        """Write one line."""
        self.file.write(line + "\n")

    def flush(self) -> None:
        """Hand the lines to the operating system; called before each checkpoint."""
        self.file.flush()

    def __enter__(self) -> "MetricsLog":
        """Use as a context, so that the file is closed even when training fails."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.file.close()
