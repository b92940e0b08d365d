import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch

from glideslope.errors import CheckpointError, GlideslopeError, RequestError, VerificationError
from glideslope.models.diffusion.process import NoiseSchedule
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.loading.components import WEIGHTS_NAME
from glideslope.models.loading.loaded_networks import Networks
from glideslope.models.networks.unet import TextConditionedUNet
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.recipe.components import CONFIG_NAME

from ..conftest import sign_again

ALL = {"upsampler", "base_inpaint", "upsampler_inpaint"}


@pytest.fixture
def full(full_release: Path, tmp_path: Path) -> Path:
    """A copy of a release with every component, to be damaged."""
    return Path(shutil.copytree(full_release, tmp_path / "full"))


def test_a_release_with_every_component_loads_whole(full_release: Path, companions: dict[str, TextConditionedUNet]) -> None:
    pipe = GlidePipeline.from_pretrained(full_release, device="cpu", verify="required")
    assert set(pipe.networks.companions) == ALL
    assert pipe.networks.upsampler_schedule == NoiseSchedule("linear")
    assert pipe.networks.schedule == NoiseSchedule("squaredcos_cap_v2")
    for name, network in companions.items():
        loaded = pipe.networks.companions[name].state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("wanted", [[], ["upsampler"], ("base_inpaint", "noised_clip"), {"upsampler_inpaint"}])
def test_only_what_was_asked_for_is_loaded(full: Path, wanted: Collection[str]) -> None:
    for name in (ALL | {"noised_clip"}) - set(wanted):
        (full / name / WEIGHTS_NAME).unlink()  # would be noticed
    pipe = GlidePipeline.from_pretrained(full, device="cpu", components=wanted, verify="off")
    assert set(pipe.networks.companions) == ALL & set(wanted)
    assert (pipe.networks.noised_clip is not None) == ("noised_clip" in wanted)


@pytest.mark.parametrize(("components", "told"), [
    (["upsampler"], "components: .*release has no upsampler; beside base it holds noised_clip"),
    (["noised_clip", "upsampler_inpaint", "base_inpaint"], "has no upsampler_inpaint, base_inpaint;"),
    (["vae"], "components: 'vae' is unknown; choose from noised_clip, upsampler, base_inpaint, upsampler_inpaint"),
    (["base"], r"'base' is unknown; .*\(base, tokenizer and schedulers are always loaded\)"),
    ("upsampler", r"components is 'upsampler'; expected a list of names")])
def test_a_component_that_is_not_there_is_refused_before_digests_and_weights(release: Path, components: Any, told: str) -> None:
    (release / "base" / WEIGHTS_NAME).write_bytes(b"")
    with pytest.raises(RequestError, match=told):
        GlidePipeline.from_pretrained(release, components=components)


def test_components_are_verified_like_everything_else(full: Path) -> None:
    path = full / "upsampler" / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(VerificationError, match="upsampler/diffusion_pytorch_model"):
        GlidePipeline.from_pretrained(full, components=["base_inpaint"])


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(("path", "change", "told"), [
    ("model_index.json", lambda i: i.pop("upsampler_scheduler"), "upsampler_scheduler is missing"),
    ("upsampler_scheduler/scheduler_config.json", lambda s: s.update(schedule="cubic"), "schedule one of"),
    ("upsampler/config.json", lambda c: c.update(super_res=False), "does not fit TextConditionedUNet"),
    ("upsampler/config.json", lambda c: c.update(image_size=16), "upsampler: draws images of side 16, which is not larger than base's 16"),
    ("upsampler/config.json", lambda c: c.update(image_size=64), "draw images of different sides: {'upsampler': 64, 'upsampler_inpaint': 32}"),
    ("upsampler_inpaint/config.json", lambda c: c.update(n_vocab=1), "does not fit"),
    ("base_inpaint/config.json", lambda c: c.update(image_size=32), "base_inpaint: draws images of side 32, but base draws 16")])
def test_components_that_do_not_belong_together_are_refused(full: Path, path: str, change: Callable[[dict[str, Any]], Any], told: str) -> None:
    edit(full / path, change)
    sign_again(full)
    with pytest.raises(CheckpointError, match=told):
        GlidePipeline.from_pretrained(full, device="cpu")


def test_networks_in_each_others_places_are_refused_by_what_they_take(full: Path) -> None:
    (full / "upsampler").rename(full / "aside")
    (full / "upsampler_inpaint").rename(full / "upsampler")
    (full / "aside").rename(full / "upsampler_inpaint")
    sign_again(full)
    with pytest.raises(CheckpointError, match="upsampler: super_res is True and inpaint is True, expected True and False; this is another"):
        GlidePipeline.from_pretrained(full, device="cpu")


def test_a_clip_where_a_network_should_be_is_refused(full: Path) -> None:
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        shutil.copy(full / "noised_clip" / name, full / "upsampler" / name)
    sign_again(full)
    with pytest.raises(CheckpointError, match="upsampler: holds a NoisedClip, expected a TextConditionedUNet"):
        GlidePipeline.from_pretrained(full, device="cpu")


def test_an_inpainting_network_is_no_base_and_a_small_vocabulary_is_refused(
        unet: TextConditionedUNet, companions: dict[str, TextConditionedUNet], tokenizer: CaptionTokenizer) -> None:
    larger = CaptionTokenizer.train(["some other words entirely, and a great many more of them"] * 2, 400)
    with pytest.raises(CheckpointError, match="base: super_res is False and inpaint is True, expected False and False"):
        Networks(companions["base_inpaint"], tokenizer)
    with pytest.raises(CheckpointError, match=f"base: knows {unet.config.n_vocab} tokens, but the tokenizer has {larger.vocab_size}"):
        Networks(unet, larger)


def test_a_release_that_is_none_says_so_when_components_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(GlideslopeError, match=r"model_index\.json: No such file"):
        GlidePipeline.from_pretrained(tmp_path, components=["upsampler"])
