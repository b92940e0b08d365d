import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from glideslope.release.documents.environment import BOARD_WATTS, board_watts, bound_energy
from glideslope.release.documents.record_environment import describe
from glideslope.release.evidence.contents import Release, open_unsealed
from glideslope.release.evidence.plan import record_path


def test_every_stage_is_there_with_versions_and_class_of_machine(release: Release, read: Any) -> None:
    value = read("evidence/environment.json")
    assert [row["stage"] for row in value["stages"]] == sorted(release.records)
    trained = next(row for row in value["stages"] if row["stage"] == "training/base")
    assert trained["device"] == "cpu" and trained["seconds"] == 754.2
    assert {"python", "torch", "glideslope"} <= trained["versions"].keys()
    assert all(versions == sorted(versions) for versions in value["versions"].values())


def test_whatever_else_a_record_says_of_its_environment_stays_out(release: Release) -> None:
    record = release.record("index")
    leaky = dataclasses.replace(record, environment={**record.environment, "host": "build-node-17", "cwd": "/home/anna", "started": "2026"})
    assert describe(leaky).keys() <= {"machine", "num_cores", "num_threads", "device", "device_name", "seconds", "versions"}


def test_energy_of_a_cpu_is_not_measured(release: Release, read: Any) -> None:
    assert [row["kwh_upper_bound"] for row in read("evidence/environment.json")["energy"]] == [None, None]
    assert bound_energy(release, "base") == {"model": "base", "seconds": 64.0, "device_name": None, "watts": None, "kwh_upper_bound": None}


def test_energy_of_a_known_accelerator_is_bounded_by_time_and_largest_power(packed_run: Path, tmp_path: Path, tamperer: Any) -> None:
    directory = Path(shutil.copytree(packed_run / "release", tmp_path / "release"))
    tamperer(directory).json(record_path("training/base"), lambda value: value["environment"].update(device_name="NVIDIA H100 80GB HBM3"))
    found = bound_energy(open_unsealed(directory), "base")
    assert found["watts"] == 700
    assert found["kwh_upper_bound"] == pytest.approx(60 * 32 / 30.0 * 700 / 3.6e6, abs=1e-6)


@pytest.mark.parametrize(("name", "watts"), [
    ("Tesla T4", 70), ("NVIDIA L4", 72), ("NVIDIA L40S", 350), ("NVIDIA A10G", 300), ("NVIDIA A10", 150), ("NVIDIA H100 PCIe", 350),
    ("cpu", None), ("Some GPU", None), (None, None)])
def test_power_is_that_of_the_longest_name_that_fits(name: str | None, watts: int | None) -> None:
    assert board_watts(name) == watts
    assert all(value > 0 for value in BOARD_WATTS.values())
