"""The wheel holds everything, and what it installs works away from the checkout."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("glideslope", "data_filter", "models", "model_cards", "release", "recipes")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that the checkout stays clean and leftovers of earlier builds do not count."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(target), str(source)],
                   check=True, capture_output=True)
    return next(target.glob("glideslope-*.whl"))


def test_the_wheel_holds_every_module_and_data_file_under_one_name(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = set()
    for folder in FOLDERS:
        inside = "glideslope" if folder == "glideslope" else f"glideslope/{folder}"
        kept = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        expected |= {f"{inside}/{path.relative_to(ROOT / folder).as_posix()}" for path in kept}
    assert names == expected
    assert {"glideslope/py.typed", "glideslope/data_filter/sources/openmoji_labels.csv", "glideslope/recipes/openmoji-demo.yaml",
            "glideslope/model_cards/model_card.md.jinja", "glideslope/release/licenses/apache-2.0.txt"} <= names


def test_the_wheel_carries_the_licence_and_the_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    information = next(name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name)
    assert archive.read(f"{information}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert b"glideslope = glideslope.cli.main:main" in archive.read(f"{information}/entry_points.txt")
    assert b"License-Expression: Apache-2.0" in archive.read(f"{information}/METADATA")


def test_what_the_wheel_installs_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    program = f"""
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__ + repr(finder)]
sys.path.insert(0, {str(site)!r})
import glideslope, importlib
for room in ("data_filter", "models", "model_cards", "release"):
    assert importlib.import_module("glideslope." + room).__file__.startswith({str(site)!r})
from glideslope.run import find_recipe
from glideslope.models.training.stage import check_trainings
recipe = find_recipe("openmoji-demo")
check_trainings(recipe.trainings)
assert glideslope.GlidePipeline.__module__ == "glideslope.models.drawing.pipeline"
assert sys.modules["glideslope.models.drawing.pipeline"].__file__.startswith({str(site)!r})
print("works")
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert found.stdout == "works\n", found.stderr
