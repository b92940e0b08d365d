"""The manifest of a release: every file, and every tensor of the weights, each list with a Merkle root.

One file or one tensor can be checked without the others. `manifest.json` has one canonical form, so its digest stands for all of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import VerificationError
from ..store.digests import DIGEST_PATTERN, canonical_json, readable_json, sha256_bytes
from ..store.file_lists import MANIFEST_NAME, MAX_MANIFEST_BYTES, FileEntry
from ..store.strict_json import parse_object, read_bounded
from .merkle import MerkleProof, merkle_proof, merkle_root

RELEASE_FORMAT = "glideslope.manifest/2"
SIGNATURE_NAME = "manifest.dsse.json"
UNLISTED = frozenset({MANIFEST_NAME, SIGNATURE_NAME})  # of a release; each is guarded by its own digest or signature


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a release's weights.

    Attributes:
        component: the folder of the model.
        variant: `fp16` or `bf16`; none for the weights as they were trained.
        name: of the tensor in the model.
        dtype: as safetensors spells it.
        shape: sizes of its axes.
        sha256: hex digest of its values, little-endian and in row-major order, as they lie in the file.
    """

    component: str
    variant: str | None
    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def place(self) -> tuple[str, str, str]:
        """What a list is sorted by and what no two entries share."""
        return self.component, self.variant or "", self.name

    @property
    def is_well_formed(self) -> bool:
        """Whether each field is of its type, as in a list that somebody else wrote it need not be."""
        texts = (self.component, self.name, self.dtype, self.sha256, *([] if self.variant is None else [self.variant]))
        return (all(isinstance(text, str) and text for text in texts) and DIGEST_PATTERN.fullmatch(self.sha256) is not None
                and all(type(size) is int and size >= 0 for size in self.shape))

    def to_json(self) -> dict[str, Any]:
        """The entry as plain data."""
        return {"component": self.component, "variant": self.variant, "name": self.name, "dtype": self.dtype, "shape": list(self.shape),
                "sha256": self.sha256}

    def difference(self, stated: "TensorEntry | None") -> str | None:
        """One sentence when another entry was stated for this place, or none was."""
        where = f"{self.component}: {self.variant + ' ' if self.variant else ''}tensor {self.name}"
        if stated is None:
            return f"{where} is not in the manifest"
        found, expected = (f"{entry.dtype} {list(entry.shape)} with sha256 {entry.sha256[:12]}…" for entry in (self, stated))
        return None if self == stated else f"{where} is {found}, expected {expected}"


@dataclass(frozen=True)
class ReleaseManifest:
    """The files of a release and the tensors in its weights, each list with a Merkle root.

    An entry of a tree is the canonical JSON of an entry of the list. The file `manifest.json` has one canonical form, so its
    digest stands for all of it.
    """

    files: tuple[FileEntry, ...]
    tensors: tuple[TensorEntry, ...]

    @classmethod
    def read(cls, path: Path) -> "ReleaseManifest":
        """Read a manifest.json.

        Raises:
            VerificationError: missing, too long, or refused by `from_bytes`.
        """
        return cls.from_bytes(read_bounded(path, MAX_MANIFEST_BYTES), where=path.name)

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = MANIFEST_NAME) -> "ReleaseManifest":
        """Parse the bytes of a manifest.json: they must be exactly the ones that `to_bytes` gives.

        Raises:
            VerificationError: not JSON, another format, an entry that is malformed, repeated or out of order, a path that leaves
                the directory, roots that do not fit the lists, or another way to write the same.
        """
        value = parse_object(data, where=where, max_bytes=MAX_MANIFEST_BYTES, max_depth=5)
        if value.get("format") != RELEASE_FORMAT:
            raise VerificationError(where, [f"format is {value.get('format')!r:.80}, expected {RELEASE_FORMAT!r}; pack the release again"])
        try:
            manifest = cls(tuple(FileEntry(f["path"], f["size_bytes"], f["sha256"]) for f in value["files"]),
                           tuple(TensorEntry(**(t | {"shape": tuple(t["shape"])})) for t in value["tensors"]))
            problems = manifest._malformed() or manifest._unfit(value, data)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise VerificationError(where, [f"malformed: {error!r:.200}; fetch or pack the release again"]) from error
        if problems:
            raise VerificationError(where, problems)
        return manifest

    @cached_property
    def root(self) -> str:
        """Hex Merkle root over the files."""
        return merkle_root(self.file_leaves)

    @cached_property
    def tensors_root(self) -> str:
        """Hex Merkle root over the tensors."""
        return merkle_root(self.tensor_leaves)

    @property
    def file_leaves(self) -> list[bytes]:
        """The entries of the tree of files."""
        return [canonical_json(entry).encode() for entry in self._files_json()]

    @property
    def tensor_leaves(self) -> list[bytes]:
        """The entries of the tree of tensors."""
        return [canonical_json(entry.to_json()).encode() for entry in self.tensors]

    @property
    def digest(self) -> str:
        """Hex SHA-256 of manifest.json, which a signature vouches for."""
        return sha256_bytes(self.to_bytes())

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain data, with its roots."""
        return {"format": RELEASE_FORMAT, "files": self._files_json(), "root": self.root,
                "tensors": [tensor.to_json() for tensor in self.tensors], "tensors_root": self.tensors_root}

    def to_bytes(self) -> bytes:
        """The one form of manifest.json: keys sorted, two spaces, a newline at the end."""
        return readable_json(self.to_json())

    def prove_file(self, path: str) -> MerkleProof:
        """Prove to somebody who knows only the root that a file is listed, see `merkle.check_merkle_proof`.

        Raises:
            VerificationError: the manifest lists no such file.
        """
        places = [place for place, entry in enumerate(self.files) if entry.path == path]
        if not places:
            raise VerificationError(MANIFEST_NAME, [f"{path}: file is not in the manifest"])
        return merkle_proof(self.file_leaves, places[0])

    def prove_tensor(self, component: str, name: str, *, variant: str | None = None) -> MerkleProof:
        """Prove to somebody who knows only the root of the tensors that one is listed; see `prove_file`."""
        places = [place for place, entry in enumerate(self.tensors) if entry.place == (component, variant or "", name)]
        if not places:
            raise VerificationError(MANIFEST_NAME, [f"{component}: tensor {name} is not in the manifest"])
        return merkle_proof(self.tensor_leaves, places[0])

    def _files_json(self) -> list[dict[str, Any]]:
        return [{"path": f.path, "sha256": f.sha256, "size_bytes": f.size_bytes} for f in self.files]

    def _unfit(self, value: Mapping[str, Any], data: bytes) -> list[str]:
        problems = [f"does not fit its own list ({name} is {str(value[name])[:12]}…, the list gives {found[:12]}…)"
                    for name, found in (("root", self.root), ("tensors_root", self.tensors_root)) if value[name] != found]
        return problems or ([] if self.to_bytes() == data else ["is not in the form that pack writes; pack the release again"])

    def _malformed(self) -> list[str]:
        problems = [f"{entry.path!r:.200}: not a relative path below the release, or its size or digest is malformed"
                    for entry in self.files if not _is_listable(entry)]
        problems += [f"tensor {tensor.name!r:.200}: its entry is malformed" for tensor in self.tensors if not tensor.is_well_formed]
        if problems:
            return problems
        lists: dict[str, list[tuple[str, ...]]] = {"files": [(file.path,) for file in self.files],
                                                   "tensors": [tensor.place for tensor in self.tensors]}
        return [f"{what} are out of order or listed twice; pack the release again" for what, places in lists.items()
                if _is_out_of_order(places)]


def _is_listable(entry: FileEntry) -> bool:
    path, size_bytes, digest = entry.path, entry.size_bytes, entry.sha256
    return (isinstance(path, str) and not {"", ".", ".."} & set(path.split("/")) and not {"\\", "\0", ":"} & set(path)
            and path not in UNLISTED and type(size_bytes) is int and size_bytes >= 0
            and isinstance(digest, str) and DIGEST_PATTERN.fullmatch(digest) is not None)


def _is_out_of_order(places: Sequence[tuple[str, ...]]) -> bool:
    """Whether a list is out of order, or holds something twice."""
    return any(later <= earlier for earlier, later in pairwise(places))
