"""Merkle trees over lists of byte strings, as RFC 6962 (Certificate Transparency) section 2.1 defines them.

A leaf's digest is SHA-256 of a zero byte and the entry, an inner node's is SHA-256 of a one byte and the digests of its
two children; a node without a neighbour moves up as it is. The two prefixes keep an entry from passing for a node.
A proof is the list of neighbours on the way from one leaf to the root: who knows the root can check one entry without
holding the others.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..store.digests import DIGEST_PATTERN

LEAF_PREFIX = b"\x00"
NODE_PREFIX = b"\x01"


def leaf_digest(entry: bytes) -> bytes:
    """SHA-256 digest, 32 bytes, of one entry as a leaf."""
    return hashlib.sha256(LEAF_PREFIX + entry).digest()


def merkle_root(entries: Sequence[bytes]) -> str:
    """Hex root of the tree over entries in the order given; without entries, SHA-256 of nothing."""
    level = [leaf_digest(entry) for entry in entries]
    while len(level) > 1:
        level = _parents(level)
    return (level[0] if level else hashlib.sha256(b"").digest()).hex()


@dataclass(frozen=True)
class MerkleProof:
    """The way from one leaf to the root.

    Attributes:
        index: place of the entry in the list, from 0.
        size: number of entries in the list.
        path: hex digests of the neighbours, from the leaf upwards.
    """

    index: int
    size: int
    path: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The proof as plain data."""
        return {"index": self.index, "size": self.size, "path": list(self.path)}


def merkle_proof(entries: Sequence[bytes], index: int) -> MerkleProof:
    """Prove that an entry stands at an index of a list.

    Raises:
        IndexError: there is no such entry.
    """
    if not 0 <= index < len(entries):
        raise IndexError(f"entry {index} of {len(entries)}")
    level, place, path = [leaf_digest(entry) for entry in entries], index, []
    while len(level) > 1:
        neighbour = place ^ 1
        if neighbour < len(level):
            path.append(level[neighbour].hex())
        level, place = _parents(level), place // 2
    return MerkleProof(index, len(entries), tuple(path))


def check_merkle_proof(entry: bytes, proof: MerkleProof, root: str) -> bool:
    """Whether a proof leads from an entry to a root; a proof of the wrong length or with odd digests does not."""
    if not 0 <= proof.index < proof.size:
        return False
    digest, place, width, path = leaf_digest(entry), proof.index, proof.size, list(proof.path)
    while width > 1:
        if place ^ 1 < width:
            if not path:
                return False
            text = path.pop(0)
            if not DIGEST_PATTERN.fullmatch(text):
                return False
            neighbour = bytes.fromhex(text)
            digest = _node(neighbour, digest) if place % 2 else _node(digest, neighbour)
        place, width = place // 2, (width + 1) // 2
    return not path and digest.hex() == root


def _parents(level: Sequence[bytes]) -> list[bytes]:
    return [_node(*level[i:i + 2]) if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)]


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(NODE_PREFIX + left + right).digest()
