import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.special import erf

from benchmarks.closed_form import closed_form
from benchmarks.parity import main

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "models" / "fixtures"
Array = NDArray[np.float64]


@pytest.fixture
def parity(tmp_path: Path) -> Path:
    """A directory with the quickest network, one sampling run, a few spellings, and one checkpoint's layout."""
    directory = tmp_path / "parity"
    directory.mkdir()
    index = read("index.json")
    write(directory, "index.json", index | {"cases": {"noised_clip_text": index["cases"]["noised_clip_text"]}})
    shutil.copy(FIXTURES / "noised_clip_text.safetensors", directory)
    process = read("process.json")
    write(directory, "process.json", {"betas": {"linear": process["betas"]["linear"]},
                                      "respacing": {key: process["respacing"][key] for key in ("27", "fast27", "ddim25")}})
    runs = load_file(FIXTURES / "trajectories.safetensors")
    kept = ("x_T", "linear.27.noise", "linear.27.ddpm_guided", "linear.27.ddim_eta0.5")
    save_file({name: runs[name] for name in kept}, directory / "trajectories.safetensors")
    shutil.copy(FIXTURES / "tokenizers.json", directory)
    write(directory, "released_layouts.json", {"clip_text_enc": read("released_layouts.json")["clip_text_enc"]})
    return directory


def read(name: str, directory: Path = FIXTURES) -> dict[str, Any]:
    return dict(json.loads((directory / name).read_text()))


def write(directory: Path, name: str, value: object) -> None:
    (directory / name).write_text(json.dumps(value))


def change_tensor(path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(path)
    save_file(tensors | {name: change(tensors[name]).contiguous()}, path)


def test_every_published_case_passes_and_its_largest_error_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(FIXTURES)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in read("index.json")["cases"]:
        assert any(line.startswith(f"ok  {name}: largest error ") and float(line.split()[-1]) < 1e-4 for line in lines)
    assert "ok  layout base: exact (385,030,726 parameters, preset glide-base-64)" in lines
    assert "ok  layout upsample: exact (398,361,286 parameters, preset glide-upsampler-256)" in lines
    assert "ok  tokenizer clip_bpe: exact (12 captions)" in lines
    assert lines[-1] == f"{len(lines) - 1} of {len(lines) - 1} cases passed"


def test_the_program_exits_with_one_when_a_case_fails(parity: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.parity", str(parity), "--only", "process"]
    assert subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode == 0
    process = read("process.json", parity)
    process["respacing"]["27"][3] += 1
    write(parity, "process.json", process)
    found = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert found.returncode == 1
    assert "FAILED  respacing 27: visits 27 timesteps, expected 27; first difference: [115]" in found.stdout
    assert "Traceback" not in found.stderr


def encode_in_numpy(shapes: dict[str, list[int]], config: dict[str, Any], side: str, given: tuple[Any, Any], *, seed: int) -> Array:
    """Both encoders of the noised CLIP in plain float64, written from the paper's description: an independent path."""
    weight = {name: closed_form(name, shape, seed=seed).double().numpy() for name, shape in shapes.items()}
    heads, blocks = config[f"n_head_{side}"], config[f"n_xf_blocks_{side}"]

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight[f"{name}.g"] + weight[f"{name}.b"])

    def linear(x: Array, name: str) -> Array:
        return np.asarray(x @ weight[f"{name}.w"].T + weight.get(f"{name}.b", 0))

    if side == "text":
        tokens, read_at = given[0], given[1] - 1
        x = weight["blocks.input.w_voc"][tokens] + weight["blocks.input.w_pos"][: tokens.shape[1]]
    else:
        pixels, times = given
        means, stds = (255 * np.array(v)[:, None, None] for v in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))
        n, side_px, patch = len(pixels), config["image_size"], config["patch_size"]
        cut = ((pixels - means) / stds).reshape(n, 3, side_px // patch, patch, side_px // patch, patch)
        patches = np.einsum("ncipjq,wcpq->nijw", cut, weight["blocks.input.patch_proj"]).reshape(n, (side_px // patch) ** 2, -1)
        x = norm(np.concatenate([weight["blocks.input.w_t"][times][:, None], patches], 1) + weight["blocks.input.w_pos"], "blocks.input.ln")
        read_at = np.zeros(n, dtype=int)
    length = x.shape[1]
    for i in range(blocks):
        name = f"blocks.block_{i}"
        h = norm(x, f"{name}.f_attn.ln")
        q, k, v = (linear(h, f"{name}.f_attn.f_{part}").reshape(len(x), length, heads, -1).transpose(0, 2, 1, 3) for part in "qkv")
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
        if side == "text":
            scores = np.where(np.tril(np.ones((length, length), dtype=bool)), scores, -np.inf)
        share = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (share / share.sum(-1, keepdims=True)) @ v
        x = x + linear(mixed.transpose(0, 2, 1, 3).reshape(x.shape), f"{name}.f_attn.f_c")
        h = linear(norm(x, f"{name}.f_mlp.ln"), f"{name}.f_mlp.f_1")
        x = x + linear(h * (1 + erf(h / np.sqrt(2))) / 2, f"{name}.f_mlp.f_2")
    return linear(norm(x[np.arange(len(x)), read_at], "blocks.output.ln"), "blocks.output.f")


def encoder_shapes(config: dict[str, Any], side: str) -> dict[str, list[int]]:
    width, out = config[f"n_head_{side}"] * config[f"n_head_state_{side}"], config["n_embd"]
    if side == "text":
        shapes = {"input.w_voc": [config["n_vocab"], width], "input.w_pos": [config["max_text_len"], width]}
    else:
        num_patches = (config["image_size"] // config["patch_size"]) ** 2
        shapes = {"input.w_t": [config["n_timesteps"], width], "input.patch_proj": [width, 3, config["patch_size"], config["patch_size"]],
                  "input.w_pos": [num_patches + 1, width], "input.ln.g": [width], "input.ln.b": [width]}
    for i in range(config[f"n_xf_blocks_{side}"]):
        shapes |= {f"block_{i}.f_attn.ln.{part}": [width] for part in "gb"}
        shapes |= {f"block_{i}.f_attn.f_{part}": shape for letter in "qkvc"
                   for part, shape in ((f"{letter}.w", [width, width]), (f"{letter}.b", [width])) if part != "k.b"}
        shapes |= {f"block_{i}.f_mlp.ln.{part}": [width] for part in "gb"}
        shapes |= {f"block_{i}.f_mlp.f_1.w": [4 * width, width], f"block_{i}.f_mlp.f_1.b": [4 * width],
                   f"block_{i}.f_mlp.f_2.w": [width, 4 * width], f"block_{i}.f_mlp.f_2.b": [width]}
    shapes |= {"output.ln.g": [width], "output.ln.b": [width], "output.f.w": [out, width]}
    return {f"blocks.{name}": shape for name, shape in shapes.items()}


@pytest.mark.parametrize("seed", [5, 4321])
def test_other_seeds_sizes_and_depths_agree_with_an_independent_computation(
        seed: int, parity: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(seed)
    text = {"n_vocab": 41, "max_text_len": 7, "n_embd": 12, "n_head_text": 3, "n_xf_blocks_text": 3, "n_head_state_text": 8}
    image = {"image_size": 12, "patch_size": 6, "n_embd": 12, "n_head_image": 2, "n_xf_blocks_image": 1, "n_head_state_image": 12,
             "n_timesteps": 50}
    given = {"text": (rng.integers(0, 41, (4, 7)), rng.integers(1, 8, 4)), "image": (rng.random((2, 3, 12, 12)) * 255, rng.integers(0, 50, 2))}
    names = {"text": ("tokens", "lengths"), "image": ("image_0_255", "timesteps")}
    cases = {}
    for side, config in (("text", text), ("image", image)):
        shapes = encoder_shapes(config, side)
        output = encode_in_numpy(shapes, config, side, given[side], seed=seed)
        inputs = {f"input.{name}": torch.from_numpy(np.asarray(value)) for name, value in zip(names[side], given[side], strict=True)}
        inputs = {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}
        save_file(inputs | {"output": torch.from_numpy(output).float()}, parity / f"other_{side}.safetensors")
        cases[f"other_{side}"] = {"config": config, "inputs": list(names[side]), "shapes": shapes}
    write(parity, "index.json", {"seed": seed, "cases": cases})
    assert main([str(parity), "--only", "networks"]) == 0, capsys.readouterr().out
    assert "2 of 2 cases passed" in capsys.readouterr().out
    write(parity, "index.json", {"seed": seed + 1, "cases": cases})
    assert main([str(parity), "--only", "networks"]) == 1


@pytest.mark.parametrize(("change", "code"), [(9e-5, 0), (-1.5e-4, 1), (float("nan"), 1), (float("inf"), 1)])
def test_an_output_past_the_tolerance_is_refused(change: float, code: int, parity: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file, name, part in (("noised_clip_text", "output", "networks"), ("trajectories", "linear.27.ddpm_guided", "trajectories")):
        change_tensor(parity / f"{file}.safetensors", name,
                      lambda t: t.flatten().index_add(0, torch.tensor([3]), torch.tensor([change])).view_as(t))
        assert main([str(parity), "--only", part]) == code, capsys.readouterr().out
        assert ("past the tolerance of 0.0001" in capsys.readouterr().out) == bool(code)


def test_the_tolerance_can_be_narrowed(parity: Path) -> None:
    assert main([str(parity), "--only", "networks", "--tolerance", "1e-9"]) == 1


def edit_index(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        index = read("index.json", directory)
        change(index["cases"]["noised_clip_text"])
        write(directory, "index.json", index)
    return apply


def edit(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        value = read(name, directory)
        change(value)
        write(directory, name, value)
    return apply


def cut(name: str) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(data[: len(data) // 2])
    return apply


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("networks", lambda d: (d / "index.json").unlink(), "index.json: No such file"),
    ("networks", cut("index.json"), "index.json: not readable as JSON"),
    ("networks", lambda d: write(d, "index.json", {"seed": 1, "cases": {}}), "expected a whole number `seed` and an object `cases`"),
    ("networks", lambda d: write(d, "index.json", {"cases": {"a": {}}}), "expected a whole number `seed`"),
    ("networks", lambda d: write(d, "index.json", {"seed": 1, "cases": {"../noised_clip_text": {}}}), "is no file name"),
    ("networks", lambda d: (d / "noised_clip_text.safetensors").unlink(), "noised_clip_text.safetensors: not a readable"),
    ("networks", cut("noised_clip_text.safetensors"), "not a readable safetensors file"),
    ("networks", edit_index(lambda case: case["shapes"].pop("blocks.output.f.w")), "parameters differ: blocks.output.f.w"),
    ("networks", edit_index(lambda case: case["shapes"]["blocks.output.f.w"].reverse()), "parameters differ: blocks.output.f.w"),
    ("networks", edit_index(lambda case: case["config"].update(n_xf_blocks_text=3)), "parameters differ"),
    ("networks", edit_index(lambda case: case["config"].update(depth=3)), "depth"),
    ("networks", edit_index(lambda case: case.pop("config")), "KeyError"),
    ("networks", edit_index(lambda case: case["inputs"].append("mask")), "the index says"),
    ("process", lambda d: (d / "process.json").unlink(), "process.json: No such file"),
    ("process", edit("process.json", lambda p: p["betas"]["linear"]["100"].__setitem__(4, 0.04110306)), "past the tolerance of 1e-06"),
    ("process", edit("process.json", lambda p: p["betas"]["linear"]["100"].pop()), "19 betas, expected 20"),
    ("process", edit("process.json", lambda p: p["betas"].update(sigmoid={"10": [0.1]})), "noise schedule 'sigmoid' is unknown"),
    ("process", edit("process.json", lambda p: p["respacing"].update({"5-5": [1]})), "respacing '5-5' is not known"),
    ("process", edit("process.json", lambda p: p["respacing"]["fast27"].pop()), "visits 27 timesteps, expected 26"),
    ("trajectories", cut("trajectories.safetensors"), "trajectories.safetensors: not a readable"),
    ("trajectories", lambda d: change_tensor(d / "trajectories.safetensors", "linear.27.noise", lambda t: t[:5]), "draws more often"),
    ("tokenizers", edit("tokenizers.json", lambda t: t["gpt2_bpe"]["cases"][0]["tokens"].__setitem__(0, 271)), "tokens is [272, 3056"),
    ("tokenizers", edit("tokenizers.json", lambda t: t["clip_bpe"]["cases"][1]["padded_32"].__setitem__(31, 1)), "padded_32 is"),
    ("tokenizers", edit("tokenizers.json", lambda t: t["clip_bpe"].update(end_token=1)), "end_token is 49407, expected 1"),
    ("tokenizers", edit("tokenizers.json", lambda t: t.update(t5={"cases": []})), "is no known tokenizer"),
    ("layouts", edit("released_layouts.json", lambda r: r["clip_text_enc"].update(num_parameters=71_679_489)), "expected 71679489"),
    ("layouts", edit("released_layouts.json", lambda r: r["clip_text_enc"]["shapes"].update(extra=[1])), "parameters differ: extra [1]"),
    ("layouts", edit("released_layouts.json", lambda r: r["clip_text_enc"]["options"].update(n_embd=0)), "n_embd"),
    ("layouts", edit("released_layouts.json", lambda r: r.update(x={"options": {"xf_padding": False}, "shapes": {}})),
     "option xf_padding is False"),
]


@pytest.mark.parametrize(("part", "damage", "told"), DAMAGES, ids=[f"{part}-{told[:30]}" for part, _, told in DAMAGES])
def test_a_case_that_does_not_fit_is_refused_with_its_reason(
        part: str, damage: Callable[[Path], object], told: str, parity: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(parity)
    assert main([str(parity), "--only", part]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("FAILED") and told in line for line in lines), lines


def test_one_failing_case_does_not_hide_the_others(parity: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (parity / "index.json").unlink()
    assert main([str(parity), "--only", "networks", "--only", "trajectories"]) == 1
    assert "2 of 3 cases passed" in capsys.readouterr().out


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "no such directory" in capsys.readouterr().err


def test_a_vocabulary_that_is_not_there_is_refused(parity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(parity), "--only", "tokenizers", "--gpt2", str(tmp_path)]) == 1
    assert "FAILED  tokenizer gpt2_bpe" in capsys.readouterr().out
