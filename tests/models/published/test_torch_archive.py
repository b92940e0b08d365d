import collections
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from glideslope.errors import CheckpointError
from glideslope.models.published.tensor_description import INSTRUCTIONS, MAX_INSTRUCTIONS, MAX_TENSORS, describe_tensors
from glideslope.models.published.torch_archive import TorchArchive

from ..archives import read_archive, save_as_published, write_archive

STATE = {"a.weight": torch.arange(12.0).view(3, 4), "a.bias": torch.tensor([1.5, -2.0]), "half": torch.arange(5).half(),
         "brain": torch.arange(6).bfloat16().view(2, 3), "whole": torch.arange(3), "scalar": torch.tensor(7.0), "none": torch.zeros(0, 3)}


def description_of(state: dict[str, Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    with zipfile.ZipFile(file) as archive:
        return archive.read("archive/data.pkl")


DESCRIPTION = description_of(STATE)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_as_published(tmp_path / "base.pt", STATE)


def contents(path: Path) -> dict[str, bytes]:
    with TorchArchive(path) as archive:
        archive.check_storages()
        return {name: b"".join(archive.chunks(name)) for name in archive.tensors}


def raw(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        contents(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_every_tensor_is_read_bit_for_bit(checkpoint: Path) -> None:
    assert contents(checkpoint) == {name: raw(tensor) for name, tensor in STATE.items()}
    with TorchArchive(checkpoint) as archive:
        assert list(archive.tensors) == list(STATE)
        assert {name: tensor.shape for name, tensor in archive.tensors.items()} == {name: tuple(t.shape) for name, t in STATE.items()}
        assert [tensor.dtype for tensor in archive.tensors.values()] == ["F32", "F32", "F16", "BF16", "I64", "F32", "F32"]
        assert archive.sha256() == sha256(checkpoint.read_bytes()).hexdigest()
        assert archive.size_bytes == checkpoint.stat().st_size


def test_what_modules_save_is_read_parameters_shared_storages_and_module_versions_too(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    state = module.state_dict()
    assert isinstance(state, collections.OrderedDict)
    state["parameter"] = nn.Parameter(torch.ones(2))
    state["tied"], state["slice"] = state["0.weight"], torch.arange(20.0)[5:9]
    torch.save(state, tmp_path / "a.pt")
    assert contents(tmp_path / "a.pt") == {name: raw(tensor) for name, tensor in state.items()}


class Evil:
    """What an attacker puts into a checkpoint: unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def test_a_program_in_the_pickle_is_refused_by_name_and_not_run(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1), "x": Evil(tmp_path / "pwned")}, tmp_path / "evil.pt")
    assert "names 'posix'.'mkdir'" in refusal(tmp_path / "evil.pt")
    torch.save(Evil(tmp_path / "pwned"), tmp_path / "evil.pt")
    assert "nothing of it was run" in refusal(tmp_path / "evil.pt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(("module", "name"), [
    ("builtins", "eval"), ("os", "system"), ("torch", "load"), ("torch", "nn.Linear"), ("torch.storage", "FloatStorage"), ("torch", "device"),
    ("torch._utils", "_rebuild_wrapper_subclass"), ("collections", "OrderedDict.fromkeys"), ("pkgutil", "resolve_name"), ("", ""),
    ("torch\n_utils", "x")])
def test_names_outside_the_short_list_are_refused(module: str, name: str) -> None:
    with pytest.raises(CheckpointError, match=r"no description of tensors needs|malformed"):
        describe_tensors(b"\x80\x02c" + f"{module}\n{name}\n".encode() + b".")


@pytest.mark.parametrize("code", [code for code in range(256) if bytes([code]) not in {*INSTRUCTIONS, b"."}])
def test_every_other_instruction_of_the_pickle_machine_is_refused(code: int) -> None:
    with pytest.raises(CheckpointError, match="does not belong in a description of tensors"):
        describe_tensors(b"\x80\x02}" + bytes([code]) + b"\x00" * 16)


@pytest.mark.parametrize("protocol", [0, 1, 3, 4, 5])
def test_other_protocols_are_refused(protocol: int) -> None:
    with pytest.raises(CheckpointError, match="a pickle of protocol 2, as PyTorch writes"):
        describe_tensors(pickle.dumps({}, protocol=protocol))


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_in_the_description_is_read_or_refused_and_nothing_else(position: int, value: int) -> None:
    changed = bytearray(DESCRIPTION)
    changed[position % len(changed)] = value
    try:
        found = describe_tensors(bytes(changed))
    except CheckpointError:
        return
    assert all(isinstance(name, str) for name in found)


@given(st.lists(st.sampled_from([*INSTRUCTIONS, b".", b"\x00", b"\x01", b"torch\nFloatStorage\n", b"collections\nOrderedDict\n"]), max_size=40))
def test_any_run_of_known_instructions_is_read_or_refused_and_nothing_else(pieces: list[bytes]) -> None:
    try:
        describe_tensors(b"\x80\x02" + b"".join(pieces))
    except CheckpointError as error:
        assert str(error)


def test_a_file_cut_off_anywhere_is_refused(checkpoint: Path) -> None:
    data = checkpoint.read_bytes()
    for length in range(0, len(data), 37):
        checkpoint.write_bytes(data[:length])
        assert "not a zip archive" in refusal(checkpoint) or "cut off" in refusal(checkpoint)


def test_one_flipped_bit_in_a_tensor_or_in_the_description_is_refused(checkpoint: Path) -> None:
    data = bytearray(checkpoint.read_bytes())
    with TorchArchive(checkpoint) as archive:
        places = [(tensor.offset, "data/") for tensor in archive.tensors.values() if tensor.size_bytes]
    for at, told in [*places, (data.index(b"a.weight") + 2, "data.pkl does not have its checksum")]:
        data[at] ^= 1
        checkpoint.write_bytes(data)
        assert told in refusal(checkpoint)
        assert "the file is damaged" in refusal(checkpoint)
        data[at] ^= 1
    checkpoint.write_bytes(data)
    contents(checkpoint)


@pytest.mark.parametrize(("tensor", "told"), [
    (torch.zeros(1).expand(10**12), "strides [0] of shape [1000000000000] are not contiguous"),
    (torch.zeros(2, 3).T, "strides [1, 3] of shape [3, 2] are not contiguous"),
    (torch.zeros(9).as_strided((3, 3), (1, 1)), "are not contiguous"),
    (torch.zeros(9)[::2], "strides [2]"), (torch.zeros(2, dtype=torch.complex64), "ComplexFloatStorage"),
    (torch.zeros(2, 2).to_sparse(), "no description of tensors needs")])
def test_a_tensor_that_is_not_plain_is_refused_before_it_is_allocated(tensor: Tensor, told: str, tmp_path: Path) -> None:
    torch.save({"w": tensor}, tmp_path / "a.pt")
    assert told in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize(("content", "told"), [
    ({"epoch": 3, "state": {"w": torch.zeros(1)}}, "entry 'epoch' is a int, expected a tensor"),
    ({"state": {"w": torch.zeros(1)}}, "entry 'state' is a dict"), ({}, "holds 0 entries"), ([torch.zeros(1)], "does not belong"),
    (torch.zeros(1), "holds a TensorDescription, expected a dictionary"), ({3: torch.zeros(1)}, "entry 3 occurs twice or is not named by text"),
    ({"w": "text"}, "entry 'w' is a str"), ({"w": None}, "is a NoneType"), (nn.Linear(2, 2), "no description of tensors needs")])
def test_something_else_than_a_flat_dictionary_of_tensors_is_refused(content: object, told: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert told in refusal(tmp_path / "a.pt")


def small_description(*, count: bytes = b"K\x02", offset: bytes = b"K\x00", shape: bytes = b"K\x02\x85", stride: bytes = b"K\x01\x85",
                      key: bytes = b"0") -> bytes:
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX" + struct.pack("<I", len(key)) + key + b"X\x03\x00\x00\x00cpu" + count + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + stride + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}(X\x01\x00\x00\x00w" + tensor + b"u."


@pytest.mark.parametrize(("change", "told"), [
    ({"count": b"K\x03"}, "said to have 3 elements of 4 bytes, but data/0 has 8 bytes"),
    ({"count": b"J\xff\xff\xff\xff"}, "in a way that PyTorch does not"),
    ({"count": b"\x88"}, "in a way that PyTorch does not"), ({"offset": b"K\x01"}, "2 elements from 1 on do not fit into a storage of 2"),
    ({"offset": b"J\xff\xff\xff\xff"}, "impossible storage, offset"), ({"shape": b"K\x03\x85"}, "3 elements from 0 on do not fit"),
    ({"shape": b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85"}, "impossible"), ({"shape": b"K\x02K\x01\x86"}, "impossible"),
    ({"shape": b"\x88\x85"}, "impossible"), ({"stride": b"K\x02\x85"}, "not contiguous"), ({"key": b"../x"}, "in a way that PyTorch does not"),
    ({"key": b"1"}, "its storage data/1 is missing"), ({"shape": b"\x8a\x09" + b"\x01" * 9 + b"\x85"}, "a number of 9 bytes")])
def test_a_description_that_lies_about_its_storage_is_refused(change: dict[str, bytes], told: str, tmp_path: Path) -> None:
    good = write_archive(tmp_path / "a.pt", {"data.pkl": small_description(), "data/0": b"\0" * 8})
    assert contents(good) == {"w": b"\0" * 8}
    write_archive(tmp_path / "a.pt", {"data.pkl": small_description(**change), "data/0": b"\0" * 8})
    assert told in refusal(tmp_path / "a.pt")


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    item = small_description()[4:-2]
    write_archive(tmp_path / "a.pt", {"data.pkl": b"\x80\x02}(" + item + item + b"u.", "data/0": b"\0" * 8})
    assert "entry 'w' occurs twice" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize(("change", "told"), [
    ({"code/__torch__.py": b"", "constants.pkl": b""}, "TorchScript program"), ({"extra": b""}, "member 'extra' does not belong"),
    ({"data/99": b"1234"}, "data/99 belongs to no tensor"), ({"byteorder": b"big"}, "byte order is b'big'"),
    ({"../../etc/passwd": b""}, "does not belong"), ({"version": b"3" * 1000}, "version has 1000 bytes")])
def test_a_member_that_pytorch_does_not_write_is_refused(change: dict[str, bytes], told: str, checkpoint: Path) -> None:
    write_archive(checkpoint, read_archive(checkpoint) | change)
    assert told in refusal(checkpoint)


def test_a_missing_description_or_storage_is_refused(checkpoint: Path) -> None:
    members = read_archive(checkpoint)
    for name, told in (("data.pkl", "data.pkl is missing"), ("data/0", "its storage data/0 is missing")):
        write_archive(checkpoint, {key: data for key, data in members.items() if key != name})
        assert told in refusal(checkpoint)


def test_a_compressed_member_is_refused(checkpoint: Path) -> None:
    members = read_archive(checkpoint) | {"data/0": b"\0" * 10_000_000}
    write_archive(checkpoint, members, method=zipfile.ZIP_DEFLATED)
    assert "is compressed; PyTorch stores members as they are" in refusal(checkpoint)


def test_members_that_occur_twice_or_lie_in_another_folder_are_refused(checkpoint: Path) -> None:
    members = read_archive(checkpoint)
    write_archive(checkpoint, members)
    with zipfile.ZipFile(checkpoint, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data/0", members["data/0"])
    assert "member 'data/0' occurs twice" in refusal(checkpoint)
    write_archive(checkpoint, members)
    with zipfile.ZipFile(checkpoint, "a") as archive:
        archive.writestr("other/data/0", members["data/0"])
    assert "lies outside the folder of the others" in refusal(checkpoint)
    write_archive(checkpoint, members, folder="")
    assert "lies outside the folder of the others" in refusal(checkpoint)


def test_members_that_share_bytes_or_have_another_header_are_refused(checkpoint: Path) -> None:
    """The archive's directory is edited, as a bomb does that hands out the same bytes many times."""
    write_archive(checkpoint, read_archive(checkpoint))
    data = checkpoint.read_bytes()
    entries = [at for at in range(len(data)) if data[at:at + 4] == b"PK\x01\x02"]
    first, second = entries[0], entries[1]
    for at, value, told in ((second + 42, data[first + 42:first + 46], "is called"), (first + 24, struct.pack("<I", 10**6), "is compressed"),
                            (first + 42, struct.pack("<I", 3), "has no header at byte 3"), (first + 8, b"\x01\x00", "is encrypted")):
        changed = bytearray(data)
        changed[at:at + len(value)] = value
        checkpoint.write_bytes(changed)
        assert told in refusal(checkpoint)
    changed = bytearray(data)
    sizes = struct.pack("<II", 10**6, 10**6)
    changed[first + 20:first + 28] = sizes
    checkpoint.write_bytes(changed)
    assert "overlaps another one or the archive's directory" in refusal(checkpoint)


@pytest.mark.parametrize(("content", "told"), [
    (b"", "something that begins with b''"), (b"<!DOCTYPE html>", "a page of text; download the file again"),
    (b"\x1f\x8b" + b"0" * 100, "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c" + b"0" * 100, "a 7z archive"), (b"PK\x03\x04" + b"0" * 100, "the zip archive has no end"),
    (b"PK\x03\x04" + b"0" * 100 + b"PK\x05\x06" + b"\0" * 18, "lies outside|data.pkl is missing"),
    (b"PK\x03\x04PK\x05\x06" + b"\0" * 8 + struct.pack("<II", 2**31, 0) + b"\0\0", "directory has 2147483648 bytes")])
def test_a_file_of_another_kind_is_refused_with_what_it_is(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "base.pt").write_bytes(content)
    message = refusal(tmp_path / "base.pt")
    assert any(part in message for part in told.split("|")), message


def test_the_old_formats_of_pytorch_are_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "a bare pickle, as PyTorch wrote before 1.6; load it where you trust it and save it again" in refusal(tmp_path / "old.pt")
    with tarfile.open(tmp_path / "older.pt", "w") as archive:
        archive.add(tmp_path / "old.pt", "storages")
    assert "a tar archive" in refusal(tmp_path / "older.pt")


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.pt")
    assert "Is a directory" in refusal(tmp_path)


def test_a_file_that_shrinks_while_it_is_read_is_refused(checkpoint: Path) -> None:
    with TorchArchive(checkpoint) as archive, pytest.raises(CheckpointError, match="changed while it was read"):
        os.truncate(checkpoint, 64)
        archive.check_storages()


def test_pieces_are_small_whatever_the_tensor(tmp_path: Path) -> None:
    big = torch.arange(5_000_000, dtype=torch.float32)
    save_as_published(tmp_path / "big.pt", {"big": big})
    with TorchArchive(tmp_path / "big.pt") as archive:
        pieces = list(archive.chunks("big"))
    assert [len(piece) for piece in pieces] == [16 * 1024**2, 20_000_000 - 16 * 1024**2]
    assert np.array_equal(np.frombuffer(b"".join(pieces), dtype="<f4"), big.numpy())


def test_a_pipe_is_refused_at_once_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "base.pt")
    assert "not a plain file" in refusal(tmp_path / "base.pt")


@pytest.mark.parametrize("instructions", [b"}" * 15_900_000, b")" + b"\x85" * 15_900_000, b"(" * 15_900_000, b"K\x00" * 7_900_000,
                                          b"}" + b"X\x01\x00\x00\x00a)" + b"\x85" * 5_000_000 + b"s"])
def test_a_description_of_very_many_values_is_refused_before_it_fills_the_memory(tmp_path: Path, instructions: bytes) -> None:
    members = {"data.pkl": b"\x80\x02" + instructions + b"."}
    path = write_archive(tmp_path / "many.pt", members)
    program = ("import resource, sys\nfrom pathlib import Path\nfrom glideslope.models.published.tensor_description import describe_tensors\n"
               "import zipfile\ndata = zipfile.ZipFile(sys.argv[1]).read('archive/data.pkl')\n"
               "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
               "try:\n    describe_tensors(data)\nexcept Exception as error:\n    print(error)\n"
               "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)")
    told, megabytes = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True).stdout.splitlines()
    assert "more than 1500000 instructions" in told
    assert int(megabytes) < 250


def test_as_many_tensors_as_a_description_may_hold_are_described() -> None:
    one = description_of({"x": torch.zeros(2, 3, 4, 5, 6, 7, 1, 1)})
    num_instructions = sum(1 for _ in pickletools.genops(one))
    assert MAX_TENSORS * num_instructions < MAX_INSTRUCTIONS
