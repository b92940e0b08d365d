from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from glideslope.models.diffusion.guidance import GradientGuidance
from glideslope.models.diffusion.process import GaussianDiffusion, fast27_timesteps, gather, space_timesteps
from glideslope.models.diffusion.sampler_timesteps import sampling_timesteps
from glideslope.models.diffusion.samplers import SAMPLERS, Prediction, SampleState, SeededNoise, ddim, ddpm, dpm_solver, run, unipc

from ..closed_form import FIXTURES

pytestmark = pytest.mark.processors

TRAJECTORIES = load_file(FIXTURES / "trajectories.safetensors")
KINDS = {"ddpm": (ddpm, False), "ddpm_guided": (ddpm, True), "ddim_eta0": (ddim, False),
         "ddim_eta0.5": (partial(ddim, eta=0.5), False), "ddim_guided": (ddim, True)}
Sampler = Callable[..., Iterator[SampleState]]
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


def gaussian_denoiser(diffusion: GaussianDiffusion, x: Tensor, timesteps: Tensor, *, mean: float = MEAN,
                      deviation: float = DEVIATION) -> Prediction:
    """The best possible denoiser for pixels drawn independently from N(mean, deviation^2)."""
    steps = torch.searchsorted(torch.from_numpy(diffusion.timesteps), timesteps)
    alpha = gather(diffusion.tables.signal, steps, x)
    noise = (1 - alpha).sqrt() * (x - alpha.sqrt() * mean) / (alpha * deviation**2 + 1 - alpha)
    return Prediction(noise, None)


def gaussian_flow(x: Tensor, begin: float, end: float) -> Tensor:
    """Where the probability flow carries x from one signal power to another, for the same data."""
    slope = np.sqrt((end * DEVIATION**2 + 1 - end) / (begin * DEVIATION**2 + 1 - begin))
    return np.sqrt(end) * MEAN + slope * (x - np.sqrt(begin) * MEAN)


def even_diffusion(num_steps: int) -> GaussianDiffusion:
    """Visits noise levels evenly spread in half the log SNR, from -3 to 4, whatever timesteps a training has."""
    alphas_cumprod = 1 / (1 + np.exp(-2 * np.linspace(4, -3, num_steps)))
    return GaussianDiffusion(np.arange(num_steps), 1 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1]), alphas_cumprod)


class NoNoise:
    """For samplers that draw none."""

    def draw(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        raise AssertionError("a deterministic sampler drew noise")


@pytest.mark.parametrize("schedule", ["squaredcos_cap_v2", "linear"])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_with_a_perfect_denoiser_samples_have_the_distribution_of_the_data(schedule: str, sampler: str) -> None:
    diffusion = GaussianDiffusion.create(schedule)
    noise = SeededNoise(range(8))
    x = noise.draw((3, 24, 24))
    image = run(SAMPLERS[sampler](partial(gaussian_denoiser, diffusion), x, diffusion, noise))
    assert abs(float(image.mean()) - MEAN) < 0.01
    assert abs(float(image.std()) - DEVIATION) < 0.01


@pytest.mark.parametrize("sampler", [dpm_solver, unipc, ddim])
def test_deterministic_samplers_follow_the_probability_flow_to_its_closed_form_end(sampler: Sampler) -> None:
    diffusion = GaussianDiffusion.create("squaredcos_cap_v2")
    x = SeededNoise([0]).draw((3, 8, 8))
    image = run(sampler(partial(gaussian_denoiser, diffusion), x, diffusion, SeededNoise([0])))
    torch.testing.assert_close(image, gaussian_flow(x, float(diffusion.alphas_cumprod[-1]), 1.0), rtol=0, atol=0.02)


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpm_solver, 2), (unipc, 3)])
def test_the_error_falls_with_the_order_of_the_sampler(sampler: Sampler, order: int) -> None:
    x, errors = SeededNoise([0]).draw((3, 8, 8)).double(), []
    for num_steps in (41, 81, 161):
        diffusion = even_diffusion(num_steps)
        states = list(sampler(partial(gaussian_denoiser, diffusion), x, diffusion, SeededNoise([0]), clip=False))
        end = gaussian_flow(x, float(diffusion.alphas_cumprod[-1]), float(diffusion.alphas_cumprod[1]))
        errors.append(float((states[-3].x - end).abs().max()))  # the last two steps are of first order on purpose
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.abs(slopes - order).max() < 0.15, (errors, slopes)


@pytest.mark.parametrize("num_steps", [10, 15, 25, 50])
def test_with_few_steps_dpm_solver_is_at_least_as_near_to_the_data_as_ddim(num_steps: int) -> None:
    denoiser = partial(gaussian_denoiser, GaussianDiffusion.create("squaredcos_cap_v2"), mean=0.3, deviation=0.2)
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    diffusion = GaussianDiffusion.create("squaredcos_cap_v2", sampling_timesteps("dpm++", "squaredcos_cap_v2", num_steps))
    ends = [run(sampler(denoiser, x, diffusion, SeededNoise(range(4)), clip=False)) for sampler in (dpm_solver, ddim)]
    errors = [abs(float(end.std()) - 0.2) for end in ends]
    assert errors[0] < errors[1] < 0.1, errors


def mixture_denoiser(centres: Tensor, diffusion: GaussianDiffusion, x: Tensor, timesteps: Tensor) -> Prediction:
    """The best possible denoiser for images scattered by 0.06 around a few centres, (K, 3 H W)."""
    alpha = float(diffusion.alphas_cumprod[np.searchsorted(diffusion.timesteps, int(timesteps[0]))])
    flat, variance = x.flatten(1), alpha * 0.06**2 + 1 - alpha
    near = torch.softmax(-(flat[:, None] - alpha**0.5 * centres).square().sum(-1) / (2 * variance), dim=1)
    return Prediction(((1 - alpha) ** 0.5 * (flat - alpha**0.5 * near @ centres) / variance).view_as(x), None)


def test_at_ten_steps_unipc_is_nearest_to_the_flow_of_a_mixture_then_dpm_solver_then_ddim() -> None:
    centres = torch.randn(16, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(0.6).clamp(-0.95, 0.95)
    x, ends = SeededNoise(range(64)).draw((3, 4, 4)).double(), []
    for sampler, num_steps in ((unipc, 400), (unipc, 10), (dpm_solver, 10), (ddim, 10)):
        diffusion = GaussianDiffusion.create("squaredcos_cap_v2", space_timesteps(num_steps))
        ends.append(run(sampler(partial(mixture_denoiser, centres, diffusion), x, diffusion, SeededNoise(range(64)))))
    errors = [float((end - ends[0]).square().mean().sqrt()) for end in ends[1:]]
    assert errors[2] > 1.1 * errors[1] > 1.1 * 1.5 * errors[0], errors


@pytest.mark.parametrize("sampler", [dpm_solver, unipc])
def test_the_deterministic_solvers_draw_no_noise(sampler: Sampler) -> None:
    diffusion = GaussianDiffusion.create("linear", space_timesteps(5))
    assert run(sampler(analytic_model, torch.zeros(1, 3, 2, 2), diffusion, NoNoise())).isfinite().all()


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_gradient_moves_the_samples_to_the_data_whose_score_it_completes(sampler: str) -> None:
    diffusion = GaussianDiffusion.create("squaredcos_cap_v2", space_timesteps(250))
    other = partial(gaussian_denoiser, diffusion, mean=-0.3, deviation=0.1)

    def gradient(x: Tensor, timesteps: Tensor) -> Tensor:
        alpha = gather(diffusion.tables.signal, torch.searchsorted(torch.from_numpy(diffusion.timesteps), timesteps), x)
        return (gaussian_denoiser(diffusion, x, timesteps).noise - other(x, timesteps).noise) / (1 - alpha).sqrt()

    noise = SeededNoise(range(8))
    denoiser = GradientGuidance(partial(gaussian_denoiser, diffusion), gradient)
    image = run(SAMPLERS[sampler](denoiser, noise.draw((3, 24, 24)), diffusion, noise))
    assert abs(float(image.mean()) + 0.3) < 0.05  # it came from 0.1; the ancestral step is exact only in the limit
    assert abs(float(image.std()) - 0.1) < 0.02


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_walk_may_begin_with_a_noised_image_part_of_the_way(sampler: str) -> None:
    timesteps = space_timesteps(100)[:15]
    diffusion, noise = GaussianDiffusion.create("squaredcos_cap_v2", timesteps), SeededNoise(range(8))
    clean = MEAN + DEVIATION * noise.draw((3, 24, 24))
    x = diffusion.add_noise(clean, torch.full((8,), 14), noise.draw((3, 24, 24)))
    image = run(SAMPLERS[sampler](partial(gaussian_denoiser, diffusion), x, diffusion, noise))
    assert abs(float(image.mean()) - MEAN) < 0.01
    assert abs(float(image.std()) - DEVIATION) < 0.02
    assert float(torch.corrcoef(torch.stack([image.flatten(), clean.flatten()]))[0, 1]) > 0.2  # something of the image is left


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_one_step_is_the_predicted_image(sampler: str) -> None:
    diffusion, x = GaussianDiffusion.create("squaredcos_cap_v2", [600]), SeededNoise([0]).draw((3, 4, 4))
    expected = diffusion.predict_start(x, analytic_model(x, torch.tensor([600])).noise, torch.tensor([0]))
    torch.testing.assert_close(run(SAMPLERS[sampler](analytic_model, x, diffusion, SeededNoise([0]))), expected)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_clipping_keeps_images_in_range_and_can_be_switched_off(sampler: str) -> None:
    diffusion = GaussianDiffusion.create("squaredcos_cap_v2", space_timesteps(50))
    wide = partial(gaussian_denoiser, diffusion, mean=0.0, deviation=2.0)
    for clip, reach in ((True, 1.0), (False, 4.0)):
        noise = SeededNoise(range(4))
        image = run(SAMPLERS[sampler](wide, noise.draw((3, 16, 16)), diffusion, noise, clip=clip))
        assert (float(image.abs().max()) <= reach) is clip


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_seed_walks_to_the_same_image_whatever_the_batch(sampler: str) -> None:
    def draw(seeds: Sequence[int]) -> Tensor:
        diffusion, noise = GaussianDiffusion.create("squaredcos_cap_v2", space_timesteps(12)), SeededNoise(seeds)
        return run(SAMPLERS[sampler](analytic_model, noise.draw((3, 5, 5)), diffusion, noise))

    together = draw([4, 8, 15, 16, 23])
    torch.testing.assert_close(together[2:3], draw([15]), rtol=0, atol=1e-6)
    torch.testing.assert_close(together[3:], draw([16, 23]), rtol=0, atol=1e-6)
    assert float((together[0] - together[1]).abs().max()) > 0.1


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


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5), st.integers(0, 4))
def test_a_seed_draws_the_same_noise_whatever_the_batch(seeds: list[int], position: int) -> None:
    position %= len(seeds)
    together, alone = SeededNoise(seeds), SeededNoise([seeds[position]])
    for _ in range(3):
        assert torch.equal(together.draw((3, 2, 2))[position], alone.draw((3, 2, 2))[0])


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_two_seeds_draw_two_noises(first: int, second: int) -> None:
    assert torch.equal(SeededNoise([first]).draw((8,)), SeededNoise([second]).draw((8,))) is (first == second)


@given(st.one_of(st.integers(max_value=-1), st.integers(min_value=2**32)))
def test_a_seed_that_would_draw_the_noise_of_another_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 4294967295"):
        SeededNoise([0, seed])


def test_drawn_noise_takes_the_dtype_it_is_asked_for() -> None:
    drawn = SeededNoise([3]).draw((4,), torch.zeros(1, dtype=torch.bfloat16))
    assert drawn.dtype == torch.bfloat16
    torch.testing.assert_close(drawn, SeededNoise([3]).draw((4,)).to(torch.bfloat16))


def test_a_sampler_without_a_step_is_a_defect() -> None:
    with pytest.raises(ValueError, match="no step"):
        run(iter(()))
