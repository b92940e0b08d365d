"""What may lie in a release: paths by pattern, and for each the kind of content and its largest size.

A file is judged by what it holds, not by its name: a pickle named `.json` is still a pickle.
"""

import os
import re
import struct
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ...errors import CheckpointError, ReleaseError
from ...recipe.components import COMPONENTS, NETWORKS, TOKENIZERS, TRAINED_NETWORKS
from ...store.strict_json import load_lines, load_object
from ...store.weight_files import MAX_INDEX_BYTES, VARIANTS, index_name, read_header, weights_name

MEGABYTE = 1_000_000
MAX_PIXELS = 50_000_000  # of a picture in a release, told before it is decoded
MAX_PATH_LENGTH = 200
NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*|\.eval_results")
RESERVED_NAMES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
WEIGHTS_NAME = weights_name()
STEM = WEIGHTS_NAME.removesuffix(".safetensors")

# What a file may never be, by its first bytes.
DANGEROUS = (
    (b"\x7fELF", "an executable"), (b"MZ", "an executable"), (b"\xcf\xfa\xed\xfe", "an executable"), (b"#!", "a script"),
    (b"PK\x03\x04", "a zip archive, such as a PyTorch pickle"), (b"PK\x05\x06", "a zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"\x1f\x8b", "a gzip archive"), (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"), (b"Rar!", "a rar archive"), (b"\x93NUMPY", "a NumPy array, which may hold a pickle"),
    *((bytes([0x80, protocol]), "a pickle") for protocol in range(1, 6)),
)


@dataclass(frozen=True)
class Rule:
    """A pattern of paths (a regular expression for the whole path), what such a file holds, and its largest size."""

    pattern: str
    kind: str
    max_bytes: int


def one_of(*texts: str) -> str:
    """A pattern for one of some texts."""
    return f"({'|'.join(map(re.escape, texts))})"


INDEX_NAMES = one_of(*(index_name(variant) for variant in (None, *VARIANTS)))
RULES = (
    Rule(r"(README|DATASET_CARD|USE_POLICY)\.md|LICENSE|\.eval_results/glideslope\.yaml|evidence/(recipe|policy)\.yaml", "text", MEGABYTE),
    Rule(r"manifest\.json", "json", 32 * MEGABYTE),
    Rule(r"manifest\.dsse\.json|model_index\.json", "json", MEGABYTE),
    Rule(one_of(*(f"{row.name}/{row.file}" for row in COMPONENTS.values() if row.name not in TOKENIZERS)), "json", MEGABYTE),
    Rule(one_of(*(f"{row.name}/{row.file}" for row in TOKENIZERS.values())), "json", 32 * MEGABYTE),
    Rule(rf"{one_of(*NETWORKS)}/{STEM}(\.({'|'.join(VARIANTS)}))?(-[0-9]{{5}}-of-[0-9]{{5}})?\.safetensors", "safetensors",
         20_000 * MEGABYTE),
    Rule(rf"{one_of(*NETWORKS)}/{INDEX_NAMES}", "json", MAX_INDEX_BYTES),
    Rule(r"figures/[a-z0-9_]+\.png", "png", 4 * MEGABYTE),
    Rule(r"evidence/(environment|packing|mlbom\.cdx|croissant)\.json", "json", 32 * MEGABYTE),
    Rule(r"evidence/(claims|curated|evaluation/evaluation)\.json", "json", 4 * MEGABYTE),
    Rule(r"evidence/records/[a-z0-9_]+\.json", "json", 16 * MEGABYTE),
    Rule(r"evidence/filters/[a-z0-9_]+/(filter|classifier)\.json", "json", 4 * MEGABYTE),
    Rule(r"evidence/golden/golden\.json", "json", MEGABYTE),
    Rule(r"evidence/golden/picture_\d{2}\.png", "png", 4 * MEGABYTE),
    Rule(r"evidence/mutations/[a-z0-9_]+/planted\.parquet", "parquet", 100 * MEGABYTE),
    Rule(r"evidence/filters/[a-z0-9_]+/scores\.parquet", "parquet", 1_000 * MEGABYTE),
    Rule(r"evidence/filters/[a-z0-9_]+/classifier\.safetensors", "safetensors", 1_000 * MEGABYTE),
    Rule(r"evidence/audits/[a-z0-9_]+/[a-z0-9_]+/(commitment|sample|audit)\.json", "json", 32 * MEGABYTE),
    Rule(r"evidence/ledger/shard-\d{5}\.parquet", "parquet", 1_000 * MEGABYTE),
    Rule(rf"evidence/training/{one_of(*TRAINED_NETWORKS)}/(metrics|held_back)\.jsonl", "jsonl", 100 * MEGABYTE),
    Rule(r"evidence/evaluation/(pairs|guidance|noised_clip|upsampler)\.jsonl", "jsonl", 100 * MEGABYTE),
)


def rule_of(path: str) -> Rule | None:
    """The rule for a relative POSIX path, or none when no such file belongs in a release."""
    return next((rule for rule in RULES if re.fullmatch(rule.pattern, path)), None)


def find_strangers(directory: Path, paths: Iterable[str]) -> list[str]:
    """One sentence for every file that a release may not hold: by path, name, size or content.

    Args:
        directory: the release.
        paths: relative POSIX paths of its files.
    """
    problems = []
    folded: dict[str, str] = {}
    for path in paths:
        twin = folded.setdefault(path.casefold(), path)
        if twin != path:
            problems.append(f"{path}: differs from {twin} only by case, and would overwrite it on some machines")
        try:
            check_name(path)
            check_content(directory / path, path)
        except ReleaseError as error:
            problems.append(str(error))
    return problems


def check_name(path: str) -> None:
    """Refuse a path that not every file system can hold.

    Raises:
        ReleaseError: too long, not in Unicode's composed form, or with a part that is reserved or not portable.
    """
    if len(path) > MAX_PATH_LENGTH or path != unicodedata.normalize("NFC", path):
        raise ReleaseError(f"{path!r:.240}: path is longer than {MAX_PATH_LENGTH} characters or not in composed form; remove the file")
    for part in path.split("/"):
        if not NAME_PATTERN.fullmatch(part) or part.endswith(".") or part.split(".")[0].lower() in RESERVED_NAMES:
            raise ReleaseError(f"{path!r}: {part!r} is not a portable file name; remove the file")


def check_content(file: Path, path: str) -> None:
    """Refuse a file that does not belong in a release or is not what its place in the release says.

    Args:
        file: where it lies.
        path: its relative POSIX path in the release.

    Raises:
        ReleaseError: no rule allows the path, the file is too large, or its content is of another kind.
    """
    with file.open("rb") as opened:
        start = opened.read(512)
    danger = find_danger(start)
    if danger is not None:
        raise ReleaseError(f"{path}: the file is {danger}, by its first bytes; a release holds no such file, remove it")
    rule = rule_of(path)
    if rule is None:
        raise ReleaseError(f"{path}: no such file belongs in a release; remove it")
    size = file.stat().st_size
    if size > rule.max_bytes:
        raise ReleaseError(f"{path}: {size} bytes, at most {rule.max_bytes} are allowed; pack the release again")
    try:
        CONTENT_CHECKS[rule.kind](file)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{path}: is not {rule.kind} content ({error}); pack the release again") from error


def find_danger(start: bytes) -> str | None:
    """What a file is, if its first 512 bytes show an archive, a pickle, an executable or a script; else none."""
    if start[4:9] == b"\0\0\0\0{":
        return None  # the length of a safetensors header may begin like a pickle, but no pickle goes on like this
    for magic, meaning in DANGEROUS:
        if start.startswith(magic):
            return meaning
    return "a tar archive" if start[257:262] == b"ustar" else None


def _check_text(file: Path) -> None:
    text = file.read_bytes().decode()
    if "\0" in text or "\r" in text:
        raise ValueError("control characters")


def _check_json(file: Path) -> None:
    load_object(file.read_bytes())


def _check_json_lines(file: Path) -> None:
    load_lines(file.read_bytes())


def _check_png(file: Path) -> None:
    data = file.read_bytes()
    width, height = struct.unpack(">II", data[16:24]) if data[12:16] == b"IHDR" and len(data) > 24 else (0, 0)
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(f"it states {width} x {height} pixels, at most {MAX_PIXELS} in all are read")
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or not data.endswith(b"\0\0\0\0IEND\xaeB`\x82"):
        raise ValueError("first or last bytes are not those of a PNG")


def _check_parquet(file: Path) -> None:
    with file.open("rb") as opened:
        start = opened.read(4)
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - 4))
        end = opened.read(4)
    if size < 12 or start != b"PAR1" or end != b"PAR1":
        raise ValueError("first or last bytes are not those of a parquet file")


def _check_safetensors(file: Path) -> None:
    try:
        read_header(file)
    except CheckpointError as error:
        raise ReleaseError(str(error)) from error


CONTENT_CHECKS: Mapping[str, Callable[[Path], None]] = MappingProxyType({
    "text": _check_text, "json": _check_json, "jsonl": _check_json_lines, "png": _check_png,
    "parquet": _check_parquet, "safetensors": _check_safetensors})
