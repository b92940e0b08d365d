"""Every error that glideslope raises on purpose.

A message says what went wrong, where, what was expected, what was found, and what to do. The command line prints it
as one line and exits with 1; anything outside this family is a defect and shows its traceback.
"""

import unicodedata
from collections.abc import Sequence


class GlideslopeError(Exception):
    """Root of the family: catch this to catch every refusal of glideslope.

    Its text names files and quotes what others wrote, and tracebacks and notebooks show it as it is: nothing in it steers a terminal.
    """

    def __str__(self) -> str:
        """The message, printable."""
        return printable(super().__str__().replace("\r\n", "\n").replace("\r", "\n"), keep_lines=True)


class RecipeError(GlideslopeError):
    """A recipe that cannot be read or holds an unknown key, a wrong type or an impossible value."""


class SourceError(GlideslopeError):
    """A data source that cannot be opened as a whole; single bad images become ledger rows instead."""


class LabelError(GlideslopeError):
    """Labels that contradict each other, name unknown keys, or would be used in two roles."""


class FilterError(GlideslopeError):
    """A classifier that cannot be fitted, read or trusted."""


class StageError(GlideslopeError):
    """A stage directory that is missing, unfinished, damaged or made from other inputs."""


class StorageError(GlideslopeError):
    """A directory that cannot be written: no permission, no space left."""


class TrainingError(GlideslopeError):
    """A training run that cannot start or has diverged."""


class CheckpointError(GlideslopeError):
    """Weights or a configuration that do not fit the architecture."""


class DownloadError(GlideslopeError):
    """A repository, revision or file that a hub does not give: not there, not allowed, not reachable, or cut off."""


class RequestError(GlideslopeError):
    """A prompt, image or sampling option that cannot be drawn from."""


class ReleaseError(GlideslopeError):
    """A release that cannot be packed, or that a gate refuses."""


class VerificationError(GlideslopeError):
    """Files or numbers that do not match the manifest or the evidence.

    Attributes:
        problems: one sentence per mismatch, each naming the file or the number.
    """

    def __init__(self, what: str, problems: Sequence[str]) -> None:
        """Join the problems into one message."""
        self.problems = tuple(problems)
        super().__init__(f"{what}: {len(self.problems)} problem(s): " + "; ".join(self.problems))


STEERING = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})  # Unicode's categories: controls, formats, separators of lines, halves of pairs
BLANKS = frozenset("\u115f\u1160\u17b4\u17b5\u3164\uffa0")  # letters that show nothing
JOINERS = frozenset("\u200c\u200d")


def printable(text: str, *, keep_lines: bool = False) -> str:
    """Text from outside with nothing in it that acts: every character that steers, hides or reorders is written out, as `<U+001B>`.

    That are control characters, line and paragraph separators, marks of direction (U+202A to U+2069 and their like), characters of no
    width, and halves of a pair. A joiner stays between characters beyond ASCII, where scripts and emoji need it.

    Args:
        text: any text.
        keep_lines: leave line feeds; without it each run of white space becomes one space.
    """
    if text.isascii() and text.isprintable():
        return text if keep_lines else " ".join(text.split())
    lines = text.split("\n") if keep_lines else [" ".join(text.split())]
    return "\n".join("".join(_shown(line, place) for place in range(len(line))) for line in lines)


def _shown(line: str, place: int) -> str:
    character = line[place]
    if unicodedata.category(character) not in STEERING and character not in BLANKS:
        return character
    if character in JOINERS and 0 < place < len(line) - 1 and not (line[place - 1].isascii() or line[place + 1].isascii()):
        return character
    return f"<U+{ord(character):04X}>"
