"""The class of every network that a release may hold: its configuration, and the network built without storage.

Which components there are says `recipe.components`. A class is looked up in a fixed table; nothing named in a file is ever imported.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn
from torch.overrides import TorchFunctionMode

from ...errors import CheckpointError
from ...recipe.components import FORMAT_VERSION
from ...recipe.strict_model import StrictModel, describe_problem
from .noised_clip import NoisedClip, NoisedClipConfig
from .unet import TextConditionedUNet, UNetConfig

CLASSES: Mapping[str, tuple[type[StrictModel], type[nn.Module]]] = {
    "TextConditionedUNet": (UNetConfig, TextConditionedUNet),
    "NoisedClip": (NoisedClipConfig, NoisedClip),
}


def component_config(model: TextConditionedUNet | NoisedClip) -> dict[str, Any]:
    """What config.json of a network holds."""
    return describe_config(type(model).__name__, model.config)


def describe_config(class_name: str, config: StrictModel) -> dict[str, Any]:
    """What config.json of a network of this class and architecture holds."""
    return {"_class_name": class_name, "_format_version": FORMAT_VERSION, **config.model_dump(mode="json")}


def parse_component_config(value: Mapping[str, Any], *, where: str) -> tuple[str, StrictModel]:
    """Check the content of a config.json.

    Returns:
        The class name and the architecture.

    Raises:
        CheckpointError: an unknown class, an unknown key or an impossible value.
    """
    if value.get("_class_name") not in tuple(CLASSES):
        raise CheckpointError(f"{where}: _class_name is {value.get('_class_name')!r:.80}, expected one of {', '.join(CLASSES)}")
    if value.get("_format_version") != FORMAT_VERSION:
        raise CheckpointError(f"{where}: _format_version is {value.get('_format_version')!r}, this glideslope reads {FORMAT_VERSION}")
    fields = {key: field for key, field in value.items() if key not in ("_class_name", "_format_version")}
    try:
        return value["_class_name"], CLASSES[value["_class_name"]][0].model_validate(fields)
    except ValidationError as error:
        raise CheckpointError(f"{where}: " + "; ".join(describe_problem(p) for p in error.errors())) from error


class _Unfilled(TorchFunctionMode):
    """Draws no random numbers and scales none: to do so without storage would load half of torch's compiler (1 to 3 s)."""

    FILLS = frozenset({"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"})
    SCALES = frozenset({"mul", "__mul__", "__rmul__"})

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Return the tensor that was to be filled, an empty one for a drawn one; run anything else."""
        name = getattr(func, "__name__", "")
        if name in self.FILLS:
            return (kwargs or {}).get("tensor", args[0] if args else None)
        if name in ("randn", "rand"):
            return torch.empty(*args, **(kwargs or {}))
        if name in self.SCALES and isinstance(args[1], int | float):
            return args[0]
        return func(*args, **(kwargs or {}))


def build_on_meta(class_name: str, config: StrictModel) -> nn.Module:
    """The network without storage, to know names and shapes."""
    with torch.device("meta"), _Unfilled():
        return CLASSES[class_name][1](config)


@lru_cache(maxsize=32)
def expected_tensors(class_name: str, config: StrictModel) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of the weights an architecture has."""
    return {name: tuple(tensor.shape) for name, tensor in build_on_meta(class_name, config).state_dict().items()}
