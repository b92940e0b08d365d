"""The caption tokenizer, as diffusers loads it."""

from pathlib import Path
from typing import Any

from ....errors import CheckpointError
from ....models.tokenizer import CaptionTokenizer


def clean_for_clip(caption: str) -> str:
    """Refuse: captions of the published CLIP are cleaned with a library that only the export of such a tokenizer asks for.

    Raises:
        CheckpointError: always; such a tokenizer has a module of its own.
    """
    raise CheckpointError(f"tokenizer: {caption!r:.40} cannot be cleaned as the published CLIP wants it; this tokenizer.json lies beside the "
                          "code of another kind, export the release again")


class GlideTokenizer(CaptionTokenizer):
    """Captions to tokens, with the method that diffusers calls to load a component."""

    @classmethod
    def from_pretrained(cls, directory: str | Path, **ignored: Any) -> Any:
        """Read tokenizer.json in a directory."""
        return cls.load(Path(directory) / "tokenizer.json")
