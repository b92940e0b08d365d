from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.errors import RequestError
from glideslope.models.diffusion.process import SCHEDULES, GaussianDiffusion, space_timesteps
from glideslope.models.diffusion.sampler_timesteps import MAX_SIGMA, sampling_timesteps
from glideslope.models.diffusion.samplers import SAMPLERS


@given(st.data(), st.sampled_from(sorted(SAMPLERS)), st.sampled_from(SCHEDULES), st.integers(2, 1000))
def test_timesteps_rise_from_the_image_and_are_as_many_as_asked(
        data: st.DataObject, sampler: str, schedule: str, num_timesteps: int) -> None:
    num_steps = data.draw(st.integers(2, num_timesteps))
    chosen = sampling_timesteps(sampler, schedule, num_steps, num_timesteps=num_timesteps)
    assert (len(chosen), chosen[0]) == (num_steps, 0)
    assert chosen[-1] < num_timesteps
    assert all(later > earlier for earlier, later in pairwise(chosen))


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"dpm++sde"}))
def test_most_samplers_keep_the_published_spacing(sampler: str) -> None:
    assert sampling_timesteps(sampler, "linear", 50) == space_timesteps(50)
    assert sampling_timesteps(sampler, "linear", 50, num_timesteps=300) == space_timesteps(50, num_timesteps=300)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_stochastic_solver_goes_evenly_in_the_seventh_root_of_noise_over_signal(schedule: str) -> None:
    chosen = sampling_timesteps("dpm++sde", schedule, 12)
    signal = GaussianDiffusion.create(schedule, chosen).alphas_cumprod
    roots = np.sqrt(1 / signal - 1) ** (1 / 7)
    assert abs(roots[-1] ** 7 / MAX_SIGMA - 1) < 0.05
    assert np.abs(np.diff(roots) / np.diff(roots).mean() - 1).max() < 0.2  # whole timesteps are coarse where there is little noise


def test_part_of_the_way_the_last_step_is_where_the_part_ends() -> None:
    assert sampling_timesteps("dpm++sde", "squaredcos_cap_v2", 10, num_timesteps=600)[-1] == 599


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_single_step_begins_at_the_noise(sampler: str) -> None:
    assert sampling_timesteps(sampler, "linear", 1) == [999]
    assert sampling_timesteps(sampler, "linear", 1, num_timesteps=300) == [299]


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_steps_that_do_not_fit_are_refused(num_steps: int) -> None:
    with pytest.raises(RequestError, match=f"{num_steps} steps do not fit into 1000 timesteps"):
        sampling_timesteps("dpm++sde", "linear", num_steps)
