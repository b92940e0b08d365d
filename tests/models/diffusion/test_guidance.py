import pytest
import torch
from torch import Tensor

from glideslope.models.diffusion.guidance import (
    ClassifierFreeGuidance,
    ClipGradient,
    GradientGuidance,
    GuidanceInterval,
    TextDenoiser,
    guide_freely,
    image_process,
)
from glideslope.models.diffusion.process import NoiseSchedule
from glideslope.models.diffusion.samplers import Denoiser, Prediction
from glideslope.models.networks.noised_clip import NoisedClip
from glideslope.models.networks.unet import PromptContext, TextConditionedUNet
from glideslope.models.tokenizer import CaptionTokenizer


def inputs(unet: TextConditionedUNet, tokenizer: CaptionTokenizer) -> tuple[PromptContext, PromptContext, Tensor, Tensor]:
    """Contexts of two captions and of none, noised images, and their times."""
    captions = unet.encode_text(*tokenizer.encode_padded(["a red square", "a blue bar"], unet.config.text_ctx))
    empty = unet.encode_text(*tokenizer.encode_padded([""], unet.config.text_ctx))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return captions, empty, x, torch.tensor([700, 700])


@torch.no_grad()
def test_scale_one_is_the_caption_alone_in_one_pass(unet: TextConditionedUNet, tokenizer: CaptionTokenizer) -> None:
    captions, empty, x, times = inputs(unet, tokenizer)
    denoiser = guide_freely(TextDenoiser(unet.denoise, captions), empty, scale=1.0)
    assert isinstance(denoiser, TextDenoiser)
    long_way = guide_freely(TextDenoiser(unet.denoise, captions), empty, scale=1.0 + 1e-12)
    assert isinstance(long_way, ClassifierFreeGuidance)
    torch.testing.assert_close(denoiser(x, times).noise, long_way(x, times).noise, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_guidance_goes_from_no_caption_through_the_caption_and_beyond(unet: TextConditionedUNet, tokenizer: CaptionTokenizer) -> None:
    captions, empty, x, times = inputs(unet, tokenizer)
    with_caption = unet(x, times, *tokenizer.encode_padded(["a red square", "a blue bar"], unet.config.text_ctx))
    without = unet(x, times, *tokenizer.encode_padded(["", ""], unet.config.text_ctx))
    assert not torch.allclose(with_caption, without, atol=1e-3)
    for scale in (0.0, 3.0):
        guided = guide_freely(TextDenoiser(unet.denoise, captions), empty, scale=scale)(x, times)
        torch.testing.assert_close(guided.noise, without[:, :3] + scale * (with_caption - without)[:, :3], rtol=1e-4, atol=1e-5)
        assert guided.variance_fraction is not None
        torch.testing.assert_close(guided.variance_fraction, with_caption[:, 3:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_predicted_image_stands_for_the_noise_that_it_leaves(unet: TextConditionedUNet, tokenizer: CaptionTokenizer) -> None:
    captions, empty, x, times = inputs(unet, tokenizer)
    schedule = NoiseSchedule("squaredcos_cap_v2", "sample")
    process = image_process(schedule, device=torch.device("cpu"))
    assert process is not None and image_process(NoiseSchedule("linear"), device=torch.device("cpu")) is None
    predicted = unet.denoise(x, times, captions)[:, :3]
    without = unet.denoise(x, times, PromptContext.concatenate([empty, empty]))[:, :3]
    for scale in (1.0, 3.0):
        noise = guide_freely(TextDenoiser(unet.denoise, captions, process), empty, scale=scale)(x, times).noise
        guided = without + scale * (predicted - without)
        torch.testing.assert_close(process.predict_start(x, noise, times, clip=False), guided, rtol=1e-3, atol=1e-4)


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


def told(name: str, asked: list[str]) -> Denoiser:
    """A denoiser that says when it is asked."""

    def denoiser(x: Tensor, timesteps: Tensor) -> Prediction:
        asked.append(name)
        return Prediction(torch.zeros_like(x), None)

    return denoiser


def test_a_gradient_leaves_the_prediction_as_it_is_and_stands_beside_it(clip: NoisedClip) -> None:
    guided = GradientGuidance(GradientGuidance(told("inner", []), lambda x, t: 2 * x), lambda x, t: x + t.view(-1, 1, 1, 1))
    prediction = guided(torch.ones(2, 3, 4, 4), torch.tensor([10, 10]))
    assert prediction.gradient is not None
    assert prediction.gradient.eq(2 + 11).all()
    assert prediction.noise.eq(0).all()


@pytest.mark.parametrize(("interval", "guided"), [((0.2, 0.8), [200, 201, 500, 800]), ((0.0, 1.0), [0, 199, 200, 201, 500, 800, 801, 999]),
                                                  ((0.0, 0.2), [0, 199, 200]), ((0.8005, 1.0), [801, 999])])
def test_guidance_acts_inside_its_interval_and_only_the_plain_denoiser_runs_outside(interval: tuple[float, float], guided: list[int]) -> None:
    for timestep in (0, 199, 200, 201, 500, 800, 801, 999):
        asked: list[str] = []
        GuidanceInterval(told("guided", asked), told("plain", asked), interval)(torch.zeros(2, 3, 4, 4), torch.tensor([timestep] * 2))
        assert asked == ["guided" if timestep in guided else "plain"], timestep


def test_an_interval_takes_one_timestep_for_the_whole_batch() -> None:
    interval = GuidanceInterval(told("guided", []), told("plain", []), (0.2, 0.8))
    with pytest.raises(ValueError, match="timesteps run from 100 to 300; a guidance interval takes one for the whole batch"):
        interval(torch.zeros(2, 3, 4, 4), torch.tensor([300, 100]))
