"""Why an image cannot be used."""

from ..store.vocabulary import Cause


class Refusal(Exception):
    """An image that cannot be used; the text is one sentence. Caught row by row, never seen by a user as an error."""

    reason = Cause.UNREADABLE


class TooLarge(Refusal):
    """An image of more pixels than are accepted; a larger limit would let it through."""

    reason = Cause.TOO_LARGE
