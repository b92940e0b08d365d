"""Inputs and outputs of the published architecture on small configurations, with weights given by a formula."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from benchmarks.closed_form import closed_form, with_closed_form_weights

__all__ = ["FIXTURES", "case", "closed_form", "read_fixture", "with_closed_form_weights"]

FIXTURES = Path(__file__).parent / "fixtures"


def read_fixture(name: str) -> dict[str, Any]:
    return dict(json.loads((FIXTURES / name).read_text()))


def case(name: str) -> tuple[dict[str, Any], dict[str, Tensor], Tensor]:
    """Configuration, inputs by name, and the published output."""
    tensors = load_file(FIXTURES / f"{name}.safetensors")
    config = read_fixture("index.json")["cases"][name]["config"]
    config = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    return config, {key.removeprefix("input."): value for key, value in tensors.items() if key != "output"}, tensors["output"]
