"""Captions to tokens: byte-pair encodings in the `tokenizers` library's tokenizer.json.

Three kinds, told apart by what the file holds: one trained on a run's own captions; GPT-2's, which has no start token and
which the published U-Nets read; CLIP's, whose words end in `</w>`, which the published noised CLIP reads.

Of a file only vocabulary and merges are taken. All else is built here, by kind, and a file that states anything else is refused: the
library would run whatever normaliser, pattern or padding a stranger writes, and a kilobyte of them can ask for terabytes of tokens.

The U-Net takes caption tokens followed by padding, with a mask (as the published models do); the noised CLIP takes
start token, caption, end token, and the length.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import ftfy
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from ..errors import CheckpointError, VerificationError
from ..store.strict_json import read_bounded
from ..store.whole_files import write_bytes
from ..text.bpe_training import train_bpe
from ..text.vocabulary_files import MAX_TOKENIZER_BYTES, Vocabulary, rebuild_tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
NO_CHARACTER = re.compile(r"&#[0-9]{20,};?")  # far beyond Unicode; Python refuses to read thousands of digits
# Where CLIP's own pattern would take a special token out of a caption: not in the middle of other punctuation.
SPELLED = re.compile(r"((?:^|(?<=\s)|(?<=[^\W_]))(?:<\|startoftext\|>|<\|endoftext\|>)+)")
Kind = Literal["own", "gpt2", "clip"]
# CLIP's captions in pieces that no merge crosses: endings with an apostrophe, words, single digits, runs of other signs.
CLIP_PIECES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def build_tokenizer(kind: Kind, vocabulary: Vocabulary) -> Tokenizer:
    """The library's tokenizer of a kind: everything but the vocabulary is fixed here.

    Raises:
        ValueError: the vocabulary lacks a special token, or the library refuses it.
    """
    special = [END] if kind == "gpt2" else [START, END]
    missing = [token for token in special if token not in vocabulary.tokens]
    if missing:
        raise ValueError(f"the vocabulary has no {missing[0]}; this is not a caption tokenizer")
    suffix = {"end_of_word_suffix": WORD_END} if kind == "clip" else {}
    try:
        tokenizer = Tokenizer(models.BPE(vocab=dict(vocabulary.tokens), merges=list(vocabulary.merges), **suffix))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(str(error)) from error
    dress(tokenizer, kind)
    tokenizer.add_special_tokens(special)
    return tokenizer


def dress(tokenizer: Tokenizer, kind: Kind) -> None:
    """Give a byte-pair encoding the normaliser, the pieces and the decoder of its kind."""
    if kind == "own":
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif kind == "gpt2":
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CLIP_PIECES), behavior="removed", invert=True),
                                                           pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()


def parse_tokenizer(data: bytes, *, where: str) -> Tokenizer:
    """The tokenizer that a tokenizer.json means, built anew from its vocabulary.

    Raises:
        VerificationError: no strict JSON, or too large.
        ValueError: no byte-pair encoding, a vocabulary that is refused, or a component that a tokenizer of its kind does not have.
    """
    def build(model: Mapping[str, Any], vocabulary: Vocabulary) -> Tokenizer:
        kind: Kind = "clip" if model.get("end_of_word_suffix") == WORD_END else "own" if START in vocabulary.tokens else "gpt2"
        return build_tokenizer(kind, vocabulary)

    return rebuild_tokenizer(data, build, where=where)


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
        dress(tokenizer, "own")
        train_bpe(tokenizer, captions, vocab_size=vocab_size, special_tokens=[START, END])
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path) -> "CaptionTokenizer":
        """Read tokenizer.json.

        Raises:
            CheckpointError: missing, too large, or refused by `parse`.
        """
        try:
            data = read_bounded(path, MAX_TOKENIZER_BYTES)
        except VerificationError as error:
            raise CheckpointError(f"{path}: {error.problems[0]}") from error
        return cls.parse(data, where=str(path))

    @classmethod
    def parse(cls, data: bytes, *, where: str) -> "CaptionTokenizer":
        """Build the tokenizer that the bytes of a tokenizer.json mean.

        Raises:
            CheckpointError: malformed, too large, without the start and end token, or with a part that none of the three kinds has.
        """
        try:
            return cls(parse_tokenizer(data, where=where))
        except VerificationError as error:
            raise CheckpointError(f"{where}: not a tokenizer.json: {error.problems[0]}") from error
        except ValueError as error:
            raise CheckpointError(f"{where}: not a tokenizer.json of a kind that is known: {error}") from error

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

    def count_cut(self, captions: Iterable[str], max_length: int) -> int:
        """How many captions have more than `max_length` tokens, so that their ends are cut."""
        return sum(len(self.encode(caption, max_length + 1)) > max_length for caption in captions)

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
    text = ftfy.fix_text(caption)
    for _ in range(2):
        text = html.unescape(NO_CHARACTER.sub("\ufffd", text))
    return " ".join(text.split()).lower()
