"""Captions to tokens: byte-level BPE (the `tokenizers` library), trained on a run's own captions.

The U-Net takes caption tokens followed by padding, with a mask (as the published models do); the noised CLIP takes
start token, caption, end token, and the length.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from ..errors import CheckpointError
from ..manifest import write_bytes

START, END = "<|startoftext|>", "<|endoftext|>"


class CaptionTokenizer:
    """A lower-casing byte-level BPE that can encode any text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Wrap a tokenizer that has the start and the end token.

        Raises:
            CheckpointError: one of them is missing.
        """
        start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
        if start is None or end is None:
            raise CheckpointError(f"tokenizer: expected the tokens {START} and {END}; this is not a caption tokenizer")
        tokenizer.encode_special_tokens = True  # a caption that spells a special token is text like any other
        self.tokenizer, self.start_token, self.end_token = tokenizer, int(start), int(end)

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
            return cls(Tokenizer.from_str(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}") from error
        except CheckpointError:
            raise
        except Exception as error:  # the library raises bare Exception on malformed files
            raise CheckpointError(f"{path}: not a tokenizer.json: {error}") from error

    def save(self, path: Path) -> None:
        """Write tokenizer.json whole or not at all."""
        write_bytes(path, self.tokenizer.to_str(pretty=True).encode())

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, caption: str, max_length: int) -> list[int]:
        """At most `max_length` token ids of one caption, nothing added."""
        return [int(token) for token in self.tokenizer.encode(caption, add_special_tokens=False).ids[:max_length]]

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
        """
        tokens = torch.zeros(len(captions), max_text_len, dtype=torch.int64)
        lengths = torch.zeros(len(captions), dtype=torch.int64)
        for i, caption in enumerate(captions):
            ids = [self.start_token, *self.encode(caption, max_text_len - 2), self.end_token]
            tokens[i, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
            lengths[i] = len(ids)
        return tokens, lengths
