import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from glideslope.errors import ReleaseError
from glideslope.release.weights import (
    Piece,
    canonical_header,
    count_parameters,
    find_noncanonical,
    find_nonfinite,
    is_finite,
    joined_digest,
    read_file,
    read_pieces,
)
from glideslope.store.digests import sha256_file
from glideslope.store.weight_files import WeightFiles

TENSORS = {"b.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.zeros(4), "empty": torch.zeros(0, 3),
           "half": torch.ones(3, dtype=torch.float16), "brain": torch.ones(2, 2, dtype=torch.bfloat16)}
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> WeightFiles:
    path.write_bytes(save(dict(sorted(tensors.items())), metadata={"format": "pt"}))
    return read_file(path)


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.dictionaries(st.text("abC_", min_size=1, max_size=6),
                       st.tuples(st.sampled_from(list(DTYPES)), st.lists(st.integers(0, 5), max_size=3)), min_size=1, max_size=12))
def test_the_canonical_header_is_the_one_that_the_library_writes(tmp_path_factory: pytest.TempPathFactory, shapes: Any) -> None:
    tensors = {name: torch.zeros(shape, dtype=dtype) for name, (dtype, shape) in shapes.items()}
    path = tmp_path_factory.mktemp("header") / "weights"
    weights = write_tensors(path, tensors)
    written = path.read_bytes()
    assert written.startswith(canonical_header(weights.headers))
    assert len(written) == len(canonical_header(weights.headers)) + sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert find_noncanonical(weights) == []


def test_the_digest_of_joined_tensors_is_that_of_the_canonical_file(tmp_path: Path) -> None:
    weights = write_tensors(tmp_path / "weights", TENSORS)
    assert joined_digest(weights) == sha256_file(tmp_path / "weights")


@pytest.mark.parametrize("metadata", [None, {"format": "np"}])
def test_other_metadata_and_an_unsorted_header_are_not_canonical(tmp_path: Path, metadata: Any) -> None:
    (tmp_path / "weights").write_bytes(save(dict(sorted(TENSORS.items())), metadata=metadata))
    assert "not canonical" in find_noncanonical(read_file(tmp_path / "weights"))[0]
    both = {name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]} for n, name in enumerate("ba")}
    write(tmp_path / "unsorted", {"__metadata__": {"format": "pt"}} | both, bytes(8))
    assert "not canonical" in find_noncanonical(read_file(tmp_path / "unsorted"))[0]


def test_a_type_that_weights_do_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="tensor a has type F64"):
        find_noncanonical(write_tensors(tmp_path / "weights", {"a": torch.zeros(1, dtype=torch.float64)}))


def test_a_header_tells_shapes_and_parameters_without_loading(tmp_path: Path) -> None:
    header = write_tensors(tmp_path / "weights", TENSORS).headers
    assert {name: entry.shape for name, entry in header.items()} == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
    assert count_parameters(header) == 17


def test_pieces_give_back_every_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glideslope.release.weights.PIECE_VALUES", 4)
    weights = write_tensors(tmp_path / "weights", TENSORS)
    joined: dict[str, bytes] = dict.fromkeys(TENSORS, b"")
    for piece in read_pieces(weights):
        assert len(piece.data) <= 16
        assert piece.start == len(joined[piece.name]) // (4 if piece.dtype == "F32" else 2)
        joined[piece.name] += piece.data
    assert joined == {name: bytes(tensor.view(torch.uint8).flatten().tolist()) if tensor.numel() else b"" for name, tensor in TENSORS.items()}


def test_a_file_that_is_cut_while_it_is_read_is_refused(tmp_path: Path) -> None:
    weights = write_tensors(tmp_path / "weights", {"a": torch.zeros(3_000_000)})
    pieces = read_pieces(weights)
    next(pieces)
    with (tmp_path / "weights").open("r+b") as file:
        file.truncate(8_000_000)
    with pytest.raises(ReleaseError, match="ends within tensor a"):
        list(pieces)


def test_values_that_are_not_finite_are_found(tmp_path: Path) -> None:
    odd = {"nan": [1.0, float("nan")], "down": [float("-inf")], "up": [float("inf"), 0.0]}
    tensors = {f"{name}.{DTYPES[dtype]}": torch.tensor(values, dtype=dtype) for name, values in odd.items() for dtype in DTYPES}
    assert sorted(find_nonfinite(write_tensors(tmp_path / "weights", TENSORS | tensors))) == sorted(tensors)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([("F32", torch.float32, 4), ("F16", torch.float16, 2), ("BF16", torch.bfloat16, 2)]))
def test_whether_bits_are_finite_agrees_with_torch(bits: int, kind: Any) -> None:
    name, dtype, size = kind
    data = bits.to_bytes(4, "little")
    expected = bool(torch.isfinite(torch.frombuffer(bytearray(data), dtype=dtype)).all())
    assert is_finite(Piece("a", name, 0, data)) == expected
    assert len(data) % size == 0


@pytest.mark.parametrize("content", [b"", b"\x08", struct.pack("<Q", 2**63), struct.pack("<Q", 100) + b"{}", b"PK\x03\x04 and more of it"])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(ReleaseError, match="not a readable safetensors file"):
        read_file(tmp_path / "weights")
