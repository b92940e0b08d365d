"""The words that a run's files use: roles of labels, states of index rows, decisions, splits, and reasons. Files hold them as text."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Role(StrEnum):
    """What a label is for. The concept decides, and a label keeps its role for ever.

    An audit's labels have the role `test`: they measure, and nothing is fitted to them.
    """

    TRAIN = "train"
    CALIBRATE = "calibrate"
    TEST = "test"


FITTING_ROLES = (Role.TRAIN, Role.CALIBRATE)  # a filter learns from these, or sets its threshold on them


class Status(StrEnum):
    """Whether the image of an index row could be decoded. `ok`: it is embedded, labelled and judged like any other."""

    OK = "ok"
    BAD = "bad"


class Decision(StrEnum):
    """What becomes of an input."""

    KEEP = "keep"
    DROP = "drop"


class Split(StrEnum):
    """What a kept input is for: to train on, or held back. A dropped one has neither."""

    TRAIN = "train"
    VALIDATION = "validation"


class Cause(StrEnum):
    """Why an input is not used. The index names the first seven, the curation the others; `NOTHING` is nothing wrong."""

    NOTHING = ""
    MISSING = "missing"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too large"
    CAPTION = "caption"  # no usable caption; the image may be sound all the same
    SECRET = "secret"  # its caption or name must not be published
    DUPLICATE_KEY = "duplicate key"
    MISSING_SCORE = "missing score"
    CHANGED = "changed since index"
    FILTER = "filter"
    LABEL = "label"


OF_CATEGORY = (Cause.FILTER, Cause.LABEL)  # these name the category that they speak of


@dataclass(frozen=True)
class Reason:
    """The reason of a ledger row, written `cause`, `cause:category` or `filter:category:judge`.

    Attributes:
        cause: what kind of reason.
        category: of a filter or a label; "" elsewhere.
        judge: which other judge of the category flagged the input; "" for the classifier.
    """

    cause: Cause
    category: str = ""
    judge: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a reason as a ledger holds it.

        Raises:
            ValueError: an unknown cause, or a category where none belongs.
        """
        cause, *rest = text.split(":", 2)
        if bool(rest) != (cause in OF_CATEGORY) or (len(rest) > 1 and cause != Cause.FILTER):
            raise ValueError(f"{text!r} is no reason of a ledger")
        return cls(Cause(cause), *rest)

    def __str__(self) -> str:
        """As a ledger holds it."""
        return ":".join(filter(None, (self.cause, self.category, self.judge)))
