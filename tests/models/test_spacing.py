from itertools import pairwise

import pytest
from glideslope.models.diffusion import space_timesteps
from glideslope.models.samplers import SAMPLERS
from glideslope.models.spacing import POWERS, sampling_timesteps
from hypothesis import given
from hypothesis import strategies as st

from glideslope.errors import RequestError


@given(st.data(), st.sampled_from(sorted(SAMPLERS)), st.integers(2, 1000))
def test_timesteps_rise_from_the_image_to_the_noise_and_are_as_many_as_asked(data: st.DataObject, sampler: str, num_timesteps: int) -> None:
    num_steps = data.draw(st.integers(2, num_timesteps))
    chosen = sampling_timesteps(sampler, num_steps, num_timesteps=num_timesteps)
    assert (len(chosen), chosen[0], chosen[-1]) == (num_steps, 0, num_timesteps - 1)
    assert all(later > earlier for earlier, later in pairwise(chosen))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_the_published_samplers_keep_the_published_spacing(sampler: str) -> None:
    assert sampling_timesteps(sampler, 50) == space_timesteps(50)


@pytest.mark.parametrize("sampler", ["dpm++", "unipc"])
def test_the_solvers_gather_their_steps_where_there_is_little_noise(sampler: str) -> None:
    chosen = sampling_timesteps(sampler, 20)
    assert chosen[1] < space_timesteps(20)[1] / 2
    assert sum(timestep < 500 for timestep in chosen) > 11


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_single_step_begins_where_all_is_noise(sampler: str) -> None:
    assert sampling_timesteps(sampler, 1) == [999]


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_steps_that_do_not_fit_are_refused(num_steps: int) -> None:
    with pytest.raises(RequestError, match=f"{num_steps} steps do not fit into 1000 timesteps"):
        sampling_timesteps("unipc", num_steps)


def test_every_sampler_has_a_spacing() -> None:
    assert set(POWERS) == set(SAMPLERS)
