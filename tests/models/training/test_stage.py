from pathlib import Path

import pytest

from glideslope.errors import RecipeError
from glideslope.models.networks.components import CLASSES
from glideslope.models.networks.presets import UNET_PRESETS
from glideslope.models.training.stage import TrainingData, check_trainings, find_stage, train_network
from glideslope.recipe.components import (
    NETWORKS,
    TRAINED_NETWORKS,
    BaseTraining,
    NoisedClipTraining,
    TrainedNetworks,
    Training,
)


def trainings(base: str, noised_clip: str) -> dict[str, Training]:
    return TrainedNetworks(base=BaseTraining(num_images=4, learning_rate=1e-3, preset=base),
                           noised_clip=NoisedClipTraining(num_images=4, learning_rate=1e-3, preset=noised_clip)).trainings


def test_every_network_that_a_recipe_may_train_has_settings_a_training_and_a_class() -> None:
    assert list(TrainedNetworks.model_fields) == list(TRAINED_NETWORKS)
    assert all(callable(find_stage(name).train) for name in TRAINED_NETWORKS)
    assert {row.class_name for row in NETWORKS.values()} == CLASSES.keys()


def test_a_network_that_recipes_do_not_train_is_refused_and_not_taken_for_another(tmp_path: Path) -> None:
    config = BaseTraining(num_images=4, learning_rate=1e-3)
    for name in ("tokenizer", "loop", "unknown"):
        with pytest.raises(RecipeError, match=f"{name}: recipes do not train such a network; choose from base, noised_clip, upsampler"):
            train_network(name, config, TrainingData(tmp_path, "d", tmp_path, tmp_path), tmp_path / "stage", seed=0)


def test_two_networks_of_different_image_sizes_are_refused() -> None:
    check_trainings(trainings("glide-tiny-24", "noised-clip-tiny-24"))
    with pytest.raises(RecipeError, match=r"noised_clip\.preset: 'noised-clip-micro-16' reads 16x16 .* draws 24x24"):
        check_trainings(trainings("glide-tiny-24", "noised-clip-micro-16"))


@pytest.mark.parametrize("name", [name for name, preset in UNET_PRESETS.items() if preset.super_res or preset.inpaint])
def test_a_network_that_takes_another_picture_too_is_no_base(name: str) -> None:
    with pytest.raises(RecipeError, match=f"base.preset: '{name}' is no base model"):
        check_trainings(trainings(name, "noised-clip-small-64"))
