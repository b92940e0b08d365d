"""Samplers: generators that walk from noise to an image, one state per step.

All share one contract: `sampler(denoiser, x, diffusion, noise_source, *, clip=True)` asks the denoiser once at each timestep that
the diffusion visits, yields a `SampleState` after every step, and the last one's `x` is the image. `x` lies on the diffusion's
device and has the noise of the last visited timestep: pure noise, or, to change an image (SDEdit), an image noised to it and a
diffusion that visits the timesteps up to there. `clip` keeps predicted images in [-1, 1].

A denoiser maps noised images and original timesteps to a `Prediction`. Guidance and editing are denoisers around denoisers.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .process import GaussianDiffusion, gather

FloatTable = NDArray[np.float64]
NUM_SEEDS = 2**32  # torch's generator on a CPU takes the lower 32 bits of a seed


@dataclass(frozen=True)
class Prediction:
    """What a denoiser says of a noised image.

    Attributes:
        noise: (N, 3, H, W), the noise in it.
        variance_fraction: (N, 3, H, W) in about [-1, 1], where between its bounds the step's variance lies, or None.
        gradient: (N, 3, H, W), of a log-likelihood by the noised image, that guides beyond the predicted noise, or None.
            The ancestral sampler adds it to the mean times the variance, all others to the score (arXiv 2105.05233).
    """

    noise: Tensor
    variance_fraction: Tensor | None
    gradient: Tensor | None = None


class Denoiser(Protocol):
    """Maps x: (N, 3, H, W) at timesteps: (N,) original diffusion times to a prediction."""

    def __call__(self, x: Tensor, timesteps: Tensor) -> Prediction:
        """Predict."""
        ...


@dataclass(frozen=True)
class SampleState:
    """After one step: how many are done, the image so far, and the guess of the final image, both (N, 3, H, W)."""

    step: int
    num_steps: int
    x: Tensor
    preview: Tensor


Preview = Callable[[SampleState], None]


class SeededNoise:
    """Standard normal noise with one generator per image, so that a seed gives one image whatever the batch."""

    def __init__(self, seeds: Sequence[int]) -> None:
        """One generator for each seed, 0 to 2**32 - 1; drawn on the CPU, so that devices agree.

        Raises:
            ValueError: a seed of which torch's generator would forget a part.
        """
        if not all(0 <= seed < NUM_SEEDS for seed in seeds):
            raise ValueError(f"seeds run from {min(seeds)} to {max(seeds)}; expected 0 to {NUM_SEEDS - 1}")
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Draw (N, *shape), N being the number of seeds, as float32 or like the given tensor."""
        noise = torch.stack([torch.randn(tuple(shape), generator=g) for g in self.generators])
        return noise if like is None else noise.to(like.device, like.dtype)


class NoiseSource(Protocol):
    """Where a sampler's fresh noise comes from."""

    def draw(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Draw standard normal noise (N, *shape)."""
        ...


def ddpm(denoiser: Denoiser, x: Tensor, diffusion: GaussianDiffusion, noise_source: NoiseSource, *,
         clip: bool = True) -> Iterator[SampleState]:
    """Ancestral sampling with learned variance (arXiv 2006.11239, algorithm 2; arXiv 2102.09672, section 3.1).

    A gradient is added to the mean times the variance (arXiv 2105.05233, algorithm 1).
    """
    for done, i in enumerate(reversed(range(diffusion.num_steps)), start=1):
        steps, times = step_tensors(diffusion, i, x)
        prediction = denoiser(x, times)
        start = diffusion.predict_start(x, prediction.noise, steps, clip=clip)
        mean = diffusion.posterior_mean(start, x, steps)
        if prediction.variance_fraction is None:
            log_variance = gather(diffusion.tables.posterior_log_variance, steps, x)
        else:
            log_variance = diffusion.log_variance(prediction.variance_fraction, steps)
        if prediction.gradient is not None:
            mean = mean + log_variance.exp() * prediction.gradient
        noise = noise_source.draw(x.shape[1:], x)
        x = mean + (0.5 * log_variance).exp() * noise if i > 0 else mean
        yield SampleState(done, diffusion.num_steps, x, start)


def ddim(denoiser: Denoiser, x: Tensor, diffusion: GaussianDiffusion, noise_source: NoiseSource, *,
         clip: bool = True, eta: float = 0.0) -> Iterator[SampleState]:
    """DDIM (arXiv 2010.02502, equation 12); eta 0 is deterministic, 1 is as noisy as DDPM.

    A gradient changes the score after clipping (arXiv 2105.05233, algorithm 2), as in the published sampler.
    """
    for done, i in enumerate(reversed(range(diffusion.num_steps)), start=1):
        steps, times = step_tensors(diffusion, i, x)
        prediction = denoiser(x, times)
        start = diffusion.predict_start(x, prediction.noise, steps, clip=clip)
        # In the image's own precision, as published: at eta 1 what remains beside sigma is a difference of nearly equal numbers.
        signal, before = gather(diffusion.tables.signal, steps, x), gather(diffusion.tables.signal_before, steps, x)
        noise = diffusion.predict_noise(x, start, steps)
        if prediction.gradient is not None:
            noise = noise - (1 - signal).sqrt() * prediction.gradient
            start = diffusion.predict_start(x, noise, steps, clip=False)
        sigma = eta * ((1 - before) / (1 - signal)).sqrt() * (1 - signal / before).sqrt()
        fresh = noise_source.draw(x.shape[1:], x)
        x = before.sqrt() * start + (1 - before - sigma**2).clamp(min=0).sqrt() * noise
        if i > 0:
            x = x + sigma * fresh
        yield SampleState(done, diffusion.num_steps, x, start)


def dpm_solver(denoiser: Denoiser, x: Tensor, diffusion: GaussianDiffusion, noise_source: NoiseSource, *,
               clip: bool = True) -> Iterator[SampleState]:
    """DPM-Solver++(2M), deterministic (arXiv 2211.01095, algorithm 2).

    With l half the logarithm of the signal-to-noise ratio, a step solves the probability flow exactly but for the
    predicted image, which is continued as a straight line in l through the last two predictions. Of first order are the first
    step, and the one to the last visited timestep: l rises so steeply there that the line would be continued over more than
    twice its length.
    """
    alpha, sigma, half_log_snr = signal_and_noise(diffusion)
    earlier = None
    for done, i in enumerate(reversed(range(diffusion.num_steps)), start=1):
        start = x_start = guided_start(denoiser, x, diffusion, i, clip=clip)
        if i == 0:
            x = start
        else:
            h = half_log_snr[i - 1] - half_log_snr[i]
            if earlier is not None and i > 1:
                start = start + h / (2 * (half_log_snr[i] - half_log_snr[i + 1])) * (start - earlier)
            x = sigma[i - 1] / sigma[i] * x - alpha[i - 1] * math.expm1(-h) * start
        earlier = x_start
        yield SampleState(done, diffusion.num_steps, x, x_start)


def dpm_solver_sde(denoiser: Denoiser, x: Tensor, diffusion: GaussianDiffusion, noise_source: NoiseSource, *,
                   clip: bool = True) -> Iterator[SampleState]:
    """SDE-DPM-Solver++(2M) (arXiv 2211.01095, section 6): the same line, with the reverse diffusion's fresh noise in every step.

    Noise lets later steps correct what earlier ones, and a network that is not perfect, got wrong.
    """
    alpha, sigma, half_log_snr = signal_and_noise(diffusion)
    earlier = None
    for done, i in enumerate(reversed(range(diffusion.num_steps)), start=1):
        start = x_start = guided_start(denoiser, x, diffusion, i, clip=clip)
        if i == 0:
            x = start
        else:
            h = half_log_snr[i - 1] - half_log_snr[i]
            if earlier is not None:
                start = start + h / (2 * (half_log_snr[i] - half_log_snr[i + 1])) * (start - earlier)
            fresh = noise_source.draw(x.shape[1:], x)
            x = (sigma[i - 1] / sigma[i] * math.exp(-h) * x - alpha[i - 1] * math.expm1(-2 * h) * start
                 + sigma[i - 1] * math.sqrt(-math.expm1(-2 * h)) * fresh)
        earlier = x_start
        yield SampleState(done, diffusion.num_steps, x, x_start)


def unipc(denoiser: Denoiser, x: Tensor, diffusion: GaussianDiffusion, noise_source: NoiseSource, *,
          clip: bool = True) -> Iterator[SampleState]:
    """UniPC, deterministic: predictor of second, corrector of third order, one pass a step (arXiv 2302.04867, algorithms 1 and 2).

    Between two timesteps the image moves by an integral over the predicted images. Taken for the line through the newest
    two, it says where to ask the denoiser next; with that answer the same step is taken again, for the parabola through
    three. The coefficients are those of the exact integrals (the paper's UniPC_v). The first step and the one to the
    last visited timestep, where the log SNR is steep, are of first order.
    """
    alpha, sigma, half_log_snr = signal_and_noise(diffusion)
    known: list[tuple[float, Tensor]] = []  # half log SNR and predicted image, newest first
    carried = x  # the share of the last image that the step to this one kept
    for done, i in enumerate(reversed(range(diffusion.num_steps)), start=1):
        start = guided_start(denoiser, x, diffusion, i, clip=clip)
        known = [(half_log_snr[i], start), *known[:2]]
        if i == 0:
            x = start
        else:
            if done > 1:
                x = carried + alpha[i] * integrate(known, half_log_snr[i + 1], half_log_snr[i])
            carried = sigma[i - 1] / sigma[i] * x
            x = carried + alpha[i - 1] * integrate(known[:min(2, i)], half_log_snr[i], half_log_snr[i - 1])
        yield SampleState(done, diffusion.num_steps, x, start)


SAMPLERS: dict[str, Callable[..., Iterator[SampleState]]] = {
    "ddpm": ddpm, "ddim": ddim, "dpm++": dpm_solver, "dpm++sde": dpm_solver_sde, "unipc": unipc}


def signal_and_noise(diffusion: GaussianDiffusion) -> tuple[FloatTable, FloatTable, FloatTable]:
    """(T,) each: factor of the image, factor of the noise, and the logarithm of their ratio (half the log SNR)."""
    alpha, sigma = np.sqrt(diffusion.alphas_cumprod), np.sqrt(1 - diffusion.alphas_cumprod)
    return alpha, sigma, np.log(alpha / sigma)


def guided_start(denoiser: Denoiser, x: Tensor, diffusion: GaussianDiffusion, i: int, *, clip: bool) -> Tensor:
    """The image predicted at the i-th visited timestep, (N, 3, H, W), with the gradient added to the score."""
    steps, times = step_tensors(diffusion, i, x)
    prediction = denoiser(x, times)
    noise = prediction.noise
    if prediction.gradient is not None:
        noise = noise - np.sqrt(1 - diffusion.alphas_cumprod[i]) * prediction.gradient
    return diffusion.predict_start(x, noise, steps, clip=clip)


def integrate(known: Sequence[tuple[float, Tensor]], begin: float, end: float) -> Tensor:
    """Integrate exp(l - end) P(l) from begin to end, P being the polynomial through the known (l, image) pairs."""
    h, moments = end - begin, [-math.expm1(begin - end)]  # of exp(l - end) (l - begin)^k, by parts
    for k in range(1, len(known)):
        moments.append(h**k - k * moments[-1])
    powers = np.array([[(place - begin) ** k for place, _ in known] for k in range(len(known))])
    weights = np.linalg.solve(powers, np.array(moments))
    return torch.stack([float(weight) * image for weight, (_, image) in zip(weights, known, strict=True)]).sum(dim=0)


def step_tensors(diffusion: GaussianDiffusion, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """The i-th visited step for every image: its index, and its original timestep, both int64 (N,)."""
    steps = torch.full((len(x),), i, dtype=torch.int64, device=x.device)
    return steps, torch.full_like(steps, int(diffusion.timesteps[i]))


def run(states: Iterator[SampleState], preview: Preview | None = None) -> Tensor:
    """Walk a sampler to its end and return the image, (N, 3, H, W).

    Args:
        states: what a sampler yields.
        preview: called with every state.

    Raises:
        ValueError: the sampler yielded no step.
    """
    x = None
    for state in states:
        if preview is not None:
            preview(state)
        x = state.x
    if x is None:
        raise ValueError("the sampler yielded no step")
    return x
