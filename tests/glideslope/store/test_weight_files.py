import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from glideslope.errors import CheckpointError
from glideslope.store.weight_files import (
    MAX_INDEX_BYTES,
    VARIANTS,
    find_weights,
    index_name,
    parse_weights_name,
    read_header,
    read_index,
    weights_name,
)

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.zeros(4), "c": torch.zeros(0, 3)}
FIRST, SECOND = weights_name(None, 1, 2), weights_name(None, 2, 2)


def write_raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def tensor(begin: int, end: int, **changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]} | changes


def write_single(directory: Path, variant: str | None = None) -> Path:
    path = directory / weights_name(variant)
    path.write_bytes(save(TENSORS, metadata={"format": "pt"}))
    return path


def write_shards(directory: Path, variant: str | None = None) -> dict[str, Any]:
    """Two shards with their index; returns what the index holds."""
    parts: Mapping[str, list[str]] = {weights_name(variant, 1, 2): ["a.weight"], weights_name(variant, 2, 2): ["b.bias", "c"]}
    for name, tensors in parts.items():
        (directory / name).write_bytes(save({key: TENSORS[key] for key in tensors}, metadata={"format": "pt"}))
    index = {"metadata": {"total_size": 40}, "weight_map": {key: name for name, tensors in parts.items() for key in tensors}}
    (directory / index_name(variant)).write_text(json.dumps(index))
    return index


def test_names_are_those_of_diffusers() -> None:
    assert weights_name() == "diffusion_pytorch_model.safetensors"
    assert weights_name("fp16") == "diffusion_pytorch_model.fp16.safetensors"
    assert weights_name("bf16", 2, 13) == "diffusion_pytorch_model.bf16-00002-of-00013.safetensors"
    assert index_name() == "diffusion_pytorch_model.safetensors.index.json"
    assert index_name("fp16") == "diffusion_pytorch_model.safetensors.index.fp16.json"


@given(st.sampled_from([None, *VARIANTS]), st.none() | st.tuples(st.integers(1, 99_999), st.integers(0, 99_999)))
def test_every_name_is_read_back(variant: str | None, shard: tuple[int, int] | None) -> None:
    number, count = (None, None) if shard is None else (shard[0], min(sum(shard), 99_999))
    assert parse_weights_name(weights_name(variant, number, count)) == (variant, number, count)


@pytest.mark.parametrize("name", [
    "model.safetensors", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp8.safetensors", "../diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model-00003-of-00002.safetensors", "diffusion_pytorch_model-00000-of-00002.safetensors", "C:\\x.safetensors",
    "diffusion_pytorch_model-00001-of-00002.fp16.safetensors", "diffusion_pytorch_model-1-of-2.safetensors", "/etc/passwd",
    "diffusion_pytorch_model.safetensors\n", "diffusion_pytorch_model-0000\u0661-of-0000\u0662.safetensors"])
def test_other_names_name_no_weights(name: str) -> None:
    assert parse_weights_name(name) is None


@pytest.mark.parametrize("arguments", [("fp8",), (None, 1), (None, None, 2), (None, 0, 2), (None, 3, 2), (None, 1, 100_000)])
def test_impossible_names_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(CheckpointError, match="expected"):
        weights_name(*arguments)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_single_file_and_shards_are_found(tmp_path: Path, variant: str | None) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    path = write_single(one, variant)
    write_shards(two, variant)
    single, sharded = find_weights(one, variant), find_weights(two, variant)
    assert (single.files, single.index) == ((path,), None)
    assert [file.name for file in sharded.files] == [weights_name(variant, 1, 2), weights_name(variant, 2, 2)]
    assert sharded.index == two / index_name(variant)
    assert {name: file.name for name, file in sharded.tensors.items()} == json.loads(sharded.index.read_text())["weight_map"]
    for found in (single, sharded):
        assert {name: header.shape for name, header in found.headers.items()} == {"a.weight": (2, 3), "b.bias": (4,), "c": (0, 3)}
        assert found.num_bytes == 40


def test_variants_lie_side_by_side_and_never_stand_in_for_one_another(tmp_path: Path) -> None:
    write_single(tmp_path)
    write_shards(tmp_path, "fp16")
    assert find_weights(tmp_path).index is None
    assert find_weights(tmp_path, "fp16").index is not None
    with pytest.raises(CheckpointError, match=r"holds no diffusion_pytorch_model\.bf16\.safetensors; variants that are there: fp16, none"):
        find_weights(tmp_path, "bf16")


def test_nothing_is_read_but_safetensors(tmp_path: Path) -> None:
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02pickle")
    with pytest.raises(CheckpointError, match="there are no weights in safetensors files, and no others are read"):
        find_weights(tmp_path)
    with pytest.raises(CheckpointError, match="no such directory"):
        find_weights(tmp_path / "nowhere")


def test_a_file_beside_shards_and_shards_without_an_index_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path)
    single = write_single(tmp_path)
    with pytest.raises(CheckpointError, match="one of them is too many"):
        find_weights(tmp_path)
    single.unlink()
    (tmp_path / index_name()).unlink()
    with pytest.raises(CheckpointError, match=f"holds {FIRST}, but no {index_name()}"):
        find_weights(tmp_path)


@pytest.mark.parametrize(("change", "told"), [
    (lambda i: i["weight_map"].update(c="../../secret.safetensors"), r"said to lie in '\.\./\.\./secret"),
    (lambda i: i["weight_map"].update(c=f"sub/{SECOND}"), "which is no shard of these weights"),
    (lambda i: i["weight_map"].update(c=weights_name("fp16", 2, 2)), "which is no shard of these weights"),
    (lambda i: i["weight_map"].update(c=weights_name()), "which is no shard of these weights"),
    (lambda i: i["weight_map"].update(c="diffusion_pytorch_model.bin"), "which is no shard of these weights"),
    (lambda i: i["weight_map"].update(c=["x"]), "which is no shard of these weights"),
    (lambda i: i["weight_map"].update(c=weights_name(None, 3, 3)), "names 3 shards of .* expected each of one whole set"),
    (lambda i: i["weight_map"].update(dict.fromkeys(i["weight_map"], FIRST)), "names 1 shards"),
    (lambda i: i["weight_map"].update(c=FIRST), rf"{SECOND}: holds the tensor c, which .* places in {FIRST}"),
    (lambda i: i["weight_map"].update(d=SECOND), r"no shard holds d \(1 in all\)"),
    (lambda i: i["weight_map"].pop("c"), "holds the tensor c, which .* places in None"),
    (lambda i: i["metadata"].update(total_size=41), "total_size is 41, the shards hold 40 bytes"),
    (lambda i: i["metadata"].update(total_size=True), "expected total_size alone"), (lambda i: i.pop("metadata"), "expected the keys"),
    (lambda i: i.update(auto_map="x"), "expected the keys"), (lambda i: i.update(weight_map={}), "expected the keys"),
    (lambda i: i.update(weight_map=[]), "expected the keys")])
def test_an_index_that_names_other_files_or_differs_from_the_shards_is_refused(tmp_path: Path, change: Callable[[Any], Any], told: str) -> None:
    index = write_shards(tmp_path)
    change(index)
    (tmp_path / index_name()).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=told):
        find_weights(tmp_path)


def test_large_deep_and_ambiguous_indices_are_refused(tmp_path: Path) -> None:
    path = tmp_path / index_name()
    for content, told in ((b" " * (MAX_INDEX_BYTES + 1), "more than 10000000 bytes"), (b'{"a":' * 5 + b"1" + b"}" * 5, "lie 5 deep"),
                          (b'{"metadata": {}, "metadata": {}}', "occurs twice"), (b"[]", "got list"), (b"", "not readable")):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{index_name()}: .*{told}"):
            read_index(path)


def test_missing_and_superfluous_shards_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path)
    extra = tmp_path / weights_name(None, 1, 3)
    extra.write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"{extra.name} is no shard of {index_name()}"):
        find_weights(tmp_path)
    extra.unlink()
    (tmp_path / SECOND).unlink()
    with pytest.raises(CheckpointError, match=f"shard {SECOND} is missing"):
        find_weights(tmp_path)


@pytest.mark.parametrize(("header", "data", "told"), [
    ({"a": tensor(0, 8), "b": tensor(4, 12)}, b"0" * 12, "overlap or leave a hole at byte 8"),
    ({"a": tensor(0, 4), "b": tensor(8, 12)}, b"0" * 12, "overlap or leave a hole at byte 4"),
    ({"a": tensor(0, 8)}, b"0" * 9, "tensors end at byte 8, the data at 9"), ({"a": tensor(0, 8)}, b"0" * 7, "the data at 7"),
    ({"a": tensor(0, 8, shape=[3])}, b"0" * 8, "do not fit"), ({"a": tensor(0, 8, shape=[-2])}, b"0" * 8, "impossible"),
    ({"a": tensor(0, 8, shape=[2.0])}, b"0" * 8, "impossible"), ({"a": tensor(0, 8, shape=[True, 2])}, b"0" * 8, "impossible"),
    ({"a": tensor(0, 8, shape=[2] + [1] * 8)}, b"0" * 8, "shape"), ({"a": tensor(0, 8, shape="2")}, b"0" * 8, "shape"),
    ({"a": tensor(0, 8, dtype="F33")}, b"0" * 8, "do not fit"), ({"a": tensor(0, 8, dtype=["F32"])}, b"0" * 8, "do not fit"),
    ({"a": tensor(0, 8, more=1)}, b"0" * 8, "is described by"), ({"a": 3}, b"", "is described by"),
    ({"a": tensor(0, 8, data_offsets=[0, 8, 8])}, b"0" * 8, "shape"),
    ({"a": tensor(0, 8), "__metadata__": {"format": "pt", "run": "me"}}, b"0" * 8, "at most a format is expected"),
    ({"a": tensor(0, 8), "__metadata__": {"format": 3}}, b"0" * 8, "at most a format is expected"),
    ({"../../etc/passwd": tensor(0, 8)}, b"0" * 8, "is no name of a tensor"), ({"a..b": tensor(0, 8)}, b"0" * 8, "is no name of a tensor"),
    ({"C:\\x": tensor(0, 8)}, b"0" * 8, "is no name of a tensor"), ({"a" * 201: tensor(0, 8)}, b"0" * 8, "is no name of a tensor"),
    (b'{"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}, "a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"0" * 4,
     "'a' occurs twice"),
    (b'  {"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"0" * 4, "does not start with a brace"),
    ({f"t{i}": tensor(0, 0) for i in range(100_000)}, b"", "header of .* bytes, expected 2 to 2000000"),
    ({"__metadata__": {"format": "x" * 64_000_000}}, b"", "header of .* bytes, expected 2 to 2000000"),
    (b"[]", b"", "brace"), (b"{" * 100_000, b"", "deep"), (b"\xff\xfe", b"", "brace"), (b'{"\xff', b"", "not readable as JSON")])
def test_odd_headers_are_refused(tmp_path: Path, header: Any, data: bytes, told: str) -> None:
    with pytest.raises(CheckpointError, match=f"weights: not a readable safetensors file .*{told}"):
        read_header(write_raw(tmp_path / "weights", header, data))


def test_empty_short_and_boastful_files_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"\x08", struct.pack("<Q", 2**63), struct.pack("<Q", 100) + b"{}"):
        (tmp_path / "weights").write_bytes(content)
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            read_header(tmp_path / "weights")
    with pytest.raises(CheckpointError, match="No such file"):
        read_header(tmp_path / "none")
