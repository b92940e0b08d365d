import math

from hypothesis import given
from hypothesis import strategies as st

from glideslope.learning.cosine_decay import half_cosine


def test_the_factor_falls_from_one_to_zero_and_is_half_in_the_middle() -> None:
    factors = [half_cosine(step, 100) for step in range(101)]
    assert factors[0] == 1 and factors[100] == 0
    assert math.isclose(factors[50], 0.5)
    assert factors == sorted(factors, reverse=True)


@given(done=st.integers(0, 1000), total=st.integers(1000, 2000))
def test_the_unit_does_not_matter(done: int, total: int) -> None:
    assert math.isclose(half_cosine(done, total), half_cosine(done / total), abs_tol=1e-12)
