"""Which of the training's timesteps a short run visits: each sampler has the spacing it measures best with."""

from .diffusion import NUM_TRAIN_TIMESTEPS, space_timesteps

# Where steps gather: 1 is even, above 1 towards little noise, where the log SNR is steep.
POWERS = {"ddpm": 1.0, "ddim": 1.0, "dpm++": 1.5, "unipc": 1.5}


def sampling_timesteps(sampler: str, num_steps: int, *, num_timesteps: int = NUM_TRAIN_TIMESTEPS) -> list[int]:
    """The timesteps that a sampler visits; `ddpm` and `ddim` go evenly, as the published models do.

    Args:
        sampler: a name in `SAMPLERS`.
        num_steps: how many.
        num_timesteps: to choose from, beginning with 0; fewer than the training's to begin part of the way (SDEdit).

    Returns:
        Timesteps in rising order, from 0 to num_timesteps - 1; a single step is the last of them, where all is noise.

    Raises:
        RequestError: fewer than one step, or more steps than timesteps.
    """
    even = space_timesteps(num_steps, num_timesteps=num_timesteps)
    if num_steps == 1:
        return [num_timesteps - 1]
    if POWERS[sampler] == 1:
        return even
    chosen: list[int] = []
    for i in range(num_steps):
        wanted = round((num_timesteps - 1) * (i / (num_steps - 1)) ** POWERS[sampler])
        chosen.append(max(wanted, chosen[-1] + 1) if chosen else wanted)
    return chosen
