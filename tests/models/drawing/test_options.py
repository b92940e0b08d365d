import json
import math
import re

import numpy as np
import pytest

from glideslope.errors import RequestError
from glideslope.models.drawing.editing import UpsampleOptions
from glideslope.models.drawing.options import DrawOptions, check_kind, check_prompts, check_seeds, choose_scales
from glideslope.models.loading.loaded_networks import check_lengths
from glideslope.models.tokenizer import CaptionTokenizer


@pytest.mark.parametrize(("name", "value"), [
    ("num_images", 0), ("num_images", 1025), ("num_images", 2.0), ("num_images", True), ("num_images", "4"),
    ("num_steps", 0), ("num_steps", 1001), ("num_steps", None), ("sampler", "euler"), ("sampler", None),
    ("seed", -1), ("seed", 0.5), ("seed", 2**32), ("seed", 2**63),
    ("guidance_scale", -0.1), ("guidance_scale", math.nan), ("guidance_scale", math.inf),
    ("guidance_scale", "3"), ("clip_guidance_scale", -1), ("clip_guidance_scale", 1001), ("clip_guidance_scale", True), ("cut_long_prompts", 1),
    ("guidance_interval", (0.5, 0.5)), ("guidance_interval", (0.8, 0.2)), ("guidance_interval", (-0.1, 0.5)), ("guidance_interval", (0.1, 1.1)),
    ("guidance_interval", (0.1,)), ("guidance_interval", 0.5), ("guidance_interval", ("0", "1")), ("guidance_interval", (math.nan, 1.0)),
    ("guidance_interval", (False, True)), ("sampler", ["ddpm"]), ("seed", np.bool_(True)), ("guidance_scale", np.float32("nan")),
    ("num_steps", np.float32(3)), ("guidance_scale", 1j)])
def test_an_impossible_option_is_refused_by_name_and_value(name: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"^{re.escape(f'{name} is {value!r}; expected ')}"):
        DrawOptions(**{name: value})


@pytest.mark.parametrize(("first", "number"), [(2**32 - 1, 2), (2**32 - 16, 17)])
def test_images_whose_seeds_would_pass_the_last_are_refused(first: int, number: int) -> None:
    check_seeds(first, number - 1)
    with pytest.raises(RequestError, match=rf"seed is {first}, and {number} images would need .*the last one is 4294967295"):
        check_seeds(first, number)


def test_the_bounds_themselves_are_accepted() -> None:
    options = DrawOptions(num_images=1024, num_steps=1000, seed=0, guidance_scale=0, clip_guidance_scale=1000, sampler="ddim")
    assert (options.num_images, options.num_steps, options.clip_guidance_scale) == (1024, 1000, 1000)


@pytest.mark.parametrize(("prompt", "told"), [
    ("", "the caption is empty"), ("  \n", "the caption is empty"), ([], "the list is empty"), (["a", ""], "the caption is empty"),
    (["a", 3], r"expected text, got int \(3\)"), (None, "expected text or a list of texts, got NoneType"), (3, "got int"),
    (b"bytes", r"expected text, got int|expected text or"), ("broken \udcff text", "is not valid text")])
def test_a_prompt_that_cannot_be_drawn_from_is_refused(prompt: object, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        check_prompts(prompt)  # type: ignore[arg-type]  # wrong types are the point


def test_numbers_of_numpy_become_pythons_own() -> None:
    options = DrawOptions(num_images=np.int64(2), num_steps=np.uint8(5), seed=np.int32(3), guidance_scale=np.float32(2),  # type: ignore[arg-type]
                          guidance_interval=(np.float64(0.25), np.float16(0.5)))
    assert options == DrawOptions(num_images=2, num_steps=5, seed=3, guidance_scale=2.0, guidance_interval=(0.25, 0.5))
    assert json.loads(json.dumps(options.to_json()))["seed"] == 3
    upsample = UpsampleOptions(temperature=np.float32(0.5), num_steps=np.int64(4), seed=np.int64(9))  # type: ignore[arg-type]
    assert json.loads(json.dumps(upsample.to_json())) == UpsampleOptions(temperature=0.5, num_steps=4, seed=9).to_json()
    assert UpsampleOptions().num_steps is None


def test_one_prompt_or_several_become_a_list() -> None:
    assert check_prompts("a red apple 🍎") == ["a red apple 🍎"]
    assert check_prompts(("a", "b")) == ["a", "b"]


def test_options_survive_the_way_through_json() -> None:
    options = DrawOptions(sampler="dpm++sde", guidance_interval=(0, 0.8), cut_long_prompts=True)
    assert options.guidance_interval == (0.0, 0.8)
    assert DrawOptions(**json.loads(json.dumps(options.to_json()))) == options


@pytest.mark.parametrize(("kind", "given", "scales"), [
    (None, (None, None), (3.0, 0.0)), (None, (2.0, 1.5), (2.0, 1.5)), ("none", (None, None), (1.0, 0.0)), ("cfg", (None, None), (3.0, 0.0)),
    ("cfg", (5.0, None), (5.0, 0.0)), ("clip", (None, None), (1.0, 3.0)), ("clip", (None, 7.0), (1.0, 7.0)), ("both", (None, None), (3.0, 3.0)),
    ("both", (2.0, 4.0), (2.0, 4.0))])
def test_a_kind_of_guidance_chooses_the_scales_that_are_not_given(
        kind: str | None, given: tuple[float | None, float | None], scales: tuple[float, float]) -> None:
    assert choose_scales(kind, *given) == scales


@pytest.mark.parametrize(("kind", "given", "told"), [
    ("cgf", (None, None), "guidance is 'cgf'; expected one of none, cfg, clip, both"),
    ("none", (3.0, None), "guidance_scale is 3.0, but guidance is 'none', which does not use it"),
    ("clip", (3.0, None), "guidance_scale is 3.0, but guidance is 'clip'"),
    ("cfg", (None, 2.0), "clip_guidance_scale is 2.0, but guidance is 'cfg'")])
def test_a_scale_that_the_kind_of_guidance_does_not_use_is_refused(kind: str, given: tuple[float | None, float | None], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        choose_scales(kind, *given)


def test_a_prompt_that_the_model_cannot_read_to_its_end_is_refused_with_its_length(tokenizer: CaptionTokenizer) -> None:
    for text in ("a red square", "🍎🍎"):
        length = len(tokenizer.encode(text, 99))
        check_lengths([text], tokenizer, length)
        with pytest.raises(RequestError, match=f"prompt: '{text}' is {length} tokens long, this model reads {length - 1}; shorten it, or"):
            check_lengths(["a", text], tokenizer, length - 1)


def test_options_of_a_class_that_an_export_made_anew_are_taken_and_those_of_others_are_not() -> None:
    anew = type("DrawOptions", (), {})
    check_kind("options", DrawOptions(), DrawOptions)
    check_kind("options", anew(), DrawOptions)
    with pytest.raises(RequestError, match=r"options: expected DrawOptions\(\.\.\.\), got dict \(\{'num_steps': 3\}\)"):
        check_kind("options", {"num_steps": 3}, DrawOptions)
