import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from glideslope.errors import CheckpointError, VerificationError
from glideslope.models.diffusion.process import NoiseSchedule
from glideslope.models.loading.components import WEIGHTS_NAME, load_component, read_index, read_schedule
from glideslope.models.loading.weights import PIECE_BYTES, WeightTarget, read_weights
from glideslope.models.networks.components import build_on_meta, component_config
from glideslope.models.networks.unet import TextConditionedUNet
from glideslope.models.training.checkpoints import load_tensors, save_tensors
from glideslope.recipe.components import CONFIG_NAME
from glideslope.store.digests import sha256_file
from glideslope.store.file_lists import FileEntry
from glideslope.store.weight_files import find_weights, index_name, weights_name
from glideslope.store.whole_files import write_json
from glideslope.trust.checked_bytes import read_object


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_component_loads_as_it_was_saved(release: Path, unet: TextConditionedUNet) -> None:
    loaded = load_component(release / "base")
    assert isinstance(loaded, TextConditionedUNet)
    assert component_config(loaded) == component_config(unet)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in unet.state_dict().items())
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_weights_are_cast_when_a_dtype_is_asked_for(release: Path) -> None:
    assert {value.dtype for value in load_component(release / "base", dtype=torch.bfloat16).state_dict().values()} == {torch.bfloat16}


@pytest.mark.parametrize(("change", "told"), [
    (lambda t: t.update({"out.9.bias": t.pop("out.2.bias")}), r"out\.2\.bias is missing; tensor out\.9\.bias is not in the architecture"),
    (lambda t: t.update({"out.2.bias": torch.zeros(7)}), r"tensor out\.2\.bias has shape \[7\], expected \[6\]"),
    (lambda t: t.update({"out.2.bias": torch.zeros(6, dtype=torch.int64)}), r"tensor out\.2\.bias holds I64, expected one of F32"),
    (lambda t: t.pop("out.2.bias"), r"tensor out\.2\.bias is missing$"),
    (lambda t: [t.pop(name) for name in list(t)[:9]], r"is missing; and 4 more$")])
def test_weights_that_do_not_fit_are_refused_by_name(release: Path, change: Callable[[dict[str, Any]], Any], told: str) -> None:
    path = release / "base" / WEIGHTS_NAME
    tensors = load_tensors(path)
    change(tensors)
    save_tensors(path, tensors)
    with pytest.raises(CheckpointError, match=f"{WEIGHTS_NAME}: does not fit TextConditionedUNet: .*{told}"):
        load_component(release / "base")


def test_truncated_and_foreign_weights_are_refused(release: Path) -> None:
    path = release / "base" / WEIGHTS_NAME
    data = path.read_bytes()
    for damaged in (data[:-100], data[:5], b"", b"\x80\x05pickle", b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            load_component(release / "base")
    path.unlink()
    (release / "base" / "diffusion_pytorch_model.bin").write_bytes(data)
    with pytest.raises(CheckpointError, match=f"holds no {WEIGHTS_NAME}; there are no weights in safetensors files, and no others are read"):
        load_component(release / "base")


@pytest.mark.parametrize(("change", "told"), [
    (lambda c: c.update(_class_name="os.system"), "_class_name is 'os.system', expected one of TextConditionedUNet, NoisedClip"),
    (lambda c: c.update(_class_name=["TextConditionedUNet"]), "_class_name is "), (lambda c: c.pop("_class_name"), "_class_name is None"),
    (lambda c: c.update(_format_version=2), "_format_version is 2, this glideslope reads 1"),
    (lambda c: c.update(attention="flash"), "attention: unknown key"), (lambda c: c.pop("n_vocab"), "n_vocab: required key is missing"),
    (lambda c: c.update(n_vocab=10**12), r"n_vocab: .* less than or equal to 1000000 \(got 1000000000000\)"),
    (lambda c: c.update(xf_layers=10**9), "xf_layers: "), (lambda c: c.update(model_channels=-32), "model_channels: "),
    (lambda c: c.update(model_channels="32"), r"model_channels: .*valid integer \(got '32'\)"),
    (lambda c: c.update(channel_mult=[1] * 100), "channel_mult: "),
    (lambda c: c.update(xf_heads=3), "xf_width 64 is not a multiple of xf_heads 3")])
def test_a_configuration_that_is_none_is_refused_by_its_key(release: Path, change: Callable[[dict[str, Any]], Any], told: str) -> None:
    edit(release / "base" / CONFIG_NAME, change)
    with pytest.raises(CheckpointError, match=rf"base/config\.json: {told}"):
        load_component(release / "base")


@pytest.mark.parametrize(("content", "told"), [
    (b"{", "not readable as JSON"), (b"\xff\xfe\x00", "not readable as JSON"), (b"[" * 100_000, "not readable as JSON"),
    (b"[1]", "expected a JSON object, got list"), (b" " * 1_000_001, "more than 1000000 bytes"),
    (b'{"a": 1, "a": 2}', "not readable as JSON .*'a' occurs twice"), (b'{"a":' * 33 + b"1" + b"}" * 33, "not readable as JSON .*lie 33 deep")])
def test_a_file_that_is_no_small_json_object_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"config\.json: {told}"):
        read_object(path)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: No such file"):
        read_object(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="Is a directory"):
        read_object(tmp_path)


@pytest.mark.parametrize(("change", "told"), [
    (lambda i: i.update(_format="diffusers"), "_format is 'diffusers'"), (lambda i: i.update(_format_version=7), "in version 7"),
    (lambda i: i.pop("base"), "base is missing"), (lambda i: i.update(vae=["diffusers", "AutoencoderKL"]), "vae is unknown"),
    (lambda i: i.update(base=["os", "system"]), r"base is \['os', 'system'\], expected \['glideslope', 'TextConditionedUNet'\]")])
def test_an_index_that_names_something_else_is_refused(release: Path, change: Callable[[dict[str, Any]], Any], told: str) -> None:
    edit(release / "model_index.json", change)
    with pytest.raises(CheckpointError, match=rf"model_index\.json: .*{told}"):
        read_index(release / "model_index.json")


def test_a_release_without_a_noised_clip_is_one(release: Path) -> None:
    edit(release / "model_index.json", lambda index: index.pop("noised_clip"))
    assert read_index(release / "model_index.json") == {"base", "tokenizer", "scheduler"}


def test_an_unknown_noise_schedule_is_refused(tmp_path: Path) -> None:
    path, value = tmp_path / "scheduler_config.json", {"_class_name": "GaussianDiffusion", "_format_version": 1, "num_train_timesteps": 1000}
    value |= {"schedule": "linear", "prediction_type": "sample"}
    write_json(path, value)
    assert read_schedule(path) == NoiseSchedule("linear", "sample")
    for wrong in ({"schedule": "sigmoid"}, {"schedule": ["linear"]}, {"prediction_type": "v_prediction"}, {"num_train_timesteps": 10},
                  {"clip": True}):
        write_json(path, value | wrong)
        with pytest.raises(CheckpointError, match=r"scheduler_config\.json: got .*as schedule one of squaredcos_cap_v2, linear and as "
                                                  "prediction_type one of epsilon, sample"):
            read_schedule(path)


def test_a_network_is_described_without_taking_memory(unet: TextConditionedUNet) -> None:
    assert all(parameter.is_meta for parameter in build_on_meta("TextConditionedUNet", unet.config).parameters())


def shard(component: Path, num_shards: int, variant: str | None = None, dtype: torch.dtype = torch.float32) -> None:
    """Write a component's weights anew in shards, every so many tensors to another."""
    tensors = load_tensors(component / WEIGHTS_NAME)
    weight_map = {name: weights_name(variant, i % num_shards + 1, num_shards) for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save_tensors(component / file, {name: tensors[name].to(dtype) for name in tensors if weight_map[name] == file})
    size = sum(tensor.numel() * dtype.itemsize for tensor in tensors.values())
    write_json(component / index_name(variant), {"metadata": {"total_size": size}, "weight_map": weight_map})


def digests_of(component: Path) -> dict[Path, FileEntry]:
    return {path: FileEntry(path.name, path.stat().st_size, sha256_file(path)) for path in component.iterdir()}


def test_shards_load_like_one_file(release: Path, unet: TextConditionedUNet) -> None:
    component = release / "base"
    shard(component, 3)
    (component / WEIGHTS_NAME).unlink()
    loaded = load_component(component, digests=digests_of(component)).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in unet.state_dict().items())


@pytest.mark.parametrize(("variant", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_a_variant_is_loaded_from_its_own_files_as_it_is_stored(release: Path, unet: TextConditionedUNet, variant: str,
                                                                dtype: torch.dtype) -> None:
    component = release / "base"
    with pytest.raises(CheckpointError, match=rf"holds no diffusion_pytorch_model\.{variant}\.safetensors; variants that are there: none"):
        load_component(component, variant=variant)
    shard(component, 2, variant, dtype)
    loaded = load_component(component, variant=variant).state_dict()
    assert all(torch.equal(loaded[name], value.to(dtype)) for name, value in unet.state_dict().items())
    wider = load_component(component, variant=variant, dtype=torch.float32).state_dict()
    assert all(torch.equal(wider[name], value.to(dtype).float()) for name, value in unet.state_dict().items())


def test_a_variant_whose_files_hold_another_type_is_refused(release: Path) -> None:
    shard(release / "base", 2, "fp16", torch.float32)
    with pytest.raises(CheckpointError, match=r"index\.fp16\.json: does not fit TextConditionedUNet: tensor .* holds F32, expected one of F16"):
        load_component(release / "base", variant="fp16")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(release: Path, value: float) -> None:
    path = release / "base" / WEIGHTS_NAME
    tensors = load_tensors(path)
    tensors["out.2.bias"][3] = value
    save_tensors(path, tensors)
    with pytest.raises(CheckpointError, match=r"tensor out\.2\.bias holds values that are not finite; use another"):
        load_component(release / "base")


def test_weights_too_large_for_a_type_are_refused_and_large_sums_are_not(release: Path, unet: TextConditionedUNet) -> None:
    path = release / "base" / WEIGHTS_NAME
    save_tensors(path, load_tensors(path) | {"out.2.bias": torch.full((6,), 3e38)})
    assert load_component(release / "base").state_dict()["out.2.bias"].sum().isinf()
    with pytest.raises(CheckpointError, match=r"not finite, or too large for torch\.float16 as which it was asked for"):
        load_component(release / "base", dtype=torch.float16)


def test_tensors_longer_than_a_piece_are_read_whole(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {"long": torch.randn(PIECE_BYTES // 2 + 7, generator=generator), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    save_tensors(tmp_path / WEIGHTS_NAME, tensors)
    for dtype in (torch.float32, torch.bfloat16):
        found = read_weights(find_weights(tmp_path), WeightTarget(dtype, torch.device("cpu")), digests_of(tmp_path))
        assert all(torch.equal(found[name], tensor.to(dtype)) for name, tensor in tensors.items())


def test_a_file_that_is_exchanged_after_it_was_looked_at_is_noticed(tmp_path: Path) -> None:
    place, path = WeightTarget(None, torch.device("cpu")), tmp_path / WEIGHTS_NAME
    save_tensors(path, {"a": torch.zeros(4), "b": torch.ones(4)})
    files, digests = find_weights(tmp_path), digests_of(tmp_path)
    save_tensors(path, {"a": torch.zeros(4), "b": torch.full((4,), 2.0)})
    with pytest.raises(VerificationError, match="was changed while it was loaded: sha256 is"):
        read_weights(files, place, digests)
    save_tensors(path, {"b": torch.zeros(4), "c": torch.ones(4)})
    with pytest.raises(CheckpointError, match="was changed while it was loaded; load again"):
        read_weights(files, place)
    with pytest.raises(VerificationError, match="file is not in the manifest"):
        read_weights(files, place, {})


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_a_component_that_does_not_fit_its_digests_is_refused(release: Path, name: str) -> None:
    component = release / "base"
    digests = digests_of(component)
    data = (component / name).read_bytes()
    (component / name).write_bytes(data.replace(b"32", b"64", 1) if name == CONFIG_NAME else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(VerificationError, match=rf"{name}: .*sha256 is"):
        load_component(component, digests=digests)
    with pytest.raises(VerificationError, match="file is not in the manifest"):
        load_component(component, digests={path: entry for path, entry in digests.items() if path.name != name})


MEMORY_PROGRAM = """
import sys
from pathlib import Path
import torch
from glideslope.models.diffusion.process import NoiseSchedule
from glideslope.models.loading.components import load_component

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

directory, dtype = Path(sys.argv[1]), getattr(torch, sys.argv[2])
load_component(directory / "small", dtype=dtype)  # what torch takes once, when it is first used
before = status("VmRSS")
model = load_component(directory / "large", dtype=dtype)
weights = sum(p.numel() * p.element_size() for p in model.parameters())
assert {p.dtype for p in model.parameters()} == {dtype}
print((status("VmHWM") - before) / weights, weights)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_shards_takes_less_than_a_fifth_more_memory_than_the_weights(release: Path, unet: TextConditionedUNet, tmp_path: Path,
                                                                             dtype: str) -> None:
    config = unet.config.model_copy(update={"model_channels": 160, "xf_width": 768, "xf_layers": 4, "xf_heads": 12})
    class_name, large = type(unet).__name__, tmp_path / "large"
    shapes = {name: tuple(tensor.shape) for name, tensor in build_on_meta(class_name, config).state_dict().items()}
    weight_map = {name: weights_name(None, i % 3 + 1, 3) for i, name in enumerate(shapes)}
    files = {file: {name: shapes[name] for name in shapes if weight_map[name] == file} for file in weight_map.values()}
    size = sum(write_zeros(large / file, held) for file, held in files.items())
    assert 150_000_000 < size < 300_000_000
    write_json(large / index_name(), {"metadata": {"total_size": size}, "weight_map": weight_map})
    write_json(large / CONFIG_NAME, {"_class_name": class_name, "_format_version": 1, **config.model_dump(mode="json")})
    (release / "base").rename(tmp_path / "small")
    command = [sys.executable, "-c", MEMORY_PROGRAM, str(tmp_path), dtype]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    ratio, num_bytes = map(float, told.stdout.split())
    assert num_bytes == size * getattr(torch, dtype).itemsize / 4
    assert 0.95 < ratio < 1.2, ratio


def write_zeros(path: Path, shapes: dict[str, tuple[int, ...]]) -> int:
    """A safetensors file of zeros, which takes no room on the disk; returns the bytes of its tensors."""
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)
    return position


META_CODE = """
import sys
from glideslope.models.networks.components import expected_tensors
from glideslope.models.networks.presets import noised_clip_preset, unet_preset
meta = [expected_tensors("TextConditionedUNet", unet_preset("glide-micro-16")),
        expected_tensors("NoisedClip", noised_clip_preset("noised-clip-micro-16"))]
assert "torch._dynamo" not in sys.modules, "the compiler was loaded"
from glideslope.models.networks.noised_clip import NoisedClip
from glideslope.models.networks.unet import TextConditionedUNet
real = [TextConditionedUNet(unet_preset("glide-micro-16")), NoisedClip(noised_clip_preset("noised-clip-micro-16"))]
assert meta == [{name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} for network in real]
"""


def test_the_shapes_of_an_architecture_are_known_without_torchs_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", META_CODE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
