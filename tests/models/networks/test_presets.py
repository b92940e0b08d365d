import pytest

from glideslope.errors import RecipeError
from glideslope.models.networks.components import expected_tensors
from glideslope.models.networks.presets import NOISED_CLIP_PRESETS, UNET_PRESETS, noised_clip_preset, unet_preset
from glideslope.recipe.components import NETWORKS, PUBLISHED, UNET

from ..closed_form import read_fixture


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, shape in read_fixture("released_layouts.json")[name]["shapes"].items()}


@pytest.mark.parametrize(("preset", "published", "num_parameters"), [
    ("glide-base-64", "base", 385_030_726), ("glide-base-64-inpaint", "base_inpaint", 385_037_638),
    ("glide-upsampler-256", "upsample", 398_361_286), ("glide-upsampler-256-inpaint", "upsample_inpaint", 398_368_198)])
def test_a_glide_preset_has_the_names_shapes_and_order_of_the_published_checkpoint(
        preset: str, published: str, num_parameters: int) -> None:
    found = expected_tensors("TextConditionedUNet", unet_preset(preset))
    assert list(found.items()) == list(published_shapes(published).items())
    assert sum(_numel(shape) for shape in found.values()) == num_parameters
    assert read_fixture("released_layouts.json")[published]["num_parameters"] == num_parameters


@pytest.mark.parametrize(("side", "published"), [("image_encoder", "clip_image_enc"), ("text_encoder", "clip_text_enc")])
def test_the_noised_clip_preset_has_the_names_shapes_and_order_of_the_published_encoders(side: str, published: str) -> None:
    found = expected_tensors("NoisedClip", noised_clip_preset("noised-clip-vit-b"))
    ours = [(name.removeprefix(f"{side}."), shape) for name, shape in found.items() if name.startswith(f"{side}.")]
    assert ours == list(published_shapes(published).items())
    assert sum(_numel(shape) for _, shape in ours) == {"image_encoder": 86_443_776, "text_encoder": 71_679_488}[side]


@pytest.mark.parametrize("name", [*UNET_PRESETS, *NOISED_CLIP_PRESETS])
def test_every_preset_is_an_architecture_that_the_loader_accepts(name: str) -> None:
    config = UNET_PRESETS.get(name) or NOISED_CLIP_PRESETS[name]
    assert type(config).model_validate(config.model_dump(mode="json")) == config


def test_every_component_of_the_published_release_has_a_preset_that_takes_what_its_place_gives() -> None:
    rows = [row for row in NETWORKS.values() if row.class_name == UNET]
    assert [row.name for row in rows] == [name for name in NETWORKS if name != "noised_clip"]
    for row in rows:
        config = unet_preset(PUBLISHED[row.name].preset)
        assert (config.super_res, config.inpaint, config.n_vocab, config.text_ctx) == (row.super_res, row.inpaint, 50_257, 128)
    assert noised_clip_preset(PUBLISHED["noised_clip"].preset).n_timesteps == 1000


def test_an_unknown_preset_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(RecipeError, match=r"base\.preset: 'glide-huge' is unknown; choose one of glide-base-64, "):
        unet_preset("glide-huge")
    with pytest.raises(RecipeError, match=r"noised_clip\.preset: 'x' is unknown"):
        noised_clip_preset("x")


def _numel(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
