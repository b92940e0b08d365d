import pytest
import torch
from pydantic import ValidationError

from glideslope.models.networks.noised_clip import NoisedClip, NoisedClipConfig
from glideslope.models.networks.presets import NOISED_CLIP_PRESETS

from ..closed_form import case, with_closed_form_weights

pytestmark = pytest.mark.processors

MICRO = NOISED_CLIP_PRESETS["noised-clip-micro-16"]


@pytest.fixture(scope="module")
def published_clip() -> NoisedClip:
    model = NoisedClip(NoisedClipConfig(**{**case("noised_clip_image")[0], **case("noised_clip_text")[0]}))
    with_closed_form_weights(model.image_encoder)
    with_closed_form_weights(model.text_encoder)
    return model


@torch.no_grad()
def test_the_image_encoder_computes_what_the_published_one_computes(published_clip: NoisedClip) -> None:
    _, inputs, expected = case("noised_clip_image")
    output = published_clip.image_encoder(inputs["image_0_255"], inputs["timesteps"])
    torch.testing.assert_close(output, expected, rtol=0, atol=5e-6)


@torch.no_grad()
def test_the_text_encoder_computes_what_the_published_one_computes(published_clip: NoisedClip) -> None:
    _, inputs, expected = case("noised_clip_text")
    output = published_clip.text_encoder(inputs["tokens"], inputs["lengths"])
    torch.testing.assert_close(output, expected, rtol=0, atol=5e-6)


@torch.no_grad()
def test_what_follows_the_end_token_does_not_count() -> None:
    model = with_closed_form_weights(NoisedClip(MICRO))
    tokens, lengths = torch.arange(18)[None], torch.tensor([6])
    changed = torch.where(torch.arange(18) < 6, tokens, 99)
    assert torch.equal(model.encode_text(tokens, lengths), model.encode_text(changed, lengths))


@torch.no_grad()
def test_logits_are_scaled_cosines_and_depend_on_the_noise_level() -> None:
    model = with_closed_form_weights(NoisedClip(MICRO))
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens, lengths = torch.arange(36).view(2, 18), torch.tensor([18, 4])
    logits = model(x, torch.tensor([0, 0, 0]), tokens, lengths)
    assert logits.shape == (3, 2)
    assert logits.abs().max() <= MICRO.logit_scale * (1 + 1e-5)
    torch.testing.assert_close(model.encode_image(x, torch.tensor([0, 1, 2])).norm(dim=-1), torch.ones(3))
    assert not torch.allclose(logits, model(x, torch.tensor([900, 900, 900]), tokens, lengths))


@torch.no_grad()
def test_half_precision_weights_take_float32_images() -> None:
    model = with_closed_form_weights(NoisedClip(MICRO)).to(torch.bfloat16)
    x = torch.zeros(1, 3, 16, 16)
    embedding = model.encode_image(x, torch.tensor([5]))
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding, with_closed_form_weights(NoisedClip(MICRO)).encode_image(x, torch.tensor([5])), rtol=0, atol=0.05)


def test_an_image_that_cannot_be_cut_into_patches_is_refused() -> None:
    with pytest.raises(ValidationError, match="image_size 16 is not a multiple of patch_size 5"):
        NoisedClipConfig(**{**MICRO.model_dump(), "patch_size": 5})


def test_gradients_are_the_same_bits_every_time_with_several_threads() -> None:
    model = with_closed_form_weights(NoisedClip(MICRO))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 40, (64, MICRO.max_text_len), generator=generator)  # few tokens, so that each row is added to often
    timesteps = torch.randint(0, 20, (64,), generator=generator)
    pixels = torch.rand(64, 3, MICRO.image_size, MICRO.image_size, generator=generator) * 255
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = set()
        for _ in range(8):
            model.zero_grad()
            text, image = (encoder.blocks["input"] for encoder in (model.text_encoder, model.image_encoder))
            ((text(tokens) ** 2).sum() + (image(pixels, timesteps) ** 3).sum()).backward()
            found.add(tuple(part.grad.numpy().tobytes() for part in (text.w_voc, image.w_t)))
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


def test_more_patches_than_a_step_has_time_for_are_refused() -> None:
    config = NOISED_CLIP_PRESETS["noised-clip-micro-16"].model_dump()
    assert NoisedClipConfig(**(config | {"image_size": 512})).image_size == 512
    with pytest.raises(ValidationError, match="256 x 256 patches, at most 128 x 128"):
        NoisedClipConfig(**(config | {"image_size": 1024}))
