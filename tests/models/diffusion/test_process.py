import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glideslope.errors import RequestError
from glideslope.models.diffusion.process import (
    SCHEDULES,
    GaussianDiffusion,
    discretized_gaussian_log_likelihood,
    fast27_timesteps,
    make_betas,
    space_timesteps,
    strided_timesteps,
    training_loss,
    weigh_errors,
)

from ..closed_form import read_fixture

PROCESS = read_fixture("process.json")
FULL = {schedule: GaussianDiffusion.create(schedule) for schedule in SCHEDULES}


def images(seed: int, n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("schedule", "count"), [(s, n) for s in SCHEDULES for n in PROCESS["betas"][s]])
def test_betas_are_those_of_the_published_schedules(schedule: str, count: str) -> None:
    betas = make_betas(schedule, int(count))
    np.testing.assert_allclose(betas[::int(count) // 20], PROCESS["betas"][schedule][count], rtol=1e-12)


@pytest.mark.parametrize("spelling", list(PROCESS["respacing"]))
def test_respaced_timesteps_are_the_published_ones(spelling: str) -> None:
    if spelling == "fast27":
        found = fast27_timesteps()
    elif spelling.startswith("ddim"):
        found = strided_timesteps(int(spelling.removeprefix("ddim")))
    else:
        found = space_timesteps(*map(int, spelling.split(",")))
    assert found == PROCESS["respacing"][spelling]


@pytest.mark.parametrize(("count", "expected"), [
    (21, [0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 499, 549, 599, 649, 699, 749, 799, 849, 899, 949, 999]),
    (31, [0, 33, 67, 100, 133, 166, 200, 233, 266, 300, 333, 366, 400, 433, 466, 500, 533, 566, 599, 633, 666, 699, 733, 766, 799, 832, 866,
          899, 932, 966, 999])])
def test_halves_are_rounded_as_the_published_sum_rounds_them(count: int, expected: list[int]) -> None:
    assert space_timesteps(count) == expected
    stride = 999 / (count - 1)
    assert expected != [round(stride * i) for i in range(count)]


def test_an_unknown_schedule_and_impossible_step_counts_are_refused() -> None:
    with pytest.raises(RequestError, match="noise schedule 'sigmoid' is unknown"):
        make_betas("sigmoid")
    for count in (0, 1001):
        with pytest.raises(RequestError, match=f"{count} steps do not fit into 1000 timesteps"):
            space_timesteps(count)
    with pytest.raises(RequestError, match="no whole stride through 1000 timesteps visits exactly 999"):
        strided_timesteps(999)


@given(st.integers(1, 1000))
def test_spaced_timesteps_rise_from_the_first_and_end_at_the_last(count: int) -> None:
    steps = space_timesteps(count)
    assert len(steps) == count
    assert steps[0] == 0
    assert count == 1 or steps[-1] == 999
    assert all(a < b for a, b in pairwise(steps))


@given(st.sampled_from(SCHEDULES), st.integers(1, 1000))
def test_a_respaced_process_has_the_signal_of_the_full_one(schedule: str, count: int) -> None:
    steps = space_timesteps(count)
    short = GaussianDiffusion.create(schedule, steps)
    np.testing.assert_array_equal(short.alphas_cumprod, FULL[schedule].alphas_cumprod[steps])
    np.testing.assert_allclose(np.cumprod(1 - short.betas), short.alphas_cumprod, rtol=1e-6)
    assert ((short.betas > 0) & (short.betas < 1)).all()


@given(st.sampled_from(SCHEDULES), st.integers(0, 990), st.integers(0, 2**31))
def test_start_and_noise_are_found_again_in_the_noised_image(schedule: str, step: int, seed: int) -> None:
    diffusion, x_start = FULL[schedule], images(seed).double()
    noise = torch.randn(x_start.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    steps = torch.full((2,), step)
    x = diffusion.add_noise(x_start, steps, noise)
    torch.testing.assert_close(diffusion.predict_start(x, noise, steps, clip=False), x_start, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(diffusion.predict_noise(x, x_start, steps), noise, rtol=1e-6, atol=1e-6)


def test_a_predicted_start_is_clipped_to_the_range_of_images() -> None:
    x = torch.full((1, 3, 2, 2), 5.0)
    start = FULL["linear"].predict_start(x, torch.zeros_like(x), torch.tensor([500]))
    assert torch.equal(start, torch.ones_like(x))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("step", [1, 40, 500, 980])
def test_the_posterior_is_the_normalised_product_of_both_densities(schedule: str, step: int) -> None:
    diffusion, x_start, x_now = FULL[schedule], 0.4, -0.3
    beta, before = diffusion.betas[step], diffusion.alphas_cumprod_prev[step]
    steps = torch.tensor([step])
    mean = float(diffusion.posterior_mean(torch.full((1, 1, 1, 1), x_start, dtype=torch.float64),
                                          torch.full((1, 1, 1, 1), x_now, dtype=torch.float64), steps))
    variance = diffusion.posterior_variance[step]
    grid = mean + math.sqrt(variance) * np.linspace(-9, 9, 40_001)
    log_density = (-(x_now - math.sqrt(1 - beta) * grid) ** 2 / (2 * beta) - (grid - math.sqrt(before) * x_start) ** 2 / (2 * (1 - before)))
    weight = np.exp(log_density - log_density.max())
    weight /= weight.sum()
    brute_mean = float((weight * grid).sum())
    assert math.isclose(brute_mean, mean, abs_tol=1e-6)
    assert math.isclose(float((weight * (grid - brute_mean) ** 2).sum()), variance, rel_tol=1e-4)
    assert math.isclose(math.exp(diffusion.posterior_log_variance[step]), variance, rel_tol=1e-9)


@given(st.floats(-1.2, 1.2), st.floats(-8, 1))
def test_the_likelihood_of_all_256_pixel_values_sums_to_one(mean: float, log_variance: float) -> None:
    x = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).view(1, 256)
    likelihood = discretized_gaussian_log_likelihood(x, torch.full_like(x, mean), torch.full_like(x, log_variance))
    assert math.isclose(float(likelihood.exp().sum()), 1, abs_tol=1e-4)


def test_the_variance_fraction_runs_from_posterior_to_beta() -> None:
    diffusion, steps = FULL["squaredcos_cap_v2"], torch.tensor([300])
    low, high = (float(diffusion.log_variance(torch.full((1, 1, 1, 1), v), steps)) for v in (-1.0, 1.0))
    assert math.isclose(math.exp(low), diffusion.posterior_variance[300], rel_tol=1e-5)
    assert math.isclose(math.exp(high), diffusion.betas[300], rel_tol=1e-5)


def loss_of(output: torch.Tensor, step: int, **weighting: float) -> torch.Tensor:
    diffusion, x_start = FULL["squaredcos_cap_v2"], images(0)
    noise, steps = torch.randn(x_start.shape, generator=torch.Generator().manual_seed(1)), torch.full((2,), step)
    return training_loss(diffusion, output, x_start=x_start, x=diffusion.add_noise(x_start, steps, noise), noise=noise, steps=steps,
                         error_weights=weigh_errors(diffusion, "epsilon", **weighting))


@pytest.mark.parametrize("step", [0, 1, 500, 999])
def test_the_variational_term_teaches_the_variance_only(step: int) -> None:
    output = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(2)).mul(0.3).requires_grad_()
    loss_of(output, step).sum().backward()
    plain = output.detach().clone().requires_grad_()
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    (plain[:, :3] - noise).square().mean(dim=(1, 2, 3)).sum().backward()
    assert output.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(output.grad[:, :3], plain.grad[:, :3])
    assert output.grad[:, 3:].abs().sum() > 0


def test_a_perfect_prediction_leaves_only_the_divergence_of_the_variance() -> None:
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    lower = loss_of(torch.cat([noise, torch.full_like(noise, -1.0)], dim=1), 500)
    upper = loss_of(torch.cat([noise, torch.ones_like(noise)], dim=1), 500)
    torch.testing.assert_close(lower, torch.zeros(2), rtol=0, atol=1e-5)
    assert (upper > lower).all()


def test_min_snr_weighting_shrinks_the_loss_of_nearly_clean_images_only() -> None:
    output, snr = torch.zeros(2, 6, 4, 4), FULL["squaredcos_cap_v2"].snr()
    error = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)).square().mean(dim=(1, 2, 3))
    assert snr[5] > 5 > snr[900]
    torch.testing.assert_close(loss_of(output, 5, min_snr_gamma=5.0), loss_of(output, 5) - (1 - 5 / snr[5]) * error)
    torch.testing.assert_close(loss_of(output, 900, min_snr_gamma=5.0), loss_of(output, 900))


def test_errors_of_the_image_count_once_where_noise_is_strong_and_more_up_to_gamma_where_it_is_weak() -> None:
    diffusion = FULL["squaredcos_cap_v2"]
    snr, weights = diffusion.snr(), weigh_errors(diffusion, "sample", min_snr_gamma=5.0).numpy()
    assert np.all(weights[snr <= 1] == 1)
    assert np.all(weights[snr >= 5] == 5)
    middle = (snr > 1) & (snr < 5)
    np.testing.assert_allclose(weights[middle], snr[middle])
    np.testing.assert_allclose(weigh_errors(diffusion, "sample").numpy(), np.maximum(snr, 1))
    assert np.all(weigh_errors(diffusion, "epsilon").numpy() == 1)


def test_a_network_that_predicts_the_image_loses_by_the_image_alone() -> None:
    diffusion, steps = FULL["squaredcos_cap_v2"], torch.tensor([200, 800])
    generator = torch.Generator().manual_seed(3)
    x_start, noise = (torch.rand(2, 3, 4, 4, generator=generator) * 2 - 1, torch.randn(2, 3, 4, 4, generator=generator))
    x = diffusion.add_noise(x_start, steps, noise)
    output = torch.cat([x_start + 0.1, torch.randn(2, 3, 4, 4, generator=generator)], dim=1).requires_grad_()
    loss = training_loss(diffusion, output, x_start=x_start, x=x, noise=noise, steps=steps, prediction_type="sample",
                         error_weights=weigh_errors(diffusion, "sample", min_snr_gamma=5.0))
    torch.testing.assert_close(loss, 0.01 * torch.from_numpy(diffusion.snr())[steps].float().clamp(1, 5), rtol=1e-3, atol=1e-5)
    loss.sum().backward()
    assert output.grad is not None and output.grad[:, :3].all() and not output.grad[:, 3:].any()


def test_the_tables_are_sent_to_the_device_once_and_may_meet_gradients_later() -> None:
    diffusion = GaussianDiffusion.create("linear", [0, 500, 999], device=torch.device("meta"))
    assert diffusion.tables is diffusion.tables
    assert all(table.device.type == "meta" and table.shape == (3,) for table in vars(diffusion.tables).values())
    on_cpu = GaussianDiffusion.create("linear")
    with torch.inference_mode():
        assert not on_cpu.tables.signal.is_inference()
    noise = torch.zeros(1, 3, 2, 2, requires_grad=True)
    on_cpu.predict_start(torch.zeros(1, 3, 2, 2), noise, torch.tensor([5]), clip=False).sum().backward()
    torch.testing.assert_close(noise.grad, torch.full_like(noise, -float(on_cpu.tables.noise_over_signal[5])))
