import ast
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import pre_tokenizers

from glideslope import GlidePipeline
from glideslope.errors import ReleaseError
from glideslope.models.drawing.editing import UpsampleOptions
from glideslope.models.drawing.options import DrawOptions
from glideslope.models.tokenizer import END, START, WORD_END, CaptionTokenizer, build_tokenizer
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.exports.diffusers import choose_parts, export_diffusers, generate_code
from glideslope.release.exports.export_check import check_export
from glideslope.text.vocabulary_files import Vocabulary

PARTS = ["base", "noised_clip", "upsampler", "base_inpaint", "upsampler_inpaint", "tokenizer", "clip_tokenizer", "scheduler",
         "upsampler_scheduler"]


def judge() -> Any:
    """An ordinary CLIP of two linear maps; its text is run by a stranger too."""
    class Towers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image, self.text, self.logit_scale = torch.nn.Linear(192, 8), torch.nn.Embedding(64, 8), torch.nn.Parameter(torch.ones(()))

        def encode_image(self, pixels: Any) -> Any:
            return self.image(pixels.flatten(1))

        def encode_text(self, tokens: Any) -> Any:
            return self.text(tokens)

    class Judge:
        model, image_size, pixel_mean, pixel_std = Towers(), 8, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)

        def tokenize(self, captions: list[str]) -> Any:
            return torch.tensor([len(caption) for caption in captions])

    with torch.no_grad():
        for number, parameter in enumerate(Judge.model.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return Judge()


def edit(pipe: Any, draw_options: Any, upsample_options: Any, *, guided: bool = True, enlarges: bool = True) -> dict[str, Any]:
    """What a pipeline makes of some calls; the text of this function is run by a stranger too."""
    photo = Image.fromarray(np.random.default_rng(7).integers(0, 256, (24, 40, 3), dtype=np.uint8))
    mask = Image.new("L", photo.size, 0)
    mask.paste(255, (20, 0, 40, 24))
    prompts = ["a red circle", "gr&uuml;n"]
    options = draw_options(num_steps=3, seed=5, clip_guidance_scale=2.0 if guided else 0.0)
    seen: list[int] = []
    found = {"draw": pipe.draw(prompts, draw_options(num_steps=3, seed=5, num_images=2, sampler="dpm++sde")).images,
             "inpaint": pipe.inpaint(prompts, photo, mask, options=options, preview=lambda state: seen.append(state.step)).images,
             "vary": pipe.vary(photo, prompts, 0.5, options=options).images}
    assert seen == [1, 2, 3]
    if enlarges:
        large = upsample_options(num_steps=2, seed=3, guidance_scale=2.0)
        found["upsample"] = pipe.upsample(found["draw"][:2], prompts, options=large).images
        found["upsample_known"] = pipe.upsample(found["inpaint"], prompts[0], source=photo, mask=mask, options=large).images
        found["upsample_as_published"] = pipe.upsample(photo, prompts[0]).images
    pipe.guiding_clip = judge()
    found["guiding_clip"] = pipe.draw(prompts, draw_options(num_steps=3, clip_guidance_scale=9.0)).images
    pipe.guiding_clip = None
    arrays = {name: np.stack([np.asarray(image) for image in images]) for name, images in found.items()}
    return arrays | ({"rank": np.array(pipe.rank([photo, *found["draw"]], prompts[0]))} if guided else {})


def refusals(pipe: Any, draw_options: Any, upsample_options: Any) -> list[str]:
    """How a pipeline refuses some calls; the text of this function is run by a stranger too."""
    square, mask = Image.new("RGB", (16, 16)), Image.new("L", (16, 16))
    calls: list[Any] = [
        lambda: pipe.inpaint("red", square, mask), lambda: pipe.inpaint("red", square, None), lambda: pipe.inpaint(" ", square, mask),
        lambda: pipe.inpaint("red", Image.new("RGB", (17, 16)), mask), lambda: pipe.inpaint("red " * 40, square, mask),
        lambda: pipe.inpaint("red", square, square.convert("RGBA").point(lambda value: value // 2)),
        lambda: pipe.vary(square, "red", 0), lambda: pipe.vary(square, "red", 1.5), lambda: pipe.vary("photo.png", "red"),
        lambda: pipe.vary(square, "red", options=draw_options(num_steps=0)), lambda: pipe.vary(square, []),
        lambda: pipe.upsample([], "red"), lambda: pipe.upsample(square, ["red", "blue"]), lambda: pipe.upsample(square, "red", source=square),
        lambda: pipe.upsample(square, "red", options=upsample_options(temperature=3)), lambda: pipe.upsample(square, "red"),
        lambda: pipe.upsample(square, "red", source=square, mask=mask), lambda: pipe.rank([], "red"),
        lambda: pipe.vary(square, "red", options=draw_options(clip_guidance_scale=1.0, sampler="euler")),
        lambda: pipe.vary(square, "red", options=draw_options(clip_guidance_scale=1.0, num_steps=1)) and None]
    told = []
    for call in calls:
        try:
            call()
            told.append("")
        except Exception as error:
            told.append(f"{type(error).__name__}: {error}")
    return told


STRANGER = """
import json, sys
try:
    import glideslope
    sys.exit("glideslope can be imported here, so nothing is shown")
except ModuleNotFoundError:
    pass
from typing import Any
import numpy as np
import torch
from PIL import Image
from diffusers import DiffusionPipeline
EDIT
full, plain, out, prompts = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
def load(directory, **options):
    return DiffusionPipeline.from_pretrained(directory, trust_remote_code=True, **options)
def refusal(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
told = {"untrusted": refusal(lambda: DiffusionPipeline.from_pretrained(full))}
pipe = load(full)
names = [name for name in pipe.components if name not in ("base", "tokenizer", "scheduler")]
alone = load(full, **dict.fromkeys(names))
assert all(alone.components[name] is None for name in names) and all(pipe.components[name] is not None for name in names)
half = load(full, variant="fp16", torch_dtype=torch.float16)
assert half.upsampler.token_embedding.weight.dtype == torch.float16
pictures = {}
def keep(name, found):
    pictures.update({f"{name}.{key}": array for key, array in found.items()})
keep("full", edit(pipe, pipe.draw_options, pipe.upsample_options))
keep("half", edit(half, half.draw_options, half.upsample_options))
keep("alone", edit(alone, alone.draw_options, alone.upsample_options, guided=False, enlarges=False))
told["full"] = refusals(pipe, pipe.draw_options, pipe.upsample_options)
told["alone"] = refusals(alone, alone.draw_options, alone.upsample_options)
told["no clip_tokenizer"] = refusal(lambda: load(full, clip_tokenizer=None))
told["no upsampler_scheduler"] = refusal(lambda: load(full, upsampler_scheduler=None))
told["no base"] = refusal(lambda: load(full, base=None))
told["no config"] = refusal(lambda: type(pipe.upsampler).from_pretrained("nowhere"))
pipe.base_inpaint, kept = pipe.upsampler_inpaint, pipe.base_inpaint
told["exchanged"] = refusal(lambda: pipe("red"))
pipe.base_inpaint = kept
told |= {name: refusal(getattr(pipe, name)) for name in ("enable_model_cpu_offload", "enable_sequential_cpu_offload")}
told["save"] = refusal(lambda: pipe.save_pretrained("copy"))
other = load(plain)
assert other.upsampler is None and other.clip_tokenizer is not None
images = other(prompts, num_inference_steps=4, seed=5, clip_guidance_scale=2.0).images
keep("plain", {"call": np.stack([np.asarray(image) for image in images])})
images = pipe(prompts, num_inference_steps=4, seed=5, num_images_per_prompt=2, sampler="ddim", guidance_interval=(0.2, 0.9)).images
keep("full", {"call": np.stack([np.asarray(image) for image in images])})
np.savez(out, **pictures)
print(json.dumps(told))
"""
PROMPTS = ["a red circle", "a green tree"]


def write_clip_tokenizer(directory: Path) -> None:
    """Give a release's noised CLIP captions of its own, of the published CLIP's kind."""
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())[:200]  # the smallest noised CLIP knows 512 tokens
    tokens = [*signs, *(sign + WORD_END for sign in signs), START, END]
    vocabulary = Vocabulary({token: number for number, token in enumerate(tokens)}, [])
    CaptionTokenizer(build_tokenizer("clip", vocabulary)).save(directory / "clip_tokenizer/tokenizer.json")


@pytest.fixture(scope="module")
def whole(full_release: Path, tmp_path_factory: pytest.TempPathFactory, tamperer: Any) -> Path:
    """A release with every component there is, and its export beside it; tests must not change them."""
    root = tmp_path_factory.mktemp("whole")
    release = tamperer(Path(shutil.copytree(full_release, root / "release")))
    (release.directory / "clip_tokenizer").mkdir()
    write_clip_tokenizer(release.directory)
    release.json("model_index.json", lambda index: index.update(clip_tokenizer=index["tokenizer"]))
    release.seal()
    export_diffusers(release.directory, root / "export")
    return root


@pytest.fixture(scope="module")
def plain(packed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a release that a run without companions makes."""
    export = tmp_path_factory.mktemp("plain") / "export"
    export_diffusers(packed_run / "release", export)
    return export


@pytest.fixture(scope="module")
def stranger(whole: Path, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a process that cannot import glideslope drew from the exports, and was told."""
    root = tmp_path_factory.mktemp("stranger")
    packages = root / "site"
    packages.mkdir()
    installed = (entry for folder in map(Path, sys.path) if folder.name == "site-packages" for entry in folder.iterdir())
    for entry in installed:
        if "glideslope" not in entry.name and entry.suffix != ".pth" and not (packages / entry.name).exists():
            (packages / entry.name).symlink_to(entry)
    (root / "stranger.py").write_text(STRANGER.replace("EDIT", "".join(inspect.getsource(function) for function in (judge, edit, refusals))))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(packages), "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "hf"),
                   "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HOME": str(root)}
    arguments = [str(root / "stranger.py"), str(whole / "export"), str(plain), str(root / "out.npz"), json.dumps(PROMPTS)]
    command = [os.path.realpath(sys.executable), "-S", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(root / "out.npz")), json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def one_thread() -> Any:
    """As many threads as the stranger has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def compare(theirs: dict[str, Any], name: str, ours: dict[str, Any]) -> None:
    """The same calls gave the same bytes."""
    assert {key for key in theirs if key.startswith(f"{name}.") and key != f"{name}.call"} == {f"{name}.{key}" for key in ours}
    for key, array in ours.items():
        assert np.array_equal(array, theirs[f"{name}.{key}"]), f"{name}: {key}"


@pytest.mark.parametrize(("name", "loading", "editing"), [
    ("full", {}, {}), ("half", {"variant": "fp16"}, {}), ("alone", {"components": []}, {"guided": False, "enlarges": False})])
def test_a_stranger_without_glideslope_draws_and_edits_the_same_pictures(
        stranger: Any, whole: Path, one_thread: None, name: str, loading: Any, editing: Any) -> None:
    pipe = GlidePipeline.from_pretrained(whole / "release", device="cpu", **loading)
    compare(stranger[0], name, edit(pipe, DrawOptions, UpsampleOptions, **editing))


def test_calling_the_pipeline_draws_the_same_pictures(stranger: Any, whole: Path, packed_run: Path, one_thread: None) -> None:
    pipe = GlidePipeline.from_pretrained(whole / "release", device="cpu")
    ours = pipe(PROMPTS, num_steps=4, seed=5, num_images=2, sampler="ddim", guidance_interval=(0.2, 0.9)).images
    assert np.array_equal(np.stack([np.asarray(image) for image in ours]), stranger[0]["full.call"])
    pipe = GlidePipeline.from_pretrained(packed_run / "release", device="cpu")
    ours = pipe(PROMPTS, num_steps=4, seed=5, clip_guidance_scale=2.0).images
    assert np.array_equal(np.stack([np.asarray(image) for image in ours]), stranger[0]["plain.call"])
    assert not np.array_equal(stranger[0]["full.inpaint"], stranger[0]["alone.inpaint"])


def test_a_stranger_is_refused_in_the_same_words(stranger: Any, whole: Path) -> None:
    for name, components in (("full", None), ("alone", [])):
        pipe = GlidePipeline.from_pretrained(whole / "release", device="cpu", components=components)
        ours = refusals(pipe, DrawOptions, UpsampleOptions)
        assert stranger[1][name] == ours
        assert all(told.startswith("RequestError: ") for told in (ours if name == "alone" else ours[:15]))
    assert "this release has no upsampler, or it was not loaded" in stranger[1]["alone"][15]
    assert "this release has no noised_clip" in stranger[1]["alone"][-1]


@pytest.mark.parametrize(("case", "told"), [
    ("untrusted", "trust_remote_code"), ("no clip_tokenizer", "CheckpointError: noised_clip: needs clip_tokenizer, which is missing"),
    ("no upsampler_scheduler", "CheckpointError: upsampler: needs upsampler_scheduler"), ("no base", "base: is missing"),
    ("exchanged", "CheckpointError: base_inpaint: super_res is True"), ("save", "RequestError: save_pretrained: "),
    ("enable_model_cpu_offload", "RequestError: offloading: "), ("enable_sequential_cpu_offload", "RequestError: offloading: "),
    ("no config", "CheckpointError: nowhere/config.json: is not there; download the whole export")])
def test_components_that_do_not_go_together_are_refused_by_name(stranger: Any, case: str, told: str) -> None:
    assert told in stranger[1][case]


def test_an_export_holds_every_component_of_the_release(whole: Path, plain: Path, packed_run: Path) -> None:
    release = open_evidence(whole / "release")
    assert list(choose_parts(release)) == PARTS and check_export(whole / "export") == []
    assert all((whole / "export" / name).is_dir() for name in PARTS)
    for name in ("upsampler", "base_inpaint", "clip_tokenizer"):
        for path in (whole / "release" / name).iterdir():
            assert path.read_bytes() == (whole / "export" / name / path.name).read_bytes()
    assert (whole / "export/clip_tokenizer/tokenizer_clip.py").is_file() and (whole / "export/tokenizer/tokenizer_glide.py").is_file()
    assert json.loads((whole / "export/upsampler_scheduler/scheduler_config.json").read_text())["beta_schedule"] == "linear"
    assert "pipe.upsample(" in (whole / "export/README.md").read_text()
    index = json.loads((plain / "model_index.json").read_text())
    assert index["upsampler"] == [None, None] and "pipe.upsample(" not in (plain / "README.md").read_text()
    assert (plain / "clip_tokenizer/tokenizer.json").read_bytes() == (packed_run / "release/tokenizer/tokenizer.json").read_bytes()
    assert not any("ftfy" in path.read_text() for path in plain.rglob("*.py"))


def test_an_export_says_where_it_comes_from_and_what_it_holds(packed_run: Path, tmp_path: Path) -> None:
    export_diffusers(packed_run / "release", tmp_path / "export")
    stated = json.loads((tmp_path / "export/export.json").read_text())
    root = json.loads((packed_run / "release/manifest.json").read_text())["root"]
    assert stated["release_root"] == root and root in (tmp_path / "export/README.md").read_text()
    assert (tmp_path / "export/base/diffusion_pytorch_model.safetensors").read_bytes() == (
        packed_run / "release/base/diffusion_pytorch_model.safetensors").read_bytes()
    assert check_export(tmp_path / "export", packed_run / "release") == []


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


COMPONENTS = {"base": ("modeling_glide", "GlideUNet"), "noised_clip": ("modeling_clip", "GlideNoisedClip"),
              "tokenizer": ("tokenizer_glide", "GlideTokenizer"), "clip_tokenizer": ("tokenizer_clip", "GlideClipTokenizer"),
              "scheduler": ("diffusers", "DDPMScheduler")}
IMPORTED = {"torch", "diffusers", "ftfy", "safetensors", "tokenizers", "numpy", "PIL", "__future__", "enum", "collections", "contextlib",
            "dataclasses", "functools", "html", "io", "json", "math", "pathlib", "re", "sys", "typing", "unicodedata"}


def test_generated_code_asks_for_few_packages_runs_nothing_on_import_and_is_the_same_every_time() -> None:
    code = generate_code(COMPONENTS)
    assert sorted(code) == ["base/modeling_glide.py", "clip_tokenizer/tokenizer_clip.py", "noised_clip/modeling_clip.py", "pipeline.py",
                            "tokenizer/tokenizer_glide.py"]
    for path, text in code.items():
        body = ast.parse(text).body
        imported = {name for node in body if isinstance(node, ast.Import | ast.ImportFrom)
                    for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])}
        assert {name.split(".")[0] for name in imported} <= IMPORTED, path
        assert not any(isinstance(node, ast.If | ast.For | ast.While | ast.With | ast.Try | ast.Delete | ast.AsyncFunctionDef) for node in body)
        assert text.count("(DiffusionPipeline)") == int(path == "pipeline.py")  # diffusers takes the first that it finds
    assert [path for path, text in code.items() if "ftfy" in text] == ["clip_tokenizer/tokenizer_clip.py"]
    assert code == generate_code(COMPONENTS)


def test_generated_code_does_not_ask_for_its_own_classes_since_a_module_is_run_anew_for_each_component() -> None:
    for path, text in generate_code(COMPONENTS).items():
        tree = ast.parse(text)
        own = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        asked = [call.args[1] for call in ast.walk(tree)
                 if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("isinstance", "issubclass")]
        assert own.isdisjoint(name.id for kind in asked for name in ast.walk(kind) if isinstance(name, ast.Name)), path


def test_a_network_that_is_left_out_brings_no_code() -> None:
    assert "noised_clip/modeling_clip.py" not in generate_code({"base": COMPONENTS["base"]})
