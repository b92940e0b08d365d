"""Strict loading: configuration checked, shapes compared before anything is allocated, no code and no pickle.

A component is a directory with config.json and diffusion_pytorch_model.safetensors. Its class is looked up in a fixed
table; nothing named in a file is ever imported.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from ..config import Part, describe_problem
from ..errors import CheckpointError
from .diffusion import NUM_TRAIN_TIMESTEPS, SCHEDULES
from .noised_clip import NoisedClip, NoisedClipConfig
from .unet import TextConditionedUNet, UNetConfig

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
FORMAT_VERSION = 1
INDEX_NAME = "model_index.json"
INDEX_FORMAT = "glideslope"
MAX_CONFIG_BYTES = 1_000_000
WEIGHT_DTYPES = ("F32", "F16", "BF16")

COMPONENTS: dict[str, tuple[type[Part], type[nn.Module]]] = {
    "TextConditionedUNet": (UNetConfig, TextConditionedUNet),
    "NoisedClip": (NoisedClipConfig, NoisedClip),
}
PARTS = {"base": "TextConditionedUNet", "upsampler": "TextConditionedUNet", "base_inpaint": "TextConditionedUNet",
         "upsampler_inpaint": "TextConditionedUNet", "noised_clip": "NoisedClip", "tokenizer": "CaptionTokenizer",
         "clip_tokenizer": "CaptionTokenizer", "scheduler": "GaussianDiffusion", "upsampler_scheduler": "GaussianDiffusion"}
REQUIRED_PARTS = frozenset({"base", "tokenizer", "scheduler"})
UPSAMPLERS = ("upsampler", "upsampler_inpaint")
OPTIONAL_MODELS = ("noised_clip", "upsampler", "base_inpaint", "upsampler_inpaint")


def component_config(model: TextConditionedUNet | NoisedClip) -> dict[str, Any]:
    """What config.json of a model holds."""
    return {"_class_name": type(model).__name__, "_format_version": FORMAT_VERSION, **model.config.model_dump(mode="json")}


def read_object(path: Path) -> dict[str, Any]:
    """Read a small JSON file that holds an object.

    Raises:
        CheckpointError: missing, too large, not JSON, or something else than an object.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes; a configuration has at most {MAX_CONFIG_BYTES}")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def read_index(path: Path) -> frozenset[str]:
    """Read model_index.json: which parts a release has.

    Raises:
        CheckpointError: not of this format, a part is missing or unknown, or one names another class.
    """
    value = read_object(path)
    if value.get("_format") != INDEX_FORMAT or value.get("_format_version") != FORMAT_VERSION:
        raise CheckpointError(f"{path}: _format is {value.get('_format')!r} in version {value.get('_format_version')!r}; expected "
                              f"{INDEX_FORMAT!r} in version {FORMAT_VERSION}: this is not a release that this glideslope reads")
    parts = {key: found for key, found in value.items() if not key.startswith("_")}
    required = REQUIRED_PARTS | ({"upsampler_scheduler"} if any(name in parts for name in UPSAMPLERS) else set())
    problems = [f"{key} is missing" for key in PARTS if key in required and key not in parts]
    problems += [f"{key} is unknown" for key in parts if key not in PARTS]
    problems += [f"{key} is {parts[key]!r:.80}, expected {[INDEX_FORMAT, name]}"
                 for key, name in PARTS.items() if key in parts and parts[key] != [INDEX_FORMAT, name]]
    if problems:
        raise CheckpointError(f"{path}: {'; '.join(problems)}")
    return frozenset(parts)


def read_schedule(path: Path) -> str:
    """Read scheduler_config.json: the name of the noise schedule.

    Raises:
        CheckpointError: malformed, or a process that this glideslope does not know.
    """
    value = read_object(path)
    expected = {"_class_name": PARTS["scheduler"], "_format_version": FORMAT_VERSION, "num_train_timesteps": NUM_TRAIN_TIMESTEPS}
    if {key: found for key, found in value.items() if key != "schedule"} != expected or value.get("schedule") not in SCHEDULES:
        raise CheckpointError(f"{path}: got {value!r:.200}, expected {expected} and as schedule one of {', '.join(SCHEDULES)}")
    return str(value["schedule"])


def read_component_config(path: Path) -> tuple[str, Part]:
    """Read and check a config.json.

    Returns:
        The class name and the architecture.

    Raises:
        CheckpointError: missing, too large, not JSON, an unknown class, an unknown key or an impossible value.
    """
    return parse_component_config(read_object(path), where=str(path))


def parse_component_config(value: Mapping[str, Any], *, where: str) -> tuple[str, Part]:
    """Check plain data as `read_component_config` does."""
    if value.get("_class_name") not in tuple(COMPONENTS):
        raise CheckpointError(f"{where}: _class_name is {value.get('_class_name')!r:.80}, expected one of {', '.join(COMPONENTS)}")
    if value.get("_format_version") != FORMAT_VERSION:
        raise CheckpointError(f"{where}: _format_version is {value.get('_format_version')!r}, this glideslope reads {FORMAT_VERSION}")
    fields = {key: field for key, field in value.items() if key not in ("_class_name", "_format_version")}
    try:
        return value["_class_name"], COMPONENTS[value["_class_name"]][0].model_validate(fields)
    except ValidationError as error:
        raise CheckpointError(f"{where}: " + "; ".join(describe_problem(p) for p in error.errors())) from error


def build_on_meta(class_name: str, config: Part) -> nn.Module:
    """The network without storage, to know names and shapes."""
    with torch.device("meta"):
        return COMPONENTS[class_name][1](config)


def expected_tensors(class_name: str, config: Part) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights an architecture has."""
    return {name: tuple(tensor.shape) for name, tensor in build_on_meta(class_name, config).state_dict().items()}


def tensor_problems(expected: Mapping[str, tuple[int, ...]], weights: Path) -> list[str]:
    """Compare a safetensors header with an architecture: one sentence per missing, unknown or unfit tensor."""
    try:
        with safe_open(weights, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            found = {name: tuple(part.get_shape()) for name, part in slices.items()}
            dtypes = {name: str(part.get_dtype()) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        return [f"{weights.name}: not a readable safetensors file ({error})"]
    problems = [f"tensor {name} is missing" for name in expected if name not in found]
    problems += [f"tensor {name} is not in the architecture" for name in found if name not in expected]
    problems += [f"tensor {name} has shape {list(found[name])}, expected {list(shape)}"
                 for name, shape in expected.items() if name in found and found[name] != shape]
    problems += [f"tensor {name} holds {dtype}, expected one of {', '.join(WEIGHT_DTYPES)}"
                 for name, dtype in dtypes.items() if dtype not in WEIGHT_DTYPES]
    return problems


def load_component(directory: Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu",
                   weights_name: str = WEIGHTS_NAME) -> nn.Module:
    """Build a component and load its weights straight into place.

    Args:
        directory: holds config.json and the weights.
        dtype: of the weights; none keeps what is stored.
        device: where they go.
        weights_name: the weights' file; training directories hold `ema.safetensors` and `model.safetensors`.

    Raises:
        CheckpointError: the configuration is refused, or a tensor is missing, unknown or of another shape.
    """
    class_name, config = read_component_config(directory / CONFIG_NAME)
    model = build_on_meta(class_name, config)
    weights = directory / weights_name
    problems = tensor_problems({name: tuple(t.shape) for name, t in model.state_dict().items()}, weights)
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{weights}: does not fit {class_name}: {shown}")
    with safe_open(weights, framework="pt", device=str(device)) as file:
        state = {name: file.get_tensor(name).to(dtype=dtype) for name in file.keys()}  # noqa: SIM118 (no mapping)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)
