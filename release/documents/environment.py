"""evidence/environment.json: with which versions on what class of machine each stage ran, and what that can have cost in energy.

Only what a reader can use is taken from the stages' records: no names of machines, no paths, no times of day.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ...store.run_layout import training_stage
from ..evidence.contents import Release
from .plain_json import json_text
from .record_environment import describe

ENVIRONMENT_PATH = "evidence/environment.json"
FORMAT = "glideslope.environment/1"
JOULES_PER_KWH = 3_600_000
# Largest power of a whole accelerator board in watts, as its maker's data sheet states it (NVIDIA: "max thermal design power").
# A name that CUDA reports must begin with one of these; the longest one that fits counts.
BOARD_WATTS: Mapping[str, int] = MappingProxyType({
    "NVIDIA B200": 1000, "NVIDIA H200": 700, "NVIDIA H100 80GB HBM3": 700, "NVIDIA H100 PCIe": 350, "NVIDIA A100-SXM4-40GB": 400,
    "NVIDIA A100-SXM4-80GB": 400, "NVIDIA A100-PCIE-40GB": 250, "NVIDIA A100 80GB PCIe": 300, "NVIDIA A40": 300, "NVIDIA A10G": 300,
    "NVIDIA A10": 150, "NVIDIA L40S": 350, "NVIDIA L40": 300, "NVIDIA L4": 72, "Tesla V100-SXM2": 300, "Tesla V100-PCIE": 250, "Tesla T4": 70,
    "NVIDIA RTX A6000": 300, "NVIDIA GeForce RTX 3090": 350, "NVIDIA GeForce RTX 4090": 450, "NVIDIA GeForce RTX 5090": 575})


def environment_text(release: Release) -> str:
    """The text of evidence/environment.json, from the records of the stages."""
    stages = [{"stage": stage} | describe(record) for stage, record in sorted(release.records.items())]
    versions: dict[str, set[str]] = {}
    for stage in stages:
        for package, version in stage["versions"].items():
            versions.setdefault(package, set()).add(version)
    return json_text({"format": FORMAT, "versions": {package: sorted(found) for package, found in sorted(versions.items())},
                      "stages": stages, "energy": energy_claims(release)["cost.energy"]})


def bound_energy(release: Release, model: str) -> dict[str, Any]:
    """What training one model can have taken at most: measured time times the board's largest power, where that is known.

    The bound is on the accelerator alone; what the rest of the machine, its cooling and its supply took was not measured.

    Returns:
        model, seconds, device_name, watts and kwh_upper_bound; the last two None where the power of the device is not known.
    """
    record, rows = release.record(training_stage(model)), release.metrics(model)
    rate = record.environment.get("images_per_second")
    seconds = rows[-1]["num_images"] / rate if rows and rate else None
    name = record.environment.get("device_name")
    watts = board_watts(name)
    bound = None if seconds is None or watts is None else round(seconds * watts / JOULES_PER_KWH, 6)
    return {"model": model, "seconds": None if seconds is None else round(seconds, 1), "device_name": name, "watts": watts,
            "kwh_upper_bound": bound}


def energy_claims(release: Release) -> dict[str, Any]:
    """The claim `cost.energy`: for each trained model the bound on its energy; see `bound_energy`."""
    return {"cost.energy": [bound_energy(release, model) for model in release.trained_networks]}


def board_watts(device_name: str | None) -> int | None:
    """Largest power of an accelerator's board in watts, or none where it is not known (a CPU, say)."""
    fitting = [name for name in BOARD_WATTS if device_name is not None and device_name.startswith(name)]
    return BOARD_WATTS[max(fitting, key=len)] if fitting else None
