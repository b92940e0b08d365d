"""How to draw: the options of a call, refused before any work starts when they are impossible."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...errors import RequestError
from ..diffusion.samplers import NUM_SEEDS, SAMPLERS

MAX_STEPS = 1000
MAX_IMAGES = 1024
MAX_SCALE = 1000
MAX_SEED = NUM_SEEDS - 1
DEFAULT_SCALE = 3.0
GUIDANCE_KINDS = ("none", "cfg", "clip", "both")


@dataclass(frozen=True)
class DrawOptions:
    """The options of one call of the pipeline.

    Attributes:
        num_images: images per prompt. Numbers may be numpy's; they are kept as Python's own.
        guidance_scale: classifier-free guidance; 1 is none.
        clip_guidance_scale: guidance by a CLIP; 0 is none.
        num_steps: denoising steps, 1 to 1000.
        sampler: a name in `SAMPLERS`: `ddpm`, `ddim`, `dpm++`, `dpm++sde` or `unipc`.
        seed: image i is drawn from seed + i; 0 to 2**32 - 1, which is the last one that may be reached.
        guidance_interval: least and greatest noise level at which both kinds of guidance act, 0 (the image) to 1 (the
            noise) in fractions of the training's timesteps; elsewhere the caption acts alone. None: at all levels.
        cut_long_prompts: cut prompts that are longer than the model's context instead of refusing them.
    """

    num_images: int = 1
    guidance_scale: float = 3.0
    clip_guidance_scale: float = 0.0
    num_steps: int = 50
    sampler: str = "ddpm"
    seed: int = 0
    guidance_interval: tuple[float, float] | None = None
    cut_long_prompts: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            RequestError: naming the option, its value and what is expected.
        """
        for name, low, high in (("num_images", 1, MAX_IMAGES), ("num_steps", 1, MAX_STEPS), ("seed", 0, MAX_SEED)):
            object.__setattr__(self, name, check_whole(name, getattr(self, name), low, high))
        if not isinstance(self.sampler, str) or self.sampler not in SAMPLERS:
            raise RequestError(f"sampler is {self.sampler!r}; expected one of {', '.join(SAMPLERS)}")
        for name in ("guidance_scale", "clip_guidance_scale"):
            object.__setattr__(self, name, check_number(name, getattr(self, name), high=MAX_SCALE))
        if not isinstance(self.cut_long_prompts, bool):
            raise RequestError(f"cut_long_prompts is {self.cut_long_prompts!r}; expected true or false")
        if self.guidance_interval is not None:
            object.__setattr__(self, "guidance_interval", check_interval(self.guidance_interval))

    def to_json(self) -> dict[str, Any]:
        """The options as plain data."""
        return asdict(self)


def choose_scales(guidance: str | None, guidance_scale: float | None, clip_guidance_scale: float | None) -> tuple[float, float]:
    """Both guidance scales from what kind is asked for and the scales that are given.

    Args:
        guidance: one of `GUIDANCE_KINDS`, or None: whatever scales are given, else classifier-free.
        guidance_scale: None: its default where that kind is on.
        clip_guidance_scale: likewise.

    Raises:
        RequestError: no such kind, or a scale of a kind that is off.
    """
    if guidance is None:
        return DEFAULT_SCALE if guidance_scale is None else guidance_scale, 0.0 if clip_guidance_scale is None else clip_guidance_scale
    if guidance not in GUIDANCE_KINDS:
        raise RequestError(f"guidance is {guidance!r}; expected one of {', '.join(GUIDANCE_KINDS)}")
    free, clip = guidance in ("cfg", "both"), guidance in ("clip", "both")
    for name, scale, is_on in (("guidance_scale", guidance_scale, free), ("clip_guidance_scale", clip_guidance_scale, clip)):
        if scale is not None and not is_on:
            raise RequestError(f"{name} is {scale!r}, but guidance is {guidance!r}, which does not use it; leave one of the two out")
    return (DEFAULT_SCALE if guidance_scale is None else guidance_scale) if free else 1.0, (
        DEFAULT_SCALE if clip_guidance_scale is None else clip_guidance_scale) if clip else 0.0


def is_number(value: object) -> bool:
    """Whether a value is a whole or floating-point number, numpy's too; true and false are not."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def check_number(name: str, value: Any, *, high: float) -> float:
    """A number in [0, high] as Python's own.

    Raises:
        RequestError: it is no such number.
    """
    if not is_number(value) or not 0 <= value <= high:
        raise RequestError(f"{name} is {value!r}; expected a number from 0 to {high}")
    return float(value)


def check_interval(value: object) -> tuple[float, float]:
    """A guidance interval as a pair.

    Raises:
        RequestError: not two rising numbers in [0, 1].
    """
    if isinstance(value, tuple | list) and len(value) == 2 and all(is_number(end) for end in value) and 0 <= value[0] < value[1] <= 1:
        return float(value[0]), float(value[1])
    raise RequestError(f"guidance_interval is {value!r}; expected two rising numbers from 0 (the image) to 1 (the noise), for example 0.1 0.8")


def check_whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number in the range as Python's own.

    Raises:
        RequestError: it is no such number.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise RequestError(f"{name} is {value!r}; expected a whole number from {low} to {high}")
    return int(value)


def check_seeds(first: int, number: int) -> None:
    """Refuse images whose seeds would pass the last one there is.

    Raises:
        RequestError: they would.
    """
    if first + number - 1 > MAX_SEED:
        raise RequestError(f"seed is {first}, and {number} images would need seeds up to {first + number - 1}; the last one is {MAX_SEED}: "
                           "take a smaller seed or fewer images")


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuse what is no object of a class; classes are told by name, since diffusers makes those of an export anew at each loading.

    Raises:
        RequestError: naming the argument, what it is, and what is expected.
    """
    if type(value).__name__ != kind.__name__:
        raise RequestError(f"{name}: expected {kind.__name__}(...), got {type(value).__name__} ({value!r:.60})")


def check_prompts(prompt: str | Sequence[str]) -> list[str]:
    """Prompts as a list.

    Raises:
        RequestError: not text, or empty.
    """
    if not isinstance(prompt, str | Sequence):
        raise RequestError(f"prompt: expected text or a list of texts, got {type(prompt).__name__} ({prompt!r:.40})")
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise RequestError("prompt: the list is empty; give at least one caption")
    for text in prompts:
        if not isinstance(text, str):
            raise RequestError(f"prompt: expected text, got {type(text).__name__} ({text!r:.40})")
        if not text.strip():
            raise RequestError("prompt: the caption is empty; say what to draw")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise RequestError(f"prompt: {text!r:.60} is not valid text; give it as UTF-8")
    return prompts
