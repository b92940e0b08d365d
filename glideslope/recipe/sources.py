"""Where the images and captions come from, as far as a recipe knows it. Each kind of source has its settings in the file that reads it."""

from typing import Any, ClassVar

from .strict_model import StrictModel


class SourceSettings(StrictModel):
    """Base of the settings of every kind of source.

    Attributes:
        LABELS_FROM: name of the file with the labels that come with the data; "" where none come.
    """

    LABELS_FROM: ClassVar[str] = ""
    kind: str

    def identity(self) -> dict[str, Any]:
        """What a source is, without where it lies: content is known by digests, so a folder may move.

        Plain data, part of the identity of the index: whoever edits it in the recipe has to index again.
        """
        return self.model_dump(mode="json", exclude=set(self.PLACES | self.PACE))

    def known_size(self) -> int | None:
        """How many inputs there are, where that is known before anything is read; None elsewhere."""
        return None
