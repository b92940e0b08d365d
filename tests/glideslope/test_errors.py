import inspect

from glideslope import errors
from glideslope.errors import GlideslopeError, ReleaseError, VerificationError


def test_every_error_belongs_to_one_family_and_says_what_it_means() -> None:
    found = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, Exception)]
    assert len(found) > 8
    assert all(issubclass(error, GlideslopeError) and error.__doc__ for error in found)


def test_a_failed_verification_lists_every_problem() -> None:
    error = VerificationError("release", ["a: missing", "b: changed"])
    assert error.problems == ("a: missing", "b: changed")
    assert str(error) == "release: 2 problem(s): a: missing; b: changed"


def test_what_an_error_quotes_steers_no_terminal() -> None:
    error = ReleaseError("gate a: x\x1b[2Jverified\u202e\ngate b: caf\u00e9")
    assert str(error) == "gate a: x<U+001B>[2Jverified<U+202E>\ngate b: caf\u00e9"
    assert "<U+0007>" in str(VerificationError("release a\x07", ["b"]))
