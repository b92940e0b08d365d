"""Editing with a denoiser: inpainting, image-to-image, upsampling (arXiv 2112.10741, sections 2 to 5; arXiv 2108.01073).

What is known of an image enters in two ways. A network fine-tuned for it sees known pixels and their mask in its input
(arXiv 2112.10741, section 4.3); and whatever the network, its guess of the clean image is replaced by the image where
that is known, so that the sampler walks there to the image itself and the network sees it at each step's noise. The
second alone makes any base model inpaint, with harder edges: the network was never trained to continue from what it sees.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import RequestError
from ...pictures.decode import Pixels
from ..diffusion.process import NUM_TRAIN_TIMESTEPS, GaussianDiffusion, NoiseSchedule, fast27_timesteps
from ..diffusion.sampler_timesteps import sampling_timesteps
from ..diffusion.samplers import SAMPLERS, Denoiser, Prediction, SeededNoise, run
from ..loading.loaded_networks import Networks
from ..networks.unet import TextConditionedUNet, condition_input
from .guided_drawing import Batch, guided_denoiser
from .options import DrawOptions, check_number, is_number
from .pixels import to_model_range

MAX_TEMPERATURE = 2.0
IMAGE_STEPS = 8  # of an upsampler that predicts the image; 27 bring held-back drawings no nearer (docs/training-log.md)


@dataclass(frozen=True)
class UpsampleOptions:
    """The options of one upsampling.

    Attributes:
        temperature: factor on the noise that sampling starts from; the published notebooks take 0.997, below 1 is smoother.
        num_steps: denoising steps, 1 to 1000; None takes the published 27, most of them where noise is weak, or IMAGE_STEPS evenly
            spread where the upsampler predicts the image.
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

    def timesteps(self, schedule: NoiseSchedule) -> list[int]:
        """The timesteps visited of a noise schedule."""
        if self.num_steps is None and schedule.prediction_type == "epsilon":
            return fast27_timesteps()
        return sampling_timesteps(self.sampler, schedule.betas, IMAGE_STEPS if self.num_steps is None else self.num_steps)

    def to_json(self) -> dict[str, Any]:
        """The options as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class KeptRegion:
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
class KeepingDenoiser:
    """A denoiser whose guess of the clean image is the picture itself where that is kept.

    Attributes:
        inner: denoises the rest.
        diffusion: the complete process, whose indices are the timesteps.
        kept: picture and mask.
    """

    inner: Denoiser
    diffusion: GaussianDiffusion
    kept: KeptRegion

    def __call__(self, x: Tensor, timesteps: Tensor) -> Prediction:
        """Predict; where the picture is kept, the noise that lies between x and it."""
        prediction = self.inner(x, timesteps)
        noise = self.diffusion.predict_noise(x, self.kept.image, timesteps)
        gradient = None if prediction.gradient is None else torch.where(self.kept.draw, prediction.gradient, 0.0)
        return Prediction(torch.where(self.kept.draw, prediction.noise, noise), prediction.variance_fraction, gradient)


@dataclass(frozen=True)
class ExtraChannels:
    """What a network sees beside the noised images, each (M, ...) for one or all images of a batch, or None.

    Attributes:
        kept: picture and mask, for inpainting networks.
        low_res: float32 (M, 3, h, w) in [-1, 1], for upsamplers.
    """

    kept: KeptRegion | None = None
    low_res: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Append them to x: (N, 3, H, W), N a multiple of M; repeats follow the whole batch, as guidance makes them."""
        image = None if self.kept is None else repeat_to(self.kept.image, len(x))
        mask = None if self.kept is None else repeat_to((~self.kept.draw).to(x.dtype), len(x))
        low_res = None if self.low_res is None else repeat_to(self.low_res, len(x))
        return condition_input(x, inpaint_image=image, inpaint_mask=mask, low_res=low_res)


def repeat_to(rows: Tensor, n: int) -> Tensor:
    """Repeat (M, ...) as a whole to (n, ...)."""
    return rows.repeat(n // len(rows), *[1] * (rows.ndim - 1))


def to_tensor(pictures: Sequence[Pixels], device: torch.device) -> Tensor:
    """uint8 (H, W, 3) each -> float32 (N, 3, H, W) in [-1, 1]."""
    return to_model_range(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)).to(device)


def inpaint(networks: Networks, batch: Batch, kept: KeptRegion) -> Tensor:
    """Draw what is not kept, with the inpainting network where there is one, else with the base.

    Args:
        networks: at least the base.
        batch: prompts and seeds.
        kept: picture and mask at the base's resolution.

    Returns:
        float32 (N, 3, S, S), the kept pixels pasted in.
    """
    unet = networks.base if networks.base_inpaint is None else networks.base_inpaint
    options, schedule, noise = batch.options, networks.schedule.betas, SeededNoise(batch.seeds)
    x = noise.draw(kept.image.shape[1:], kept.image)
    denoiser = guided_denoiser(networks, unet, batch, condition=ExtraChannels(kept) if unet.config.inpaint else None)
    denoiser = KeepingDenoiser(denoiser, GaussianDiffusion.create(schedule, device=networks.device), kept)
    diffusion = GaussianDiffusion.create(schedule, sampling_timesteps(options.sampler, schedule, options.num_steps), device=networks.device)
    return kept.paste(run(SAMPLERS[options.sampler](denoiser, x, diffusion, noise), batch.preview))


def vary(networks: Networks, batch: Batch, image: Tensor, strength: float) -> Tensor:
    """Noise a picture to a strength and denoise it with the prompt (SDEdit, arXiv 2108.01073, section 3).

    Args:
        networks: at least the base.
        batch: prompts and seeds.
        image: float32 (1, 3, S, S) in [-1, 1].
        strength: in (0, 1]; 1 starts from noise alone and forgets the picture.

    Returns:
        float32 (N, 3, S, S).
    """
    schedule = networks.schedule.betas
    timesteps = strength_timesteps(strength, batch.options, schedule)
    diffusion = GaussianDiffusion.create(schedule, timesteps, device=networks.device)
    noise = SeededNoise(batch.seeds)
    x = noise.draw(image.shape[1:], image)
    if strength < 1:
        last = torch.full((len(x),), diffusion.num_steps - 1, dtype=torch.int64, device=x.device)
        x = diffusion.add_noise(image, last, x)
    denoiser = guided_denoiser(networks, networks.base, batch)
    return run(SAMPLERS[batch.options.sampler](denoiser, x, diffusion, noise), batch.preview)


def upsample(networks: Networks, batch: Batch, low_res: Tensor, options: UpsampleOptions, kept: KeptRegion | None) -> Tensor:
    """Enlarge pictures (arXiv 2112.10741, section 4.1): draw at the upsampler's size, seeing them.

    Args:
        networks: at least an upsampler.
        batch: a prompt and a seed for each picture.
        low_res: float32 (N, 3, s, s) in [-1, 1].
        options: temperature and steps.
        kept: picture and mask at the upsampler's resolution, or None.

    Returns:
        float32 (N, 3, S, S), the kept pixels pasted in.

    Raises:
        RequestError: there is no upsampler.
    """
    unet, schedule = choose_upsampler(networks, inpaint=kept is not None), networks.upsampler_schedule
    noise, size = SeededNoise(batch.seeds), unet.config.image_size
    x = options.temperature * noise.draw((3, size, size), low_res)
    extra_channels = ExtraChannels(kept if unet.config.inpaint else None, low_res)
    denoiser = guided_denoiser(networks, unet, batch, condition=extra_channels)
    if kept is not None:
        denoiser = KeepingDenoiser(denoiser, GaussianDiffusion.create(schedule.betas, device=networks.device), kept)
    diffusion = GaussianDiffusion.create(schedule.betas, options.timesteps(schedule), device=networks.device)
    drawn = run(SAMPLERS[options.sampler](denoiser, x, diffusion, noise), batch.preview)
    return drawn if kept is None else kept.paste(drawn)


def choose_upsampler(networks: Networks, *, inpaint: bool) -> TextConditionedUNet:
    """The upsampler for a task; where pixels are kept, the inpainting one if there is one.

    Raises:
        RequestError: there is none.
    """
    if inpaint and networks.upsampler_inpaint is not None:
        return networks.upsampler_inpaint
    if networks.upsampler is None:
        expected = "upsampler_inpaint or upsampler" if inpaint else "upsampler"
        raise RequestError(f"upsample: this release has no {expected}, or it was not loaded; beside base there is "
                           f"{', '.join(networks.companions) or 'nothing'}")
    return networks.upsampler


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


def check_strength(strength: Any) -> float:
    """A strength as Python's own number.

    Raises:
        RequestError: it is no number above 0 up to 1.
    """
    if not is_number(strength) or not 0 < strength <= 1:
        raise RequestError(f"strength is {strength!r}; expected a number above 0 (nearly the picture) up to 1 (drawn anew)")
    return float(strength)
