from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from glideslope.release.weights import Piece, read_file
from glideslope.release.weights.variants import cast_piece, compare_cast
from glideslope.store.weight_files import WeightFiles

FULL = {"a": torch.linspace(-3, 3, 1000), "b": torch.tensor([[1e-7, 65504.0]]), "c": torch.tensor([0.1], dtype=torch.bfloat16)}
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def write(path: Path, tensors: dict[str, torch.Tensor]) -> WeightFiles:
    path.write_bytes(save(dict(sorted(tensors.items())), metadata={"format": "pt"}))
    return read_file(path)


def casts(variant: str) -> dict[str, torch.Tensor]:
    return {name: tensor.to(TYPES[variant]) for name, tensor in FULL.items()}


@pytest.mark.parametrize("variant", list(TYPES))
def test_the_exact_cast_passes(tmp_path: Path, variant: str) -> None:
    assert compare_cast(write(tmp_path / "full", FULL), write(tmp_path / "cast", casts(variant)), "base", variant) == []


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.sampled_from(list(TYPES)), st.sampled_from(list(FULL)), st.data())
def test_one_changed_bit_of_a_variant_is_named(tmp_path_factory: pytest.TempPathFactory, variant: str, name: str, data: st.DataObject) -> None:
    place, bit = data.draw(st.integers(0, FULL[name].numel() - 1)), data.draw(st.integers(0, 15))
    changed = casts(variant)
    bits = changed[name].view(torch.int16).clone()
    bits.view(-1)[place] ^= torch.tensor(1 << bit, dtype=torch.int32).to(torch.int16)
    changed[name] = bits.view(TYPES[variant])
    folder = tmp_path_factory.mktemp("cast")
    found = compare_cast(write(folder / "full", FULL), write(folder / "cast", changed), "base", variant)
    assert found == [f"base {variant}: tensor {name} is not the cast of the full one (first at value {place}); pack the release again"]


def test_a_variant_of_another_type_shape_or_set_of_tensors_is_named(tmp_path: Path) -> None:
    odd = casts("fp16")
    odd["a"] = odd["a"].to(torch.bfloat16)
    odd["b"] = odd["b"].view(2)
    odd["new"] = odd.pop("c")
    found = "\n".join(compare_cast(write(tmp_path / "full", FULL), write(tmp_path / "cast", odd), "base", "fp16"))
    assert "tensor a is BF16 [1000], the cast is F16 [1000]" in found
    assert "tensor b is F16 [2], the cast is F16 [1, 2]" in found
    assert "tensor c is missing" in found
    assert "tensor new is not in the full weights" in found


def test_values_beyond_fp16_are_named_even_when_both_sides_are_infinite(tmp_path: Path) -> None:
    full = {"a": torch.tensor([70000.0])}
    found = compare_cast(write(tmp_path / "full", full), write(tmp_path / "cast", {"a": full["a"].half()}), "base", "fp16")
    assert len(found) == 1
    assert "beyond 65504" in found[0]
    assert "release.variants" in found[0]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from(list(TYPES)))
def test_the_cast_is_the_nearest_value_and_ties_go_to_even(value: float, variant: str) -> None:
    data = torch.tensor([value]).numpy().tobytes()
    bits = int.from_bytes(cast_piece(Piece("a", "F32", 0, data), variant).data, "little")
    here = torch.tensor([bits], dtype=torch.int32).to(torch.int16).view(TYPES[variant]).double().item()
    magnitude = bits & 0x7FFF
    for other in (magnitude - 1, magnitude + 1):
        if not 0 <= other < {"fp16": 0x7C00, "bf16": 0x7F80}[variant] or magnitude >= {"fp16": 0x7C00, "bf16": 0x7F80}[variant]:
            continue
        beside = abs(torch.tensor([other], dtype=torch.int16).view(TYPES[variant]).double().item())
        error, theirs = abs(abs(value) - abs(here)), abs(abs(value) - beside)
        assert error < theirs or (error == theirs and magnitude % 2 == 0)
