import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from glideslope import GlidePipeline
from glideslope.errors import ReleaseError
from glideslope.manifest import ReleaseManifest
from glideslope.release.contents import Release
from glideslope.release.exports.diffusers import check_export, choose_networks, export_diffusers, model_index, readme

PROMPTS = ["a red circle", "a green tree"]
STRANGER = """
import json, sys
try:
    import glideslope
    sys.exit("glideslope can be imported here, so nothing is shown")
except ModuleNotFoundError:
    pass
import numpy, torch
from diffusers import DiffusionPipeline
directory, out, prompts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
try:
    DiffusionPipeline.from_pretrained(directory)
    sys.exit("loaded without trust_remote_code")
except ValueError as error:
    refusal = str(error)
def draw(name, guidance=0.0, sampler="ddpm", **options):
    pipe = DiffusionPipeline.from_pretrained(directory, trust_remote_code=True, **options)
    assert (pipe.noised_clip is None) == ("noised_clip" in options)
    images = pipe(prompts, num_inference_steps=4, seed=5, clip_guidance_scale=guidance, sampler=sampler).images
    return {name: numpy.stack([numpy.asarray(image) for image in images])}
pictures = draw("plain") | draw("clip", 2.0) | draw("alone", noised_clip=None, sampler="dpm++sde")
pictures |= draw("half", variant="fp16", torch_dtype=torch.float16)
numpy.savez(out, **pictures)
print(json.dumps({"refusal": refusal}))
"""


def test_a_stranger_without_glideslope_draws_the_same_pictures(packed_run: Path, tmp_path: Path) -> None:
    release, export = packed_run / "release", tmp_path / "export"
    written = export_diffusers(release, export)
    assert written["components"] == ["base", "noised_clip"] and check_export(export) == []
    for name in ("base", "noised_clip"):
        tensors = {key: tensor.half() for key, tensor in load_file(export / name / "diffusion_pytorch_model.safetensors").items()}
        save_file(tensors, export / name / "diffusion_pytorch_model.fp16.safetensors")
    packages = tmp_path / "site"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "glideslope" not in entry.name and entry.suffix != ".pth":
            (packages / entry.name).symlink_to(entry)
    (tmp_path / "stranger.py").write_text(STRANGER)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(packages), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"),
                   "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HOME": str(tmp_path)}
    arguments = [str(tmp_path / "stranger.py"), str(export), str(tmp_path / "out.npz"), json.dumps(PROMPTS)]
    command = [os.path.realpath(sys.executable), "-S", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trust_remote_code" in json.loads(done.stdout.splitlines()[-1])["refusal"]
    theirs = np.load(tmp_path / "out.npz")
    torch.set_num_threads(1)
    full, half = GlidePipeline.from_pretrained(release, device="cpu"), GlidePipeline.from_pretrained(release, device="cpu", dtype=torch.float16)
    wanted = {"plain": (full, {}), "clip": (full, {"clip_guidance_scale": 2.0}), "alone": (full, {"sampler": "dpm++sde"}), "half": (half, {})}
    for name, (pipe, options) in wanted.items():
        ours = np.stack([np.asarray(image) for image in pipe(PROMPTS, num_steps=4, seed=5, **options).images])  # type: ignore[arg-type]  # mixed
        assert np.array_equal(ours, theirs[name]), name
    assert not np.array_equal(theirs["plain"], theirs["clip"])


def test_a_clip_with_a_tokenizer_of_its_own_and_companions_are_left_out_openly(release_dir: Path) -> None:
    release = Release(release_dir)
    assert choose_networks(release) == (("base", "noised_clip"), {})
    for name in ("upsampler", "clip_tokenizer"):
        (release_dir / name).mkdir()
    networks, left_out = choose_networks(release)
    assert networks == ("base",) and sorted(left_out) == ["noised_clip", "upsampler"]
    assert "is left out" in readme(release, ReleaseManifest.read(release_dir / "manifest.json"), left_out)
    assert model_index(networks)["noised_clip"] == [None, None]


def test_an_export_says_where_it_comes_from_and_what_it_holds(packed_run: Path, tmp_path: Path) -> None:
    export_diffusers(packed_run / "release", tmp_path / "export")
    stated = json.loads((tmp_path / "export/export.json").read_text())
    root = json.loads((packed_run / "release/manifest.json").read_text())["root"]
    assert stated["release_root"] == root and root in (tmp_path / "export/README.md").read_text()
    assert (tmp_path / "export/base/diffusion_pytorch_model.safetensors").read_bytes() == (
        packed_run / "release/base/diffusion_pytorch_model.safetensors").read_bytes()
    assert check_export(tmp_path / "export", release_root=root) == []
    assert check_export(tmp_path / "export", release_root="0" * 64) != []


@pytest.mark.parametrize("path", ["pipeline.py", "base/modeling_glide.py", "model_index.json", "tokenizer/tokenizer.json", "README.md"])
def test_a_changed_file_of_an_export_is_named(packed_run: Path, tmp_path: Path, path: str) -> None:
    export_diffusers(packed_run / "release", tmp_path / "export")
    with (tmp_path / "export" / path).open("a") as file:
        file.write("\n")
    assert any(path in problem for problem in check_export(tmp_path / "export"))
    (tmp_path / "export/extra.py").write_text("import os\n")
    assert any("extra.py" in problem for problem in check_export(tmp_path / "export"))


def test_code_that_was_put_in_and_listed_is_still_refused(packed_run: Path, tmp_path: Path) -> None:
    from glideslope.manifest import Manifest, write_json

    export = tmp_path / "export"
    export_diffusers(packed_run / "release", export)
    with (export / "pipeline.py").open("a") as file:
        file.write("\nimport os\n")
    stated = json.loads((export / "export.json").read_text())
    listing = Manifest.of_directory(export, exclude=("export.json",))
    write_json(export / "export.json", stated | {"manifest": listing.to_json(), "root": listing.root})
    assert check_export(export) == [problem for problem in check_export(export) if "imports os" in problem] != []


def test_a_release_that_was_changed_is_not_exported(release_dir: Path, tmp_path: Path) -> None:
    with (release_dir / "tokenizer/tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ReleaseError, match="manifest"):
        export_diffusers(release_dir, tmp_path / "export")
    assert not (tmp_path / "export").exists() and list(tmp_path.glob("*.partial")) == []


def test_nothing_is_overwritten(packed_run: Path, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export/mine.txt").write_text("mine")
    with pytest.raises(ReleaseError, match="nothing is overwritten"):
        export_diffusers(packed_run / "release", tmp_path / "export")
    assert (tmp_path / "export/mine.txt").read_text() == "mine"


