import pytest
from pydantic import ValidationError

from glideslope.recipe.components import (
    COMPONENTS,
    NETWORKS,
    SCHEDULERS,
    TOKENIZERS,
    TRAINED_NETWORKS,
    BaseTraining,
    NoisedClipTraining,
    TrainedNetworks,
    components_of,
    model_index,
    required_components,
)

BASE, CLIP = BaseTraining(num_images=4, learning_rate=1e-3), NoisedClipTraining(num_images=8, learning_rate=1e-3)


def test_every_name_is_given_once_and_every_row_names_components_that_there_are() -> None:
    assert len(COMPONENTS) == len(NETWORKS) + len(TOKENIZERS) + len(SCHEDULERS)
    for row in NETWORKS.values():
        assert set(row.tokenizers) <= TOKENIZERS.keys() and row.scheduler in SCHEDULERS, row.name
    for part in (*TOKENIZERS.values(), *SCHEDULERS.values()):
        assert part.trained_with in (None, *TRAINED_NETWORKS), part.name


def test_what_every_release_must_have_comes_with_the_required_networks() -> None:
    assert required_components(()) == ["base", "tokenizer", "scheduler"]
    assert required_components(["upsampler_inpaint"]) == ["base", "tokenizer", "scheduler", "upsampler_scheduler"]


def test_a_network_draws_with_its_own_tokenizer_where_a_release_has_one() -> None:
    assert components_of(["base", "noised_clip"], ()) == ["base", "noised_clip", "tokenizer", "scheduler"]
    assert components_of(["noised_clip"], COMPONENTS) == ["noised_clip", "clip_tokenizer", "scheduler"]
    assert components_of(["base", "upsampler"], COMPONENTS) == ["base", "upsampler", "tokenizer", "scheduler", "upsampler_scheduler"]


def test_the_index_names_the_class_of_each_component() -> None:
    assert model_index(["base", "scheduler"]) == {
        "_class_name": "GlidePipeline", "_format": "glideslope", "_format_version": 1, "base": ["glideslope", "TextConditionedUNet"],
        "scheduler": ["glideslope", "GaussianDiffusion"]}


def test_the_networks_to_train_come_in_the_order_of_training_and_an_unknown_one_is_refused() -> None:
    assert TrainedNetworks(noised_clip=CLIP, base=BASE).trainings == {"base": BASE, "noised_clip": CLIP}
    assert list(TrainedNetworks.model_fields) == list(TRAINED_NETWORKS)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        TrainedNetworks.model_validate({"base": BASE, "noised_clip": CLIP, "loop": BASE})
