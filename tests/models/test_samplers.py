from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from glideslope.models.diffusion import GaussianDiffusion, fast27_timesteps, gather, space_timesteps
from glideslope.models.guidance import GradientGuidance
from glideslope.models.samplers import SAMPLERS, Prediction, SeededNoise, ddim, ddpm, run
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from .published import FIXTURES

TRAJECTORIES = load_file(FIXTURES / "trajectories.safetensors")
KINDS = {"ddpm": (ddpm, False), "ddpm_guided": (ddpm, True), "ddim_eta0": (ddim, False),
         "ddim_eta0.5": (partial(ddim, eta=0.5), False), "ddim_guided": (ddim, True)}
MEAN, DEVIATION = 0.1, 0.15  # of the Gaussian data whose best denoiser is known in closed form


class RecordedNoise:
    """Hands out recorded draws one after the other."""

    def __init__(self, draws: Tensor) -> None:
        self.draws = iter(draws)

    def draw(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        return next(self.draws)


def analytic_model(x: Tensor, timesteps: Tensor) -> Prediction:
    s = (timesteps.float() / 1000).view(-1, 1, 1, 1)
    return Prediction(torch.tanh(0.7 * x + 0.1) * (0.2 + 0.8 * s), torch.sin(0.5 * x + s))


@pytest.mark.parametrize("name", [name for name in TRAJECTORIES if not name.endswith("noise") and name != "x_T"])
def test_a_whole_run_ends_where_the_published_sampler_ends(name: str) -> None:
    schedule, spacing, kind = name.split(".", 2)
    steps = fast27_timesteps() if spacing == "fast27" else space_timesteps(int(spacing))
    sampler, guided = KINDS[kind]
    denoiser = GradientGuidance(analytic_model, lambda x, timesteps: 0.3 * torch.cos(x)) if guided else analytic_model
    noise = RecordedNoise(TRAJECTORIES[f"{schedule}.{spacing}.noise"])
    image = run(sampler(denoiser, TRAJECTORIES["x_T"], GaussianDiffusion.create(schedule, steps), noise))
    torch.testing.assert_close(image, TRAJECTORIES[name], rtol=0, atol=1e-4)


def gaussian_denoiser(diffusion: GaussianDiffusion, x: Tensor, timesteps: Tensor) -> Prediction:
    """The best possible denoiser for pixels drawn independently from N(MEAN, DEVIATION^2)."""
    steps = torch.searchsorted(torch.from_numpy(diffusion.timesteps), timesteps)
    alpha = gather(diffusion.alphas_cumprod, steps, x)
    noise = (1 - alpha).sqrt() * (x - alpha.sqrt() * MEAN) / (alpha * DEVIATION**2 + 1 - alpha)
    return Prediction(noise, None)


@pytest.mark.parametrize("schedule", ["squaredcos_cap_v2", "linear"])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_with_a_perfect_denoiser_samples_have_the_distribution_of_the_data(schedule: str, sampler: str) -> None:
    diffusion = GaussianDiffusion.create(schedule)
    noise = SeededNoise(range(8))
    x = noise.draw((3, 24, 24))
    image = run(SAMPLERS[sampler](partial(gaussian_denoiser, diffusion), x, diffusion, noise))
    assert abs(float(image.mean()) - MEAN) < 0.01
    assert abs(float(image.std()) - DEVIATION) < 0.01


def test_ddim_follows_the_probability_flow_to_its_closed_form_end() -> None:
    diffusion = GaussianDiffusion.create("squaredcos_cap_v2")
    noise = SeededNoise([0])
    x = noise.draw((3, 8, 8))
    alpha = float(diffusion.alphas_cumprod[-1])
    end = MEAN + DEVIATION * (x - np.sqrt(alpha) * MEAN) / np.sqrt(alpha * DEVIATION**2 + 1 - alpha)
    image = run(ddim(partial(gaussian_denoiser, diffusion), x, diffusion, noise))
    torch.testing.assert_close(image, end, rtol=0, atol=0.02)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_every_step_is_told_with_its_number_and_a_preview_in_range(sampler: str) -> None:
    diffusion, noise = GaussianDiffusion.create("linear", space_timesteps(7)), SeededNoise([0, 1])
    states = list(SAMPLERS[sampler](analytic_model, noise.draw((3, 4, 4)), diffusion, noise))
    assert [(state.step, state.num_steps) for state in states] == [(i, 7) for i in range(1, 8)]
    assert all(state.preview.shape == state.x.shape == (2, 3, 4, 4) for state in states)
    assert all(float(state.preview.abs().max()) <= 1 for state in states)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_the_denoiser_is_asked_at_original_timesteps(sampler: str) -> None:
    asked: list[int] = []

    def denoiser(x: Tensor, timesteps: Tensor) -> Prediction:
        asked.extend(timesteps.tolist())
        return analytic_model(x, timesteps)

    run(SAMPLERS[sampler](denoiser, torch.zeros(1, 3, 2, 2), GaussianDiffusion.create("linear", [0, 10, 999]), SeededNoise([0])))
    assert asked == [999, 10, 0]


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=5), st.integers(0, 4))
def test_a_seed_draws_the_same_noise_whatever_the_batch(seeds: list[int], position: int) -> None:
    position %= len(seeds)
    together, alone = SeededNoise(seeds), SeededNoise([seeds[position]])
    for _ in range(3):
        assert torch.equal(together.draw((3, 2, 2))[position], alone.draw((3, 2, 2))[0])


def test_drawn_noise_takes_the_dtype_it_is_asked_for() -> None:
    drawn = SeededNoise([3]).draw((4,), torch.zeros(1, dtype=torch.bfloat16))
    assert drawn.dtype == torch.bfloat16
    torch.testing.assert_close(drawn, SeededNoise([3]).draw((4,)).to(torch.bfloat16))


def test_a_sampler_without_a_step_is_a_defect() -> None:
    with pytest.raises(ValueError, match="no step"):
        run(iter(()))
