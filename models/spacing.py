"""Which of the training's timesteps a short run visits.

Even spacing, as published, measured best on a trained model with guidance for every sampler (docs/performance.md); noise levels
spread after arXiv 2206.00364 or evenly in the log SNR did better only on Gaussian data.
"""

from .diffusion import NUM_TRAIN_TIMESTEPS, space_timesteps


def sampling_timesteps(num_steps: int, *, num_timesteps: int = NUM_TRAIN_TIMESTEPS) -> list[int]:
    """Timesteps spread evenly from the image to the noise; a single step begins at the noise.

    Args:
        num_steps: how many.
        num_timesteps: to choose from, beginning with 0; fewer than the training's to begin part of the way (SDEdit).

    Returns:
        Timesteps in rising order, the last being num_timesteps - 1.

    Raises:
        RequestError: fewer than one step, or more steps than timesteps.
    """
    even = space_timesteps(num_steps, num_timesteps=num_timesteps)
    return even if num_steps > 1 else [num_timesteps - 1]
