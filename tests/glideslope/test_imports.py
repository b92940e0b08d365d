"""Who may import whom."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("data_filter", "models", "model_cards", "release")
FRONT = {ROOT / "glideslope" / name for name in ("__init__.py", "__main__.py", "run.py")} | set((ROOT / "glideslope" / "cli").rglob("*.py"))
GROUND = sorted(set((ROOT / "glideslope").rglob("*.py")) - FRONT)
ALLOWED = {"data_filter": set(), "models": set(), "model_cards": set(), "release": {"data_filter", "models", "model_cards"}}


def imported_modules(path: Path, package: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Absolute names of what a module imports, with the line, lazy and type-checking imports included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def package_of(path: Path) -> tuple[str, ...]:
    """The package that a module of a room lies in, subfolders included."""
    return ("glideslope", *path.relative_to(ROOT).parent.parts)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "glideslope" and parts[1] in ROOMS else None


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_it_may(room: str) -> None:
    wrong = [f"{path.relative_to(ROOT)}:{line} imports {module}" for path in sorted((ROOT / room).rglob("*.py"))
             for module, line in imported_modules(path, package_of(path))
             if room_of(module) not in {None, room} | ALLOWED[room]]
    assert wrong == []


def test_the_ground_imports_no_room() -> None:
    assert {path.name for path in GROUND} >= {"errors.py", "recipe.py", "release_manifest.py", "records.py", "decode.py", "signatures.py"}
    wrong = [f"{path.name}:{line} imports {module}" for path in GROUND
             for module, line in imported_modules(path, package_of(path)[1:]) if room_of(module)]
    assert wrong == []


def test_the_ground_and_the_rooms_do_not_import_the_front_door() -> None:
    paths = [(path, package_of(path)) for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    paths += [(path, package_of(path)[1:]) for path in GROUND]
    wrong = [f"{path}:{line} imports {module}" for path, package in sorted(paths) for module, line in imported_modules(path, package)
             if module.startswith(("glideslope.cli.", "glideslope.run.")) or module in {"glideslope.cli", "glideslope.run"}]
    assert wrong == []


def test_rooms_are_never_imported_under_their_bare_names() -> None:
    wrong = [f"{path}:{line} imports {module}" for folder in (*ROOMS, "glideslope") for path in sorted((ROOT / folder).rglob("*.py"))
             for module, line in imported_modules(path, package_of(path)) if module.split(".")[0] in ROOMS]
    assert wrong == []


def test_no_modules_import_each_other() -> None:
    doors = [ROOT / folder / "__init__.py" for folder in (*ROOMS, "glideslope")]  # they name what lies below, and import it when it is used
    paths = {".".join(module_of(path)): path for door in doors for path in sorted(door.parent.rglob("*.py")) if path not in doors}
    imports = {name: {module for module, _ in imported_modules(path, package_of_module(path)) if module in paths and module != name}
               for name, path in paths.items()}
    while leaves := {name for name, needed in imports.items() if not needed & imports.keys()}:
        imports = {name: needed for name, needed in imports.items() if name not in leaves}
    assert not imports, "modules that import each other, or stand on some that do"


def package_of_module(path: Path) -> tuple[str, ...]:
    """The package that relative imports of a module count from."""
    package = package_of(path)
    return package[1:] if package[1:2] == ("glideslope",) else package


def module_of(path: Path) -> tuple[str, ...]:
    """A module's dotted name, in parts."""
    return package_of_module(path) if path.name == "__init__.py" else (*package_of_module(path), path.stem)


@pytest.mark.parametrize("word", ["pickle", "joblib", "dill", "shelve"])
def test_nothing_that_reads_pickles_is_imported(word: str) -> None:
    wrong = [f"{path}:{line}" for folder in (*ROOMS, "glideslope") for path in sorted((ROOT / folder).rglob("*.py"))
             for module, line in imported_modules(path, ("glideslope", folder)) if module.split(".")[0] == word]
    assert wrong == []


def test_torch_saves_nothing_and_loads_only_the_digest_checked_published_file() -> None:
    paths = [path for folder in (*ROOMS, "glideslope") for path in sorted((ROOT / folder).rglob("*.py"))]
    calls = [f"{path.relative_to(ROOT)}: {ast.unparse(node)}" for path in paths
             for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save")]
    assert calls in ([], ["glideslope/clip/lite0.py: torch.load"])


def test_importing_glideslope_and_asking_for_help_loads_nothing_heavy() -> None:
    program = """
import sys
import glideslope, glideslope.cli.main
assert glideslope.__version__ and glideslope.GlideslopeError
sys.argv = ["glideslope", "--help"]
try:
    glideslope.cli.main.main()
except SystemExit as stop:
    assert stop.code == 0, stop.code
heavy = {"torch", "numpy", "open_clip", "sklearn", "datasets", "matplotlib", "pyarrow", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "One stage at a time" in found.stdout
