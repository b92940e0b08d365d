import pytest
import torch
from pydantic import ValidationError

from glideslope.models.networks.presets import UNET_PRESETS
from glideslope.models.networks.unet import TextConditionedUNet, UNetConfig, condition_input, timestep_embedding

from ..closed_form import case, with_closed_form_weights

pytestmark = pytest.mark.processors

MICRO = UNET_PRESETS["glide-micro-16"]


@pytest.mark.parametrize("name", ["base", "base_deep", "upsampler", "inpaint", "upsampler_inpaint"])
def test_the_network_computes_what_the_published_one_computes(name: str) -> None:
    config, inputs, expected = case(name)
    model = with_closed_form_weights(TextConditionedUNet(UNetConfig(
        image_size=inputs["x"].shape[-1], super_res="upsampler" in name, inpaint="inpaint" in name, **config)))
    x = condition_input(inputs["x"], inpaint_image=inputs.get("inpaint_image"), inpaint_mask=inputs.get("inpaint_mask"),
                        low_res=inputs.get("low_res"))
    with torch.no_grad():
        output = model(x, inputs["timesteps"], inputs["tokens"], inputs["mask"])
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-4)


def test_a_fresh_network_predicts_zero_so_that_training_starts_from_the_mean() -> None:
    torch.manual_seed(0)
    model = TextConditionedUNet(MICRO).eval()
    tokens, mask = torch.zeros(2, 16, dtype=torch.int64), torch.ones(2, 16, dtype=torch.bool)
    output = model(torch.randn(2, 3, 16, 16), torch.tensor([0, 999]), tokens, mask)
    assert output.shape == (2, 6, 16, 16)
    assert not output.any()


def test_tokens_where_the_mask_is_false_do_not_count() -> None:
    model = with_closed_form_weights(TextConditionedUNet(MICRO))
    x, times, mask = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([500]), torch.arange(16)[None] < 5
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        first = model(x, times, tokens, mask)
        same = model(x, times, torch.where(mask, tokens, 77), mask)
        other = model(x, times, torch.where(mask, 77, tokens), mask)
    assert torch.equal(first, same)
    assert not torch.allclose(first, other)


def test_the_timestep_embedding_starts_with_cosines_and_takes_times_between_steps() -> None:
    embedding = timestep_embedding(torch.tensor([0.0, 2.5]), 8)
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding[0], torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]))
    torch.testing.assert_close(embedding[1, 0], torch.tensor(2.5).cos())
    torch.testing.assert_close(embedding[1, 4], torch.tensor(2.5).sin())


def test_the_condition_shows_only_known_pixels_and_enlarges_the_small_image() -> None:
    x, image = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    mask = (torch.arange(16).view(1, 1, 4, 4) < 8).float()
    both = condition_input(x, inpaint_image=image, inpaint_mask=mask, low_res=torch.full((1, 3, 2, 2), 0.5))
    assert both.shape == (1, 10, 4, 4)
    assert torch.equal(both[:, 3:6], mask.expand(1, 3, 4, 4))
    assert torch.equal(both[:, 6:7], mask)
    assert torch.equal(both[:, 7:], torch.full((1, 3, 4, 4), 0.5))


@pytest.mark.parametrize(("change", "told"), [
    ({"image_size": 18, "channel_mult": (1, 2, 4)}, "cannot be halved 2 times"), ({"xf_heads": 3}, "not a multiple of xf_heads"),
    ({"num_head_channels": 48}, "does not divide"), ({"model_channels": 33}, "model_channels"), ({"channel_mult": ()}, "channel_mult"),
    ({"n_vocab": 10**9}, "n_vocab"), ({"dropout": float("nan")}, "dropout"), ({"attention": True}, "attention")])
def test_an_impossible_architecture_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        UNetConfig(**{**MICRO.model_dump(), **change})


def test_attention_over_more_places_than_a_step_has_time_for_is_refused() -> None:
    config = UNET_PRESETS["glide-micro-16"].model_dump()
    assert UNetConfig(**(config | {"image_size": 256, "attention_downsample": (2,)})).image_size == 256
    for change in ({"image_size": 512, "attention_downsample": (2,)}, {"image_size": 1024, "attention_downsample": (1,)},
                   {"image_size": 1024, "channel_mult": (1,)}):
        with pytest.raises(ValidationError, match="at most 128 x 128 are compared"):
            UNetConfig(**(config | change))
