"""Captions to tokens: byte-pair encodings in the `tokenizers` library's tokenizer.json.

Three kinds, told apart by what the file holds: one trained on a run's own captions; GPT-2's, which has no start token and
which the published U-Nets read; CLIP's, whose words end in `</w>`, which the published noised CLIP reads.

The U-Net takes caption tokens followed by padding, with a mask (as the published models do); the noised CLIP takes
start token, caption, end token, and the length.
"""

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import ftfy
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from ..errors import CheckpointError
from ..manifest import write_bytes

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
# Where CLIP's own pattern would take a special token out of a caption: not in the middle of other punctuation.
SPELLED = re.compile(r"((?:^|(?<=\s)|(?<=[^\W_]))(?:<\|startoftext\|>|<\|endoftext\|>)+)")
Kind = Literal["own", "gpt2", "clip"]


class CaptionTokenizer:
    """A lower-casing byte-level BPE that can encode any text.

    Attributes:
        tokenizer: the library's.
        kind: `own` (trained on captions), `gpt2` or `clip` (the published models').
        start_token: its number, none for `gpt2`.
        end_token: its number.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Wrap a tokenizer that has the end token, and the start token unless it is GPT-2's.

        Raises:
            CheckpointError: one of them is missing.
        """
        start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
        if end is None or (start is None and end != tokenizer.get_vocab_size() - 1):
            raise CheckpointError(f"tokenizer: expected the tokens {START} and {END} (GPT-2's has only the second, as its last); "
                                  "this is not a caption tokenizer")
        tokenizer.encode_special_tokens = True  # a caption that spells a special token is text like any other
        self.tokenizer, self.start_token, self.end_token = tokenizer, None if start is None else int(start), int(end)
        self._special = {END: int(end)} | ({} if start is None else {START: int(start)})
        suffix = getattr(tokenizer.model, "end_of_word_suffix", None)
        self.kind: Kind = "gpt2" if start is None else "clip" if suffix == WORD_END else "own"

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int) -> "CaptionTokenizer":
        """Learn at most `vocab_size` tokens from captions; the same captions in any order of call give the same file."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[START, END], show_progress=False,
                                      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
        tokenizer.train_from_iterator(sorted(captions), trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path) -> "CaptionTokenizer":
        """Read tokenizer.json.

        Raises:
            CheckpointError: missing, malformed, or without the start and end token.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}") from error
        return cls.parse(data, where=str(path))

    @classmethod
    def parse(cls, data: bytes, *, where: str) -> "CaptionTokenizer":
        """Parse the bytes of a tokenizer.json; raises as `load` does."""
        try:
            return cls(Tokenizer.from_str(data.decode()))
        except CheckpointError:
            raise
        except Exception as error:  # the library raises bare Exception on malformed files
            raise CheckpointError(f"{where}: not a tokenizer.json: {error}") from error

    def save(self, path: Path) -> None:
        """Write tokenizer.json whole or not at all."""
        write_bytes(path, self.tokenizer.to_str(pretty=True).encode())

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, caption: str, max_length: int) -> list[int]:
        """At most `max_length` token ids of one caption, nothing added.

        GPT-2's and CLIP's captions are cleaned exactly as the published models clean them; for CLIP that includes
        taking a special token that the caption spells for the token itself.
        """
        if self.kind == "own":
            return self._encode_text(caption)[:max_length]
        if self.kind == "gpt2":
            return self._encode_text(caption.lower())[:max_length]
        ids: list[int] = []
        for i, piece in enumerate(SPELLED.split(clean_for_clip(caption))):
            spelled = re.findall(r"<\|\w+\|>", piece) if i % 2 else []
            ids += [self._special[token] for token in spelled] or self._encode_text(piece)
        return ids[:max_length]

    def _encode_text(self, text: str) -> list[int]:
        return [int(token) for token in self.tokenizer.encode(text, add_special_tokens=False).ids]

    def encode_padded(self, captions: Sequence[str], text_ctx: int) -> tuple[Tensor, Tensor]:
        """Tokens as the U-Net takes them.

        Returns:
            tokens: int64 (N, text_ctx), padded with the end token. mask: bool (N, text_ctx), false on padding; an
            empty caption is padding only and stands for "no caption".
        """
        tokens = torch.full((len(captions), text_ctx), self.end_token, dtype=torch.int64)
        mask = torch.zeros(len(captions), text_ctx, dtype=torch.bool)
        for i, caption in enumerate(captions):
            ids = self.encode(caption, text_ctx)
            tokens[i, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
            mask[i, : len(ids)] = True
        return tokens, mask

    def encode_delimited(self, captions: Sequence[str], max_text_len: int) -> tuple[Tensor, Tensor]:
        """Tokens as the noised CLIP takes them.

        Returns:
            tokens: int64 (N, max_text_len), start + caption + end, padded with zeros. lengths: int64 (N,).

        Raises:
            CheckpointError: a tokenizer without a start token (GPT-2's).
        """
        if self.start_token is None:
            raise CheckpointError(f"tokenizer: has no {START}, which a noised CLIP's captions begin with; give the noised CLIP its own "
                                  "tokenizer (clip_tokenizer)")
        tokens = torch.zeros(len(captions), max_text_len, dtype=torch.int64)
        lengths = torch.zeros(len(captions), dtype=torch.int64)
        for i, caption in enumerate(captions):
            ids = [self.start_token, *self.encode(caption, max_text_len - 2), self.end_token]
            tokens[i, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
            lengths[i] = len(ids)
        return tokens, lengths


def clean_for_clip(caption: str) -> str:
    """A caption as CLIP's tokenizer cleans it (arXiv 2103.00020's code): broken encodings and typographic quotes repaired,
    HTML entities read (twice, as they are often written twice), white space single, lower case.
    """
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(caption))).split()).lower()
