import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glideslope.release.weights.shards import cut, index_json, shard_names, weight_file_names
from glideslope.store.weight_files import TensorHeader

HEADERS = {"c": TensorHeader("F32", (10,), 0, 0), "a": TensorHeader("F32", (5,), 0, 0), "b": TensorHeader("F16", (100,), 0, 0)}


def test_tensors_are_cut_in_canonical_order_and_a_large_one_stands_alone() -> None:
    assert cut(HEADERS, 1000) == [["a", "c", "b"]]
    assert cut(HEADERS, 60) == [["a", "c"], ["b"]]
    assert cut(HEADERS, 59) == [["a"], ["c"], ["b"]]
    assert cut({}, 1) == [[]]


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=4), st.integers(0, 50), min_size=1), st.integers(1, 200))
def test_every_tensor_lies_in_one_shard_and_no_shard_could_take_the_next(sizes: dict[str, int], max_bytes: int) -> None:
    headers = {name: TensorHeader("F16", (size,), 0, 0) for name, size in sizes.items()}
    shards = cut(headers, max_bytes)
    assert [name for shard in shards for name in shard] == sorted(sizes)
    totals = [sum(2 * sizes[name] for name in shard) for shard in shards]
    assert all(total <= max_bytes or len(shard) == 1 for total, shard in zip(totals, shards, strict=True))
    assert all(total + 2 * sizes[following[0]] > max_bytes for total, following in zip(totals, shards[1:], strict=False))


@pytest.mark.parametrize(("variant", "infix"), [(None, ""), ("bf16", ".bf16")])
def test_names_are_those_of_diffusers(variant: str | None, infix: str) -> None:
    stem = "diffusion_pytorch_model"
    assert shard_names(1, variant) == [f"{stem}{infix}.safetensors"]
    index = f"{stem}.safetensors.index{infix}.json"
    assert weight_file_names(HEADERS, variant, 60) == [f"{stem}{infix}-00001-of-00002.safetensors", f"{stem}{infix}-00002-of-00002.safetensors",
                                                       index]


def test_the_index_says_where_each_tensor_lies() -> None:
    first, second = shard_names(2, None)
    assert index_json(HEADERS, cut(HEADERS, 60), None) == {"metadata": {"total_size": 260}, "weight_map": {"a": first, "c": first, "b": second}}
