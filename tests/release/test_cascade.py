"""A release whose run trained an upsampler beside base and noised CLIP: what lies in it, how it loads, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from glideslope import GlidePipeline
from glideslope.errors import ReleaseError
from glideslope.models.diffusion.process import NoiseSchedule
from glideslope.recipe.policy import load_policy
from glideslope.recipe.recipe import Recipe
from glideslope.release import verify
from glideslope.release.evidence.chain import check_summaries
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.exports.diffusers import export_diffusers
from glideslope.release.exports.export_check import check_export
from glideslope.release.vetting.gates.gate import run_check
from glideslope.release.vetting.recipe_check import check_recipe

from .components import write_components
from .test_verify import problems_of

HELD_BACK = "evidence/training/upsampler/held_back.jsonl"


def test_it_verifies_and_its_upsampler_enlarges_what_is_drawn(cascade_run: Path) -> None:
    release = cascade_run / "release"
    assert verify(release).checked["stage records"] == len(open_evidence(release).records)
    pipe = GlidePipeline.from_pretrained(release, device="cpu", verify="required")
    assert pipe.networks.schedule == NoiseSchedule("squaredcos_cap_v2", "sample")
    assert pipe.networks.upsampler_schedule == NoiseSchedule("linear", "sample")
    sizes = [pipe("a red circle", num_steps=2, seed=0, upsample=upsample).images[0].size for upsample in (False, True)]
    assert sizes == [(16, 16), (32, 32)]
    picture, = (facts["file"] for facts in json.loads((release / "evidence/golden/golden.json").read_text())["pictures"][:1])
    with Image.open(release / "evidence/golden" / picture) as golden:
        assert golden.size == (32, 32)


def test_what_its_training_left_is_copied_and_told(cascade_run: Path) -> None:
    release = cascade_run / "release"
    for path, origin in {HELD_BACK: "upsampler/held_back.jsonl", "evidence/training/base/held_back.jsonl": "base/held_back.jsonl",
                         "evidence/training/upsampler/metrics.jsonl": "upsampler/metrics.jsonl",
                         "upsampler_scheduler/scheduler_config.json": "upsampler/scheduler_config.json",
                         "figures/upsampler_samples.png": "upsampler/samples/images-00001920.png"}.items():
        assert (release / path).read_bytes() == (cascade_run / "training" / origin).read_bytes(), path
    claims = json.loads((release / "evidence/claims.json").read_text())
    assert [(row["name"], row["is_trained"], row["image_size"]) for row in claims["components"]] == [
        ("base", True, 16), ("noised_clip", True, 16), ("upsampler", True, 32)]
    assert (claims["training.upsampler.held_back_loss"], claims["training.noised_clip.held_back_loss"]) == (0.9, None)
    assert claims["training.upsampler.lowest_held_back_loss"] == 0.9
    card = (release / "README.md").read_text()
    assert "figures/upsampler_samples.png" in card and "The upsampler of this release enlarges them to 32 × 32" in card  # noqa: RUF001 (the card's sign)
    assert "| Loss on held-back images at the end (lowest on the way) | 0.900 (0.900) | not measured | 0.900 (0.900) |" in card


def test_its_export_for_diffusers_says_what_its_networks_predict(cascade_run: Path, tmp_path: Path) -> None:
    export_diffusers(cascade_run / "release", tmp_path / "export")
    assert check_export(tmp_path / "export", cascade_run / "release") == check_export(tmp_path / "export") == []
    for name, betas in (("scheduler", "squaredcos_cap_v2"), ("upsampler_scheduler", "linear")):
        stated = json.loads((tmp_path / "export" / name / "scheduler_config.json").read_text())
        assert (stated["beta_schedule"], stated["prediction_type"]) == (betas, "sample")
    assert (tmp_path / "export/upsampler/diffusion_pytorch_model.safetensors").read_bytes() == (
        cascade_run / "training/upsampler/ema.safetensors").read_bytes()


def rows(*pairs: tuple[int, float]) -> str:
    return "".join(json.dumps({"num_images": images, "loss": loss}) + "\n" for images, loss in pairs)


@pytest.mark.parametrize(("text", "told"), [
    (rows((640, 1.7), (1920, 0.4)), "training/upsampler: held_back_loss is recorded as 0.9, the evidence gives 0.4"),
    (rows((640, 1.7), (1280, 0.9)), "does not grow to that of the last step"), (rows((1920, 0.9), (1920, 0.9)), "does not grow to that of"),
    ('{"num_images": 1920}\n', "'loss' is missing"), (None, "training/upsampler: no loss on the held-back images is there; train again"),
    ('{"num_images": 1920, "loss": NaN}\n', "not readable")])
def test_another_loss_on_held_back_images_is_named(cascade_tamper: Any, text: str | None, told: str) -> None:
    path = cascade_tamper.directory / HELD_BACK
    path.unlink() if text is None else path.write_text(text)
    assert told in "\n".join(run_check("training summaries", check_summaries, open_evidence(cascade_tamper.directory)))


def test_a_release_without_its_held_back_loss_does_not_verify_though_its_manifest_fits(cascade_tamper: Any) -> None:
    (cascade_tamper.directory / HELD_BACK).unlink()
    cascade_tamper.seal()
    assert f"{HELD_BACK}: file is missing" in problems_of(cascade_tamper.directory)


def test_an_upsampler_without_held_back_pictures_to_evaluate_it_on_is_refused_with_the_recipe(cascade_recipe: Recipe) -> None:
    recipe = cascade_recipe.model_copy(update={"curate": cascade_recipe.curate.model_copy(update={"validation_share": 0.0})})
    with pytest.raises(ReleaseError, match=r"curate.validation_share is 0, so that no picture is held back to evaluate the upsampler on"):
        check_recipe(recipe, load_policy(recipe.policy))
    check_recipe(cascade_recipe, load_policy(cascade_recipe.policy))
    check_recipe(recipe.model_copy(update={"upsampler": None}), load_policy(recipe.policy))


def test_an_upsampler_from_elsewhere_beside_a_trained_one_is_refused_with_the_recipe(cascade_recipe: Recipe, tmp_path: Path) -> None:
    place = str(write_components(tmp_path / "components", ("upsampler",)))
    recipe = cascade_recipe.model_copy(update={"release": cascade_recipe.release.model_copy(update={"companions": place})})
    with pytest.raises(ReleaseError, match="holds upsampler, which this recipe trains itself"):
        check_recipe(recipe, load_policy(recipe.policy))
