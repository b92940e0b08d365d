import subprocess
import sys

import pytest

from glideslope import __version__


@pytest.mark.parametrize("module", ["glideslope", "glideslope.cli.main"])
def test_the_command_runs_as_a_module(module: str) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)

    assert run("--version").stdout.strip() == __version__
    refused = run("index", "nowhere.yaml")
    assert refused.returncode == 1 and refused.stderr.startswith("glideslope: recipe nowhere.yaml")
