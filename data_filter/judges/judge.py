"""What a judge is: it looks at rows and says which of them must go, and why. An image is dropped if any judge says so.

A judge that cannot say anything about an image, because its score is missing or is no number, says that it must go.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

MISSING = ":missing"  # behind a judge's name: it has nothing to go by

ReadKeys = Callable[[], Iterator[Sequence[str]]]


class Judge(Protocol):
    """Looks at rows of one shard."""

    def flag(self, rows: pa.Table) -> Sequence[str]:
        """For each row why it must go, "" where the judge has nothing against it.

        Args:
            rows: the columns that the judge reads; those of the index, or of the ledger.
        """


class OutsideJudge(Judge, Protocol):
    """A judge beside the classifier. What it says of each input is written down with the scores.

    Attributes:
        name: what its flags are called.
    """

    @property
    def name(self) -> str:
        """What its flags are called."""

    def inputs(self) -> Mapping[str, str]:
        """What it goes by beside the rows: name -> digest, for the stage's record."""

    def summary(self, num_inputs: int, num_flagged: Mapping[str, int], read_keys: ReadKeys) -> Mapping[str, Any]:
        """What a record says of it beside its flags; nothing for most judges.

        Args:
            num_inputs: how many inputs it was asked about.
            num_flagged: flag -> how many inputs have it.
            read_keys: reads the keys of all inputs, shard by shard.
        """
