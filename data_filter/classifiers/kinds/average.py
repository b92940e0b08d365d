"""The average of several fitted classifiers; no kind to ask for, but what `selection` makes of two."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ....errors import FilterError
from .classifier import Classifier, Scores, check_tensors

AVERAGE = "average"


@dataclass(frozen=True)
class Average:
    """Several classifiers at once: the mean of their calibrated log odds, slope * score + offset each.

    Attributes:
        members: at least two, of one width.
        slopes, offsets: float64 (M,).
    """

    members: Sequence[Classifier]
    slopes: Tensor
    offsets: Tensor

    @property
    def kind(self) -> str:
        """`average`."""
        return AVERAGE

    @property
    def width(self) -> int:
        """Numbers per embedding."""
        return self.members[0].width

    def score(self, embeddings: NDArray[Any]) -> Scores:
        """See `Classifier`."""
        total = np.zeros(len(embeddings))
        for member, slope, offset in zip(self.members, self.slopes.tolist(), self.offsets.tolist(), strict=True):
            total += slope * member.score(embeddings).astype(np.float64) + offset
        return (total / len(self.members)).astype(np.float32)

    def tensors(self) -> dict[str, Tensor]:
        """See `Classifier`; those of a member carry its place and kind before their name."""
        found = {"slopes": self.slopes, "offsets": self.offsets}
        for place, member in enumerate(self.members):
            found |= {f"{place}.{member.kind}.{name}": tensor for name, tensor in member.tensors().items()}
        return found


def build_average(tensors: Mapping[str, Tensor], build_member: Callable[[str, Mapping[str, Tensor]], Classifier]) -> Average:
    """Make an average of its members' tensors; see `table.build_classifier`.

    Args:
        tensors: of a file.
        build_member: makes a member of its kind and tensors, and refuses an average among them.

    Raises:
        FilterError: tensors that are no average's, or a member that is refused.
    """
    parts: dict[tuple[int, str], dict[str, Tensor]] = {}
    own = {}
    for name, tensor in tensors.items():
        place, _, rest = name.partition(".")
        kind, _, inner = rest.partition(".")
        if not rest:
            own[name] = tensor
        elif place.isdecimal() and inner and kind != AVERAGE:
            parts.setdefault((int(place), kind), {})[inner] = tensor
        else:
            raise FilterError(f"holds {name}, which is no part of an average")
    check_tensors(own, {"slopes": "M", "offsets": "M"})
    members = [build_member(kind, part) for (_, kind), part in sorted(parts.items())]
    if len(members) < 2 or len(members) != len(own["slopes"]) or [place for place, _ in sorted(parts)] != list(range(len(members))):
        raise FilterError(f"holds {len(members)} members and {len(own['slopes'])} slopes; an average needs as many slopes, and at least two")
    if len({member.width for member in members}) != 1:
        raise FilterError("the members of the average take embeddings of different widths")
    return Average(members, own["slopes"], own["offsets"])
