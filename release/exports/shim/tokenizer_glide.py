"""The caption tokenizer, as diffusers loads it."""

from pathlib import Path
from typing import Any

from ....errors import CheckpointError
from ....models.tokenizer import CaptionTokenizer


def clean_for_clip(caption: str) -> str:
    """Refuse: captions of the published CLIP are cleaned with a library that an export does not bring.

    Raises:
        CheckpointError: always; an export never holds such a tokenizer.
    """
    raise CheckpointError(f"tokenizer: {caption!r:.40} cannot be cleaned as the published CLIP wants it; load the release with glideslope")


class GlideTokenizer(CaptionTokenizer):
    """Captions to tokens, with the method that diffusers calls to load a component."""

    @classmethod
    def from_pretrained(cls, directory: str | Path, **ignored: Any) -> Any:
        """Read tokenizer.json in a directory."""
        path = Path(directory) / "tokenizer.json"
        return cls.parse(path.read_bytes(), where=str(path))
