import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glideslope.errors import CheckpointError, GlideslopeError, RecipeError
from glideslope.models.drawing.options import DrawOptions
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.loading.loaded_networks import load_trained
from glideslope.models.networks.unet import TextConditionedUNet, condition_input
from glideslope.models.training.inpainting import erase_regions, widen
from glideslope.models.training.stage import TrainingData, check_trainings, train_network
from glideslope.recipe.components import (
    BaseTraining,
    InpaintTraining,
    NoisedClipTraining,
    TrainedNetworks,
    Training,
    UpsamplerInpaintTraining,
    UpsamplerTraining,
)
from glideslope.store.records import Record, read_record

QUICK = {"num_images": 8, "batch_size": 4, "learning_rate": 1e-3, "warmup_images": 4, "checkpoint_images": 4}
UPSAMPLER = QUICK | {"preset": "glide-upsampler-micro-32", "low_res_size": 16}
SETTINGS: dict[str, Training] = {
    "base": BaseTraining(preset="glide-micro-16", vocab_size=300, text_images=0, sample_images=100, **QUICK),
    "upsampler": UpsamplerTraining(**UPSAMPLER),
    "base_inpaint": InpaintTraining(preset="glide-micro-16", **QUICK),
    "upsampler_inpaint": UpsamplerInpaintTraining(**UPSAMPLER)}


@pytest.fixture(scope="module")
def trained(large_curated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Record]]:
    """A folder with all four U-Nets, and the records of their trainings."""
    directory = tmp_path_factory.mktemp("training")
    data = TrainingData(large_curated, "d", large_curated, directory)
    return directory, {name: train_network(name, config, data, directory / name, seed=1) for name, config in SETTINGS.items()}


def test_a_fine_tune_names_what_it_continues_and_shows_the_loss_before_and_after(trained: tuple[Path, dict[str, Record]]) -> None:
    directory, records = trained
    for name, continued in (("base_inpaint", "base"), ("upsampler_inpaint", "upsampler")):
        assert records[name].inputs[f"training/{continued}"] == read_record(directory / continued).digest
        rows = [json.loads(line) for line in (directory / name / "held_back.jsonl").read_text().splitlines()]
        assert [row["num_images"] for row in rows] == [0, 4, 8] and records[name].summary["held_back_loss"] == rows[-1]["loss"]
        assert json.loads((directory / name / "config.json").read_text())["inpaint"] is True


def test_a_network_that_was_widened_predicts_what_it_did_before_whatever_it_sees_more(trained: tuple[Path, dict[str, Record]]) -> None:
    networks = load_trained(trained[0], ("base", "upsampler"))
    tokens = networks.tokenizer.encode_padded(["a red square", ""], 16)
    generator = torch.Generator().manual_seed(0)
    for name in ("base", "upsampler"):
        before = getattr(networks, name)
        size = before.config.image_size
        x, image = (torch.randn(2, 3, size, size, generator=generator) for _ in range(2))
        low_res = torch.randn(2, 3, 16, 16, generator=generator) if before.config.super_res else None
        mask = (torch.rand(2, 1, size, size, generator=generator) < 0.5).float()
        with torch.no_grad():
            expected = before(condition_input(x, low_res=low_res), torch.tensor([10, 900]), *tokens)
            found = widen(trained[0] / name).eval()(condition_input(x, inpaint_image=image, inpaint_mask=mask, low_res=low_res),
                                                    torch.tensor([10, 900]), *tokens)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_masks_erase_regions_and_some_images_whole() -> None:
    torch.manual_seed(0)
    masks = erase_regions(400, 16, 0.25)
    assert masks.shape == (400, 1, 16, 16) and set(masks.unique().tolist()) == {0.0, 1.0}
    known = masks.mean(dim=(1, 2, 3))
    assert 0.18 < float((known == 0).float().mean()) < 0.35
    assert float(known.max()) < 0.97 and 0.3 < float(known[known > 0].mean()) < 0.8
    assert not erase_regions(20, 16, 1.0).any()


def test_editing_takes_the_trained_inpainting_networks_and_keeps_what_is_known(trained: tuple[Path, dict[str, Record]]) -> None:
    pipe = GlidePipeline.from_training(trained[0], tuple(SETTINGS))
    assert set(pipe.networks.companions) == {"upsampler", "base_inpaint", "upsampler_inpaint"}
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[4:12, 4:12] = 255
    output = pipe.inpaint("a red square", Image.fromarray(pixels), Image.fromarray(mask), options=DrawOptions(num_steps=2))
    edited = np.asarray(output.images[0])
    assert np.array_equal(edited[mask == 0], pixels[mask == 0]) and not np.array_equal(edited, pixels)


@pytest.mark.parametrize(("changes", "told"), [
    ({"base_inpaint": {"preset": "glide-tiny-24"}}, r"base_inpaint\.preset: is 'glide-tiny-24', but base\.preset is 'glide-micro-16'"),
    ({"base_inpaint": {"prediction_type": "epsilon"}}, r"base_inpaint\.prediction_type: is 'epsilon', but base\.prediction_type is 'sample'"),
    ({"upsampler_inpaint": {"low_res_size": 8}}, r"upsampler_inpaint\.low_res_size: is 8, but upsampler\.low_res_size is 16"),
    ({"upsampler": None}, "upsampler_inpaint: continues upsampler, which this recipe does not train; add upsampler, or leave")])
def test_a_fine_tune_that_does_not_fit_what_it_continues_is_refused_with_the_recipe(changes: dict[str, dict[str, object] | None],
                                                                                    told: str) -> None:
    clip = NoisedClipTraining(preset="noised-clip-micro-16", num_images=8, learning_rate=1e-3)
    settings = {name: config if name not in changes else changes[name] and config.model_copy(update=changes[name])
                for name, config in SETTINGS.items()}
    with pytest.raises(RecipeError, match=told):
        check_trainings(TrainedNetworks(noised_clip=clip, **settings).trainings)  # type: ignore[arg-type]  # by name


def test_what_was_not_trained_or_is_widened_already_cannot_be_continued(trained: tuple[Path, dict[str, Record]], tmp_path: Path) -> None:
    with pytest.raises(GlideslopeError, match=r"base"):
        widen(tmp_path / "base")
    (tmp_path / "base").symlink_to(trained[0] / "base_inpaint")
    with pytest.raises(CheckpointError, match="holds no network to continue; train base again"):
        widen(tmp_path / "base")
    assert isinstance(widen(trained[0] / "base"), TextConditionedUNet)
