"""Secrets in the files of a release: each is read as what it is, down to the chunks of pictures and the columns of tables.

What counts as a secret, and what captions may hold, is said in `glideslope.text.secrets`.
A file that cannot be searched counts as a finding.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ...errors import ReleaseError
from ...store.parquet_pages import open_bounded
from ...store.strict_json import load_object, load_text
from ...store.strict_yaml import load_yaml
from ...store.weight_files import read_header_bytes
from ...text.secrets import (
    CAPTION_FIELDS,
    KINDS,
    PATH,
    PATH_HINT,
    Finding,
    Kind,
    find_matches,
    harmless_name,
    hinted,
    mask,
    private_words,
    scan_lines,
    scan_tree,
    word_kind,
)
from ..evidence.contents import BATCH_ROWS, Release, evidence_budget
from .picture_metadata import find_hidden, is_picture

MAX_PLACES_NAMED = 3
UNSEARCHABLE = "content that cannot be searched"


def find_secrets(release: Release, *, words: Sequence[str] = ()) -> list[str]:
    """One sentence for each file and kind of secret in a release.

    Args:
        release: the release; every file but the weights' tensors is searched.
        words: further texts that must not occur outside captions, such as the name of this machine; see `private_words`.
    """
    problems = []
    for path in release.paths:
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
    kinds = (*KINDS, *(word_kind(word) for word in words))
    try:
        with path.open("rb") as file:
            start = file.read(16)
        if is_picture(start):
            return _scan_picture(path.read_bytes(), kinds)
        if start[:4] == b"PAR1":
            return list(_scan_parquet(path, kinds))
        if path.suffix == ".safetensors":
            return list(scan_tree(_safetensors_header(path), kinds))
        return _scan_text_file(path.read_bytes().decode(), path.suffix, kinds)
    except (OSError, ValueError, ArithmeticError, RecursionError, yaml.YAMLError) as error:
        return [Finding("the whole file", UNSEARCHABLE, type(error).__name__)]  # its text may quote the file


def _advice(kind: str, findings: Iterable[Finding]) -> str:
    if any("caption" in one.place for one in findings):
        return "captions are published with the ledger: remove it from the data, then run the stages from `index` on again and pack"
    if kind == PATH:
        return "give a path relative to the directory you work in, run the stage that wrote it again, and pack"
    if "picture" in kind:
        return "remove the stage that drew it and run it again, or strip the picture"
    return "remove it where it comes from, then pack again"


def _scan_text_file(text: str, suffix: str, kinds: tuple[Kind, ...]) -> list[Finding]:
    """Plain text by its lines; structured text value by value, where captions are known and nothing hides in escapes."""
    if suffix in (".json", ".ipynb"):
        return _scan_structured(text, load_text, kinds)
    if suffix == ".jsonl":
        lines = [line for line in text.split("\n") if line]
        return [Finding(f"line {number}, {found.place}", found.kind, found.shown) for number, line in enumerate(lines, start=1)
                for found in _scan_structured(line, load_text, kinds)]
    if suffix in (".yaml", ".yml"):
        return _scan_structured(text, load_yaml, kinds) or list(scan_lines(text, kinds))  # comments are text too
    return list(scan_lines(text, kinds))


def _scan_structured(text: str, parse: Any, kinds: tuple[Kind, ...]) -> list[Finding]:
    if "\\" not in text:  # no escapes: what the whole does not hint at is in no part of it
        kinds = hinted(text, kinds)
        if not kinds and "nbformat" not in text and not PATH_HINT.search(text):
            return []
    value = parse(text)
    findings = list(scan_tree(value, kinds))
    if isinstance(value, Mapping) and "nbformat" in value:
        findings += [Finding(f"cell {number}", "the output of a notebook", "") for number, cell in enumerate(value.get("cells", ()), start=1)
                     if cell.get("outputs")]
    return findings


def _safetensors_header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        value = load_object(read_header_bytes(file)[8:])
    return {"names": [name for name in value if name != "__metadata__"], "__metadata__": value.get("__metadata__", {})}


def _scan_picture(data: bytes, kinds: tuple[Kind, ...]) -> list[Finding]:
    """Whatever a picture holds beside its pixels is a finding; what is in it is searched as well, to say more."""
    findings = []
    for name, content in find_hidden(data):
        findings.append(Finding(name, "data hidden in a picture", f"{len(content)} bytes"))
        findings += [Finding(name, found.kind, found.shown) for found in scan_lines(content.decode("latin-1"), kinds)]
    return findings


def _scan_parquet(path: Path, kinds: tuple[Kind, ...]) -> Iterator[Finding]:
    """Search metadata, then every column that can hold text; the places are columns and row keys."""
    import pyarrow as pa

    try:
        file = open_bounded(path, evidence_budget(path.stat().st_size))
        metadata = {**(file.metadata.metadata or {}), **(file.schema_arrow.metadata or {})}
        for field in file.schema_arrow:
            metadata |= {field.name.encode() + b"." + name: text for name, text in (field.metadata or {}).items()}
        for name, text in metadata.items():
            if name != b"ARROW:schema":
                yield from (Finding(f"metadata {name.decode('latin-1')[:40]}", found.kind, found.shown)
                            for found in scan_lines(text.decode("latin-1"), kinds))
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            keys = batch["key"].to_pylist() if "key" in batch.schema.names else []
            for name in batch.schema.names:
                for row, text in _strings(batch[name], kinds):
                    whose = harmless_name(str(keys[row]), kinds, otherwise=f"row {row}") if keys else f"row {row}"
                    is_caption = name in CAPTION_FIELDS
                    yield from (Finding(f"{name} of {whose}", kind, mask(match.group()))
                                for kind, match in find_matches(text, kinds, is_caption=is_caption))
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
