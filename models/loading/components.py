"""Strict loading: configuration checked, shapes compared before anything is allocated, no code and no pickle.

A network is a directory with config.json and its weights, in one file or in shards (see `weight_files`). Its class is
looked up in a fixed table (see `networks.components`); nothing named in a file is ever imported.

What is read can be held against digests of a manifest. A small file is read once: the bytes that are hashed are the bytes
that are parsed. Weights are hashed again as they are read into place (see `weights`).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ...device.torch_state import PlainTorch
from ...errors import CheckpointError
from ...recipe.components import (
    COMPONENTS,
    CONFIG_NAME,
    FORMAT_VERSION,
    INDEX_FORMAT,
    Scheduler,
    required_components,
)
from ...recipe.strict_model import StrictModel
from ...recipe.training import NUM_TRAIN_STEPS
from ...store.weight_files import VARIANTS, TensorHeader, WeightFiles, find_weights, read_header, weights_name
from ...trust.checked_bytes import Digests, read_object
from ..diffusion.process import PREDICTION_TYPES, SCHEDULES, NoiseSchedule
from ..networks.components import build_on_meta, parse_component_config
from .weights import DTYPES, WeightTarget, read_weights

WEIGHTS_NAME = weights_name()
WEIGHT_DTYPES = tuple(DTYPES)


def read_index(path: Path, digests: Digests | None = None) -> frozenset[str]:
    """Read model_index.json: which components a release has.

    Raises:
        CheckpointError: not of this format, a component is missing or unknown, or one names another class.
    """
    value = read_object(path, digests)
    if value.get("_format") != INDEX_FORMAT or value.get("_format_version") != FORMAT_VERSION:
        raise CheckpointError(f"{path}: _format is {value.get('_format')!r} in version {value.get('_format_version')!r}; expected "
                              f"{INDEX_FORMAT!r} in version {FORMAT_VERSION}: this is not a release that this glideslope reads")
    held = {key: entry for key, entry in value.items() if not key.startswith("_")}
    problems = [f"{name} is missing" for name in required_components(held) if name not in held]
    problems += [f"{name} is unknown" for name in held if name not in COMPONENTS]
    problems += [f"{name} is {held[name]!r:.80}, expected {[INDEX_FORMAT, row.class_name]}"
                 for name, row in COMPONENTS.items() if name in held and held[name] != [INDEX_FORMAT, row.class_name]]
    if problems:
        raise CheckpointError(f"{path}: {'; '.join(problems)}")
    return frozenset(held)


def read_schedule(path: Path, digests: Digests | None = None) -> NoiseSchedule:
    """Read scheduler_config.json: the noise schedule, and what its networks predict.

    Raises:
        CheckpointError: malformed, or a process that this glideslope does not know.
    """
    value = read_object(path, digests)
    expected = {"_class_name": Scheduler.class_name, "_format_version": FORMAT_VERSION, "num_train_timesteps": NUM_TRAIN_STEPS}
    choices: dict[str, tuple[str, ...]] = {"schedule": SCHEDULES, "prediction_type": PREDICTION_TYPES}
    fixed = {key: entry for key, entry in value.items() if key not in choices}
    if fixed != expected or any(value.get(key) not in allowed for key, allowed in choices.items()):
        raise CheckpointError(f"{path}: got {value!r:.200}, expected {expected} and "
                              + " and ".join(f"as {key} one of {', '.join(allowed)}" for key, allowed in choices.items()))
    return NoiseSchedule(value["schedule"], value["prediction_type"])


def read_component_config(path: Path, digests: Digests | None = None) -> tuple[str, StrictModel]:
    """Read and check a config.json.

    Returns:
        The class name and the architecture.

    Raises:
        CheckpointError: missing, too large, not JSON, an unknown class, an unknown key or an impossible value.
    """
    return parse_component_config(read_object(path, digests), where=str(path))


def tensor_problems(expected: Mapping[str, tuple[int, ...]], headers: Mapping[str, TensorHeader], variant: str | None = None) -> list[str]:
    """Compare headers with an architecture: one sentence per missing, unknown or unfit tensor."""
    dtypes = WEIGHT_DTYPES if variant is None else tuple(name for name, dtype in DTYPES.items() if str(dtype) == f"torch.{VARIANTS[variant]}")
    problems = [f"tensor {name} is missing" for name in expected if name not in headers]
    problems += [f"tensor {name} is not in the architecture" for name in headers if name not in expected]
    problems += [f"tensor {name} has shape {list(headers[name].shape)}, expected {list(shape)}"
                 for name, shape in expected.items() if name in headers and headers[name].shape != shape]
    problems += [f"tensor {name} holds {header.dtype}, expected one of {', '.join(dtypes)}"
                 for name, header in headers.items() if header.dtype not in dtypes]
    return problems


@PlainTorch()
def load_component(directory: Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu",
                   variant: str | None = None, weights_name: str | None = None, digests: Digests | None = None) -> nn.Module:
    """Build a component and load its weights straight into place.

    Beside the weights themselves, this takes a few megabytes of memory, whatever type is asked for.

    Args:
        directory: holds config.json and the weights.
        dtype: of the weights; none keeps what is stored.
        device: where they go.
        variant: `fp16` or `bf16` takes the files of that variant; none those as trained. Neither stands in for the other.
        weights_name: a single file of that name instead; training directories hold `ema.safetensors` and `model.safetensors`.
        digests: what the files must fit.

    Raises:
        CheckpointError: the configuration is refused, a file is missing, odd or contradicts its index, or a tensor is missing,
            unknown, of another shape or type, or not finite.
        VerificationError: a file does not fit its digest.
    """
    class_name, config = read_component_config(directory / CONFIG_NAME, digests)
    if weights_name is None:
        files = find_weights(directory, variant)
    else:
        headers = read_header(directory / weights_name)
        files = WeightFiles((directory / weights_name,), None, dict.fromkeys(headers, directory / weights_name), headers)
    model = build_on_meta(class_name, config)
    problems = tensor_problems({name: tuple(t.shape) for name, t in model.state_dict().items()}, files.headers, variant)
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{files.index or files.files[0]}: does not fit {class_name}: {shown}")
    model.load_state_dict(read_weights(files, WeightTarget(dtype, torch.device(device)), digests), assign=True)
    return model.eval().requires_grad_(False)
