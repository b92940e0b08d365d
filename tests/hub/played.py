"""What was made to go wrong while a release was published to the loopback hub, and how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass

from .scenes import Scene, Transfer


@dataclass(frozen=True)
class Played:
    """How a scene ended.

    Attributes:
        scene: what was to happen.
        transfer: how large files went.
        happened: whether the failure really befell a request.
        first: how the first publication ended: "published", "refused" or "killed".
        done: the steps that it did; empty when it was killed or refused.
        error: class of the refusal.
        shown: what main showed then.
        second: how the second publication ended, with nothing going wrong.
        last: what main showed then.
        is_tidy: whether, then, the tag is where main is and no staging branch is left.
        message: what the refused publication said.
    """

    scene: Scene
    transfer: Transfer
    happened: bool
    first: str
    done: tuple[str, ...]
    error: str
    shown: str
    second: str
    last: str
    is_tidy: bool
    message: str = ""

    @property
    def problems(self) -> list[str]:
        """One sentence for each thing that did not end as it must."""
        scene, where = self.scene, f"{self.transfer}: {self.scene.name}"
        problems = [] if self.happened else [f"{where}: the failure did not happen, so nothing was shown by it"]
        ends = (("the first publication ended", self.first, scene.first), ("main then showed", self.shown, scene.shown),
                ("the second publication ended", self.second, "published" if scene.last == "release" else "refused"),
                ("main at last showed", self.last, scene.last))
        problems += [f"{where}: {what} {found!r}, expected {expected!r}" for what, found, expected in ends if found != expected]
        if self.is_tidy != (scene.last == "release"):
            problems.append(f"{where}: tag and staging branch are not as they must be at last")
        return [f"{problem} ({self.message})" if self.message else problem for problem in problems]


@dataclass(frozen=True)
class Rehearsal:
    """A whole rehearsal.

    Attributes:
        played: the scenes and their ends.
        reloads: way of loading -> whether a fresh process loaded the published release and drew the same picture.
    """

    played: tuple[Played, ...]
    reloads: Mapping[str, bool]

    @property
    def problems(self) -> list[str]:
        """One sentence for each thing that did not end as it must; empty when the rehearsal passed."""
        problems = [problem for played in self.played for problem in played.problems]
        return problems + [f"{way}: did not load, or drew another picture" for way, is_same in self.reloads.items() if not is_same]
