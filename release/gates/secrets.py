"""What must never be published: tokens, private keys, mail addresses, paths and names of machines, data hidden in pictures.

Captions are somebody's data: they may speak of anything, so they are searched for tokens, keys and mail addresses only.
Everything else that a release holds was written by programs and by whoever releases it, and is searched for all of it.
Nothing that is found is ever shown whole. A file that cannot be searched counts as a finding.
"""

import json
import math
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...errors import ReleaseError
from ...strict_yaml import load_yaml
from ..contents import Release, allowed_rows
from ..layout import walk
from .picture_metadata import find_hidden, is_picture

CAPTION_FIELDS = frozenset({"caption", "prompt", "random_prompt"})
MAX_PLACES_NAMED = 3
MAX_HEADER_BYTES = 100_000_000
MIN_ENTROPY_BITS = 3.0
MIN_WORD_LENGTH = 6
PLACEHOLDER_DOMAINS = re.compile(r"(?:^|\.)(?:example\.(?:com|org|net)|example|test|invalid|localhost)$")  # RFC 2606: nobody's
PICTURE_SUFFIXES = frozenset({"png", "jpg", "jpeg", "webp", "gif", "svg"})
PATH = "a path of a machine"
UNSEARCHABLE = "content that cannot be searched"


@dataclass(frozen=True)
class Kind:
    """One kind of secret.

    Attributes:
        name: with its article, for messages.
        pattern: finds it; the group `secret`, where there is one, is what must look random.
        hints: a text without any of these, its case ignored, cannot hold it.
        in_captions: whether captions are searched for it too.
    """

    name: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...]
    in_captions: bool = True


def _kind(name: str, pattern: str, *hints: str, in_captions: bool = True) -> Kind:
    return Kind(name, re.compile(pattern), hints, in_captions)


FOLDERS = ("home", "root", "Users", "tmp", "work", "workspace", "mnt", "media", "srv", "opt", "var", "private", "scratch", "Volumes",
           "nfs", "lustre", "gpfs", "beegfs", "ceph", "project", "projects", "users", "cluster", "export",
           "shared", "vol", "data", "datasets", "content", "kaggle", "etc", "usr", "app", "storage", "raid")
SECRET_NAMES = r"(?:api[_-]?key|secret|token|passw(?:or)?d|pwd|access[_-]?key|private[_-]?key|credential)s?"
NO_PASSWORD = r"(?!(?:none|null|true|false|yes|no|required|optional|string|str|changeme)\b|[*x.…<$({\[])"
KINDS = (
    _kind("a Hugging Face token", r"(?<![A-Za-z0-9])(?:hf|api_org)_[A-Za-z0-9]{20,}", "hf_", "api_org_"),
    _kind("a GitHub token", r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{40,})",
          "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    _kind("a GitLab token", r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{20,}", "glpat-"),
    _kind("an AWS key id", r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])", "akia", "asia"),
    _kind("a Google API key", r"(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{35}", "aiza"),
    _kind("a Slack token", r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{10,}", "xox"),
    _kind("an API key", r"(?<![A-Za-z0-9])(?:sk-[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,})", "sk-", "npm_", "pypi-"),
    _kind("an API key", r"(?<![A-Za-z0-9])(?:[sr]k_live_[A-Za-z0-9]{16,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|ya29\.[A-Za-z0-9_-]{20,}"
          r"|dckr_[po]at_[A-Za-z0-9_-]{20,})", "k_live_", "sg.", "ya29.", "dckr_"),
    _kind("the address of a webhook", r"(?i)(?:hooks\.slack\.com/(?:services|workflows|triggers)/|"
          r"discord(?:app)?\.com/api/(?:v\d+/)?webhooks/\d)[A-Za-z0-9/_-]{8,}", "hooks.slack.com/", "/webhooks/"),
    _kind("a key of cloud storage", r"(?i)(?:Account|SharedAccess)Key=[A-Za-z0-9+/]{20,}", "accountkey=", "sharedaccesskey="),
    _kind("a header with a token", r"(?i)(?<![A-Za-z])authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
          r"(?:bearer|basic|token)\s{1,3}[A-Za-z0-9+/_.=~-]{8,}",
          "authorization"),
    _kind("a private key", r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----", "-----begin"),
    _kind("a JSON web token", r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}", "eyj"),
    _kind("an address with a password", r"(?<![A-Za-z0-9])[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]+:[^\s/@\"'<>]+@[^\s/\"'<>]+", "://"),
    _kind("a mail address", r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?P<domain>[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*"
          r"\.[A-Za-z]{2,24})(?![A-Za-z0-9])", "@"),
    _kind("a password or key", rf"(?i)(?<![A-Za-z]){SECRET_NAMES}[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"']?(?P<secret>[A-Za-z0-9+/_.=-]{{16,}})",
          "key", "secret", "token", "passw", "pwd", "credential", in_captions=False),
    _kind("a password or key", rf"(?i)(?<![A-Za-z])(?:passw(?:or)?d|pwd|passphrase)[\"']?[ \t]{{0,3}}[:=][ \t]{{0,3}}[\"']?{NO_PASSWORD}"
          r"[^\s\"',;]{6,}", "passw", "pwd", "passphrase", in_captions=False),
    _kind(PATH, rf"(?:(?<![\w.~/-])|(?<=file:/)|(?<=file://))/(?:{'|'.join(FOLDERS)})/[\w.~-][^\s\"'<>|]*",
          *(f"/{folder.lower()}/" for folder in FOLDERS), in_captions=False),
    _kind(PATH, r"(?<![A-Za-z0-9])[A-Za-z]:(?:\\{1,2}[\w.~$-]+|/[\w.~$-]+/)"
          r"|(?<!\\)\\\\[\w.-]+\\+[\w.$-]+", ":\\", ":/", "\\\\", in_captions=False),
    _kind("the name of an inner host", r"(?i)(?<![A-Za-z0-9])(?:https?|ftp|ssh|s3|socks5)://(?:localhost|127\.\d|10\.\d+\.|192\.168\.|"
          r"172\.(?:1[6-9]|2\d|3[01])\.|(?:[a-z0-9-]+\.)*(?:proxy|registry|artifactory|nexus|mirror|mirrors)[a-z0-9-]*\.|[a-z0-9-]+[:/]|"
          r"(?:[a-z0-9-]+\.)+(?:local|lan|internal|corp|intranet|localdomain|home|cluster|svc)(?![a-z0-9.-]))[^\s\"'<>]*",
          "://", in_captions=False),
    _kind("a proxy or package index",
          r"(?i)(?<![A-Za-z])(?:https?_proxy|all_proxy|(?:extra[_-])?index[_-]url|trusted[_-]host)\s{0,3}[=:]\s{0,3}[\"']?\S+",
          "_proxy", "index", "trusted", in_captions=False),
)
# A whole value that is a place: `/a/b`, `~/a`, `C:\\a`, with or without `word:` before it. Routes of the Hub are no places.
PATH_VALUE = re.compile(r"(?:[A-Za-z][\w+-]+:)?(?!/(?:api|_lfs|branch|commit|repos|resolve|tag|tree|xet-[a-z]+-token)/)"
                        r"(?:(?:/[^\s/][^/\n]*){2,}/?|~[\w.-]*[/\\][^\n]+|[A-Za-z]:[/\\][^/\\\n][^\n]*)")
PATH_HINT = re.compile(r"(?<![\w/.])/[^\s/]|~|(?<![A-Za-z0-9])[A-Za-z]:[/\\]")


@dataclass(frozen=True)
class Finding:
    """Something that must not be published: where it stands, what it is, and its beginning."""

    place: str
    kind: str
    shown: str

    def __str__(self) -> str:
        """One clause for a message."""
        return f"{self.place}: {self.kind} ({self.shown})" if self.shown else f"{self.place}: {self.kind}"


def find_secrets(release: Release, *, words: Sequence[str] = ()) -> list[str]:
    """One sentence for each file and kind of secret in a release.

    Args:
        release: the release; every file but the weights' tensors is searched.
        words: further texts that must not occur outside captions, such as the name of this machine; see `private_words`.
    """
    problems = []
    for path, _ in walk(release.directory):
        grouped: dict[str, list[Finding]] = {}
        for finding in scan_file(release.directory / path, words=words):
            grouped.setdefault(finding.kind, []).append(finding)
        for kind, findings in grouped.items():
            named = ", ".join(str(Finding(one.place, "found", one.shown)).replace(": found", "") for one in findings[:MAX_PLACES_NAMED])
            more = f" and {len(findings) - MAX_PLACES_NAMED} more places" if len(findings) > MAX_PLACES_NAMED else ""
            problems.append(f"{path}: holds {kind}, at {named}{more}; {_advice(kind, findings)}")
    return problems


def refuse_secrets(release: Release) -> None:
    """Refuse a release that is being packed when any file holds what must not be published, this machine's name included.

    Raises:
        ReleaseError: each file and kind is named, nothing is shown whole.
    """
    problems = find_secrets(release, words=private_words())
    if problems:
        raise ReleaseError(f"pack: {len(problems)} finding(s) that must not be published: {'; '.join(problems)}")


def scan_file(path: Path, *, words: Sequence[str] = ()) -> list[Finding]:
    """Search one file: text, JSON, JSON lines, notebook, YAML, parquet, safetensors header, PNG, JPEG or WebP.

    Args:
        path: the file; what it is follows from its content and ending.
        words: further texts that must not occur outside captions.

    Returns:
        What was found; never a secret whole. A file that cannot be read or whose kind is unknown is a finding.
    """
    kinds = (*KINDS, *(_word_kind(word) for word in words))
    try:
        with path.open("rb") as file:
            start = file.read(16)
        if is_picture(start):
            return _scan_picture(path.read_bytes(), kinds)
        if start[:4] == b"PAR1":
            return list(_scan_parquet(path, kinds))
        if path.suffix == ".safetensors":
            return list(_scan_tree(_safetensors_header(path), kinds))
        return _scan_text_file(path.read_bytes().decode(), path.suffix, kinds)
    except (OSError, ValueError, ArithmeticError, RecursionError, yaml.YAMLError, struct.error) as error:
        return [Finding("the whole file", UNSEARCHABLE, type(error).__name__)]  # its text may quote the file


def scan_text(text: str, *, is_caption: bool = False) -> list[Finding]:
    """Search a text; the places are line numbers.

    Args:
        text: any text.
        is_caption: search only for what captions may not hold.
    """
    return list(_scan_lines(text, KINDS, is_caption=is_caption))


def private_words() -> list[str]:
    """What would give this machine away: its name, unless that is an ordinary word, and the home directory."""
    name, home = socket.gethostname().split(".")[0], str(Path.home())
    telling = len(name) >= MIN_WORD_LENGTH and re.search(r"[0-9-]", name) and not name.startswith("localhost")
    return [*([name] if telling else []), *([home] if len(home) >= MIN_WORD_LENGTH else [])]


def _word_kind(word: str) -> Kind:
    return Kind("the name of this machine", re.compile(rf"(?i)(?<![\w-]){re.escape(word)}(?![\w-])"), (word.lower(),), in_captions=False)


def _advice(kind: str, findings: Iterable[Finding]) -> str:
    if any("caption" in one.place for one in findings):
        return "captions are published with the ledger: remove it from the data, then run the stages from `index` on again and pack"
    if kind == PATH:
        return "give a path relative to the directory you work in, run the stage that wrote it again, and pack"
    if "picture" in kind:
        return "remove the stage that drew it and run it again, or strip the picture"
    return "remove it where it comes from, then pack again"


def _find(text: str, kinds: tuple[Kind, ...], *, is_caption: bool) -> Iterator[tuple[str, re.Match[str]]]:
    for kind in _hinted(text, kinds):
        if is_caption and not kind.in_captions:
            continue
        for match in kind.pattern.finditer(text):
            if _is_real(match):
                yield kind.name, match


def _hinted(text: str, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
    """The kinds of which a text holds a hint: for most texts none."""
    lowered = text.lower()
    return tuple([kind for kind in kinds if any([hint in lowered for hint in kind.hints])])  # lists: twice as fast here as generators


def _is_real(match: re.Match[str]) -> bool:
    """Whether a match is no placeholder: a mail domain that somebody may own, a key that looks random."""
    groups = match.groupdict()
    if (domain := groups.get("domain")) is not None:
        return not PLACEHOLDER_DOMAINS.search(domain.lower()) and domain.rsplit(".", 1)[-1].lower() not in PICTURE_SUFFIXES
    if (secret := groups.get("secret")) is not None:
        return _entropy(secret) >= MIN_ENTROPY_BITS and bool(re.search(r"[0-9]", secret)) and bool(re.search(r"[A-Za-z]", secret))
    return True


def _entropy(text: str) -> float:
    """Bits per character by the text's own frequencies (Shannon)."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def _mask(text: str) -> str:
    """The beginning of a secret and its length: enough to find it, too little to use it."""
    shown = text[:1] if "@" in text else text[:min(6, len(text) // 3)]
    return f"{shown}…, {len(text)} characters"


def _harmless(name: str, kinds: tuple[Kind, ...], *, otherwise: str = "…") -> str:
    """A name for a message, unless it holds a secret itself."""
    return otherwise if next(_find(name, kinds, is_caption=False), None) else name[:80]


def _scan_lines(text: str, kinds: tuple[Kind, ...], *, is_caption: bool = False) -> Iterator[Finding]:
    for name, match in _find(text, kinds, is_caption=is_caption):
        yield Finding(f"line {text.count(chr(10), 0, match.start()) + 1}", name, _mask(match.group()))


def _scan_text_file(text: str, suffix: str, kinds: tuple[Kind, ...]) -> list[Finding]:
    """Plain text by its lines; structured text value by value, where captions are known and nothing hides in escapes."""
    if suffix in (".json", ".ipynb"):
        return _scan_structured(text, json.loads, kinds)
    if suffix == ".jsonl":
        lines = [line for line in text.split("\n") if line]
        return [Finding(f"line {number}, {found.place}", found.kind, found.shown) for number, line in enumerate(lines, start=1)
                for found in _scan_structured(line, json.loads, kinds)]
    if suffix in (".yaml", ".yml"):
        return _scan_structured(text, load_yaml, kinds) or list(_scan_lines(text, kinds))  # comments are text too
    return list(_scan_lines(text, kinds))


def _scan_structured(text: str, parse: Any, kinds: tuple[Kind, ...]) -> list[Finding]:
    if "\\" not in text:  # no escapes: what the whole does not hint at is in no part of it
        kinds = _hinted(text, kinds)
        if not kinds and "nbformat" not in text and not PATH_HINT.search(text):
            return []
    value = parse(text)
    findings = list(_scan_tree(value, kinds))
    if isinstance(value, Mapping) and "nbformat" in value:
        findings += [Finding(f"cell {number}", "the output of a notebook", "") for number, cell in enumerate(value.get("cells", ()), start=1)
                     if cell.get("outputs")]
    return findings


def _scan_tree(value: Any, kinds: tuple[Kind, ...], place: str = "", key: str = "") -> Iterator[Finding]:
    """Search the strings of plain data, and its keys; the place is the way to the value."""
    if isinstance(value, Mapping):
        names = "\n".join(map(str, value))
        yield from (Finding(f"key in {place or 'the top'}", found.kind, found.shown) for found in _scan_lines(names, kinds))
        for name, inner in value.items():
            shown = _harmless(str(name), kinds)
            yield from _scan_tree(inner, kinds, f"{place}.{shown}" if place else shown, str(name))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _scan_tree(inner, kinds, f"{place}[{number}]", key)
    elif isinstance(value, str):
        is_caption = key in CAPTION_FIELDS
        text = value if is_caption else f"{key}={value}"
        found = list(_find(text, kinds, is_caption=is_caption))
        for name, match in found:
            yield Finding(place or "the top", name, _mask(match.group()))
        if not is_caption and not any(name == PATH for name, _ in found) and PATH_VALUE.fullmatch(value.strip()):
            yield Finding(place or "the top", PATH, _mask(value.strip()))


def _safetensors_header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        if size > MAX_HEADER_BYTES:
            raise ValueError(f"the header states {size} bytes")
        value = json.loads(file.read(size))
    if not isinstance(value, dict):
        raise ValueError("the header is no JSON object")
    return {"names": [name for name in value if name != "__metadata__"], "__metadata__": value.get("__metadata__", {})}


def _scan_picture(data: bytes, kinds: tuple[Kind, ...]) -> list[Finding]:
    """Whatever a picture holds beside its pixels is a finding; what is in it is searched as well, to say more."""
    findings = []
    for name, content in find_hidden(data):
        findings.append(Finding(name, "data hidden in a picture", f"{len(content)} bytes"))
        findings += [Finding(name, found.kind, found.shown) for found in _scan_lines(content.decode("latin-1"), kinds)]
    return findings


def _scan_parquet(path: Path, kinds: tuple[Kind, ...]) -> Iterator[Finding]:
    """Search metadata, then every column that can hold text; the places are columns and row keys."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        if file.metadata.num_rows > allowed_rows(path.stat().st_size):
            raise ValueError("more rows than a file of its size has room for")
        metadata = {**(file.metadata.metadata or {}), **(file.schema_arrow.metadata or {})}
        for field in file.schema_arrow:
            metadata |= {field.name.encode() + b"." + name: text for name, text in (field.metadata or {}).items()}
        for name, text in metadata.items():
            if name != b"ARROW:schema":
                yield from (Finding(f"metadata {name.decode('latin-1')[:40]}", found.kind, found.shown)
                            for found in _scan_lines(text.decode("latin-1"), kinds))
        for batch in file.iter_batches():
            keys = batch["key"].to_pylist() if "key" in batch.schema.names else []
            for name in batch.schema.names:
                for row, text in _strings(batch[name], kinds):
                    whose = _harmless(str(keys[row]), kinds, otherwise=f"row {row}") if keys else f"row {row}"
                    is_caption = name in CAPTION_FIELDS
                    yield from (Finding(f"{name} of {whose}", kind, _mask(match.group()))
                                for kind, match in _find(text, kinds, is_caption=is_caption))
    except pa.ArrowException as error:
        raise ValueError(f"not readable as parquet: {error}") from error


def _strings(column: Any, kinds: tuple[Kind, ...]) -> Iterator[tuple[int, str]]:
    """Texts of a column with their row numbers: all that hint at a secret; of nested columns each different text once."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        hints = "|".join(sorted({re.escape(hint) for kind in kinds for hint in kind.hints}))
        mask = compute.match_substring_regex(column, hints, ignore_case=True)
        for row in compute.indices_nonzero(mask.fill_null(False)).to_pylist():
            yield row, column[row].as_py()
    elif pa.types.is_nested(column.type) or pa.types.is_dictionary(column.type) or pa.types.is_binary(column.type) or \
            pa.types.is_large_binary(column.type):
        first: dict[str, int] = {}
        for row, value in enumerate(column.to_pylist()):
            for text in _leaves(value):
                first.setdefault(text, row)
        yield from ((row, text) for text, row in first.items())


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, bytes):
        yield value.decode("latin-1")
    elif isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
