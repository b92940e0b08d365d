"""Which of the training's timesteps a short run visits: each sampler has the spacing it measured best with (docs/performance.md)."""

import numpy as np

from .process import NUM_TRAIN_TIMESTEPS, GaussianDiffusion, space_timesteps

RHO = 7.0  # arXiv 2206.00364, section 3 (equation 5)
MAX_SIGMA = 40.0  # noise over signal; beyond it small images are noise to the network
GATHERED = frozenset({"dpm++sde"})


def sampling_timesteps(sampler: str, schedule: str, num_steps: int, *, num_timesteps: int = NUM_TRAIN_TIMESTEPS) -> list[int]:
    """The timesteps that a sampler visits.

    `dpm++sde` goes evenly in the seventh root of noise over signal, from at most 40: more steps than even ones at both ends,
    where the log SNR is steep and so much fresh noise would enter at once. All others go evenly, as the published models do.

    Args:
        sampler: a name in `SAMPLERS`.
        schedule: of the noise.
        num_steps: how many.
        num_timesteps: to choose from, beginning with 0; fewer than the training's to begin part of the way (SDEdit).

    Returns:
        Timesteps in rising order, from 0; a single step is at the noise.

    Raises:
        RequestError: fewer than one step, or more steps than timesteps.
    """
    even = space_timesteps(num_steps, num_timesteps=num_timesteps)
    if num_steps == 1:
        return [num_timesteps - 1]
    gathered = gathered_timesteps(schedule, num_steps, num_timesteps) if sampler in GATHERED else None
    return even if gathered is None else gathered


def gathered_timesteps(schedule: str, num_steps: int, num_timesteps: int) -> list[int] | None:
    """Timesteps nearest to noise levels that are even in their seventh root, or None where there are too many for that."""
    signal = GaussianDiffusion.create(schedule).alphas_cumprod[:num_timesteps]
    sigma = np.sqrt(1 / signal - 1)
    last = int(np.searchsorted(sigma, min(MAX_SIGMA, sigma[-1])))
    if num_steps > last + 1:
        return None
    wanted = np.linspace(sigma[0] ** (1 / RHO), sigma[last] ** (1 / RHO), num_steps) ** RHO
    chosen: list[int] = []
    for i, level in enumerate(wanted):
        nearest = int(np.abs(np.log(sigma / level)).argmin())
        chosen.append(min(max(nearest, chosen[-1] + 1 if chosen else 0), last - (num_steps - 1 - i)))
    return chosen
