from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from glideslope.errors import CheckpointError, StorageError
from glideslope.models.published.conversion import ArchivedSource, check_finite, compare_weights, source_problems, write_weights
from glideslope.models.published.torch_archive import TorchArchive

from ..archives import save_as_published
from ..closed_form import read_fixture

STATE = {"b.weight": torch.linspace(-1, 1, 12).view(3, 4), "a.bias": torch.tensor([1.5, -2.0]), "half": torch.linspace(-1, 1, 5).half(),
         "brain": torch.linspace(-1, 1, 6).bfloat16().view(2, 3), "scalar": torch.tensor(-0.0)}


def unheard(num_bytes: int) -> None:
    assert num_bytes > 0


@pytest.fixture
def stack() -> ExitStack:
    with ExitStack() as opened:
        yield opened


def sources(stack: ExitStack, path: Path, state: dict[str, Tensor], prefix: str = "") -> dict[str, ArchivedSource]:
    archive = stack.enter_context(TorchArchive(save_as_published(path, state)))
    return {prefix + name: ArchivedSource(archive, name) for name in archive.tensors}


def test_the_written_file_is_the_one_that_the_safetensors_library_would_write(stack: ExitStack, tmp_path: Path) -> None:
    found = sources(stack, tmp_path / "a.pt", STATE)
    done: list[int] = []
    write_weights(tmp_path / "out" / "weights.safetensors", found, done.append)
    assert (tmp_path / "out" / "weights.safetensors").read_bytes() == save(STATE, metadata={"format": "pt"})
    assert sum(done) == sum(tensor.nbytes for tensor in STATE.values())
    compare_weights(tmp_path / "out" / "weights.safetensors", found, unheard)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["weights.safetensors"]


def test_two_files_become_one_under_their_prefixes(stack: ExitStack, tmp_path: Path) -> None:
    both = sources(stack, tmp_path / "a.pt", {"w": torch.ones(2)}, "image.") | sources(stack, tmp_path / "b.pt", {"w": torch.zeros(3)}, "text.")
    write_weights(tmp_path / "weights.safetensors", both, unheard)
    loaded = load_file(tmp_path / "weights.safetensors")
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {"image.w": [1, 1], "text.w": [0, 0, 0]}


@pytest.mark.parametrize("name", list(STATE))
def test_one_bit_that_differs_from_the_source_is_found(name: str, stack: ExitStack, tmp_path: Path) -> None:
    found = sources(stack, tmp_path / "a.pt", STATE)
    tensors = {key: tensor.clone() for key, tensor in STATE.items()}
    tensors[name].view(-1)[-1:].view(torch.uint8)[0] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(save(tensors))
    with pytest.raises(CheckpointError, match=f"tensor {name} differs from its source near byte"):
        compare_weights(tmp_path / "weights.safetensors", found, unheard)


def test_other_names_or_shapes_than_were_written_are_found(stack: ExitStack, tmp_path: Path) -> None:
    found = sources(stack, tmp_path / "a.pt", STATE)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save({name: tensor for name, tensor in STATE.items() if name != "half"}))
    with pytest.raises(CheckpointError, match="does not hold the tensors that were written"):
        compare_weights(path, found, unheard)
    path.write_bytes(save(STATE | {"b.weight": STATE["b.weight"].view(4, 3)}))
    with pytest.raises(CheckpointError, match=r"b\.weight has shape \[4, 3\], but \[3, 4\] was written"):
        compare_weights(path, found, unheard)
    path.write_bytes(save(STATE | {"half": STATE["half"].float()}))
    with pytest.raises(CheckpointError, match=r"tensor half"):
        compare_weights(path, found, unheard)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read back"):
        compare_weights(path, found, unheard)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "F32"), (torch.float16, "F16"), (torch.bfloat16, "BF16")])
def test_values_that_are_not_finite_are_refused_and_the_largest_finite_ones_are_not(
        value: float, dtype: torch.dtype, name: str, stack: ExitStack, tmp_path: Path) -> None:
    largest = torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min, torch.finfo(dtype).tiny, 0.0], dtype=dtype)
    check_finite(largest.view(torch.uint8).numpy().tobytes(), name, "x")
    found = sources(stack, tmp_path / "a.pt", {"good": torch.ones(2), "w": torch.tensor([1.0, value, value], dtype=dtype)})
    with pytest.raises(CheckpointError, match=r"a\.pt: tensor w holds 2 values that are infinite or not numbers"):
        write_weights(tmp_path / "out" / "weights.safetensors", found, unheard)
    assert list((tmp_path / "out").iterdir()) == []


def test_names_shapes_and_types_are_compared_one_sentence_each(stack: ExitStack, tmp_path: Path) -> None:
    found = sources(stack, tmp_path / "a.pt", {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1, dtype=torch.int64)})
    assert source_problems(found, {"a": (2,), "b": (4,), "c": (1,), "d": (1,)}) == [
        "tensor d is missing", "tensor b has shape [3], expected [4]", "tensor c holds I64, expected one of F32, BF16, F16"]
    assert source_problems(found, {"a": (2,), "b": (3,)})[0] == "tensor c is not in the architecture"


def test_a_directory_that_cannot_be_written_is_one_clear_error(stack: ExitStack, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        write_weights(tmp_path / "file" / "weights.safetensors", sources(stack, tmp_path / "a.pt", STATE), unheard)


def test_a_published_checkpoint_at_full_size_goes_through(stack: ExitStack, tmp_path: Path) -> None:
    """The text encoder of the published noised CLIP: 71,679,488 parameters, in half precision to be quick."""
    shapes = {name: tuple(shape) for name, shape in read_fixture("released_layouts.json")["clip_text_enc"]["shapes"].items()}
    found = sources(stack, tmp_path / "clip_text_enc.pt", {name: torch.full(shape, 0.5, dtype=torch.float16) for name, shape in shapes.items()})
    assert source_problems(found, shapes) == []
    assert sum(source.tensor.size_bytes for source in found.values()) == 2 * 71_679_488
    next(iter(found.values())).archive.check_storages()
    write_weights(tmp_path / "weights.safetensors", found, unheard)
    compare_weights(tmp_path / "weights.safetensors", found, unheard)
