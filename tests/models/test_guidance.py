import torch
from glideslope.models.guidance import ClassifierFreeGuidance, ClipGradient, TextDenoiser, text_denoiser
from glideslope.models.noised_clip import NoisedClip
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.models.unet import TextConditionedUNet
from torch import Tensor


def inputs(unet: TextConditionedUNet, tokenizer: CaptionTokenizer) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor, Tensor]:
    tokens, mask = tokenizer.encode_padded(["a red square", "a blue bar"], unet.config.text_ctx)
    empty_tokens, empty_mask = tokenizer.encode_padded([""], unet.config.text_ctx)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return tokens, mask, {"empty_tokens": empty_tokens, "empty_mask": empty_mask}, x, torch.tensor([700, 700])


@torch.no_grad()
def test_scale_one_is_the_caption_alone_in_one_pass(unet: TextConditionedUNet, tokenizer: CaptionTokenizer) -> None:
    tokens, mask, empty, x, times = inputs(unet, tokenizer)
    denoiser = text_denoiser(unet, tokens, mask, **empty, scale=1.0)
    assert isinstance(denoiser, TextDenoiser)
    long_way = ClassifierFreeGuidance(denoiser, **empty, scale=1.0)
    torch.testing.assert_close(denoiser(x, times).noise, long_way(x, times).noise, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_guidance_goes_from_no_caption_through_the_caption_and_beyond(unet: TextConditionedUNet, tokenizer: CaptionTokenizer) -> None:
    tokens, mask, empty, x, times = inputs(unet, tokenizer)
    with_caption = unet(x, times, tokens, mask)
    without = unet(x, times, empty["empty_tokens"].expand(2, -1), empty["empty_mask"].expand(2, -1))
    assert not torch.allclose(with_caption, without, atol=1e-3)
    for scale in (0.0, 3.0):
        guided = text_denoiser(unet, tokens, mask, **empty, scale=scale)(x, times)
        torch.testing.assert_close(guided.noise, without[:, :3] + scale * (with_caption - without)[:, :3], rtol=1e-4, atol=1e-5)
        assert guided.variance_fraction is not None
        torch.testing.assert_close(guided.variance_fraction, with_caption[:, 3:], rtol=1e-4, atol=1e-5)


def test_the_clip_gradient_points_where_agreement_grows(clip: NoisedClip, tokenizer: CaptionTokenizer) -> None:
    with torch.inference_mode():
        text = clip.encode_text(*tokenizer.encode_delimited(["a red square", "a blue bar"], clip.config.max_text_len))
        x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        times = torch.tensor([300, 300])
        gradient = ClipGradient(clip, text, 1.0)(x, times)
        agreement = [(clip.encode_image(x + step * gradient, times) * text).sum(-1) for step in (0, 1e-4)]
    assert gradient.shape == x.shape
    assert (agreement[1] > agreement[0]).all()
    doubled = ClipGradient(clip, text, 2.0)(x, times)
    torch.testing.assert_close(doubled, 2 * gradient)


def test_the_clip_gradient_of_one_image_does_not_depend_on_its_neighbour(clip: NoisedClip, tokenizer: CaptionTokenizer) -> None:
    text = clip.encode_text(*tokenizer.encode_delimited(["a red square", "a blue bar"], clip.config.max_text_len))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    both = ClipGradient(clip, text, 1.0)(x, torch.tensor([300, 300]))
    alone = ClipGradient(clip, text[1:], 1.0)(x[1:], torch.tensor([300]))
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-6)
