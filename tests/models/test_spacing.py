from itertools import pairwise

import pytest
from glideslope.models.diffusion import space_timesteps
from glideslope.models.spacing import sampling_timesteps
from hypothesis import given
from hypothesis import strategies as st

from glideslope.errors import RequestError


@given(st.data(), st.integers(2, 1000))
def test_timesteps_rise_from_the_image_to_the_noise_and_are_as_many_as_asked(data: st.DataObject, num_timesteps: int) -> None:
    num_steps = data.draw(st.integers(2, num_timesteps))
    chosen = sampling_timesteps(num_steps, num_timesteps=num_timesteps)
    assert (len(chosen), chosen[0], chosen[-1]) == (num_steps, 0, num_timesteps - 1)
    assert all(later > earlier for earlier, later in pairwise(chosen))


def test_several_steps_are_spaced_as_published_and_a_single_one_begins_at_the_noise() -> None:
    assert sampling_timesteps(50) == space_timesteps(50)
    assert sampling_timesteps(1) == [999]
    assert sampling_timesteps(1, num_timesteps=300) == [299]


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_steps_that_do_not_fit_are_refused(num_steps: int) -> None:
    with pytest.raises(RequestError, match=f"{num_steps} steps do not fit into 1000 timesteps"):
        sampling_timesteps(num_steps)
