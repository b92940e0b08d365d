import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from glideslope.release.weights import canonical_weights, count_parameters, find_nonfinite, read_header
from safetensors.torch import save

from glideslope.errors import ReleaseError

TENSORS = {"b.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.zeros(4), "empty": torch.zeros(0, 3)}


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def tensor(begin: int, end: int, **changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]} | changes


def test_equal_tensors_in_any_order_give_the_same_canonical_bytes(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(save(TENSORS, metadata={"format": "pt", "who": "me", "when": "now"}))
    (tmp_path / "two").write_bytes(save(dict(reversed(TENSORS.items()))))
    assert canonical_weights(tmp_path / "one") == canonical_weights(tmp_path / "two")


def test_a_header_tells_shapes_and_parameters_without_loading(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(save(TENSORS, metadata={"format": "pt"}))
    header = read_header(path)
    assert {name: entry.shape for name, entry in header.items()} == {"b.weight": (2, 3), "a.bias": (4,), "empty": (0, 3)}
    assert count_parameters(header) == 10


def test_values_that_are_not_finite_are_found(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(save(TENSORS | {"bad": torch.tensor([1.0, float("nan")]), "worse": torch.tensor([float("-inf")])}))
    assert find_nonfinite(path) == ["bad", "worse"]


@pytest.mark.parametrize(("header", "data"), [
    ({"a": tensor(0, 8), "b": tensor(4, 12)}, b"0" * 12),
    ({"a": tensor(0, 4), "b": tensor(8, 12)}, b"0" * 12),
    ({"a": tensor(0, 8)}, b"0" * 9),
    ({"a": tensor(0, 8)}, b"0" * 7),
    ({"a": tensor(0, 8, shape=[3])}, b"0" * 8),
    ({"a": tensor(0, 8, shape=[-2])}, b"0" * 8),
    ({"a": tensor(0, 8, shape=[2.0])}, b"0" * 8),
    ({"a": tensor(0, 8, dtype="F33")}, b"0" * 8),
    ({"a": {"dtype": "F32", "shape": [2]}}, b"0" * 8),
    ({"a": tensor(0, 8), "__metadata__": {"format": "pt", "run": "me"}}, b"0" * 8),
    (b'{"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}, "a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"0" * 4),
    (b'  {"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"0" * 4),
    (b"[]", b""), (b"[" * 100_000, b""), (b"\xff\xfe", b"")])
def test_odd_headers_are_refused(tmp_path: Path, header: Any, data: bytes) -> None:
    with pytest.raises(ReleaseError, match="weights"):
        read_header(write(tmp_path / "weights", header, data))


def test_empty_short_and_boastful_files_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"\x08", struct.pack("<Q", 2**63), struct.pack("<Q", 100) + b"{}"):
        (tmp_path / "weights").write_bytes(content)
        with pytest.raises(ReleaseError, match="not a safetensors file"):
            read_header(tmp_path / "weights")
