"""Weights on their way into a release: read in pieces, proved, cast and cut, and never held whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ReleaseError
from ...progress import Advance
from ...store.weight_files import TensorHeader, WeightFiles, index_name
from ...store.whole_files import write_json, written_whole
from . import canonical_header, is_finite, num_bytes, read_pieces
from .shards import cut, index_json, shard_names
from .variants import cast_headers, cast_piece, describe_overflow


@dataclass(frozen=True)
class Form:
    """How weights are written.

    Attributes:
        variant: `fp16` or `bf16`; none: as they are.
        max_bytes: most bytes of values in a file.
    """

    variant: str | None
    max_bytes: int


def write_weights(source: WeightFiles, directory: Path, form: Form, advance: Advance | None = None) -> list[Path]:
    """Write weights in the canonical form, in one file or in shards with an index; memory does not grow with their size.

    Args:
        source: where the full weights lie.
        directory: the component's in the release.
        form: variant and largest file.
        advance: told how many bytes were written, piece by piece.

    Returns:
        The files, the index included.

    Raises:
        ReleaseError: a value that is not finite, or not finite after the cast; a source that changed meanwhile.
        StorageError: the directory cannot be written or the disk is full.
    """
    headers = cast_headers(source.headers, form.variant)
    shards = cut(headers, form.max_bytes)
    files = [directory / name for name in shard_names(len(shards), form.variant)]
    for file, names in zip(files, shards, strict=True):
        _write_file(file, source, {name: headers[name] for name in names}, names, (form, advance or (lambda _: None)))
    if len(files) > 1:
        files.append(directory / index_name(form.variant))
        write_json(files[-1], index_json(headers, shards, form.variant))
    return files


def _write_file(path: Path, source: WeightFiles, headers: dict[str, TensorHeader], names: Sequence[str], how: tuple[Form, Advance]) -> None:
    form, advance = how
    with written_whole(path) as file:
        file.write(canonical_header(headers))
        for piece in read_pieces(source, names):
            if not is_finite(piece):
                raise ReleaseError(f"{source.tensors[piece.name]}: tensor {piece.name} holds values that are not finite; such weights draw "
                                   "nothing, train again")
            cast = cast_piece(piece, form.variant)
            if form.variant is not None and not is_finite(cast):
                raise ReleaseError(describe_overflow(path.parent.name, cast, form.variant))
            file.write(cast.data)
            advance(len(cast.data))


def written_bytes(source: WeightFiles, form: Form) -> int:
    """Bytes of values that `write_weights` writes."""
    return sum(map(num_bytes, cast_headers(source.headers, form.variant).values()))
