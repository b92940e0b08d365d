"""What the process is started in: streams that are closed, encodings that lack characters, places that are gone or full."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glideslope.cli.starter import write_starter
from glideslope.data_filter.sources.folder import FolderSource
from glideslope.data_filter.sources.kinds import read_source
from glideslope.recipe.load import load_recipe

COMMAND = f'"{sys.executable}" -m glideslope'
NAMES = (os.fsdecode(b"caf\xe9"), os.fsdecode(b"\xff\xfe"), "r\N{LATIN SMALL LETTER E WITH ACUTE}sum", "a b",
         "日本", "[bold]x[/bold]", "new\nline")


def shell(line: str, directory: Path, **surroundings: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of the shell, in which $GLIDESLOPE is the command."""
    env = {name: value for name, value in os.environ.items() if name not in surroundings}
    return subprocess.run(["bash", "-c", line.replace("$GLIDESLOPE", COMMAND)], capture_output=True, check=False, cwd=directory,
                          env=env | {name: value for name, value in surroundings.items() if value})


def told(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode()


@pytest.mark.parametrize(("arguments", "redirection"), [
    ("init NEW.yaml", "<&- >&- 2>&-"), ("verify nowhere --json", "<&- >&-"), ("--help", ">&-"), ("verify nowhere", "2>&-"),
    ("--help", "| true"), ("verify nowhere", "2>&1 | true")])
def test_streams_that_are_closed_or_that_nobody_reads_give_no_traceback(tmp_path: Path, arguments: str, redirection: str) -> None:
    done = shell(f"$GLIDESLOPE {arguments} {redirection}", tmp_path)
    assert b"Traceback" not in done.stderr + done.stdout
    assert b"Exception ignored" not in done.stderr
    if arguments.startswith("init"):
        assert (tmp_path / "NEW.yaml").read_text().startswith("#"), "what was written is whole, and no stream's text is in it"


SHOW = """
import sys
from pathlib import Path
from glideslope.cli.main import prepare_streams
from glideslope.cli.arguments import err, out, tell
prepare_streams()
for name in "".join(map(chr, range(0xdc80, 0xdd00))), "\\u65e5\\u672c", "\\xe9", "\\ud800":
    for as_json in (False, True):
        tell({"name": name}, as_json=as_json)
    err.print(name)
print("end")
"""


@pytest.mark.parametrize("surroundings", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
                                          {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "utf-8:strict"}])
def test_names_that_the_terminal_cannot_show_are_shown_by_numbers(tmp_path: Path, surroundings: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, check=False, cwd=tmp_path, env=dict(os.environ) | surroundings)
    assert done.stderr.count(b"Traceback") == 0, done.stderr
    assert done.stdout.endswith(b"end\n")
    assert b"\\udcff" in done.stdout
    lines = [line for line in done.stdout.decode("utf-8" if "utf-8" in str(surroundings) else "latin-1").split("\n") if line.startswith("{")]
    assert len(lines) == 4
    assert [json.loads(line)["name"] for line in lines] == ["".join(map(chr, range(0xdc80, 0xdd00))), "日本", "\xe9", "\ud800"]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_may_bear_any_name_and_read_any_folder(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = write_starter(Path(f"{name}.yaml"), FolderSource(path=name))
    read = load_recipe(Path(f"{name}.yaml"), read_source)
    assert read.policy is not None and recipe.policy is not None and read.policy.endswith(recipe.policy)  # it counts from the recipe's folder
    assert read.model_copy(update={"policy": recipe.policy}) == recipe


def test_a_current_directory_that_was_removed_is_one_line(tmp_path: Path) -> None:
    done = shell('mkdir gone && cd gone && rmdir "$PWD" && $GLIDESLOPE verify nowhere', tmp_path)
    assert done.returncode == 1
    assert told(done).startswith("glideslope: the current directory cannot be used (No such file or directory); it may have been removed")
    assert len(told(done).splitlines()) == 1


@pytest.mark.parametrize("surroundings", [{"HOME": "", "TMPDIR": "/nowhere"}, {"HOME": "/proc/nowhere"}])
def test_homes_and_temporary_folders_that_are_not_there_are_no_matter(tmp_path: Path, surroundings: dict[str, str]) -> None:
    (tmp_path / "images").mkdir()
    done = shell("$GLIDESLOPE init new.yaml --images images; $GLIDESLOPE verify nowhere", tmp_path, **surroundings)
    assert "Traceback" not in told(done)
    assert "nowhere: no such directory" in told(done)


def test_a_disk_that_is_full_is_one_line_and_leaves_no_half_file(tmp_path: Path) -> None:
    done = shell("ulimit -f 0; $GLIDESLOPE init new.yaml", tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])
    assert told(done) == ("glideslope: cannot write new-policy.yaml: File too large; free space or choose a writable directory, then run the "
                          "same command again: finished work is kept\n")


def test_a_disk_that_is_full_anywhere_else_is_one_line_too(tmp_path: Path) -> None:
    program = """
import errno, sys
import glideslope.cli.starter as starter
from glideslope.cli.main import main
def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device", "somewhere/x")
starter.write_starter = full
sys.argv = ["glideslope", "init", "new.yaml"]
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("glideslope: cannot write somewhere/x: No space left on device")
    assert len(done.stderr.splitlines()) == 1
