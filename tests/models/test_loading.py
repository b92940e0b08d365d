import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from glideslope.models.checkpoints import load_tensors, save_tensors
from glideslope.models.loading import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    build_on_meta,
    component_config,
    load_component,
    read_index,
    read_object,
    read_schedule,
)
from glideslope.models.unet import TextConditionedUNet

from glideslope.errors import CheckpointError
from glideslope.manifest import write_json


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
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
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
    (b"[1]", "expected a JSON object, got list"), (b" " * 1_000_001, "1000001 bytes; a configuration has at most 1000000")])
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
    write_json(path, value | {"schedule": "linear"})
    assert read_schedule(path) == "linear"
    for wrong in ({}, {"schedule": "sigmoid"}, {"schedule": "linear", "num_train_timesteps": 10}, {"schedule": "linear", "clip": True}):
        write_json(path, value | wrong)
        with pytest.raises(CheckpointError, match=r"scheduler_config\.json: got .*as schedule one of squaredcos_cap_v2, linear"):
            read_schedule(path)


def test_a_network_is_described_without_taking_memory(unet: TextConditionedUNet) -> None:
    assert all(parameter.is_meta for parameter in build_on_meta("TextConditionedUNet", unet.config).parameters())
