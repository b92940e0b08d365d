"""How to draw: the options of a call, refused before any work starts when they are impossible."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import RequestError
from .samplers import SAMPLERS

MAX_STEPS = 1000
MAX_IMAGES = 1024
MAX_SCALE = 1000


@dataclass(frozen=True)
class DrawOptions:
    """The options of one call of the pipeline.

    Attributes:
        num_images: images per prompt.
        guidance_scale: classifier-free guidance; 1 is none.
        clip_guidance_scale: guidance by the noised CLIP; 0 is none.
        num_steps: denoising steps, 1 to 1000.
        sampler: `ddpm` or `ddim`.
        seed: image i is drawn from seed + i.
    """

    num_images: int = 1
    guidance_scale: float = 3.0
    clip_guidance_scale: float = 0.0
    num_steps: int = 50
    sampler: str = "ddpm"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            RequestError: naming the option, its value and what is expected.
        """
        check_whole("num_images", self.num_images, 1, MAX_IMAGES)
        check_whole("num_steps", self.num_steps, 1, MAX_STEPS)
        check_whole("seed", self.seed, 0, 2**62)
        if self.sampler not in SAMPLERS:
            raise RequestError(f"sampler is {self.sampler!r}; expected one of {', '.join(SAMPLERS)}")
        for name in ("guidance_scale", "clip_guidance_scale"):
            scale = getattr(self, name)
            if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= MAX_SCALE:
                raise RequestError(f"{name} is {scale!r}; expected a number from 0 to {MAX_SCALE}")

    def to_json(self) -> dict[str, Any]:
        """The options as plain data."""
        return asdict(self)


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is not a whole number in the range."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} is {value!r}; expected a whole number from {low} to {high}")


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
