import math

import pytest
from glideslope.models.options import DrawOptions, check_prompts

from glideslope.errors import RequestError


@pytest.mark.parametrize(("name", "value"), [
    ("num_images", 0), ("num_images", 1025), ("num_images", 2.0), ("num_images", True), ("num_images", "4"),
    ("num_steps", 0), ("num_steps", 1001), ("num_steps", None), ("sampler", "euler"), ("sampler", None),
    ("seed", -1), ("seed", 0.5), ("seed", 2**63), ("guidance_scale", -0.1), ("guidance_scale", math.nan), ("guidance_scale", math.inf),
    ("guidance_scale", "3"), ("clip_guidance_scale", -1), ("clip_guidance_scale", 1001), ("clip_guidance_scale", True)])
def test_an_impossible_option_is_refused_by_name_and_value(name: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"^{name} is {value!r}; expected "):
        DrawOptions(**{name: value})


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


def test_one_prompt_or_several_become_a_list() -> None:
    assert check_prompts("a red apple 🍎") == ["a red apple 🍎"]
    assert check_prompts(("a", "b")) == ["a", "b"]
