import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from glideslope.errors import ReleaseError, StorageError
from glideslope.release.weights import canonical_header, joined_digest, read_file, read_weights
from glideslope.release.weights.writing import Form, write_weights, written_bytes
from glideslope.store.weight_files import TensorHeader, WeightFiles

LARGE = 10**12
FULL = {"a": torch.linspace(-3, 3, 1000), "b": torch.ones(20, 5), "c": torch.full((7,), 0.1), "d": torch.zeros(0)}
TYPES = {None: torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
MEMORY_CODE = """
import sys, threading, time
from pathlib import Path
import psutil, torch
from glideslope.release.weights.writing import Form, write_weights
from glideslope.release.weights import Piece, find_nonfinite, joined_digest, read_file, read_weights
from glideslope.release.weights.variants import cast_piece, compare_cast

source, target = Path(sys.argv[1]), Path(sys.argv[2])
cast_piece(Piece("a", "F32", 0, bytes(8)), "fp16")
process, peak, done = psutil.Process(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, process.memory_info().rss)

before = process.memory_info().rss
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
weights = read_file(source)
for variant in (None, "fp16"):
    write_weights(weights, target, Form(variant, 130_000_000))
full, cast = read_weights(target), read_weights(target, "fp16")
found = find_nonfinite(full) + compare_cast(full, cast, "base", "fp16")
joined_digest(full)
done.set()
watcher.join()
assert len(full.files) == 3 and found == [], found
print(peak - before)
"""


def source(tmp_path: Path, tensors: dict[str, torch.Tensor] | None = None) -> WeightFiles:
    path = tmp_path / "trained.safetensors"
    path.write_bytes(save(dict(sorted((tensors or FULL).items())), metadata={"format": "pt"}))
    return read_file(path)


@pytest.mark.parametrize("variant", list(TYPES))
@pytest.mark.parametrize("max_bytes", [LARGE, 1000])
def test_weights_are_written_as_diffusers_reads_them(tmp_path: Path, variant: str | None, max_bytes: int) -> None:
    weights, told = source(tmp_path), []
    files = write_weights(weights, tmp_path / "base", Form(variant, max_bytes), told.append)
    assert sum(told) == written_bytes(weights, Form(variant, max_bytes))
    assert len(files) == (1 if max_bytes == LARGE else 3)
    found: dict[str, torch.Tensor] = {}
    for file in files:
        if file.suffix == ".safetensors":
            found |= load_file(file)
        else:
            assert set(json.loads(file.read_text())["weight_map"]) == set(FULL)
    assert found.keys() == FULL.keys()
    assert all(torch.equal(found[name], FULL[name].to(TYPES[variant])) and found[name].dtype == TYPES[variant] for name in FULL)
    assert not list(tmp_path.rglob("*.tmp"))


def test_one_file_is_the_trained_file_byte_for_byte_and_shards_join_to_it(tmp_path: Path) -> None:
    weights = source(tmp_path)
    whole = write_weights(weights, tmp_path / "whole", Form(None, LARGE))
    assert whole[0].read_bytes() == weights.files[0].read_bytes()
    write_weights(weights, tmp_path / "cut", Form(None, 1000))
    assert joined_digest(read_weights(tmp_path / "cut")) == joined_digest(weights)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_and_nothing_is_left(tmp_path: Path, value: float) -> None:
    weights = source(tmp_path, {"a": torch.ones(5), "b": torch.tensor([1.0, value])})
    with pytest.raises(ReleaseError, match=r"tensor b holds values that are not finite.*train again"):
        write_weights(weights, tmp_path / "base", Form(None, LARGE))
    assert not list((tmp_path / "base").iterdir())


def test_values_that_fp16_cannot_hold_are_refused_with_what_to_do(tmp_path: Path) -> None:
    weights = source(tmp_path, {"a": torch.tensor([65520.0])})
    with pytest.raises(ReleaseError, match=r"base: tensor a holds values beyond 65504.*remove 'fp16' from release\.variants \(bf16"):
        write_weights(weights, tmp_path / "base", Form("fp16", LARGE))
    write_weights(weights, tmp_path / "base", Form("bf16", LARGE))


def test_a_directory_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "base").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_weights(source(tmp_path), tmp_path / "base", Form(None, LARGE))


def test_memory_does_not_grow_with_the_weights(tmp_path: Path) -> None:
    headers = {f"layer.{n}": TensorHeader("F32", (60_000_000 // 4,), 0, 0) for n in range(5)}
    with (tmp_path / "large.safetensors").open("wb") as file:
        file.write(canonical_header(headers))
        file.truncate(file.tell() + 300_000_000)
    done = subprocess.run([sys.executable, "-c", MEMORY_CODE, str(tmp_path / "large.safetensors"), str(tmp_path / "base")], capture_output=True,
                          text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60_000_000
