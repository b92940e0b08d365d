import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from glideslope.cli.main import app
from glideslope.clip.model import Clip
from glideslope.errors import CheckpointError, GlideslopeError, RequestError, StorageError, VerificationError
from glideslope.models.drawing import files as drawing
from glideslope.models.drawing.files import (
    DrawRequest,
    GuidingClip,
    draw_to_files,
    enlargement,
    lay_out,
    read_prompts,
    weights_sha256,
    write_sheets,
)
from glideslope.models.drawing.options import DrawOptions
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.loading.components import WEIGHTS_NAME
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.pictures.sheets import largest_grid
from glideslope.store.digests import sha256_file
from glideslope.store.weight_files import weights_name

from ...glideslope.test_other_systems import TAKEN_AWAY
from ..conftest import sign_again

QUICK = DrawOptions(num_steps=2, seed=7, sampler="dpm++")
PROMPTS = ("a red square", "a blue bar 🟦")


def facts(path: Path) -> dict[str, Any]:
    return dict(json.loads(Image.open(path).text["glideslope"]))  # type: ignore[attr-defined]  # PNG only


def draw(release: Path, prompts: Sequence[str], out: Path, options: DrawOptions = QUICK, **more: Any) -> list[Path]:
    return draw_to_files(release, DrawRequest(prompts, out, options, **more))


def test_a_single_picture_is_written_with_how_it_was_made(whole_release: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = tmp_path / "new" / "one.PNG"
    request = DrawRequest(PROMPTS[:1], path, QUICK)
    assert draw_to_files(whole_release, request, progress=lambda done, total, text: told.append((done, total))) == [path]
    assert Image.open(path).size == (16, 16)
    assert facts(path) == {"prompt": "a red square", "seed": 7, "options": json.loads(json.dumps(QUICK.to_json())), "upsampled": False,
                           "clip": None, "dtype": "float32", "variant": None, "device": "cpu",
                           "manifest_sha256": sha256_file(whole_release / "manifest.json")}
    assert told == [(1, 2), (2, 2)]


def test_every_picture_of_a_directory_can_be_drawn_again_from_its_own_text(whole_release: Path, tmp_path: Path) -> None:
    options = DrawOptions(num_images=2, num_steps=3, seed=5, sampler="dpm++sde", guidance_interval=(0.1, 0.9))
    written = draw(whole_release, PROMPTS, tmp_path / "out", options)
    assert [path.name for path in written] == ["0000.png", "0001.png", "0002.png", "0003.png", "sheet.png"]
    pipe = GlidePipeline.from_pretrained(whole_release, device="cpu")
    for path, prompt, seed in zip(written[:-1], [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2, range(5, 9), strict=True):
        told = facts(path)
        assert (told["prompt"], told["seed"]) == (prompt, seed)
        again = pipe.draw(told["prompt"], DrawOptions(**told["options"] | {"seed": told["seed"], "num_images": 1})).images[0]
        assert np.abs(np.asarray(again).astype(int) - np.asarray(Image.open(path))).max() <= 1  # other batch, other rounding
    sheet = facts(written[-1])
    assert (sheet["prompts"], sheet["seeds"]) == ([PROMPTS[0]] * 2 + [PROMPTS[1]] * 2, [5, 6, 7, 8])


def test_pictures_are_the_same_in_whatever_batches_they_are_drawn(whole_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = DrawOptions(num_images=3, num_steps=2)
    together = draw(whole_release, PROMPTS, tmp_path / "together", options)
    monkeypatch.setattr(drawing, "DRAW_BATCH", 2)
    apart = draw(whole_release, PROMPTS, tmp_path / "apart", options)
    for first, second in zip(together, apart, strict=True):
        assert np.abs(np.asarray(Image.open(first)).astype(int) - np.asarray(Image.open(second))).max() <= 1
        assert facts(first) == facts(second)


def test_several_pictures_in_one_file_become_a_sheet_with_their_prompts_under_them(whole_release: Path, tmp_path: Path) -> None:
    assert draw(whole_release, PROMPTS[:1], tmp_path / "sheet.png", DrawOptions(num_images=5, num_steps=1)) == [tmp_path / "sheet.png"]
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (4 * 132 + 4, 2 * (132 + 14) + 4)
    under = np.asarray(sheet)[132:146]
    assert (under < 128).any()  # letters
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_many_pictures_make_a_sheet_about_as_wide_as_high(whole_release: Path, tmp_path: Path) -> None:
    draw(whole_release, PROMPTS[:1], tmp_path / "sheet.png", DrawOptions(num_images=26, num_steps=1))
    assert Image.open(tmp_path / "sheet.png").width == 6 * 132 + 4


def test_so_many_pictures_that_no_viewer_would_open_their_sheet_make_several(tmp_path: Path) -> None:
    images = [Image.new("RGB", (16, 16), (number % 256, 0, 0)) for number in range(800)]
    request = DrawRequest([f"a prompt of several words, number {number}" for number in range(800)], tmp_path / "out.png", QUICK)
    written = write_sheets(request, images, {})
    assert [path.name for path in written] == ["out.png", "out-2.png", "out-3.png"]
    assert all(max(Image.open(path).size) <= 4096 for path in written)
    told = [facts(path) for path in written]
    assert [prompt for one in told for prompt in one["prompts"]] == request.captions
    assert [seed for one in told for seed in one["seeds"]] == list(range(QUICK.seed, QUICK.seed + 800))


@given(width=st.integers(1, 900), height=st.integers(1, 2100), number=st.integers(1, 400))
@settings(max_examples=10)
def test_a_sheet_stays_within_what_viewers_open_and_as_many_pictures_as_fit_lie_on_one(width: int, height: int, number: int) -> None:
    image = Image.new("RGB", (width, height))
    columns, rows = largest_grid(image, scale=enlargement(image), max_columns=16)
    sheet = lay_out([image] * min(number, columns * rows), ["some words"] * min(number, columns * rows))
    assert sheet.width <= 4096
    assert sheet.height <= max(4096, height * enlargement(image) + 50)


def test_two_commands_at_once_both_keep_their_pictures(whole_release: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "glideslope", "sample", str(whole_release), "a red square", "--num-steps", "1", "--seed"]
    running = [subprocess.Popen([*command, str(seed)], cwd=tmp_path, stdout=subprocess.PIPE, text=True) for seed in (1, 2)]
    told = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"samples.png", "samples-2.png"}
    for seed, line in zip((1, 2), told, strict=True):
        assert facts(tmp_path / line.split()[-1])["seed"] == seed


def test_a_name_that_another_process_takes_while_drawing_is_left_to_it(whole_release: Path, tmp_path: Path) -> None:
    def take(done: int, total: int, text: str) -> None:
        (tmp_path / "out.png").write_bytes(b"theirs")

    assert draw_to_files(whole_release, DrawRequest(PROMPTS[:1], tmp_path / "out.png", QUICK), progress=take) == [tmp_path / "out-2.png"]
    assert (tmp_path / "out.png").read_bytes() == b"theirs"


def test_a_release_draws_on_a_system_without_the_calls_of_unix(whole_release: Path, tmp_path: Path) -> None:
    program = f"{TAKEN_AWAY}\nfrom glideslope.cli.main import main\nmain()"
    done = subprocess.run([sys.executable, "-c", program, "sample", str(whole_release), "a red square", "--num-steps", "1"], cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert (done.returncode, [path.name for path in tmp_path.iterdir()]) == (0, ["samples.png"]), done.stderr


def test_previews_show_what_is_foreseen_after_every_step_of_every_batch(
        whole_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "DRAW_BATCH", 1)
    draw(whole_release, PROMPTS, tmp_path / "out.png", QUICK, previews=tmp_path / "previews")
    found = sorted((tmp_path / "previews").iterdir())
    assert [path.name for path in found] == ["00001.png", "00002.png", "00003.png", "00004.png"]
    assert [facts(path)["step"] for path in found] == [1, 2, 1, 2]
    assert Image.open(found[0]).size == (4 * 132 + 4, 132 + 4)


def test_pictures_are_enlarged_by_a_release_with_an_upsampler_and_progress_counts_it(full_release: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    written = draw_to_files(full_release, DrawRequest(PROMPTS, tmp_path / "out", QUICK, upsample=True),
                            progress=lambda done, total, text: told.append((done, total)))
    assert Image.open(written[0]).size == (32, 32)
    assert facts(written[0])["upsampled"] is True
    assert told[-1][0] == told[-1][1] == len(told)


@pytest.mark.parametrize(("upsample", "side"), [(None, 32), (True, 32), (False, 16)])
def test_a_release_with_an_upsampler_enlarges_unless_it_is_told_not_to(full_release: Path, tmp_path: Path, upsample: bool | None,
                                                                       side: int) -> None:
    path = draw_to_files(full_release, DrawRequest(PROMPTS[:1], tmp_path / "one.png", QUICK, upsample=upsample))[0]
    assert Image.open(path).size == (side, side) and facts(path)["upsampled"] is (side == 32)


def test_without_an_upsampler_enlarging_is_refused_before_anything_is_drawn(whole_release: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"--upsample: .* has no upsampler; draw without it, or from a release that has one"):
        draw(whole_release, PROMPTS, tmp_path / "out", upsample=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("prompts", "name", "told"), [
    (["a red square"], "out.jpg", r"end the name with \.png, or name a directory"), ([" "], "out.png", "caption is empty"),
    (["a", ""], "out", "caption is empty"), ([], "out", "the list is empty"), (["a"], "full", "is there already and no empty directory"),
    (["a"], "file", "is there already and no empty directory"), (["a"], "taken.png", "is there already; name a new one, nothing is overwr"),
    (["a"], "folder.png", r"--out .*folder\.png: is a directory; name a new one"), (["a"], "dangling.png", "is there already")])
def test_an_impossible_request_is_refused_before_the_release_is_read(tmp_path: Path, prompts: list[str], name: str, told: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "file").touch()
    (tmp_path / "taken.png").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RequestError, match=told):
        draw(tmp_path / "no release", prompts, tmp_path / name)
    with pytest.raises(RequestError, match=r"--previews .* is there already"):
        draw(tmp_path / "no release", ["a"], tmp_path / "out.png", previews=tmp_path / "full")
    with pytest.raises(RequestError, match=r"--previews .*new: is --out as well"):
        draw(tmp_path / "no release", ["a"], tmp_path / "new", previews=tmp_path / "full" / ".." / "new")
    assert (tmp_path / "taken.png").read_text() == "mine"


def test_a_prompt_too_long_for_the_model_is_refused_or_cut_if_that_is_wanted(whole_release: Path, tmp_path: Path) -> None:
    long = "a red square and " * 20
    with pytest.raises(RequestError, match=r"tokens long, this model reads 16; shorten it, or allow it to be cut"):
        draw(whole_release, ["a red square", long], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    draw(whole_release, [long], tmp_path / "cut.png", DrawOptions(num_steps=1, cut_long_prompts=True))
    assert facts(tmp_path / "cut.png")["prompt"] == long


def test_a_prompt_too_long_for_the_model_is_refused_before_its_weights_are_read(release: Path, tmp_path: Path) -> None:
    (release / "manifest.json").unlink()
    (release / "base" / WEIGHTS_NAME).write_bytes(b"no weights")
    with pytest.raises(RequestError, match="tokens long"):
        draw(release, ["a red square and " * 20], tmp_path / "out")
    with pytest.raises(CheckpointError):
        draw(release, ["a red square"], tmp_path / "out")


@pytest.mark.parametrize("name", ["file/out.png", "file/out", "x" * 245 + ".png", "new/" + "x" * 256, "a\0b.png", "/proc/x.png", "/sys/x"])
def test_a_place_that_cannot_be_written_is_refused_before_the_release_is_read_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"--out .*: cannot write there \(.+\); name a place that can be written. Nothing was drawn"):
        draw(tmp_path / "no release", ["a"], tmp_path / name)
    with pytest.raises(StorageError, match=r"--previews .*: cannot write there \(.+\)"):
        draw(tmp_path / "no release", ["a"], tmp_path / "out.png", previews=tmp_path / (name if name[0] != "x" else "/proc/x"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_was_made_to_try_a_place_is_gone_again_and_the_empty_directory_that_was_there_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/folder", "other/out.png"):
        DrawRequest(["a"], tmp_path / name, QUICK).check()
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_a_place_that_can_no_longer_be_written_is_one_error_that_promises_nothing(whole_release: Path, tmp_path: Path) -> None:
    def fill(done: int, total: int, text: str) -> None:
        (tmp_path / "out").touch()

    with pytest.raises(StorageError, match=r"cannot write .*out/0000\.png: .*; free space or choose another directory, and draw again"):
        draw_to_files(whole_release, DrawRequest(PROMPTS, tmp_path / "out", QUICK), progress=fill)


def test_long_prompts_that_may_be_cut_are_cut_for_the_upsampler_too(full_release: Path, tmp_path: Path) -> None:
    draw(full_release, ["a red square and " * 20], tmp_path / "cut.png", DrawOptions(num_steps=1, cut_long_prompts=True), upsample=True)
    assert Image.open(tmp_path / "cut.png").size == (32, 32)


def test_prompts_too_long_for_the_upsampler_or_the_noised_clip_are_refused_before_any_weights_are_read(
        full_release: Path, tmp_path: Path, tokenizer: CaptionTokenizer) -> None:
    release = Path(shutil.copytree(full_release, tmp_path / "release"))
    (release / "manifest.json").unlink()
    for name, field, limit in (("upsampler", "text_ctx", 2), ("noised_clip", "max_text_len", 4)):
        config = json.loads((release / name / "config.json").read_text())
        (release / name / "config.json").write_text(json.dumps(config | {field: limit}))
    (release / "base" / WEIGHTS_NAME).write_bytes(b"no weights")
    assert 2 < len(tokenizer.encode("a red square", 99)) <= 16
    for more in ({"upsample": True}, {"options": dataclasses.replace(QUICK, clip_guidance_scale=1.0)}):
        with pytest.raises(RequestError, match=r"tokens long, this model reads 2; shorten it, or allow it to be cut \(--cut-long-prompts"):
            draw(release, ["a red square"], tmp_path / "out", **more)


def test_nothing_is_drawn_from_a_release_that_was_changed(release: Path, tmp_path: Path) -> None:
    (release / "base" / "config.json").write_text("{}")
    with pytest.raises(VerificationError, match=r"base/config\.json"):
        draw(release, PROMPTS, tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_without_a_manifest_the_weights_themselves_are_named(release: Path, tmp_path: Path) -> None:
    (release / "manifest.json").unlink()
    draw(release, PROMPTS[:1], tmp_path / "out.png")
    told = facts(tmp_path / "out.png")
    assert told["manifest_sha256"] is None
    assert told["base_sha256"] == sha256_file(release / "base" / "diffusion_pytorch_model.safetensors")


def test_a_prompt_file_has_one_prompt_a_line_and_blank_lines_are_told(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa red square\r\n\r\n  a blue bar 🟦 \n\t\nline\u2028separator\n".encode())
    assert read_prompts(path) == (["a red square", "a blue bar 🟦", "line\u2028separator"], [2, 4])
    path.write_text("no newline at the end")
    assert read_prompts(path) == (["no newline at the end"], [])


@pytest.mark.parametrize(("content", "told"), [
    (b"", "holds no prompt; write one per line"), (b"\n \n", "holds no prompt"), (b"a\nb\xff\xfe", r"is not UTF-8: byte 3 in line 2 is 0xff"),
    ("a cat".encode("utf-16"), "is UTF-16, expected UTF-8; convert it: iconv"),
    (None, "No such file"), (b"a" * 101, "more than 100 bytes, which are not read; split it")])
def test_a_prompt_file_that_cannot_be_used_is_refused(
        tmp_path: Path, content: bytes | None, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "MAX_PROMPT_FILE_BYTES", 100)
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RequestError, match=f"--prompt-file .*{told}"):
        read_prompts(path)


def test_the_command_draws_prompts_and_a_file_of_them_and_says_what_it_skipped(whole_release: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a blue bar\n\n🟥\n", encoding="utf-8")
    arguments = ["sample", str(whole_release), "a red square", "--prompt-file", str(tmp_path / "prompts.txt"), "--num-steps", "2", "--sampler",
                 "dpm++sde", "--guidance", "both", "--guidance-scale", "2", "--guidance-interval", "0.1", "0.9", "--seed", "4",
                 "--out", str(tmp_path / "out"), "--previews", str(tmp_path / "previews")]
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 0, ended.output
    assert f"{tmp_path / 'prompts.txt'}: blank lines skipped: 2" in ended.stdout
    assert f"wrote 3 pictures and {tmp_path / 'out' / 'sheet.png'}" in ended.stdout
    assert [facts(path)["prompt"] for path in sorted((tmp_path / "out").glob("0*.png"))] == ["a red square", "a blue bar", "🟥"]
    assert facts(tmp_path / "out" / "0002.png")["options"] == DrawOptions(
        num_steps=2, sampler="dpm++sde", guidance_scale=2.0, clip_guidance_scale=3.0, guidance_interval=(0.1, 0.9), seed=4).to_json() | {
        "guidance_interval": [0.1, 0.9]}
    assert len(list((tmp_path / "previews").iterdir())) == 2


def small_clip(seed: int) -> Clip:
    """An open_clip model of 32x32 images with fresh weights."""
    torch.manual_seed(seed)
    model = open_clip.model.CLIP(
        embed_dim=16, vision_cfg=open_clip.model.CLIPVisionCfg(layers=1, width=32, head_width=16, patch_size=8, image_size=32),
        text_cfg=open_clip.model.CLIPTextCfg(context_length=77, vocab_size=49408, width=16, heads=2, layers=1))
    return Clip("small", model.eval(), 32, (0.5,) * 3, (0.25,) * 3, open_clip.get_tokenizer("ViT-B-32"))


def test_the_text_names_the_guiding_clip_with_the_digest_of_its_weights(whole_release: Path, tmp_path: Path) -> None:
    options, told = DrawOptions(num_steps=4, guidance_scale=1.0, clip_guidance_scale=1000.0), {}
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        guide = GuidingClip("tiny", "w.pt", lambda _, seed=seed: small_clip(seed))
        draw(whole_release, ["a red square"], tmp_path / f"{name}.png", options, clip=guide)
        told[name] = facts(tmp_path / f"{name}.png")["clip"]
    assert {name: clip["name"] for name, clip in told.items()} == dict.fromkeys(told, "tiny")
    assert told["one"] == told["same"] == {"name": "tiny", "pretrained": "w.pt", "weights_sha256": weights_sha256(small_clip(0).model)}
    assert told["other"]["weights_sha256"] != told["one"]["weights_sha256"]
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "same.png").read_bytes()
    assert Image.open(tmp_path / "one.png").tobytes() != Image.open(tmp_path / "other.png").tobytes()


def test_the_digest_of_weights_tells_names_types_shapes_and_values_apart() -> None:
    def digest(**tensors: torch.Tensor) -> str:
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return weights_sha256(module)

    ones = torch.ones(2, 3)
    others = [digest(b=ones), digest(a=ones.bfloat16()), digest(a=ones.T), digest(a=-ones), digest(a=ones, b=torch.tensor(1.0)), digest()]
    assert len({digest(a=ones), *others}) == 7
    assert digest(a=torch.arange(6.0).view(2, 3).T) == digest(a=torch.arange(6.0).view(2, 3).T.contiguous())


def test_a_guiding_clip_is_not_loaded_for_a_request_that_is_refused(release: Path, tmp_path: Path) -> None:
    guide = GuidingClip("tiny", None, lambda _: pytest.fail("the CLIP was loaded"))
    (tmp_path / "taken.png").touch()
    (release / "base" / "config.json").write_text("{}")
    for place, out, error in ((tmp_path / "no release", "taken.png", RequestError), (tmp_path / "no release", "out.png", CheckpointError),
                              (release, "out.png", VerificationError)):
        with pytest.raises(error):
            draw(place, ["a"], tmp_path / out, DrawOptions(num_steps=1, clip_guidance_scale=1.0), clip=guide)


def test_the_command_looks_for_the_release_before_it_loads_a_clip(whole_release: Path, tmp_path: Path) -> None:
    clip = ["--guidance", "clip", "--clip", "no-such-model", "--clip-pretrained", "x", "--out", str(tmp_path / "out.png"), "--num-steps", "1"]
    for release, told in ((tmp_path / "nowhere", "no such directory"), (whole_release, "no-such-model .* cannot be loaded by open_clip")):
        with pytest.raises(GlideslopeError, match=told):
            CliRunner().invoke(app, ["sample", str(release), "a red square", *clip], catch_exceptions=False)


def test_the_command_chooses_device_type_and_variant_and_the_text_tells_them(whole_release: Path, tmp_path: Path) -> None:
    release = Path(shutil.copytree(whole_release, tmp_path / "release"))
    for name in ("base", "noised_clip"):
        halves = {key: tensor.half() for key, tensor in load_file(release / name / WEIGHTS_NAME).items()}
        save_file(halves, release / name / weights_name("fp16"))
    sign_again(release)
    command = ["sample", str(release), "a red square", "--num-steps", "2", "--device", "cpu"]
    made = {"plain": [], "cast": ["--dtype", "bfloat16"], "half": ["--variant", "fp16"], "wide": ["--variant", "fp16", "--dtype", "float32"]}
    for name, options in made.items():
        CliRunner().invoke(app, [*command, *options, "--out", str(tmp_path / f"{name}.png")], catch_exceptions=False)
    told = {name: facts(tmp_path / f"{name}.png") for name in made}
    assert {name: (found["dtype"], found["variant"], found["device"]) for name, found in told.items()} == {
        "plain": ("float32", None, "cpu"), "cast": ("bfloat16", None, "cpu"), "half": ("float16", "fp16", "cpu"),
        "wide": ("float32", "fp16", "cpu")}
    assert Image.open(tmp_path / "plain.png").tobytes() != Image.open(tmp_path / "cast.png").tobytes()


@pytest.mark.parametrize(("option", "value", "told"), [
    ("--device", "warp", "device is 'warp', which cannot be used here"), ("--device", "meta", "device is 'meta', which cannot be used here"),
    ("--dtype", "int8", "dtype is 'int8'; expected one of float32, float16, bfloat16"),
    ("--variant", "fp32", "variant is 'fp32'; expected none or one of")])
@pytest.mark.parametrize("command", [["sample", "nowhere", "a"], ["edit", "nowhere", "--prompt", "a", "--image", "none.png"]])
def test_an_unusable_device_type_or_variant_is_refused_before_the_release_is_looked_for(
        command: list[str], option: str, value: str, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        CliRunner().invoke(app, [*command, option, value], catch_exceptions=False)


def test_without_a_name_the_command_takes_one_that_is_free(whole_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("samples.png", "samples-2.png", "samples-3.png"):
        ended = CliRunner().invoke(app, ["sample", str(whole_release), "a red square", "--num-steps", "1"], catch_exceptions=False)
        assert f"wrote {name}" in ended.stdout
    assert len({path.stat().st_ino for path in tmp_path.iterdir()}) == 3


def test_a_release_that_is_no_name_or_a_file_is_refused_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "p.txt").touch()
    for release, told in (("", "RELEASE is empty"), ("in/p.txt", "in/p.txt: is no directory; give the directory of a release")):
        with pytest.raises(CheckpointError, match=told):
            CliRunner().invoke(app, ["sample", release, "a red square"], catch_exceptions=False)
