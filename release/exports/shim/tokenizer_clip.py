"""The published CLIP's tokenizer, which cleans captions with ftfy, as diffusers loads it."""

from pathlib import Path
from typing import Any

from ....models.tokenizer import CaptionTokenizer


class GlideClipTokenizer(CaptionTokenizer):
    """Captions to tokens, with the method that diffusers calls to load a component."""

    @classmethod
    def from_pretrained(cls, directory: str | Path, **ignored: Any) -> Any:
        """Read tokenizer.json in a directory."""
        return cls.load(Path(directory) / "tokenizer.json")
