import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.trust.merkle import MerkleProof, check_merkle_proof, leaf_digest, merkle_proof, merkle_root

ENTRIES = st.lists(st.binary(max_size=8), min_size=1, max_size=40)


def rfc6962(entries: list[bytes]) -> bytes:
    """The recursive definition of RFC 6962, section 2.1, word for word: the oracle."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return hashlib.sha256(b"\x01" + rfc6962(entries[:split]) + rfc6962(entries[split:])).digest()


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_the_root_is_that_of_the_standard(entries: list[bytes]) -> None:
    assert merkle_root(entries) == rfc6962(entries).hex()


def test_the_roots_of_the_certificate_transparency_test_vectors() -> None:
    entries = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                                                "606162636465666768696a6b6c6d6e6f")]
    assert merkle_root(entries[:1]) == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle_root(entries[:3]) == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert merkle_root(entries) == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(ENTRIES, st.data())
def test_every_entry_has_a_proof_that_holds_for_it_alone(entries: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(entries) - 1))
    proof, root = merkle_proof(entries, index), merkle_root(entries)
    assert check_merkle_proof(entries[index], proof, root)
    other = data.draw(st.binary(max_size=8).filter(lambda entry: entry != entries[index]))
    assert not check_merkle_proof(other, proof, root)
    assert not check_merkle_proof(entries[index], proof, "0" * 64)


@given(st.lists(st.binary(max_size=8), min_size=2, max_size=40, unique=True), st.data())
def test_an_altered_proof_does_not_hold(entries: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(entries) - 1))
    proof, root = merkle_proof(entries, index), merkle_root(entries)
    place = data.draw(st.integers(0, len(proof.path) - 1))
    path = list(proof.path)
    path[place] = data.draw(st.sampled_from(["0" * 64, path[place].upper() + "A", "", "x" * 64, " " + path[place], path[place][:-2]]))
    for altered in (replace(proof, path=tuple(path)), replace(proof, path=(*proof.path, "0" * 64)), replace(proof, path=proof.path[:-1]),
                    replace(proof, index=len(entries)), replace(proof, index=-1)):
        assert not check_merkle_proof(entries[index], altered, root)


def test_a_node_does_not_pass_for_an_entry() -> None:
    entries = [b"a", b"b"]
    forged = leaf_digest(b"a") + leaf_digest(b"b")
    assert merkle_root([forged]) != merkle_root(entries)
    assert not check_merkle_proof(forged, MerkleProof(0, 1, ()), merkle_root(entries))


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_proof_for_an_entry_that_is_not_there(index: int) -> None:
    with pytest.raises(IndexError, match=f"entry {index} of 3"):
        merkle_proof([b"a", b"b", b"c"], index)
