"""What `glideslope status` prints, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from glideslope.cli.main import app
from glideslope.cli.status import next_commands, table_of
from glideslope.data_filter.sources.kinds import read_source
from glideslope.recipe.load import load_recipe, parse_recipe
from glideslope.run import Run, Silent
from glideslope.run_status import StageStatus, State
from glideslope.store.whole_files import write_bytes

from ...data_filter.conftest import TinyClip, fill_folder, tiny_clip, write_labels

__all__ = ["tiny_clip"]  # a fixture


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["glideslope"])
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")


def call(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["status", *arguments], catch_exceptions=False)
    return ended.exit_code, ended.stdout


def test_a_run_of_your_own_images_goes_from_nothing_to_labels_and_says_each_next_command(
        tmp_path: Path, plain_recipe: dict[str, Any], tiny_clip: TinyClip) -> None:
    fill_folder(tmp_path / "images", 60)
    plain_recipe |= {"source": {"kind": "folder", "path": "images"}, "clip": {"model": "ViT-B-32", "pretrained": "openai"}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(plain_recipe))
    code, told = call("my.yaml")
    assert code == 3
    assert told.splitlines()[0].startswith("runs/small: 0 of ")
    assert told.splitlines()[-3:] == ["next: glideslope index my.yaml", "then: glideslope label my.yaml --import labels.csv",
                                      "then: glideslope run my.yaml"]
    run = Run(load_recipe(tmp_path / "my.yaml", read_source), tmp_path / "runs/small", Silent())
    run.index()
    assert "next: glideslope label my.yaml --import labels.csv" in call("my.yaml")[1]
    run.label(write_labels(tmp_path / "labels.csv", 60, category="person"))
    run.fit()
    code, told = call("my.yaml", "--json")
    value = json.loads(told)
    assert (code, value["is_done"], value["run"], value["directory"]) == (3, False, "small", "runs/small")
    assert value["next"] == ["glideslope run my.yaml"]
    states = {one["stage"]: one["state"] for one in value["stages"]}
    assert states["filters/person"] == "done" and states["curated"] == states["release"] == "missing"
    assert {one["stage"] for one in value["stages"] if one["state"] == "done" and not one["figures"]} <= {"clip"}


def test_what_cannot_be_read_as_a_recipe_is_refused_as_everywhere(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: [")
    assert CliRunner().invoke(app, ["status", "bad.yaml"]).exit_code == 1
    assert CliRunner().invoke(app, ["status"]).exit_code == 2


def done(*stages: str) -> list[StageStatus]:
    return [StageStatus(stage, "any", State.DONE) for stage in stages]


def test_a_finished_run_is_to_be_checked_signed_and_published(plain_recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = parse_recipe(plain_recipe, read_source, where="recipe")
    assert next_commands(done("release"), recipe, Path("runs/small"), ["r"]) == [
        "glideslope check runs/small/release", "glideslope sign runs/small/release --key KEY",
        "glideslope publish runs/small/release org/name --key KEY"]
    write_bytes(tmp_path / "runs/small/release/manifest.dsse.json", b"{}")
    assert len(next_commands(done("release"), recipe, Path("runs/small"), ["r"])) == 2, "it is signed"


def test_without_captions_the_filters_are_looked_at(plain_recipe: dict[str, Any]) -> None:
    plain_recipe["curate"] = {"captions": "optional"}
    recipe = parse_recipe(plain_recipe, read_source, where="recipe")
    left = [*done("index"), StageStatus("labels", "label", State.STALE), StageStatus("curated", "curate", State.MISSING)]
    assert next_commands(left, recipe, Path("runs/a b"), ["my recipe.yaml", "--runs-dir", "a b"]) == [
        "glideslope label 'my recipe.yaml' --runs-dir 'a b'", "glideslope curate 'my recipe.yaml' --runs-dir 'a b'"]
    assert next_commands(done("curated"), recipe, Path("runs/x"), ["r"]) == ["glideslope audit r", "glideslope filters report r"]


def test_the_table_has_a_mark_for_each_state() -> None:
    table = table_of([StageStatus(f"stage {state}", "any", state, "why") for state in State], title="runs/x")
    assert table.row_count == len(State)


def test_status_loads_no_library_that_takes_seconds(recipe_file: Path) -> None:
    program = f"""
import subprocess
import sys
from glideslope.cli.main import main
sys.argv = ["glideslope", "status", {str(recipe_file)!r}]
try:
    main()
except SystemExit as stop:
    assert stop.code == 3, stop.code
heavy = {{"torch", "sklearn", "scipy", "open_clip", "datasets", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
