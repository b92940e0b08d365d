"""Load a network of an export: its configuration, then its weights straight into place."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from ....errors import CheckpointError

STEM = "diffusion_pytorch_model"
INFIXES = {torch.float16: ".fp16", torch.bfloat16: ".bf16"}


def load_network(network: Any, config: Any, directory: str | Path, dtype: torch.dtype | None) -> nn.Module:
    """Build a network from config.json and load its weights; a missing or unknown tensor is an error.

    Args:
        network: its class.
        config: the class of its configuration.
        directory: holds config.json and the weights.
        dtype: of the weights; none keeps what is stored.

    Raises:
        CheckpointError: no configuration or no weights are there.
        RuntimeError: weights that do not fit.
    """
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{path}: is not there; download the whole export")
    value = json.loads(path.read_text(encoding="utf-8"))
    fields = {key: field for key, field in value.items() if not key.startswith("_")}
    with torch.device("meta"):
        model: nn.Module = network(config(**fields))
    # Copied out of the file's map, where they lie anyhow: products of aligned tensors round as glideslope's do.
    tensors = {name: tensor.to(dtype or tensor.dtype, copy=True) for name, tensor in read_tensors(Path(directory), dtype).items()}
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def read_tensors(directory: Path, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """The weights in the files of the wanted type, else as trained, else of any type: smaller copies are exact casts.

    Raises:
        CheckpointError: none of them is there.
    """
    wanted = [INFIXES[dtype]] if dtype in INFIXES else []
    for infix in (*wanted, "", *INFIXES.values()):
        index = directory / f"{STEM}.safetensors.index{infix}.json"
        single = directory / f"{STEM}{infix}.safetensors"
        if single.is_file():
            return dict(load_file(single))
        if index.is_file():
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return {name: tensor for file in sorted(set(weight_map.values()))
                    for name, tensor in load_file(directory / Path(file).name).items()}
    raise CheckpointError(f"{directory}: holds no {STEM}.safetensors; download the whole export")
