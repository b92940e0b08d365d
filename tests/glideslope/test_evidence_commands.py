"""The commands mutate, report and diff."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from glideslope.cli.main import app
from glideslope.errors import GlideslopeError, StageError
from glideslope.store.records import run_stage
from glideslope.store.whole_files import write_json

RECIPE = """
name: small
source: {kind: folder, path: images}
categories: [{name: x, counts: everything that is x}]
base: {num_images: 1, learning_rate: 0.001}
noised_clip: {num_images: 1, learning_rate: 0.001}
"""


def write_run(root: Path, reasons: dict[str, str]) -> Path:
    def work(partial: Path) -> dict[str, int]:
        rows = [{"key": key, "sha256": "0", "reason": reason, "caption": f"a {key}", "score_x": 0.5} for key, reason in reasons.items()]
        (partial / "ledger").mkdir()
        pq.write_table(pa.Table.from_pylist(rows), partial / "ledger" / "shard-00000.parquet")
        write_json(partial / "curated.json", {"seen": len(rows), "categories": {}})
        return {}

    root.mkdir()
    (root / "recipe.yaml").write_text(RECIPE)
    run_stage(root / "curated", stage="curated", config={}, inputs={}, work=work)
    return root


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    return (str(write_run(tmp_path / "a", {"woman": "", "dog": ""})), str(write_run(tmp_path / "b", {"woman": "filter:x", "dog": ""})))


def refuse(*arguments: str) -> GlideslopeError:
    found = CliRunner().invoke(app, list(arguments)).exception
    assert isinstance(found, GlideslopeError)
    return found


def test_diff_says_what_leaves_why_and_whom_it_concerns(runs: tuple[str, str]) -> None:
    lines = CliRunner().invoke(app, ["filters", "diff", *runs]).stdout.splitlines()
    assert "kept: 2 before, 1 now: 0 enter, 1 leave" in lines
    assert "kept -> filter:x: 1" in lines
    assert "captions: woman: 0 enter, 1 leave, of 1" in lines


def test_diff_for_machines_is_one_json_object_with_nothing_beside_it(runs: tuple[str, str]) -> None:
    ended = CliRunner().invoke(app, ["filters", "diff", *runs, "--json"])
    assert json.loads(ended.stdout)["num_leaving"] == 1
    assert ended.stderr == ""


def test_diff_lists_the_images_in_a_file(runs: tuple[str, str], tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["filters", "diff", *runs, "--out", str(tmp_path / "list.csv")]).exit_code == 0
    assert (tmp_path / "list.csv").read_text().splitlines()[1].startswith("woman,leaves,,filter:x,a woman")


def test_diff_refuses_other_endings_and_directories_that_are_no_runs(runs: tuple[str, str], tmp_path: Path) -> None:
    assert isinstance(refuse("filters", "diff", *runs, "--out", str(tmp_path / "list.xls")), StageError)
    assert "no finished stage here" in str(refuse("filters", "diff", runs[0], str(tmp_path)))


@pytest.mark.parametrize("command", ["mutate", "report"])
def test_a_run_that_is_not_curated_yet_is_refused(command: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "dog.png").write_bytes(b"not read")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("path: images", f"path: {tmp_path / 'images'}"))
    assert "no finished stage here" in str(refuse("filters", command, str(tmp_path / "recipe.yaml"), "--runs-dir", str(tmp_path / "runs")))


def test_an_unknown_way_to_show_pictures_is_wrong_usage(runs: tuple[str, str]) -> None:
    assert CliRunner().invoke(app, ["filters", "diff", *runs, "--pictures", "all"]).exit_code == 2
