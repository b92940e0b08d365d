"""Samplers: generators that walk from noise to an image, one state per step.

All share one contract: `sampler(denoiser, x, diffusion, noise_source, gradient=None)` yields a `SampleState` after every
step; the last one's `x` is the image. A denoiser maps noised images and original timesteps to a `Prediction`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .diffusion import GaussianDiffusion, gather

Gradient = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Prediction:
    """What a denoiser says of a noised image: (N, 3, H, W) noise, and the variance's fraction in [-1, 1] or none."""

    noise: Tensor
    variance_fraction: Tensor | None


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


class SeededNoise:
    """Standard normal noise with one generator per image, so that a seed gives one image whatever the batch."""

    def __init__(self, seeds: Sequence[int]) -> None:
        """One generator for each seed; drawn on the CPU, so that devices agree."""
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


def ddpm(denoiser: Denoiser, x: Tensor, diffusion: GaussianDiffusion, noise_source: NoiseSource,
         gradient: Gradient | None = None) -> Iterator[SampleState]:
    """Ancestral sampling with learned variance (arXiv 2006.11239, algorithm 2; arXiv 2102.09672, section 3.1).

    A gradient is added to the mean times the variance (arXiv 2105.05233, algorithm 1).
    """
    for done, i in enumerate(reversed(range(diffusion.num_steps)), start=1):
        steps, times = step_tensors(diffusion, i, x)
        prediction = denoiser(x, times)
        start = diffusion.predict_start(x, prediction.noise, steps)
        mean = diffusion.posterior_mean(start, x, steps)
        if prediction.variance_fraction is None:
            log_variance = gather(diffusion.posterior_log_variance, steps, x)
        else:
            log_variance = diffusion.log_variance(prediction.variance_fraction, steps)
        if gradient is not None:
            mean = mean + log_variance.exp() * gradient(x, times)
        noise = noise_source.draw(x.shape[1:], x)
        x = mean + (0.5 * log_variance).exp() * noise if i > 0 else mean
        yield SampleState(done, diffusion.num_steps, x, start)


def ddim(denoiser: Denoiser, x: Tensor, diffusion: GaussianDiffusion, noise_source: NoiseSource,
         gradient: Gradient | None = None, *, eta: float = 0.0) -> Iterator[SampleState]:
    """DDIM (arXiv 2010.02502, equation 12); eta 0 is deterministic, 1 is as noisy as DDPM.

    A gradient changes the score (arXiv 2105.05233, algorithm 2).
    """
    before = diffusion.alphas_cumprod_prev
    for done, i in enumerate(reversed(range(diffusion.num_steps)), start=1):
        steps, times = step_tensors(diffusion, i, x)
        prediction = denoiser(x, times)
        start = diffusion.predict_start(x, prediction.noise, steps)
        signal, remaining = diffusion.alphas_cumprod[i], 1 - diffusion.alphas_cumprod[i]
        noise = diffusion.predict_noise(x, start, steps)
        if gradient is not None:
            noise = noise - np.sqrt(remaining) * gradient(x, times)
            start = diffusion.predict_start(x, noise, steps, clip=False)
        sigma = eta * np.sqrt((1 - before[i]) / remaining) * np.sqrt(1 - signal / before[i])
        fresh = noise_source.draw(x.shape[1:], x)
        x = np.sqrt(before[i]) * start + np.sqrt(1 - before[i] - sigma**2) * noise
        if i > 0:
            x = x + sigma * fresh
        yield SampleState(done, diffusion.num_steps, x, start)


SAMPLERS: dict[str, Callable[..., Iterator[SampleState]]] = {"ddpm": ddpm, "ddim": ddim}


def step_tensors(diffusion: GaussianDiffusion, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """The i-th visited step for every image: its index, and its original timestep, both int64 (N,)."""
    steps = torch.full((len(x),), i, dtype=torch.int64, device=x.device)
    return steps, torch.full_like(steps, int(diffusion.timesteps[i]))


def run(states: Iterator[SampleState]) -> Tensor:
    """Walk a sampler to its end and return the image, (N, 3, H, W)."""
    x = None
    for state in states:
        x = state.x
    if x is None:
        raise ValueError("the sampler yielded no step")
    return x
