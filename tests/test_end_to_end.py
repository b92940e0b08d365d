"""The whole recipe on a small slice of OpenMoji, through the command line: undisturbed, killed, and used afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from glideslope.recipe.policy import built_in_text

pytestmark = pytest.mark.end_to_end

RECIPE = """
name: slice
policy: policy.yaml
source: {kind: openmoji, image_size: 64, limit: 160}
clip: {text_epochs: 2, text_batch_size: 64, batch_size: 16}
index: {shard_size: 32}
categories:
  - name: person
    counts: A human being or a part of one.
    target_recall: 0.9
  - name: violence
    counts: A weapon, blood, or a symbol of violent death.
    target_recall: 0.5
curate: {validation_share: 0.2}
base: {preset: glide-micro-16, num_images: 400, batch_size: 8, learning_rate: 1.0e-3, checkpoint_images: 40, sample_images: 200}
noised_clip: {preset: noised-clip-micro-16, num_images: 200, batch_size: 8, learning_rate: 1.0e-3}
evaluate: {num_pairs: 8, num_steps: 4}
release: {title: A slice}
"""
DEMANDS = {"recall": {"at_least": 0.01, "bound": 0.0}, "kept_share": {"at_least": 0.0}}
CHANGES = {"categories": {"person": DEMANDS, "violence": DEMANDS}, "captions": {"bound": 0.001}}
POLICY = json.dumps(yaml.safe_load(built_in_text()) | CHANGES)  # JSON is YAML without aliases
STAGES = ("index", "clip", *(f"{kind}/{name}" for name in ("person", "violence") for kind in ("classifiers", "scores", "filters")),
          "curated", "training/base", "training/noised_clip", "evaluation")


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command in a folder, in a process group of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.Popen([str(Path(sys.executable).with_name("glideslope")), *arguments], cwd=folder, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def command(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run the command to its end, check the exit code, and return what it printed."""
    process = start(folder, *arguments)
    printed, errors = process.communicate(timeout=400)
    assert process.returncode == code, f"{arguments}: exit code {process.returncode}\n{printed}\n{errors}"
    return printed if code == 0 else errors


def kill_when(folder: Path, reached: Callable[[], bool], *arguments: str) -> None:
    """Start the command, wait until a condition holds, and kill -9."""
    process = start(folder, *arguments)
    deadline = time.monotonic() + 300
    while not reached():
        assert process.poll() is None, f"ended before it could be killed: {process.communicate()}"
        assert time.monotonic() < deadline, "the condition was never reached"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the recipe was run once, undisturbed."""
    path = tmp_path_factory.mktemp("undisturbed")
    (path / "slice.yaml").write_text(RECIPE)
    (path / "policy.yaml").write_text(POLICY)
    report = json.loads(command(path, "run", "slice.yaml", "--json"))
    assert report["claims"]["ledger.num_seen"] == 160
    return path


def record(folder: Path, stage: str) -> dict[str, object]:
    """The record of a finished stage."""
    return dict(json.loads((folder / "runs" / "slice" / stage / "record.json").read_text()))


def test_the_run_ends_with_a_release_that_checks_and_verifies(folder: Path) -> None:
    release = "runs/slice/release"
    assert len(json.loads(command(folder, "check", release, "--json"))["gates"]) >= 6
    command(folder, "verify", release, "--json")
    card = (folder / release / "README.md").read_text()
    assert card.startswith("---\n") and "person" in card and "violence" in card


def test_every_input_has_a_ledger_row_and_the_counts_add_up(folder: Path) -> None:
    curated = json.loads((folder / "runs/slice/curated/curated.json").read_text())
    assert curated["seen"] == 160 == curated["kept"] + sum(curated["dropped"].values())
    assert sum(curated["splits"].values()) == curated["kept"]


def test_a_fresh_process_draws_the_same_pictures_from_the_release_with_and_without_clip_guidance(folder: Path) -> None:
    options = ("--num-images", "2", "--num-steps", "3", "--seed", "5")
    command(folder, "sample", "runs/slice/release", "red apple", *options, "--out", "one.png")
    command(folder, "sample", "runs/slice/release", "red apple", *options, "--out", "two.png")
    command(folder, "sample", "runs/slice/release", "red apple", *options, "--out", "guided.png", "--clip-guidance-scale", "50")
    one, two, guided = (Image.open(folder / name).tobytes() for name in ("one.png", "two.png", "guided.png"))
    assert one == two
    assert one != guided


def test_running_again_redoes_nothing(folder: Path) -> None:
    before = {stage: record(folder, stage) for stage in STAGES}
    command(folder, "run", "slice.yaml")
    assert {stage: record(folder, stage) for stage in STAGES} == before  # times included: no stage was run again


def test_a_changed_file_of_a_finished_stage_is_refused(folder: Path) -> None:
    path = folder / "runs/slice/curated/curated.json"
    original = path.read_bytes()
    path.write_bytes(original.replace(b'"seen": 160', b'"seen": 161'))
    try:
        message = command(folder, "run", "slice.yaml", code=1)
    finally:
        path.write_bytes(original)
    assert "curated.json" in message and "Traceback" not in message


def test_killed_while_indexing_and_while_training_the_run_ends_with_the_same_digests_and_losses(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "slice.yaml").write_text(RECIPE)
    (tmp_path / "policy.yaml").write_text(POLICY)
    run = tmp_path / "runs" / "slice"
    kill_when(tmp_path, lambda: len(list((run / "index.partial").glob("shard-*.parquet"))) >= 2, "index", "slice.yaml")
    assert not (run / "index").exists()
    kill_when(tmp_path, lambda: any((run / "training" / "base.partial" / "checkpoints").glob("step-????????")), "run", "slice.yaml")
    assert not (run / "training" / "base").exists()
    command(tmp_path, "run", "slice.yaml")
    for stage in STAGES:
        assert record(tmp_path, stage)["digest"] == record(folder, stage)["digest"], stage
    for name in ("base", "noised_clip"):
        metrics = f"runs/slice/training/{name}/metrics.jsonl"
        assert (tmp_path / metrics).read_bytes() == (folder / metrics).read_bytes()
    assert (run / "release" / "manifest.json").is_file()
