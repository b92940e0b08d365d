"""Vocabularies of byte-pair encodings in the `tokenizers` library's tokenizer.json, read strictly.

Of a file only vocabulary and merges are taken; whoever reads it builds the tokenizer anew, and what the file states beyond that is
refused: the library would run whatever normaliser, pattern or padding a stranger writes, and a kilobyte of them can ask for terabytes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..store.strict_json import parse_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# The published vocabularies hold 50,257 tokens of at most 128 signs, in a file of 2 MB.
MAX_TOKENIZER_BYTES, MAX_TOKENIZER_DEPTH = 32_000_000, 6
MAX_TOKENS, MAX_TOKEN_LENGTH = 262_144, 1_024


@dataclass(frozen=True)
class Vocabulary:
    """Tokens with their numbers, and merges in order of rank."""

    tokens: Mapping[str, int]
    merges: Sequence[tuple[str, str]]

    @classmethod
    def from_parts(cls, tokens: Any, merges: Any) -> "Vocabulary":
        """Check a vocabulary that was read from a file.

        Args:
            tokens: token -> number; the numbers must be 0, 1, 2, and so on.
            merges: pairs of tokens whose joint is a token, each pair a list or a text with one space.

        Raises:
            ValueError: it is anything else, or larger than a vocabulary may be.
        """
        if not isinstance(tokens, dict) or not isinstance(merges, list):
            raise ValueError("expected an object of tokens and a list of merges")
        if max(len(tokens), len(merges)) > MAX_TOKENS:
            raise ValueError(f"{len(tokens)} tokens and {len(merges)} merges; at most {MAX_TOKENS} of each are read")
        if any(type(number) is not int for number in tokens.values()) or sorted(tokens.values()) != list(range(len(tokens))):
            raise ValueError(f"the numbers of the {len(tokens)} tokens are not 0 to {len(tokens) - 1}")
        longest = max(map(len, tokens), default=0)
        if longest > MAX_TOKEN_LENGTH:
            raise ValueError(f"a token of {longest} signs; at most {MAX_TOKEN_LENGTH} are read")
        if "" in tokens:
            raise ValueError("an empty token")
        pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) if isinstance(pair, list) else () for pair in merges]
        for number, pair in enumerate(pairs):
            if len(pair) != 2 or not all(isinstance(part, str) and part in tokens for part in pair):
                raise ValueError(f"merge {number} is {merges[number]!r:.80}, expected two tokens of the vocabulary")
        return cls(tokens, [(first, second) for first, second in pairs])


def rebuild_tokenizer(data: bytes, build: "Callable[[Mapping[str, Any], Vocabulary], Tokenizer]", *, where: str) -> "Tokenizer":
    """Build a tokenizer anew from the vocabulary of a tokenizer.json, and refuse the file if it states anything else.

    Args:
        data: the bytes of the file.
        build: makes the tokenizer of what the file says of its model, and the vocabulary.
        where: names the file in messages.

    Raises:
        VerificationError: no strict JSON, or too large.
        ValueError: a vocabulary that is refused, by `build` too, or a part that the tokenizer which was built does not have.
    """
    value = parse_object(data, where=where, max_bytes=MAX_TOKENIZER_BYTES, max_depth=MAX_TOKENIZER_DEPTH)
    model = value.get("model")
    if not isinstance(model, dict):
        raise ValueError("model is missing")
    tokenizer = build(model, Vocabulary.from_parts(model.get("vocab"), model.get("merges")))
    expected = json.loads(tokenizer.to_str())
    expected["model"] |= {"vocab": model["vocab"], "merges": model["merges"]}  # merges have two spellings
    foreign = find_foreign(value, expected)
    if foreign:
        raise ValueError(f"{foreign[0]}; a tokenizer of this kind has no such part")
    return tokenizer


def find_foreign(stated: Any, expected: Any, where: str = "") -> list[str]:
    """One sentence for every part of plain data that is not as expected; what is left out must be nothing or false."""
    if isinstance(stated, dict) and isinstance(expected, dict):
        unknown = [f"{where}{key:.60} is {value!r:.80}, expected nothing" for key, value in stated.items() if key not in expected]
        missing = [f"{where}{key} is missing, expected {value!r:.80}" for key, value in expected.items()
                   if key not in stated and value not in (None, False)]
        return unknown + missing + [problem for key in stated if key in expected
                                    for problem in find_foreign(stated[key], expected[key], f"{where}{key}.")]
    if stated is expected or (type(stated) is type(expected) and stated == expected):
        return []
    return [f"{where.rstrip('.')} is {stated!r:.80}, expected {expected!r:.120}"]
