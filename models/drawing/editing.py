"""Editing with a denoiser: inpainting, image-to-image, upsampling (arXiv 2112.10741, sections 2 to 5; arXiv 2108.01073).

What is known of an image enters in two ways. A network fine-tuned for it sees known pixels and their mask in its input
(arXiv 2112.10741, section 4.3); and whatever the network, its guess of the clean image is replaced by the image where
that is known, so that the sampler walks there to the image itself and the network sees it at each step's noise. The
second alone makes any base model inpaint, with harder edges: the network was never trained to continue from what it sees.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...errors import RequestError
from ...pictures.decode import Pixels
from ..diffusion.process import NUM_TRAIN_TIMESTEPS, GaussianDiffusion, fast27_timesteps
from ..diffusion.sampler_timesteps import sampling_timesteps
from ..diffusion.samplers import SAMPLERS, Denoiser, Prediction, SampleState, SeededNoise
from ..networks.unet import TextConditionedUNet, condition_input
from .options import DrawOptions, check_number, check_seeds, is_number
from .pixels import to_model_range

if TYPE_CHECKING:
    from .pipeline import GlidePipeline

MAX_TEMPERATURE = 2.0
Preview = Callable[[SampleState], None]


@dataclass(frozen=True)
class UpsampleOptions:
    """The options of one upsampling.

    Attributes:
        temperature: factor on the noise that sampling starts from; the published notebooks take 0.997, below 1 is smoother.
        num_steps: denoising steps, 1 to 1000; none takes the published 27, most of them where noise is weak.
        guidance_scale: classifier-free guidance; 1 is none, as published.
        sampler: as for drawing.
        seed: image i is drawn from seed + i.
        cut_long_prompts: cut prompts that are longer than the upsampler's context instead of refusing them.
    """

    temperature: float = 0.997
    num_steps: int | None = None
    guidance_scale: float = 1.0
    sampler: str = "ddim"
    seed: int = 0
    cut_long_prompts: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            RequestError: naming the option, its value and what is expected.
        """
        object.__setattr__(self, "temperature", check_number("temperature", self.temperature, high=MAX_TEMPERATURE))
        checked = self.drawing()
        for name in ("guidance_scale", "seed", *(() if self.num_steps is None else ("num_steps",))):
            object.__setattr__(self, name, getattr(checked, name))

    def drawing(self) -> DrawOptions:
        """The same as options of drawing, which checks what both have."""
        return DrawOptions(num_steps=len(fast27_timesteps()) if self.num_steps is None else self.num_steps,
                           guidance_scale=self.guidance_scale, sampler=self.sampler, seed=self.seed,
                           cut_long_prompts=self.cut_long_prompts)

    def timesteps(self, schedule: str) -> list[int]:
        """The timesteps visited of a noise schedule."""
        return fast27_timesteps() if self.num_steps is None else sampling_timesteps(self.sampler, schedule, self.num_steps)

    def to_json(self) -> dict[str, Any]:
        """The options as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Batch:
    """What is drawn at once: a prompt and a seed for each image, the options, and who watches."""

    prompts: list[str]
    seeds: list[int]
    options: DrawOptions
    preview: Preview | None

    @classmethod
    def of(cls, prompts: list[str], options: DrawOptions, preview: Preview | None) -> "Batch":
        """One image per prompt, image i from options.seed + i.

        Raises:
            RequestError: there are not so many seeds.
        """
        check_seeds(options.seed, len(prompts))
        return cls(prompts, list(range(options.seed, options.seed + len(prompts))), options, preview)

    def rows(self, start: int, stop: int) -> "Batch":
        """A part of it."""
        return Batch(self.prompts[start:stop], self.seeds[start:stop], self.options, self.preview)


@dataclass(frozen=True)
class Known:
    """A picture of which a part is kept.

    Attributes:
        image: float32 (1, 3, H, W) in [-1, 1].
        draw: bool (1, 1, H, W), true where to draw anew.
    """

    image: Tensor
    draw: Tensor

    def paste(self, x: Tensor) -> Tensor:
        """Put the kept pixels over x: (N, 3, H, W); in 8 bits they are then the picture's, bit for bit."""
        return torch.where(self.draw, x, self.image)


@dataclass(frozen=True)
class KnownRegion:
    """A denoiser whose guess of the clean image is the picture itself where that is kept.

    Attributes:
        denoiser: for the rest.
        diffusion: the complete process, whose indices are the timesteps.
        known: picture and mask.
    """

    denoiser: Denoiser
    diffusion: GaussianDiffusion
    known: Known

    def __call__(self, x: Tensor, timesteps: Tensor) -> Prediction:
        """Predict; where the picture is kept, the noise that lies between x and it."""
        prediction = self.denoiser(x, timesteps)
        between = self.diffusion.predict_noise(x, self.known.image, timesteps)
        gradient = None if prediction.gradient is None else torch.where(self.known.draw, prediction.gradient, 0.0)
        return Prediction(torch.where(self.known.draw, prediction.noise, between), prediction.variance_fraction, gradient)


@dataclass(frozen=True)
class Sight:
    """What a network sees beside the noised images, each (M, ...) for one or all images of a batch, or none.

    Attributes:
        known: picture and mask, for inpainting networks.
        low_res: float32 (M, 3, h, w) in [-1, 1], for upsamplers.
    """

    known: Known | None = None
    low_res: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Append it to x: (N, 3, H, W), N a multiple of M; repeats follow the whole batch, as guidance makes them."""
        known = None if self.known is None else (~self.known.draw).to(x.dtype)
        return condition_input(x, inpaint_image=None if self.known is None else repeat_to(self.known.image, len(x)),
                               inpaint_mask=None if known is None else repeat_to(known, len(x)),
                               low_res=None if self.low_res is None else repeat_to(self.low_res, len(x)))


def repeat_to(rows: Tensor, n: int) -> Tensor:
    """Repeat (M, ...) as a whole to (n, ...)."""
    return rows.repeat(n // len(rows), *[1] * (rows.ndim - 1))


def to_tensor(pictures: Sequence[Pixels], device: torch.device) -> Tensor:
    """uint8 (H, W, 3) each -> float32 (N, 3, H, W) in [-1, 1]."""
    return to_model_range(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)).to(device)


def inpaint(pipe: "GlidePipeline", batch: Batch, known: Known) -> Tensor:
    """Draw what is not kept, with the inpainting network where there is one, else with the base.

    Args:
        pipe: the models.
        batch: prompts and seeds.
        known: picture and mask at the base's resolution.

    Returns:
        float32 (N, 3, S, S), the kept pixels pasted in.
    """
    network = pipe.base if pipe.companions.base_inpaint is None else pipe.companions.base_inpaint
    noise = SeededNoise(batch.seeds)
    x = noise.draw(known.image.shape[1:], known.image)
    denoiser = pipe.guide(network, batch.prompts, batch.options, condition=Sight(known) if network.config.inpaint else None)
    denoiser = keep_known(denoiser, known, pipe.schedule)
    diffusion = GaussianDiffusion.create(pipe.schedule, sampling_timesteps(batch.options.sampler, pipe.schedule, batch.options.num_steps))
    return known.paste(walk(SAMPLERS[batch.options.sampler](denoiser, x, diffusion, noise), batch.preview))


def vary(pipe: "GlidePipeline", batch: Batch, image: Tensor, strength: float) -> Tensor:
    """Noise a picture to a strength and denoise it with the prompt (SDEdit, arXiv 2108.01073, section 3).

    Args:
        pipe: the models.
        batch: prompts and seeds.
        image: float32 (1, 3, S, S) in [-1, 1].
        strength: in (0, 1]; 1 starts from noise alone and forgets the picture.

    Returns:
        float32 (N, 3, S, S).
    """
    diffusion = GaussianDiffusion.create(pipe.schedule, strength_timesteps(strength, batch.options, pipe.schedule))
    noise = SeededNoise(batch.seeds)
    x = noise.draw(image.shape[1:], image)
    if strength < 1:
        last = torch.full((len(x),), diffusion.num_steps - 1, dtype=torch.int64, device=x.device)
        x = diffusion.add_noise(image, last, x)
    denoiser = pipe.guide(pipe.base, batch.prompts, batch.options)
    return walk(SAMPLERS[batch.options.sampler](denoiser, x, diffusion, noise), batch.preview)


def upsample(pipe: "GlidePipeline", batch: Batch, low_res: Tensor, options: UpsampleOptions, known: Known | None) -> Tensor:
    """Enlarge pictures (arXiv 2112.10741, section 4.1): draw at the upsampler's size, seeing them.

    Args:
        pipe: the models.
        batch: a prompt and a seed for each picture.
        low_res: float32 (N, 3, s, s) in [-1, 1].
        options: temperature and steps.
        known: picture and mask at the upsampler's resolution, or none.

    Returns:
        float32 (N, 3, S, S), the kept pixels pasted in.
    """
    network = choose_upsampler(pipe, inpaint=known is not None)
    schedule, size = pipe.companions.upsampler_schedule, network.config.image_size
    noise = SeededNoise(batch.seeds)
    x = options.temperature * noise.draw((3, size, size), low_res)
    sight = Sight(known if network.config.inpaint else None, low_res)
    denoiser = pipe.guide(network, batch.prompts, batch.options, condition=sight)
    if known is not None:
        denoiser = keep_known(denoiser, known, schedule)
    diffusion = GaussianDiffusion.create(schedule, options.timesteps(schedule))
    drawn = walk(SAMPLERS[options.sampler](denoiser, x, diffusion, noise), batch.preview)
    return drawn if known is None else known.paste(drawn)


def choose_upsampler(pipe: "GlidePipeline", *, inpaint: bool) -> TextConditionedUNet:
    """The upsampler for a task; where pixels are kept, the inpainting one if there is one.

    Raises:
        RequestError: there is none.
    """
    companions = pipe.companions
    if inpaint and companions.upsampler_inpaint is not None:
        return companions.upsampler_inpaint
    if companions.upsampler is None:
        wanted = "upsampler_inpaint or upsampler" if inpaint else "upsampler"
        raise RequestError(f"upsample: this release has no {wanted}, or it was not loaded; beside base there is "
                           f"{', '.join(companions.networks) or 'nothing'}")
    return companions.upsampler


def keep_known(denoiser: Denoiser, known: Known, schedule: str) -> Denoiser:
    """Make a denoiser, with the gradients that guide it, leave the kept part of a picture as it is."""
    return KnownRegion(denoiser, GaussianDiffusion.create(schedule), known)


def strength_timesteps(strength: float, options: DrawOptions, schedule: str) -> list[int]:
    """Timesteps from the noise of a strength down to none: spread as the sampler does, at most one for each timestep there is.

    Args:
        strength: in (0, 1], the share of the noising process that is gone back.
        options: sampler, and steps wanted.
        schedule: of the noise.

    Returns:
        Timesteps in rising order; the last is where sampling starts.
    """
    below = max(1, round(strength * NUM_TRAIN_TIMESTEPS))
    return sampling_timesteps(options.sampler, schedule, min(options.num_steps, below), num_timesteps=below)


def walk(states: Iterator[SampleState], preview: Preview | None) -> Tensor:
    """Walk a sampler to its end, showing every state, and return the image, (N, 3, H, W)."""
    for state in states:
        if preview is not None:
            preview(state)
    return state.x


def check_strength(strength: Any) -> float:
    """A strength as Python's own number.

    Raises:
        RequestError: it is none above 0 up to 1.
    """
    if not is_number(strength) or not 0 < strength <= 1:
        raise RequestError(f"strength is {strength!r}; expected a number above 0 (nearly the picture) up to 1 (drawn anew)")
    return float(strength)
