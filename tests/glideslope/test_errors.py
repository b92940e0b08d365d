import inspect

from glideslope import errors
from glideslope.errors import GlideslopeError, VerificationError


def test_every_error_belongs_to_one_family_and_says_what_it_means() -> None:
    found = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, Exception)]
    assert len(found) > 8
    assert all(issubclass(error, GlideslopeError) and error.__doc__ for error in found)


def test_a_failed_verification_lists_every_problem() -> None:
    error = VerificationError("release", ["a: missing", "b: changed"])
    assert error.problems == ("a: missing", "b: changed")
    assert str(error) == "release: 2 problem(s): a: missing; b: changed"
