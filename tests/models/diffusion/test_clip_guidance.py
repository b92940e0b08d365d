"""Guidance by a tiny open_clip model with random weights, and by functions whose gradient is known."""

from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import set_model_preprocess_cfg
from torch import Tensor, nn

from glideslope.clip.model import Clip
from glideslope.clip.towers import embed_captions, embed_images, logit_scale
from glideslope.models.diffusion.clip_guidance import DATA_DEVIATION, ClipGuidance
from glideslope.models.diffusion.process import GaussianDiffusion, gather, space_timesteps
from glideslope.models.diffusion.samplers import SAMPLERS, Prediction, SeededNoise, run
from glideslope.models.drawing.pipeline import GlidePipeline

pytestmark = pytest.mark.processors

CAPTIONS = ["a red square", "a blue bar"]
DIFFUSION = GaussianDiffusion.create("squaredcos_cap_v2")


@pytest.fixture(scope="module")
def judge() -> Clip:
    """An open_clip model of 32x32 images with fresh weights, no download."""
    torch.manual_seed(0)
    model = open_clip.model.CLIP(
        embed_dim=16, vision_cfg=open_clip.model.CLIPVisionCfg(layers=2, width=32, head_width=16, patch_size=8, image_size=32),
        text_cfg=open_clip.model.CLIPTextCfg(context_length=77, vocab_size=49408, width=16, heads=2, layers=1))
    set_model_preprocess_cfg(model, {"size": 32, "mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD})
    return Clip.of(model, open_clip.get_tokenizer("ViT-B-32"))


def images(num_images: int = 2, side: int = 24) -> Tensor:
    return torch.rand(num_images, 3, side, side, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


def still(x: Tensor, timesteps: Tensor) -> Prediction:
    """A denoiser that predicts a grey image, whatever it sees."""
    alpha = gather(DIFFUSION.tables.signal, timesteps, x)
    return Prediction((x - alpha.sqrt() * 0.25) / (1 - alpha).sqrt(), None)


def gaussian(x: Tensor, timesteps: Tensor) -> Prediction:
    """The best denoiser for pixels drawn independently from N(0, DATA_DEVIATION^2)."""
    alpha = gather(DIFFUSION.tables.signal, timesteps, x)
    return Prediction((1 - alpha).sqrt() * x / (alpha * DATA_DEVIATION**2 + 1 - alpha), None)


def test_the_gradient_is_that_of_the_scaled_cosine_by_finite_differences(judge: Clip) -> None:
    double = replace(judge, model=nn.Module.double(judge.model))
    x, text = images().double(), embed_captions(double, CAPTIONS).double()
    gradient = ClipGuidance(still, double, text, 1.0, DIFFUSION).ascend(x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def scaled_cosine(step: float) -> float:
        return logit_scale(double) * float((embed_images(double, x + step * direction) * text).sum().detach())

    slope = (scaled_cosine(1e-3) - scaled_cosine(-1e-3)) / 2e-3
    assert abs(slope - float((gradient * direction).sum())) < 2e-3 * abs(slope) + 1e-4  # embeddings are float32
    judge.model.float()


class Brightness(nn.Module):
    """Embeds an image by the mean of its pixels, as a point on a circle; a caption is 45 degrees."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_image(self, pixels: Tensor) -> Tensor:
        angle = pixels.mean(dim=(1, 2, 3))
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return torch.ones(len(tokens), 2)


BRIGHTNESS = Clip("brightness", Brightness(), 4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0),
                  lambda captions: torch.zeros(len(captions), 1, dtype=torch.int64))


@pytest.mark.parametrize("timestep", [0, 300, 999])
def test_the_gradient_comes_through_the_best_prediction_for_gaussian_data(timestep: int) -> None:
    x = 0.3 * torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times, text = torch.tensor([timestep]), embed_captions(BRIGHTNESS, ["bright"])
    guidance = ClipGuidance(gaussian, BRIGHTNESS, text, 2.0, DIFFUSION)
    leaf = x.clone().requires_grad_(True)
    start = DIFFUSION.predict_start(leaf, gaussian(leaf, times).noise, times, clip=False)
    (2.0 * (embed_images(BRIGHTNESS, start) * text).sum()).backward()
    gradient = guidance(x, times).gradient
    assert gradient is not None and leaf.grad is not None
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_guided_images_agree_more_with_their_caption(sampler: str, judge: Clip) -> None:
    text, diffusion = embed_captions(judge, CAPTIONS), GaussianDiffusion.create("squaredcos_cap_v2", space_timesteps(15))

    def agreement(scale: float) -> float:
        noise = SeededNoise([0, 1])
        guided = ClipGuidance(gaussian, judge, text, scale, DIFFUSION)
        image = run(SAMPLERS[sampler](guided, noise.draw((3, 24, 24)), diffusion, noise))
        with torch.no_grad():
            return float((embed_images(judge, image.clamp(-1, 1)) * text).sum())

    assert agreement(20.0) > agreement(0.0) + 0.1


def test_gradients_of_several_guides_add_up() -> None:
    text = embed_captions(BRIGHTNESS, ["bright"])
    once = ClipGuidance(still, BRIGHTNESS, text, 1.0, DIFFUSION)
    twice = ClipGuidance(once, BRIGHTNESS, text, 1.0, DIFFUSION)
    x, times = images(1), torch.tensor([500])
    first, second = once(x, times).gradient, twice(x, times).gradient
    assert first is not None and second is not None
    torch.testing.assert_close(second, 2 * first)
    assert torch.equal(once(x, times).noise, still(x, times).noise)


def test_the_pipeline_is_guided_by_an_ordinary_clip_with_and_without_a_noised_one(whole_release: Any, judge: Clip) -> None:
    pipe = GlidePipeline.from_pretrained(whole_release, device="cpu", components=[])
    pipe.guiding_clip = judge

    def agreement(scale: float) -> float:
        drawn = pipe(CAPTIONS, num_steps=8, sampler="dpm++", guidance_scale=1.0, clip_guidance_scale=scale).images
        pixels = torch.stack([torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(16, 16, 3) for image in drawn])
        with torch.no_grad():
            return float((embed_images(judge, pixels.permute(0, 3, 1, 2) / 127.5 - 1) * embed_captions(judge, CAPTIONS)).sum())

    assert agreement(100.0) > agreement(0.0) + 0.05
