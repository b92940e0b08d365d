"""Training state on disk, safetensors and JSON only, so that a killed run goes on as if it had not been killed.

A checkpoint is whole or not there: it holds weights, optimiser, average, the log so far, and the digest of each file. Two are
kept, so that the one before serves where a power cut or a bad disk damaged the newest.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ...errors import CheckpointError, StageError, StorageError
from ...store.digests import sha256_file
from ...store.whole_files import read_json, sync_directory, write_bytes, write_json

STATE_NAME = "state.json"
METRICS = "metrics.jsonl"
CHECKPOINT_FORMAT = "glideslope.checkpoint/2"
NUM_KEPT = 2

log = logging.getLogger(__name__)


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
                    ema: Mapping[str, Tensor] | None, metrics: Path) -> None:
    """Write `step-<n>` whole or not at all, a copy of the log included; the one before stays, older ones are removed.

    Raises:
        StorageError: it cannot be written, or the disk is full; what was written of it is removed.
    """
    target = directory / f"step-{num_steps:08d}"
    beside = target.with_name(target.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        save_tensors(beside / "model.safetensors", model.state_dict())
        save_tensors(beside / "optimizer.safetensors", optimizer_tensors(model, optimizer))
        if ema is not None:
            save_tensors(beside / "ema.safetensors", ema)
        write_bytes(beside / METRICS, metrics.read_bytes())
        digests = {path.name: sha256_file(path) for path in sorted(beside.iterdir())}
        write_json(beside / STATE_NAME, {"format": CHECKPOINT_FORMAT, "num_steps": num_steps, "files": digests})
    except StorageError:
        shutil.rmtree(beside, ignore_errors=True)  # room for whoever has none
        raise
    shutil.rmtree(target, ignore_errors=True)  # a damaged one that was passed over
    beside.rename(target)
    sync_directory(directory)
    kept = [path for path in list_checkpoints(directory) if path <= target][-NUM_KEPT:]
    for other in set(list_checkpoints(directory)) - set(kept):
        shutil.rmtree(other)


def list_checkpoints(directory: Path) -> list[Path]:
    """Every checkpoint that got its name, oldest first."""
    return sorted(path for path in directory.glob("step-*") if not path.name.endswith(".partial"))


def latest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint whose files are what was written, or none; a damaged one is named and passed over."""
    for path in reversed(list_checkpoints(directory)):
        problem = find_damage(path)
        if problem is None:
            return path
        log.warning("%s: %s; training goes on from the checkpoint before it, or from the start where there is none", path, problem)
    return None


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files, or none."""
    try:
        state = read_json(checkpoint / STATE_NAME)
        digests = dict(state["files"]) if state["format"] == CHECKPOINT_FORMAT else {}
    except (StageError, KeyError, TypeError, ValueError):
        return f"{STATE_NAME} is missing or damaged"
    if not digests:
        return f"its format is {state['format']!r:.40}, expected {CHECKPOINT_FORMAT!r}"
    damaged = [name for name, digest in digests.items() if not (checkpoint / name).is_file() or sha256_file(checkpoint / name) != digest]
    return f"{', '.join(damaged)} is missing or damaged" if damaged else None


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
        state[key] = tensor.to(parameters[name].device)


class MetricsLog:
    """metrics.jsonl: one line per step, put back to what the checkpoint holds when a run resumes."""

    def __init__(self, path: Path, checkpoint: Path | None) -> None:
        """Begin with the lines of a checkpoint, or with none."""
        write_bytes(path, b"" if checkpoint is None else (checkpoint / METRICS).read_bytes())
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
