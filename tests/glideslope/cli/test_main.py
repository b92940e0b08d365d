import json
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from glideslope.cli import main as cli
from glideslope.errors import TrainingError
from glideslope.store.records import run_stage

from ...data_filter.conftest import draw

COMMANDS = ("demo", "init", "run", "status", "sample", "index", "label", "fit", "curate", "audit", "train", "evaluate", "pack", "filters",
            "check", "verify", "keygen", "sign", "publish", "edit", "release")
IN_GROUPS = {"filters": ("report", "mutate", "diff"),
             "release": ("card", "status", "rollback", "withdraw", "export-diffusers", "import-openai")}
ALL = [(name,) for name in COMMANDS] + [(group, name) for group, names in IN_GROUPS.items() for name in names]


class Ended:
    """How a command ended: exit code, output, errors."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def glideslope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs the command line as the shell would, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["glideslope", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        code = stopped.value.code
        captured = capsys.readouterr()
        return Ended(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


def test_help_fits_a_screen_and_says_of_every_command_on_one_line_what_it_does(glideslope: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    ended = glideslope("--help")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert len(lines) <= 40
    listed = [line.split()[1] for line in lines if line.startswith("│ ") and not line.startswith("│ -")]
    assert listed == list(COMMANDS)
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]  # typer's type is the plain command
    assert set(commands) == set(COMMANDS)
    assert {name: set(commands[name].commands) for name in IN_GROUPS} == {name: set(names) for name, names in IN_GROUPS.items()}


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_every_command_says_what_it_does(glideslope: Any, command: tuple[str, ...]) -> None:
    ended = glideslope(*command, "--help")
    assert ended.code == 0
    assert "Usage: glideslope" in ended.out
    assert len(ended.out.splitlines()) > 8


def test_an_option_has_one_meaning_and_one_type_in_every_command() -> None:
    app = typer.main.get_command(cli.app)
    groups = [app, *(app.commands[name] for name in IN_GROUPS)]  # type: ignore[attr-defined]
    helps: dict[str, set[tuple[bool, str]]] = {}
    for command in (command for group in groups for command in group.commands.values() if command.name not in IN_GROUPS):
        for option in (parameter for parameter in command.params if parameter.param_type_name == "option"):
            helps.setdefault(option.opts[0], set()).add((option.is_flag, option.name))
    del helps["--out"]  # a file of some commands, a directory of others
    assert {name: found for name, found in helps.items() if len(found) > 1} == {}


def test_the_version_is_told(glideslope: Any) -> None:
    assert glideslope("--version").out == "0.1.0\n"


@pytest.mark.parametrize("arguments", [
    ["check", "nowhere"], ["verify", "nowhere"], ["sample", "nowhere", "a red apple"], ["check", "."], ["verify", "."],
    ["sample", ".", "a red apple"], ["sample", ".", ""], ["sample", ".", "a", "--num-steps", "0"], ["sample", ".", "a", "--out", "x.jpg"],
    ["sample", ".", "a", "--sampler", "euler"], ["sample", ".", "a", "--num-images", "-3"], ["sample", ".", "a", "--guidance-scale", "nan"],
    ["sample", ".", "a", "--guidance", "more"], ["sample", ".", "a", "--guidance", "none", "--guidance-scale", "2"],
    ["sample", ".", "a", "--guidance-interval", "0.8", "0.2"], ["sample", ".", "--prompt-file", "no.txt"],
    ["sample", ".", "--prompt-file", "."],
    ["sample", ".", "a", "--clip", "ViT-B-32"], ["sample", ".", "a", "--clip-pretrained", "openai"],
    ["sample", ".", "a", "--clip", "no-such-model", "--clip-pretrained", "x", "--guidance", "clip"], ["sample", ".", "a", "", "--upsample"],
    ["edit", ".", "--prompt", "a", "--image", "none.png"], ["edit", "nowhere", "--prompt", "a", "--image", "taken.yaml"],
    ["edit", ".", "--prompt", "a", "--image", "taken.yaml", "--strength", "0"], ["edit", ".", "--prompt", "", "--image", "taken.yaml"],
    ["edit", ".", "--prompt", "a", "--image", "taken.yaml", "--num-steps", "0"],
    ["index", "nowhere.yaml", "--json"], ["run", "no-such-recipe", "--json"], ["init", "taken.yaml"], ["init", "taken.yaml/below.yaml"],
    ["index", "recipe.yaml", "--json"], ["label", "recipe.yaml", "--json"], ["label", "recipe.yaml", "--import", "no.csv", "--json"],
    ["fit", "recipe.yaml", "--json"], ["curate", "recipe.yaml", "--json"], ["audit", "recipe.yaml", "--json"],
    ["audit", "recipe.yaml", "--json", "--claim", "2"], ["audit", "recipe.yaml", "--json", "--import", "no.csv"],
    ["audit", "recipe.yaml", "--json", "--category", "nobody"], ["audit", "recipe.yaml", "--json", "--design", "odd"],
    ["train", "recipe.yaml", "--json"],
    ["evaluate", "recipe.yaml", "--json"], ["pack", "recipe.yaml", "--json"], ["fit", "recipe.yaml", "--runs-dir", "taken.yaml"],
    ["run", "unknown-key.yaml"], ["run", "bad-value.yaml"], ["run", "not-yaml.yaml"], ["run", "bad-preset.yaml", "--json"]], ids=" ".join)
def test_a_mistake_of_the_user_is_one_clear_line_and_exit_code_one(
        glideslope: Any, arguments: list[str], plain_recipe: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "taken.yaml").write_text("mine")
    (tmp_path / "not-yaml.yaml").write_text("name: [")
    for name, change in (("recipe", {}), ("unknown-key", {"sead": 0}), ("bad-value", {"seed": -1}),
                         ("bad-preset", {"noised_clip": plain_recipe["noised_clip"] | {"preset": "x"}})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(plain_recipe | change))
    ended = glideslope(*arguments)
    lines = [line for line in ended.err.splitlines() if not line.endswith(" …")]  # a stage that had begun
    assert ended.code == 1
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("glideslope: ")
    assert len(lines[0]) > 30
    assert "Traceback" not in ended.err
    assert ended.out == ""


@pytest.mark.parametrize("arguments", [["nonsense"], ["audit"], ["audit", "r", "--seed", "x", "--seed-from-os"], ["run"],
                                       ["run", "a", "b"], ["check", ".", "--loud"], ["sample", "."],
                                       ["sample", ".", "a", "--num-steps", "many"], ["edit", "."],
                                       ["index", "r", "--part", "1"], ["index", "r", "--engine", "spark"], ["edit", ".", "--prompt", "a"],
                                       ["edit", ".", "--prompt", "a", "--image", "a.png", "--strength", "half"]], ids=" ".join)
def test_wrong_usage_ends_with_exit_code_two(glideslope: Any, arguments: list[str]) -> None:
    ended = glideslope(*arguments)
    assert ended.code == 2
    assert "Usage:" in ended.err


def test_a_message_with_brackets_and_line_breaks_stays_one_readable_line(glideslope: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TrainingError("got [bold]\nand [/] in\r\nruns/[x]")

    monkeypatch.setattr("glideslope.cli.starter.write_starter", refuse)
    assert glideslope("init").err == "glideslope: got [bold] and [/] in runs/[x]\n"


def test_a_defect_is_not_disguised(glideslope: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("glideslope.cli.starter.write_starter", defect)
    with pytest.raises(ZeroDivisionError):
        glideslope("init")


def test_stopping_by_hand_says_how_to_go_on(glideslope: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", stopped)
    ended = glideslope("run", "x")
    assert ended.code == 130
    assert "run the same command again" in ended.err


def test_init_writes_a_recipe_and_says_what_it_found_and_what_comes_next(glideslope: Any, tmp_path: Path) -> None:
    draw(tmp_path / "my [pictures]" / "a.png", (1, 2, 3))
    (tmp_path / "my [pictures]" / "a.caption").write_text("x")
    ended = glideslope("init", "--images", "my [pictures]")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == ("my [pictures]: 1 image, 1 of them with a caption (.caption file beside the image)\n"
                         "wrote recipe.yaml and policy.yaml with the categories person, violence; edit them\n"
                         "next: glideslope index recipe.yaml\n"
                         "then: glideslope label recipe.yaml --import labels.csv\n"
                         "then: glideslope run recipe.yaml\n")
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["source"] == {
        "kind": "folder", "path": "my [pictures]", "caption_column": "text", "caption_file": "caption"}
    assert glideslope("init", "plain.yaml").out == ("wrote plain.yaml and plain-policy.yaml with the categories person, violence; edit them\n"
                                                    "next: glideslope run plain.yaml\n")
    (tmp_path / "my [pictures]" / "a.caption").unlink()
    assert glideslope("init", "bare.yaml", "--images", "my [pictures]").out.splitlines()[1:] == [
        "no captions were found, so curate.captions is optional: the run ends with the curated set",
        "wrote bare.yaml and bare-policy.yaml with the categories person, violence; edit them", "next: glideslope index bare.yaml",
        "then: glideslope label bare.yaml --import labels.csv", "then: glideslope fit bare.yaml", "then: glideslope curate bare.yaml"]


@pytest.mark.parametrize("images", ["gone", "empty", "empty/*.tar", ""])
def test_init_refuses_what_it_cannot_find_and_writes_nothing(glideslope: Any, tmp_path: Path, images: str) -> None:
    (tmp_path / "empty").mkdir()
    ended = glideslope("init", "--images", images)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("glideslope: ") and ended.err.count("\n") == 1
    assert not (tmp_path / "recipe.yaml").exists()


def test_machines_get_one_json_object_and_nothing_else(
        glideslope: Any, recipe_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = run_stage(tmp_path / "index", stage="index", config={}, inputs={}, work=lambda partial: {"num_rows": 3, "note": "é [x]"})
    monkeypatch.setattr("glideslope.run.Run.index", lambda self: [record])
    ended = glideslope("index", str(recipe_file), "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out) == {"index": {"num_rows": 3, "note": "é [x]"}}
    assert ended.out.count("\n") == 1
    assert glideslope("index", str(recipe_file)).out == "index: num_rows 3, note é [x]\n"


def test_verbose_says_which_stages_are_skipped(glideslope: Any, recipe_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                               caplog: pytest.LogCaptureFixture) -> None:
    def work(partial: Path) -> dict[str, Any]:
        return {}

    def index(self: object) -> list[object]:
        return [run_stage(tmp_path / "index", stage="index", config={}, inputs={}, work=work)]

    monkeypatch.setattr("glideslope.run.Run.index", index)
    glideslope("--verbose", "index", str(recipe_file))
    glideslope("--verbose", "index", str(recipe_file))
    assert caplog.messages == ["index: already done"]
    glideslope("index", str(recipe_file))
    assert caplog.messages == ["index: already done"]
