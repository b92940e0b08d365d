import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from glideslope.errors import CheckpointError, GlideslopeError, RequestError, VerificationError
from glideslope.models.diffusion.samplers import SAMPLERS, SampleState
from glideslope.models.drawing import pipeline as pipeline_module
from glideslope.models.drawing.editing import UpsampleOptions
from glideslope.models.drawing.options import DrawOptions
from glideslope.models.drawing.pipeline import GlideOutput, GlidePipeline
from glideslope.models.drawing.pixels import fit_square, to_model_range
from glideslope.models.loading.components import WEIGHTS_NAME
from glideslope.models.loading.loaded_networks import Networks
from glideslope.models.networks.components import component_config
from glideslope.models.networks.noised_clip import NoisedClip
from glideslope.models.networks.presets import NOISED_CLIP_PRESETS
from glideslope.models.networks.unet import TextConditionedUNet
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.recipe.components import CONFIG_NAME
from glideslope.store.whole_files import write_json

from ...hostile_torch import SURROUNDINGS
from ..conftest import COLOURS, picture, sign_again

pytestmark = pytest.mark.processors

PROMPT = "a red square"


@pytest.fixture(scope="module")
def pipe(whole_release: Path) -> GlidePipeline:
    return GlidePipeline.from_pretrained(whole_release, device="cpu", verify="required")


def arrays(output: GlideOutput) -> list[np.ndarray]:
    return [np.asarray(image) for image in output.images]


def test_a_seed_gives_the_same_picture_alone_and_in_any_batch(pipe: GlidePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    together = pipe(PROMPT, num_images=5, num_steps=4, seed=10)
    assert together.seeds == [10, 11, 12, 13, 14]
    alone = pipe(PROMPT, num_steps=4, seed=13)
    monkeypatch.setattr(pipeline_module, "DRAW_BATCH", 2)
    in_pairs = pipe(PROMPT, num_images=5, num_steps=4, seed=10)
    for first, second in zip(arrays(together), arrays(in_pairs), strict=True):
        assert np.abs(first.astype(int) - second).max() <= 1  # matrix products round differently in another batch
    assert np.abs(arrays(together)[3].astype(int) - arrays(alone)[0]).max() <= 1
    assert np.abs(arrays(together)[3].astype(int) - arrays(together)[2]).max() > 30


def test_the_same_call_gives_the_same_bytes(pipe: GlidePipeline) -> None:
    first, second = (pipe(PROMPT, num_images=2, num_steps=3, seed=4) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(arrays(first), arrays(second), strict=True))


def test_every_prompt_is_drawn_as_often_as_asked(pipe: GlidePipeline) -> None:
    output = pipe([PROMPT, "a blue bar"], num_images=2, num_steps=2)
    assert len(output.images) == 4
    assert output.seeds == [0, 1, 2, 3]
    assert all(image.size == (16, 16) and image.mode == "RGB" for image in output.images)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_the_caption_counts_and_guidance_makes_it_count_more(pipe: GlidePipeline, sampler: str) -> None:
    def difference(scale: float) -> float:
        one, other = (pipe(text, num_steps=8, guidance_scale=scale, sampler=sampler) for text in (PROMPT, "a blue bar"))
        return float(np.abs(arrays(one)[0].astype(int) - arrays(other)[0]).mean())

    assert difference(0.0) < difference(1.0) / 2 < difference(8.0) / 4  # DDPM's learned variance is the caption's even at 0


def test_guidance_scale_one_is_the_conditional_model_alone(pipe: GlidePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    denoise = pipe.networks.base.denoise
    monkeypatch.setattr(pipe.networks.base, "denoise", lambda x, *rest: sizes.append(len(x)) or denoise(x, *rest))
    pipe(PROMPT, num_images=3, num_steps=2, guidance_scale=1.0)
    assert sizes == [3, 3]
    pipe(PROMPT, num_images=3, num_steps=2, guidance_scale=2.0)
    assert sizes == [3, 3, 6, 6]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_with_every_sampler_and_guidance_a_seed_gives_the_same_picture_whatever_the_batch(pipe: GlidePipeline, sampler: str) -> None:
    options = DrawOptions(num_steps=4, sampler=sampler, seed=3, clip_guidance_scale=2.0, guidance_interval=(0.2, 0.9))
    together = arrays(pipe.draw(PROMPT, replace(options, num_images=3)))
    alone = arrays(pipe.draw(PROMPT, replace(options, seed=5)))[0]
    assert np.abs(together[2].astype(int) - alone).max() <= 1  # of 255
    assert np.abs(together[2].astype(int) - together[1]).max() > 30


def test_outside_its_interval_guidance_costs_nothing(pipe: GlidePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    denoise = pipe.networks.base.denoise
    monkeypatch.setattr(pipe.networks.base, "denoise", lambda x, t, *rest: asked.append((int(t[0]), len(x))) or denoise(x, t, *rest))
    pipe(PROMPT, num_images=2, num_steps=5, guidance_interval=(0.2, 0.6), sampler="unipc")
    assert asked == [(999, 2), (749, 2), (500, 4), (250, 4), (0, 2)]


def test_a_whole_interval_is_no_interval_and_one_without_a_step_is_no_guidance(pipe: GlidePipeline) -> None:
    def draw(**options: object) -> np.ndarray:
        return arrays(pipe(PROMPT, num_steps=3, sampler="dpm++", **options))[0]  # type: ignore[arg-type]  # checked by the pipeline

    assert np.array_equal(draw(guidance_interval=(0, 1)), draw())
    assert np.abs(draw(guidance_interval=(0.6, 0.7)).astype(int) - draw(guidance_scale=1.0)).max() <= 1
    assert np.abs(draw().astype(int) - draw(guidance_scale=1.0)).max() > 30


def test_emoji_are_words_like_others_and_too_many_words_are_refused_unless_cut(pipe: GlidePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not np.array_equal(*(arrays(pipe(text, num_steps=2))[0] for text in ("🟥", "🟦")))
    long = "a red square and a blue bar " * 9
    cut = arrays(pipe.draw(long, DrawOptions(num_steps=2, cut_long_prompts=True)))[0]
    assert np.abs(cut.astype(int) - arrays(pipe.draw(long + " and a corner", DrawOptions(num_steps=2, cut_long_prompts=True)))[0]).max() == 0
    monkeypatch.setattr(pipe.networks.base, "denoise", lambda *_: pytest.fail("the network ran"))
    with pytest.raises(RequestError, match=r"prompt: 'a red square and a blue bar .* tokens long, this model reads 16; shorten it, or allow"):
        pipe([PROMPT, long], num_steps=2)


def agreement(pipe: GlidePipeline, images: list[Image.Image], prompt: str) -> float:
    return float(np.mean([score for _, score in pipe.rank(images, prompt)]))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_clip_guidance_raises_the_agreement_with_the_caption(pipe: GlidePipeline, sampler: str) -> None:
    plain = pipe(PROMPT, num_images=4, num_steps=12, sampler=sampler)
    guided = pipe(PROMPT, num_images=4, num_steps=12, sampler=sampler, clip_guidance_scale=10.0)
    assert agreement(pipe, guided.images, PROMPT) > agreement(pipe, plain.images, PROMPT) + 0.01


def test_ranking_orders_pictures_by_their_agreement(pipe: GlidePipeline) -> None:
    images = [Image.fromarray(np.full((20, 20, 3), colour, dtype=np.uint8)) for colour in COLOURS.values()]
    ranked = pipe.rank(images, PROMPT)
    assert sorted(position for position, _ in ranked) == [0, 1, 2, 3]
    assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
    assert pipe.networks.noised_clip is not None
    with torch.no_grad():
        text = pipe.networks.noised_clip.encode_text(*pipe.networks.tokenizer.encode_delimited([PROMPT], 18))[0]
        for position, score in ranked:
            square = torch.from_numpy(fit_square(np.asarray(images[position]), 16)).permute(2, 0, 1)
            cosine = pipe.networks.noised_clip.encode_image(to_model_range(square)[None], torch.zeros(1, dtype=torch.int64))[0] @ text
            assert abs(float(cosine) - score) < 1e-5


def test_previews_come_after_every_step(pipe: GlidePipeline) -> None:
    states: list[SampleState] = []
    pipe(PROMPT, num_steps=5, preview=states.append)
    assert [state.step for state in states] == [1, 2, 3, 4, 5]


def test_half_precision_draws_with_both_kinds_of_guidance(whole_release: Path) -> None:
    pipe = GlidePipeline.from_pretrained(whole_release, dtype=torch.bfloat16, device="cpu")
    assert pipe(PROMPT, num_steps=2, clip_guidance_scale=1.0).images[0].size == (16, 16)
    assert len(pipe.rank([Image.new("RGB", (16, 16))], PROMPT)) == 1


def half_mask() -> Image.Image:
    mask = Image.new("L", (16, 16))
    mask.paste(255, (0, 0, 8, 16))
    return mask


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_seed_draws_one_picture_whatever_the_program_around_has_set(whole_release: Path, pipe: GlidePipeline, name: str) -> None:
    def everything(drawing: GlidePipeline) -> list[np.ndarray]:
        drawn = drawing(PROMPT, num_steps=3, clip_guidance_scale=1.0)
        varied = drawing.vary(drawn.images[0], PROMPT, 0.5, options=DrawOptions(num_steps=2))
        kept = drawing.inpaint(PROMPT, drawn.images[0], half_mask(), options=DrawOptions(num_steps=2))
        return [*arrays(drawn), *arrays(varied), *arrays(kept), np.array(drawing.rank(drawn.images, PROMPT))]

    expected = everything(pipe)
    with SURROUNDINGS[name]():
        found = everything(pipe)
        loaded_there = everything(GlidePipeline.from_pretrained(whole_release, device="cpu", verify="required"))
    for one, two, three in zip(expected, found, loaded_there, strict=True):
        assert np.array_equal(one, two)
        assert np.array_equal(one, three)


@pytest.mark.parametrize("guided", [0.0, 1.0])
def test_numbers_that_are_none_are_refused_with_the_way_out(whole_release: Path, guided: float) -> None:
    pipe = GlidePipeline.from_pretrained(whole_release, device="cpu", dtype="float16")
    assert pipe.networks.noised_clip is not None
    name, model = ("image_encoder.blocks.output.f.w", pipe.networks.noised_clip) if guided else ("out.2.weight", pipe.networks.base)
    model.get_parameter(name).data.fill_(60000)  # fits, but what is computed with it does not
    with pytest.raises(RequestError, match=r"infinite or no number with weights in float16; .* draw in float32 \(--dtype float32"):
        pipe(PROMPT, num_steps=2, clip_guidance_scale=guided)
    if guided:
        with pytest.raises(RequestError, match="the noised CLIP's scores is infinite or no number"):
            pipe.rank([Image.new("RGB", (16, 16))], PROMPT)


@pytest.mark.parametrize("call", ["draw", "vary", "inpaint", "upsample"])
def test_every_door_refuses_seeds_beyond_the_last(full_release: Path, call: str) -> None:
    pipe, picture = GlidePipeline.from_pretrained(full_release, device="cpu"), Image.new("RGB", (16, 16))
    last = DrawOptions(num_steps=1, seed=2**32 - 1, num_images=2)
    calls: dict[str, Callable[[], object]] = {
        "draw": lambda: pipe.draw(PROMPT, last), "vary": lambda: pipe.vary(picture, PROMPT, options=last),
        "inpaint": lambda: pipe.inpaint(PROMPT, picture, half_mask(), options=last),
        "upsample": lambda: pipe.upsample([picture] * 2, PROMPT, options=UpsampleOptions(num_steps=1, seed=2**32 - 1))}
    with pytest.raises(RequestError, match="and 2 images would need seeds up to 4294967296"):
        calls[call]()


def test_drawing_works_inside_inference_mode(pipe: GlidePipeline) -> None:
    with torch.inference_mode():
        inside = pipe(PROMPT, num_steps=3, clip_guidance_scale=1.0)
    assert np.array_equal(arrays(inside)[0], arrays(pipe(PROMPT, num_steps=3, clip_guidance_scale=1.0))[0])


@pytest.mark.parametrize("arguments", [
    {"prompt": ""}, {"prompt": []}, {"prompt": PROMPT, "num_steps": 0}, {"prompt": PROMPT, "sampler": "euler"},
    {"prompt": PROMPT, "num_images": 0}, {"prompt": PROMPT, "guidance_scale": float("nan")}, {"prompt": PROMPT, "seed": -1},
    {"prompt": PROMPT, "guidance_interval": (0.9, 0.1)}, {"prompt": 3}, {"prompt": [PROMPT, None]}, {"prompt": PROMPT, "sampler": ["ddpm"]},
    {"prompt": PROMPT, "seed": np.bool_(True)}, {"prompt": PROMPT, "num_steps": np.float32(2)}])
def test_an_impossible_request_is_refused_before_any_work(
        pipe: GlidePipeline, arguments: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe.networks.base, "denoise", lambda *_: pytest.fail("the network ran"))
    with pytest.raises(RequestError):
        pipe(**arguments)


def test_options_of_another_kind_are_refused_by_name(pipe: GlidePipeline) -> None:
    image = Image.new("RGB", (16, 16))
    for call in (lambda options: pipe.draw(PROMPT, options), lambda options: pipe.vary(image, PROMPT, options=options),
                 lambda options: pipe.inpaint(PROMPT, image, image, options=options)):
        for options in ({"num_steps": 3}, {}, UpsampleOptions()):
            with pytest.raises(RequestError, match=rf"options: expected DrawOptions\(\.\.\.\), got {type(options).__name__}"):
                call(options)
    with pytest.raises(RequestError, match=r"options: expected UpsampleOptions\(\.\.\.\), got DrawOptions"):
        pipe.upsample(image, PROMPT, options=DrawOptions())  # type: ignore[arg-type]  # wrong values are the point


def test_numbers_of_numpy_draw_what_pythons_own_do(pipe: GlidePipeline) -> None:
    numpy_output = pipe(PROMPT, num_images=np.int32(2), num_steps=np.int64(2), seed=np.uint8(7), guidance_scale=np.float32(2),
                        guidance_interval=(np.float64(0.25), np.float32(0.75)))
    plain = pipe(PROMPT, num_images=2, num_steps=2, seed=7, guidance_scale=2, guidance_interval=(0.25, 0.75))
    assert numpy_output.seeds == plain.seeds == [7, 8]
    assert all(np.array_equal(a, b) for a, b in zip(arrays(numpy_output), arrays(plain), strict=True))
    image = Image.new("RGB", (16, 16), "red")
    varied = [pipe.vary(image, PROMPT, strength, options=DrawOptions(num_steps=2)) for strength in (0.5, np.float32(0.5))]
    assert np.array_equal(arrays(varied[0])[0], arrays(varied[1])[0])


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_a_type_is_known_by_its_name(whole_release: Path, name: str) -> None:
    for dtype in (name, getattr(torch, name)):
        pipe = GlidePipeline.from_pretrained(whole_release, dtype=dtype, device="cpu", components=[])
        assert {tensor.dtype for tensor in pipe.networks.base.state_dict().values()} == {getattr(torch, name)}


@pytest.mark.parametrize(("argument", "told"), [
    ({"dtype": "int8"}, "dtype is 'int8'; expected one of float32, float16, bfloat16"), ({"dtype": torch.int8}, r"dtype is torch\.int8; exp"),
    ({"dtype": 16}, "dtype is 16; expected"), ({"dtype": ["float32"]}, "dtype is "), ({"device": "warp"}, "device is 'warp', which cannot be"),
    ({"device": "meta"}, "device is 'meta', which cannot be used here"), ({"device": 1.5}, "device is '1.5', which cannot be used here"),
    pytest.param({"device": "cuda"}, "device is 'cuda', which cannot be used here .* take cpu, or cuda where there is a GPU with its driver",
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"))])
def test_a_type_or_device_that_cannot_be_used_is_refused_before_the_release_is_looked_for(argument: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        GlidePipeline.from_pretrained("no/such release", **argument)


def test_without_a_noised_clip_guiding_and_ranking_are_refused(pipe: GlidePipeline) -> None:
    bare = GlidePipeline(Networks(pipe.networks.base, pipe.networks.tokenizer))
    with pytest.raises(RequestError, match="clip_guidance_scale: this release has no noised_clip; set it to 0"):
        bare(PROMPT, clip_guidance_scale=1.0)
    with pytest.raises(RequestError, match="this release has no noised_clip"):
        bare.rank([Image.new("RGB", (4, 4))], PROMPT)
    with pytest.raises(RequestError, match="no images were given"):
        pipe.rank([], PROMPT)


def test_components_that_do_not_belong_together_are_refused(unet: TextConditionedUNet, tokenizer: CaptionTokenizer, clip: NoisedClip) -> None:
    larger = CaptionTokenizer.train(["some other words entirely, and a great many more of them"] * 2, 400)
    assert larger.vocab_size > tokenizer.vocab_size
    with pytest.raises(CheckpointError, match=f"base: knows {tokenizer.vocab_size} tokens, but the tokenizer has {larger.vocab_size}"):
        Networks(unet, larger)
    of_other_size = NoisedClip(NOISED_CLIP_PRESETS["noised-clip-micro-16"].model_copy(update={"image_size": 32}))
    with pytest.raises(CheckpointError, match="noised_clip: reads images of side 32, but base draws 16"):
        Networks(unet, tokenizer, noised_clip=of_other_size)


def test_one_flipped_byte_anywhere_is_refused_by_the_name_of_the_file(release: Path) -> None:
    for path in sorted(p for p in release.rglob("*") if p.is_file() and p.name != "manifest.json"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        for verify in ("auto", "required"):
            with pytest.raises(VerificationError, match=path.relative_to(release).as_posix()):
                GlidePipeline.from_pretrained(release, verify=verify)
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    GlidePipeline.from_pretrained(release)


def test_an_added_and_a_missing_file_are_refused(release: Path) -> None:
    (release / "evil.pkl").write_bytes(b"\x80\x05.")
    with pytest.raises(VerificationError, match=r"evil\.pkl: file is not in the manifest"):
        GlidePipeline.from_pretrained(release)
    (release / "evil.pkl").unlink()
    (release / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(VerificationError, match=r"tokenizer/tokenizer\.json: file is missing"):
        GlidePipeline.from_pretrained(release)


def test_a_damaged_manifest_is_refused(release: Path) -> None:
    for content in (b"{", b"[]", b'{"format": "other", "files": []}', b'{"format": "glideslope.manifest/1", "files": [1]}'):
        (release / "manifest.json").write_bytes(content)
        with pytest.raises(VerificationError):
            GlidePipeline.from_pretrained(release)


def test_without_a_manifest_only_required_verification_refuses(release: Path) -> None:
    (release / "manifest.json").unlink()
    GlidePipeline.from_pretrained(release, verify="auto")
    with pytest.raises(VerificationError, match=r"manifest\.json is missing, and verification is required"):
        GlidePipeline.from_pretrained(release, verify="required")


def test_switching_verification_off_does_not_look_at_digests(release: Path) -> None:
    (release / "README.md").write_text("added")
    GlidePipeline.from_pretrained(release, verify="off")
    with pytest.raises(RequestError, match="verify is 'maybe'; expected 'auto', 'required' or 'off'"):
        GlidePipeline.from_pretrained(release, verify="maybe")  # type: ignore[arg-type]  # wrong values are the point


def test_what_is_no_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such directory; give the directory of a release"):
        GlidePipeline.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"model_index\.json: No such file"):
        GlidePipeline.from_pretrained(tmp_path)


def test_swapped_components_are_refused(release: Path, clip: NoisedClip) -> None:
    (release / "noised_clip" / WEIGHTS_NAME).rename(release / "base" / WEIGHTS_NAME)
    write_json(release / "base" / CONFIG_NAME, component_config(clip))
    (release / "noised_clip" / CONFIG_NAME).unlink()
    sign_again(release)
    with pytest.raises(GlideslopeError):
        GlidePipeline.from_pretrained(release)


def test_training_that_has_not_finished_cannot_be_drawn_from(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: No such file"):
        GlidePipeline.from_training(tmp_path)


def test_a_fresh_process_draws_the_same_picture(whole_release: Path, pipe: GlidePipeline, tmp_path: Path) -> None:
    program = ("import sys, torch; torch.set_num_threads(1); from glideslope import GlidePipeline; "
               "GlidePipeline.from_pretrained(sys.argv[1], device='cpu')('a red square', num_steps=3, seed=5).images[0].save(sys.argv[2])")
    subprocess.run([sys.executable, "-c", program, str(whole_release), str(tmp_path / "drawn.png")], check=True, cwd=tmp_path)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "drawn.png")), arrays(pipe(PROMPT, num_steps=3, seed=5))[0])


def test_the_pictures_of_the_tests_are_pictures() -> None:
    assert picture("red", "bar").startswith(b"\x89PNG")
