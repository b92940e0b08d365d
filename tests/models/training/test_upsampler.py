import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glideslope.errors import CheckpointError, RecipeError, TrainingError
from glideslope.models.diffusion.process import NoiseSchedule
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.networks.presets import unet_preset
from glideslope.models.networks.unet import TextConditionedUNet, condition_input
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.models.training.data import open_split
from glideslope.models.training.stage import TrainingData, check_trainings, train_network
from glideslope.models.training.upsampler import degrade, refuse_small_images
from glideslope.recipe.components import BaseTraining, NoisedClipTraining, TrainedNetworks, UpsamplerTraining
from glideslope.store.records import Record

from ..conftest import curated_rows, write_curated

CONFIG = UpsamplerTraining(preset="glide-upsampler-micro-32", low_res_size=16, num_images=16, batch_size=4, learning_rate=1e-3, warmup_images=4,
                           checkpoint_images=8)
BASE = BaseTraining(preset="glide-micro-16", num_images=8, batch_size=4, learning_rate=1e-3, vocab_size=300, text_images=0)


def train(curated: Path, directory: Path, config: UpsamplerTraining = CONFIG) -> Record:
    train_network("base", BASE, TrainingData(curated, "d", curated, Path("none")), directory / "base", seed=1)
    data = TrainingData(curated, "d", curated, directory)
    return train_network("upsampler", config, data, directory / "upsampler", seed=1)


@pytest.fixture(scope="module")
def trained(large_curated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    directory = tmp_path_factory.mktemp("training")
    return directory, train(large_curated, directory)


def test_a_training_leaves_weights_schedule_losses_and_a_sheet_of_low_drawn_and_real_pictures(trained: tuple[Path, Record]) -> None:
    directory, record = trained
    assert [entry.path for entry in record.outputs.files] == [
        "config.json", "ema.safetensors", "held_back.jsonl", "metrics.jsonl", "model.safetensors", "samples/images-000000008.png",
        "samples/images-000000016.png", "scheduler_config.json"]
    assert record.inputs.keys() == {"curated", "tokenizer"}
    rows = [json.loads(line) for line in (directory / "upsampler/held_back.jsonl").read_text().splitlines()]
    assert [row["num_images"] for row in rows] == [8, 16] and record.summary["held_back_loss"] == rows[-1]["loss"] > 0
    assert Image.open(directory / "upsampler/samples/images-000000016.png").size == (8 * 36 + 4, 3 * 36 + 4)


def test_a_picture_is_enlarged_by_the_trained_upsampler_unless_it_is_not_wanted(trained: tuple[Path, Record]) -> None:
    pipe = GlidePipeline.from_training(trained[0], ("base", "upsampler"))
    assert (pipe.networks.schedule, pipe.networks.upsampler_schedule) == (
        NoiseSchedule("squaredcos_cap_v2", "sample"), NoiseSchedule("linear", "sample"))
    small, large = (pipe("a red square", num_steps=2, seed=4, upsample=upsample).images[0] for upsample in (False, True))
    assert (small.size, large.size) == ((16, 16), (32, 32))
    apart = pipe.upsample(small, "a red square", options=None).images[0]
    assert large.size == apart.size
    assert GlidePipeline.from_training(trained[0])("a red square", num_steps=2, seed=4).images[0].tobytes() == small.tobytes()


def test_a_picture_is_the_same_whether_it_is_enlarged_at_once_or_afterwards(trained: tuple[Path, Record]) -> None:
    pipe = GlidePipeline.from_training(trained[0], ("base", "upsampler"))
    at_once = pipe(["a red square", "a blue bar"], num_steps=2, seed=0).images
    afterwards = pipe.upsample(pipe(["a red square", "a blue bar"], num_steps=2, seed=0, upsample=False).images, ["a red square", "a blue bar"])
    assert [np.asarray(image).tolist() for image in at_once] == [np.asarray(image).tolist() for image in afterwards.images]


def test_a_fresh_upsampler_that_predicts_a_residual_gives_the_enlarged_picture(tokenizer: CaptionTokenizer) -> None:
    network = TextConditionedUNet(unet_preset("glide-upsampler-micro-32").model_copy(update={"n_vocab": tokenizer.vocab_size})).eval()
    low_res = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    seen = condition_input(x, low_res=low_res)
    with torch.no_grad():
        output = network(seen, torch.tensor([500, 5]), *tokenizer.encode_padded(["a red square", ""], network.config.text_ctx))
    assert torch.equal(output[:, :3], seen[:, 3:]) and not output[:, 3:].any()


def test_pictures_to_enlarge_are_made_small_with_a_noise_of_their_own_each() -> None:
    torch.manual_seed(0)
    x_start = torch.zeros(64, 3, 8, 8)
    assert not degrade(x_start, 4, 0.0).any() and degrade(x_start, 4, 0.0).shape == (64, 3, 4, 4)
    deviations = degrade(x_start, 4, 0.5).flatten(1).std(dim=1)
    assert deviations.min() < 0.1 and 0.3 < deviations.max() < 0.8


@pytest.mark.parametrize(("base", "changes", "told"), [
    ("glide-micro-16", {"preset": "glide-micro-16"}, r"upsampler\.preset: 'glide-micro-16' is no upsampler"),
    ("glide-micro-16", {"preset": "glide-upsampler-256-inpaint"}, r"upsampler\.preset: 'glide-upsampler-256-inpaint' is no upsampler"),
    ("glide-micro-16", {"preset": "x"}, r"upsampler\.preset: 'x' is unknown"),
    ("glide-micro-16", {"low_res_size": 24}, r"upsampler\.low_res_size: is 24, but base\.preset 'glide-micro-16' draws 16x16; set it to 16"),
    ("glide-base-64", {"low_res_size": 64}, r"upsampler\.preset: .* draws 32x32, which is not larger than the 64x64 of base\.preset")])
def test_an_upsampler_that_does_not_fit_the_base_is_refused_with_the_recipe(base: str, changes: dict[str, object], told: str) -> None:
    clip = NoisedClipTraining(preset={"glide-micro-16": "noised-clip-micro-16", "glide-base-64": "noised-clip-vit-b"}[base], num_images=8,
                              learning_rate=1e-3)
    networks = TrainedNetworks(base=BASE.model_copy(update={"preset": base}), noised_clip=clip, upsampler=CONFIG.model_copy(update=changes))
    with pytest.raises(RecipeError, match=told):
        check_trainings(networks.trainings)


def test_another_network_in_the_place_of_a_trained_one_is_refused(trained: tuple[Path, Record], tmp_path: Path) -> None:
    (tmp_path / "base").symlink_to(trained[0] / "base")
    (tmp_path / "upsampler").symlink_to(trained[0] / "base")
    with pytest.raises(CheckpointError, match="upsampler: super_res is False"):
        GlidePipeline.from_training(tmp_path, ("base", "upsampler"))


def test_images_smaller_than_what_is_drawn_are_refused_where_they_are_most_and_told_of_where_they_are_few(
        curated: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TrainingError, match=r"training/upsampler: 11 of 11 images looked at are smaller than 32 pixels, the size that "
                                            r"glide-upsampler-micro-32 draws; .* leave upsampler out of the recipe"):
        train(curated, tmp_path)
    mixed = [*curated_rows()[:3], *curated_rows(48)[3:]]
    write_curated(tmp_path / "mixed", "train", mixed)
    refuse_small_images(open_split(tmp_path / "mixed", "train", 32, tmp_path / "rows"), "glide-upsampler-micro-32")
    assert "3 of 12 images looked at are smaller than 32 pixels" in caplog.text
