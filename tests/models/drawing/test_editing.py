import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from glideslope.errors import RequestError
from glideslope.models.diffusion.process import GaussianDiffusion, fast27_timesteps, gather, space_timesteps
from glideslope.models.diffusion.samplers import SAMPLERS, Prediction, SampleState, SeededNoise, run
from glideslope.models.drawing import pipeline as pipeline_module
from glideslope.models.drawing.editing import ExtraChannels, KeepingDenoiser, KeptRegion, UpsampleOptions, strength_timesteps
from glideslope.models.drawing.options import DrawOptions
from glideslope.models.drawing.pipeline import GlideOutput, GlidePipeline
from glideslope.models.loading.loaded_networks import Networks
from glideslope.models.networks.unet import condition_input

from ..conftest import picture

PROMPT = "a red square"
SCHEDULE = "squaredcos_cap_v2"
FULL = GaussianDiffusion.create(SCHEDULE)
QUICK = DrawOptions(num_steps=4, seed=3)


@pytest.fixture(scope="module")
def pipe(full_release: Path) -> GlidePipeline:
    """With an upsampler and both inpainting variants."""
    return GlidePipeline.from_pretrained(full_release, device="cpu")


@pytest.fixture(scope="module")
def bare(pipe: GlidePipeline) -> GlidePipeline:
    """The base and its noised CLIP alone."""
    return GlidePipeline(Networks(pipe.networks.base, pipe.networks.tokenizer, noised_clip=pipe.networks.noised_clip))


@pytest.fixture
def photo() -> Image.Image:
    """Every pixel another colour, 16 x 16: nothing is resized."""
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8))


@pytest.fixture
def mask() -> Image.Image:
    """White, to be drawn, in the right half."""
    grey = Image.new("L", (16, 16), 0)
    grey.paste(255, (8, 0, 16, 16))
    return grey


def array(output: GlideOutput, i: int = 0) -> np.ndarray:
    return np.asarray(output.images[i]).astype(int)


# --- Closed form: images that are all 1 or all -1, whose exact denoiser is known. ---

def two_images(x: Tensor, timesteps: Tensor) -> Prediction:
    """The exact denoiser of a set of two images, white and black: the posterior mean is tanh of the scaled sum."""
    signal = gather(FULL.tables.signal, timesteps, x)
    mean = torch.tanh(signal.sqrt() / (1 - signal) * x.sum(dim=(1, 2, 3), keepdim=True)).expand_as(x)
    return Prediction(FULL.predict_noise(x, mean, timesteps), None)


def kept_but_right(colour: float) -> KeptRegion:
    """The right quarter is to be drawn; with half of it the two halves could disagree, each as sure as the other."""
    draw = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    draw[..., 6:] = True
    return KeptRegion(torch.full((1, 3, 8, 8), colour), draw)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("colour", [1.0, -1.0])
def test_what_is_kept_decides_what_is_drawn(sampler: str, colour: float) -> None:
    noise = SeededNoise(range(8))
    x, diffusion, kept = noise.draw((3, 8, 8)), GaussianDiffusion.create(SCHEDULE, space_timesteps(25)), kept_but_right(colour)
    drawn = run(SAMPLERS[sampler](KeepingDenoiser(two_images, FULL, kept), x, diffusion, noise))
    torch.testing.assert_close(drawn, torch.full_like(drawn, colour), rtol=0, atol=0.02)
    without = run(SAMPLERS[sampler](two_images, x, diffusion, SeededNoise(range(8))))
    assert set(without.mean(dim=(1, 2, 3)).round().tolist()) == {1.0, -1.0}  # else the mask had nothing to decide


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_guess_is_the_picture_at_every_step_where_it_is_kept(sampler: str) -> None:
    noise = SeededNoise([0, 1])
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    kept, states = dataclasses.replace(kept_but_right(1.0), image=image), []
    diffusion = GaussianDiffusion.create(SCHEDULE, space_timesteps(20))
    drawn = run(SAMPLERS[sampler](KeepingDenoiser(two_images, FULL, kept), noise.draw((3, 8, 8)), diffusion, noise), states.append)
    for state in states[5:]:  # in float32 the first, nearly pure noise, leave a few digits of the picture
        torch.testing.assert_close(state.preview[..., :6], image[..., :6].expand(2, -1, -1, -1), rtol=0, atol=2e-3)
    torch.testing.assert_close(drawn[..., :6], image[..., :6].expand(2, -1, -1, -1), rtol=0, atol=1e-3)


def test_gradients_do_not_act_on_what_is_kept() -> None:
    def with_gradient(x: Tensor, timesteps: Tensor) -> Prediction:
        return dataclasses.replace(two_images(x, timesteps), gradient=torch.ones_like(x))

    gradient = KeepingDenoiser(with_gradient, FULL, kept_but_right(1.0))(torch.zeros(2, 3, 8, 8), torch.tensor([500, 500])).gradient
    assert gradient is not None
    assert gradient[..., 6:].eq(1).all()
    assert gradient[..., :6].eq(0).all()


@pytest.mark.parametrize(("strength", "kept"), [(0.3, True), (1.0, False)])
def test_a_little_noise_keeps_the_picture_and_all_noise_forgets_it(strength: float, kept: bool) -> None:
    noise = SeededNoise(range(16))
    diffusion = GaussianDiffusion.create(SCHEDULE, strength_timesteps(strength, DrawOptions(num_steps=20), SCHEDULE))
    x = noise.draw((3, 8, 8))
    last = torch.full((16,), diffusion.num_steps - 1, dtype=torch.int64)
    drawn = run(SAMPLERS["ddpm"](two_images, diffusion.add_noise(torch.ones_like(x), last, x), diffusion, noise))
    assert drawn.mean(dim=(1, 2, 3)).gt(0.9).all().item() == kept


@given(strength=st.floats(0, 1, exclude_min=True), num_steps=st.integers(1, 1000), sampler=st.sampled_from(["ddpm", "unipc"]))
def test_steps_fall_from_the_strengths_noise_and_each_is_visited_once(strength: float, num_steps: int, sampler: str) -> None:
    timesteps = strength_timesteps(strength, DrawOptions(num_steps=num_steps, sampler=sampler), SCHEDULE)
    assert timesteps == sorted(set(timesteps))
    assert len(timesteps) == min(num_steps, max(1, round(strength * 1000)))
    assert timesteps[-1] == max(1, round(strength * 1000)) - 1
    assert len(timesteps) == 1 or timesteps[0] == 0


# --- Inpainting ---

@pytest.mark.parametrize("which", ["pipe", "bare"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_kept_pixels_are_the_pictures_bit_for_bit_and_the_others_are_drawn(
        which: str, sampler: str, photo: Image.Image, mask: Image.Image, request: pytest.FixtureRequest) -> None:
    output = request.getfixturevalue(which).inpaint(PROMPT, photo, mask, options=dataclasses.replace(QUICK, sampler=sampler, num_images=2))
    assert output.seeds == [3, 4]
    for i in range(2):
        assert np.array_equal(array(output, i)[:, :8], np.asarray(photo)[:, :8])
        assert np.abs(array(output, i)[:, 8:] - np.asarray(photo)[:, 8:]).mean() > 20
    assert np.abs(array(output, 0) - array(output, 1)).max() > 20


@pytest.mark.parametrize("which", ["pipe", "bare"])
def test_what_is_under_the_white_does_not_count_and_what_is_kept_does(
        which: str, photo: Image.Image, mask: Image.Image, request: pytest.FixtureRequest) -> None:
    under, kept = photo.copy(), photo.copy()
    under.paste((0, 0, 0), (8, 0, 16, 16))
    kept.paste((0, 0, 0), (0, 0, 8, 16))
    first, same, other = (request.getfixturevalue(which).inpaint(PROMPT, image, mask, options=QUICK) for image in (photo, under, kept))
    assert np.array_equal(array(first), array(same))
    assert np.abs(array(first)[:, 8:] - array(other)[:, 8:]).mean() > 1


def test_the_inpainting_network_is_used_where_there_is_one_and_sees_mask_and_picture(
        pipe: GlidePipeline, bare: GlidePipeline, photo: Image.Image, mask: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs: list[Tensor] = []
    network = pipe.networks.base_inpaint
    assert network is not None
    denoise = network.denoise
    monkeypatch.setattr(network, "denoise", lambda x, *rest: inputs.append(x) or denoise(x, *rest))
    monkeypatch.setattr(pipe.networks.base, "denoise", lambda *_: pytest.fail("the base ran"))
    output = pipe.inpaint([PROMPT, "a blue bar"], photo, mask, options=QUICK)
    assert len(output.images) == 2
    known = torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 127.5 - 1
    assert len(inputs) == QUICK.num_steps
    for x in inputs:
        assert x.shape == (4, 7, 16, 16)  # two images, each with and without its caption
        assert x[:, 6, :, :8].eq(1).all()  # 1: known
        assert x[:, 6, :, 8:].eq(0).all()
        assert torch.equal(x[:, 3:6, :, :8], known[None, :, :, :8].expand(4, -1, -1, -1))
        assert x[:, 3:6, :, 8:].eq(0).all()
    monkeypatch.undo()
    assert not np.array_equal(array(output), array(bare.inpaint(PROMPT, photo, mask, options=QUICK)))


def test_a_result_can_be_edited_again_and_keeps_the_first_edit(pipe: GlidePipeline, photo: Image.Image, mask: Image.Image) -> None:
    first = pipe.inpaint(PROMPT, photo, mask, options=QUICK).images[0]
    below = Image.new("L", (16, 16), 0)
    below.paste(255, (0, 12, 16, 16))
    second = pipe.inpaint("a blue bar", first, below, options=QUICK)
    assert np.array_equal(array(second)[:12], np.asarray(first)[:12])
    assert np.array_equal(array(second)[:12, :8], np.asarray(photo)[:12, :8])
    assert np.abs(array(second)[12:] - np.asarray(first)[12:].astype(int)).mean() > 5


def test_the_caption_counts_and_so_does_clip_guidance(bare: GlidePipeline, photo: Image.Image, mask: Image.Image) -> None:
    plain, other = (array(bare.inpaint(text, photo, mask, options=QUICK)) for text in (PROMPT, "a blue bar"))
    guided = array(bare.inpaint(PROMPT, photo, mask, options=dataclasses.replace(QUICK, clip_guidance_scale=50.0)))
    assert np.abs(plain - other)[:, 8:].max() > 3
    assert np.abs(plain - guided)[:, 8:].max() > 3
    assert np.array_equal(guided[:, :8], np.asarray(photo)[:, :8])


def test_a_seed_gives_the_same_edit_alone_and_in_any_batch(
        pipe: GlidePipeline, photo: Image.Image, mask: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = array(pipe.inpaint(PROMPT, photo, mask, options=dataclasses.replace(QUICK, seed=5)))
    monkeypatch.setattr(pipeline_module, "DRAW_BATCH", 2)
    together = pipe.inpaint(PROMPT, photo, mask, options=dataclasses.replace(QUICK, num_images=3))
    assert np.abs(array(together, 2) - alone).max() <= 1


def test_large_pictures_that_are_not_square_are_cropped_and_the_mask_with_them(bare: GlidePipeline) -> None:
    wide = Image.new("RGB", (96, 64), (10, 200, 90))
    mask = Image.new("L", (96, 64), 0)
    mask.paste(255, (16, 0, 48, 64))  # the left half of the middle square
    drawn = array(bare.inpaint(PROMPT, wide, mask, options=QUICK))
    assert drawn.shape == (16, 16, 3)
    assert (drawn[:, 8:] == (10, 200, 90)).all()
    assert np.abs(drawn[:, :8] - (10, 200, 90)).mean() > 20


# --- Image to image ---

def test_a_tiny_strength_gives_nearly_the_picture_and_more_strength_less_of_it(bare: GlidePipeline) -> None:
    image = Image.open(io.BytesIO(picture("red", "square")))
    original = array(bare.vary(image, PROMPT, 0.001, options=DrawOptions(num_steps=1, guidance_scale=1.0)))
    far = [np.abs(array(bare.vary(image, PROMPT, strength, options=QUICK)) - original).mean() for strength in (0.002, 0.1, 0.5, 1.0)]
    assert far[0] < 3
    assert far == sorted(far)
    assert far[-1] > 30


def test_full_strength_is_drawing_from_noise_as_if_there_were_no_picture(bare: GlidePipeline, photo: Image.Image) -> None:
    drawn = bare(PROMPT, num_images=2, num_steps=QUICK.num_steps, seed=QUICK.seed)
    varied = bare.vary(photo, PROMPT, 1, options=dataclasses.replace(QUICK, num_images=2))
    assert varied.seeds == drawn.seeds
    assert all(np.array_equal(array(varied, i), array(drawn, i)) for i in range(2))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_picture_the_caption_and_the_seed_all_count(bare: GlidePipeline, photo: Image.Image, sampler: str) -> None:
    options = dataclasses.replace(QUICK, sampler=sampler)
    first = array(bare.vary(photo, PROMPT, 0.7, options=options))
    for other in (bare.vary(Image.new("RGB", (16, 16)), PROMPT, 0.7, options=options), bare.vary(photo, "a blue bar", 0.7, options=options),
                  bare.vary(photo, PROMPT, 0.7, options=dataclasses.replace(options, seed=9))):
        assert np.abs(array(other) - first).max() > 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_pictures_of_every_mode_and_shape_are_varied(bare: GlidePipeline, mode: str) -> None:
    image = Image.new("I;16", (5, 40), 30_000) if mode == "I;16" else Image.new("RGB", (40, 5), (90, 200, 30)).convert(mode)
    assert bare.vary(image, PROMPT, 0.5, options=DrawOptions(num_steps=1)).images[0].size == (16, 16)


def test_previews_count_the_steps_that_are_taken(bare: GlidePipeline, photo: Image.Image) -> None:
    states: list[SampleState] = []
    bare.vary(photo, PROMPT, 0.004, options=DrawOptions(num_steps=50), preview=states.append)
    assert [(state.step, state.num_steps) for state in states] == [(i, 4) for i in (1, 2, 3, 4)]


# --- Upsampling ---

UP = UpsampleOptions(num_steps=4, seed=3)


def test_pictures_grow_to_the_upsamplers_size_and_what_is_small_counts(pipe: GlidePipeline, photo: Image.Image) -> None:
    first, other = (pipe.upsample(image, PROMPT, options=UP) for image in (photo, Image.new("RGB", (16, 16))))
    assert first.images[0].size == (32, 32)
    assert np.abs(array(first) - array(other)).mean() > 1
    assert np.abs(array(pipe.upsample(photo, "a blue bar", options=UP)) - array(first)).max() > 3


def test_the_published_way_is_the_default(pipe: GlidePipeline, photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    network = pipe.networks.upsampler
    assert network is not None
    denoise = network.denoise
    monkeypatch.setattr(network, "denoise", lambda x, times, *rest: seen.append((x, times)) or denoise(x, times, *rest))
    pipe.upsample(photo, PROMPT)
    assert [int(times[0]) for _, times in seen] == fast27_timesteps()[::-1]
    start = seen[0][0]
    assert start.shape == (1, 6, 32, 32)  # one pass a step: no guidance
    noise = SeededNoise([0]).draw((3, 32, 32))
    torch.testing.assert_close(start[:, :3], 0.997 * noise)
    small = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 127.5 - 1
    torch.testing.assert_close(start, condition_input(0.997 * noise, low_res=small))


def test_temperature_scales_the_starting_noise(pipe: GlidePipeline, photo: Image.Image) -> None:
    hot, cold = (pipe.upsample(photo, PROMPT, options=dataclasses.replace(UP, temperature=t)) for t in (1.0, 0.5))
    assert not np.array_equal(array(hot), array(cold))


def test_each_picture_has_its_seed_and_its_prompt_whatever_the_batch(
        pipe: GlidePipeline, photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, prompts = [photo, photo.rotate(90), photo.rotate(180)], [PROMPT, "a blue bar", "a green corner"]
    together = pipe.upsample(pictures, prompts, options=dataclasses.replace(UP, guidance_scale=2.0))
    monkeypatch.setattr(pipeline_module, "UPSAMPLE_BATCH", 2)
    in_pairs = pipe.upsample(pictures, prompts, options=dataclasses.replace(UP, guidance_scale=2.0))
    alone = pipe.upsample(pictures[2], prompts[2], options=dataclasses.replace(UP, guidance_scale=2.0, seed=5))
    assert together.seeds == [3, 4, 5]
    assert all(np.abs(array(together, i) - array(in_pairs, i)).max() <= 1 for i in range(3))
    assert np.abs(array(together, 2) - array(alone)).max() <= 1


@pytest.mark.parametrize("with_variant", [True, False])
def test_after_inpainting_what_was_kept_is_kept_in_full_resolution(
        pipe: GlidePipeline, mask: Image.Image, with_variant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = pipe if with_variant else GlidePipeline(dataclasses.replace(pipe.networks, base_inpaint=None, upsampler_inpaint=None))
    unused = pipe.networks.upsampler if with_variant else pipe.networks.base_inpaint
    if unused is not None:
        monkeypatch.setattr(unused, "denoise", lambda *_: pytest.fail("the wrong network ran"))
    source = Image.fromarray(np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    large_mask = mask.resize((32, 32), Image.Resampling.NEAREST)
    small = chosen.inpaint(PROMPT, source, large_mask, options=QUICK).images[0]
    large = array(chosen.upsample(small, PROMPT, source=source, mask=large_mask, options=UP))
    assert np.array_equal(large[:, :16], np.asarray(source)[:, :16])
    assert np.abs(large[:, 16:] - np.asarray(source)[:, 16:]).mean() > 20


def test_a_network_sees_the_condition_of_its_own_image_under_guidance() -> None:
    low_res = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, 2, 2)
    seen = ExtraChannels(kept_but_right(1.0), low_res)(torch.zeros(4, 3, 8, 8))
    assert seen.shape == (4, 10, 8, 8)
    assert seen[:, 7:].mean(dim=(1, 2, 3)).tolist() == [0, 1, 0, 1]


# --- Refusals ---

def call(pipe: GlidePipeline, what: str, arguments: dict[str, Any]) -> GlideOutput:
    square = Image.new("RGB", (16, 16))
    white_half = Image.new("L", (16, 16), 0)
    white_half.paste(255, (8, 0, 16, 16))
    defaults: dict[str, Any] = {"inpaint": {"prompt": PROMPT, "image": square, "mask": white_half},
                                "vary": {"image": square, "prompt": PROMPT, "strength": 0.5},
                                "upsample": {"images": square, "prompt": PROMPT}}[what]
    output = getattr(pipe, what)(**(defaults | arguments))
    assert isinstance(output, GlideOutput)
    return output


@pytest.mark.parametrize(("what", "arguments", "told"), [
    ("inpaint", {"prompt": " "}, "caption is empty"), ("inpaint", {"image": "photo.png"}, "image: expected a PIL.Image.Image, got str"),
    ("inpaint", {"image": Image.new("F", (16, 16))}, "image: floating-point image"),
    ("inpaint", {"image": Image.new("RGB", (17, 16))}, "mask: 16 x 16 pixels, but the image has 17 x 16"),
    ("inpaint", {"mask": Image.new("L", (16, 16))}, "mask: is black everywhere"),
    ("inpaint", {"mask": None}, "mask: expected a PIL.Image.Image"),
    ("inpaint", {"prompt": "red " * 40}, "tokens long, this model reads 16"), ("vary", {"prompt": "red " * 40}, "this model reads 16"),
    ("upsample", {"prompt": "red " * 40}, "this model reads 16"),
    ("vary", {"strength": 0}, "strength is 0; expected a number above 0"), ("vary", {"strength": 1.01}, "strength is 1.01"),
    ("vary", {"strength": -0.5}, "strength is -0.5"), ("vary", {"strength": float("nan")}, "strength is nan"),
    ("vary", {"strength": True}, "strength is True"), ("vary", {"strength": "0.5"}, "strength is '0.5'"),
    ("vary", {"image": Image.new("RGB", (0, 4))}, "image: 0 x 4, which is no pixel"), ("vary", {"prompt": []}, "prompt: the list is empty"),
    ("upsample", {"images": []}, "upsample: 0 images with 1 prompts"), ("upsample", {"prompt": [PROMPT] * 2}, "1 images with 2 prompts"),
    ("upsample", {"images": [1]}, "image: expected a PIL.Image.Image, got int"),
    ("upsample", {"source": Image.new("RGB", (16, 16))}, "source and mask go together"),
    ("upsample", {"mask": Image.new("L", (16, 16))}, "source and mask go together"),
    ("upsample", {"source": Image.new("RGB", (16, 16)), "mask": Image.new("L", (16, 16))}, "mask: is black everywhere"),
    ("upsample", {"source": Image.new("F", (16, 16)), "mask": Image.new("L", (16, 16))}, "source: floating-point image")])
def test_an_impossible_edit_is_refused_before_any_work(
        pipe: GlidePipeline, what: str, arguments: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for network in (pipe.networks.base, *pipe.networks.companions.values()):
        monkeypatch.setattr(network, "denoise", lambda *_: pytest.fail("a network ran"))
    with pytest.raises(RequestError, match=told):
        call(pipe, what, arguments)


@pytest.mark.parametrize("arguments", [{"temperature": -0.1}, {"temperature": float("nan")}, {"temperature": 3}, {"num_steps": 0},
                                       {"num_steps": 1001}, {"sampler": "euler"}, {"guidance_scale": -1}, {"seed": -1}, {"seed": 0.5}])
def test_impossible_options_of_upsampling_are_refused_by_name(arguments: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=f"{next(iter(arguments))} is "):
        UpsampleOptions(**arguments)


def test_without_an_upsampler_upsampling_is_refused_with_what_there_is(bare: GlidePipeline, pipe: GlidePipeline) -> None:
    with pytest.raises(RequestError, match="upsample: this release has no upsampler, or it was not loaded; beside base there is nothing"):
        call(bare, "upsample", {})
    only = GlidePipeline(Networks(pipe.networks.base, pipe.networks.tokenizer, base_inpaint=pipe.networks.base_inpaint))
    with pytest.raises(RequestError, match=r"no upsampler_inpaint or upsampler, .* there is base_inpaint"):
        white_half = Image.new("L", (16, 16), 0)
        white_half.paste(255, (8, 0, 16, 16))
        call(only, "upsample", {"source": Image.new("RGB", (16, 16)), "mask": white_half})


def test_clip_guidance_without_a_noised_clip_is_refused(pipe: GlidePipeline, photo: Image.Image, mask: Image.Image) -> None:
    lonely = GlidePipeline(Networks(pipe.networks.base, pipe.networks.tokenizer))
    guided = dataclasses.replace(QUICK, clip_guidance_scale=1.0)
    with pytest.raises(RequestError, match="noised_clip"):
        lonely.inpaint(PROMPT, photo, mask, options=guided)
    with pytest.raises(RequestError, match="noised_clip"):
        lonely.vary(photo, PROMPT, 0.5, options=guided)
