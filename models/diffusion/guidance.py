"""Guidance: denoisers around denoisers. A network with its captions is the innermost; each kind of guidance maps one to another.

    TextDenoiser -> ClassifierFreeGuidance -> GradientGuidance (noised CLIP) or ClipGuidance (any CLIP) -> GuidanceInterval

`ClipGuidance` lives in `clip_guidance`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import RequestError
from ..networks.noised_clip import NoisedClip
from ..networks.unet import PromptContext
from .process import NUM_TRAIN_TIMESTEPS, GaussianDiffusion, NoiseSchedule
from .samplers import Denoiser, Prediction

Gradient = Callable[[Tensor, Tensor], Tensor]
Denoise = Callable[[Tensor, Tensor, PromptContext], Tensor]


@dataclass(frozen=True)
class TextDenoiser:
    """A network with its captions, as a denoiser.

    Attributes:
        denoise: `TextConditionedUNet.denoise`, or a function with its signature.
        context: of the captions, one per image, computed once for all steps.
        image_process: the complete process, where the network predicts the image; None: it predicts the noise.
    """

    denoise: Denoise
    context: PromptContext
    image_process: GaussianDiffusion | None = None

    def __call__(self, x: Tensor, timesteps: Tensor) -> Prediction:
        """Predict with the captions; a predicted image stands for the noise that it leaves of x."""
        predicted, fraction = self.denoise(x, timesteps, self.context).float().chunk(2, dim=1)
        noise = predicted if self.image_process is None else self.image_process.predict_noise(x.float(), predicted, timesteps)
        return Prediction(noise, fraction)


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """Away from "no caption" and beyond the caption (arXiv 2207.12598; arXiv 2112.10741, section 2.3).

    Attributes:
        both: asked about every image twice: with its caption, then without.
        scale: 1 is the caption alone.
    """

    both: TextDenoiser
    scale: float

    def __call__(self, x: Tensor, timesteps: Tensor) -> Prediction:
        """Run both halves in one batch; the variance is the caption's."""
        prediction = self.both(torch.cat([x, x]), torch.cat([timesteps, timesteps]))
        with_caption, without = prediction.noise.chunk(2)
        fraction = None if prediction.variance_fraction is None else prediction.variance_fraction[:len(x)]
        return Prediction(without + self.scale * (with_caption - without), fraction)


def guide_freely(captions: TextDenoiser, empty: PromptContext, *, scale: float) -> Denoiser:
    """Classifier-free guidance around a network with its captions; none where the scale is 1 (one pass instead of two).

    Args:
        captions: the network with N captions.
        empty: of one empty caption.
        scale: of the guidance.
    """
    if scale == 1:
        return captions
    both = PromptContext.concatenate([captions.context, *[empty] * len(captions.context.projected)])
    return ClassifierFreeGuidance(replace(captions, context=both), scale)


def image_process(schedule: NoiseSchedule, *, device: torch.device) -> GaussianDiffusion | None:
    """The complete process of a schedule whose networks predict the image, else None; see `TextDenoiser`."""
    return GaussianDiffusion.create(schedule.betas, device=device) if schedule.prediction_type == "sample" else None


@dataclass(frozen=True)
class GradientGuidance:
    """A denoiser whose score is bent by the gradient of a log-likelihood (arXiv 2105.05233).

    Attributes:
        inner: the denoiser to guide.
        gradient: of x: (N, 3, H, W) at timesteps: (N,), shaped like x.
    """

    inner: Denoiser
    gradient: Gradient

    def __call__(self, x: Tensor, timesteps: Tensor) -> Prediction:
        """Predict, and add the gradient to what the inner denoiser brings."""
        return with_gradient(self.inner(x, timesteps), self.gradient(x, timesteps))


@dataclass(frozen=True)
class ClipGradient:
    """The gradient of the scaled cosine between noised image and caption (arXiv 2112.10741, section 2.4).

    Attributes:
        clip: the noised CLIP.
        text: (N, n_embd) unit embeddings of the captions.
        scale: factor on the gradient.
    """

    clip: NoisedClip
    text: Tensor
    scale: float

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Gradient by x: (N, 3, H, W)."""
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_(True)
            agreement = self.clip.config.logit_scale * (self.clip.encode_image(x, timesteps) * self.text.clone()).sum()
            return self.scale * torch.autograd.grad(agreement, x)[0]


@dataclass(frozen=True)
class GuidanceInterval:
    """Guidance between two noise levels only (arXiv 2404.07724); elsewhere the caption alone, which costs half.

    Attributes:
        guided: asked inside.
        plain: asked outside.
        interval: least and greatest noise level, both inside, as fractions of the training's timesteps: 0 is the image,
            1 the noise, and timestep t lies at t / num_timesteps.
        num_timesteps: of the training.
    """

    guided: Denoiser
    plain: Denoiser
    interval: tuple[float, float]
    num_timesteps: int = NUM_TRAIN_TIMESTEPS

    def __call__(self, x: Tensor, timesteps: Tensor) -> Prediction:
        """Predict; all images of a batch are at one timestep, as samplers ask."""
        first, last = int(timesteps.min()), int(timesteps.max())
        if first != last:
            raise ValueError(f"timesteps run from {first} to {last}; a guidance interval takes one for the whole batch")
        low, high = self.interval
        return (self.guided if low <= first / self.num_timesteps <= high else self.plain)(x, timesteps)


@dataclass(frozen=True)
class Finite:
    """A denoiser that refuses to go on where a prediction is not finite: the picture would be black or noise.

    Attributes:
        inner: the denoiser.
        dtype: of the network's weights, for the message.
    """

    inner: Denoiser
    dtype: torch.dtype

    def __call__(self, x: Tensor, timesteps: Tensor) -> Prediction:
        """Predict.

        Raises:
            RequestError: a value is infinite or no number.
        """
        prediction = self.inner(x, timesteps)
        for name, values in (("noise", prediction.noise), ("variance", prediction.variance_fraction), ("gradient", prediction.gradient)):
            if values is not None:
                refuse_not_finite(f"the predicted {name}", values, self.dtype)
        return prediction


def refuse_not_finite(name: str, values: Tensor, dtype: torch.dtype) -> None:
    """Refuse what a network in a type of weights has computed where it is infinite or no number.

    Raises:
        RequestError: it is; half precision ends at 65504, and float32 is the way out.
    """
    if bool(torch.isfinite(values).all()):
        return
    kind = str(dtype).removeprefix("torch.")
    way_out = "take lower guidance scales, or other weights" if dtype == torch.float32 else (
        "draw in float32 (--dtype float32; in Python dtype='float32')")
    raise RequestError(f"{name} is infinite or no number with weights in {kind}; nothing can be drawn from it: {way_out}")


def with_gradient(prediction: Prediction, gradient: Tensor) -> Prediction:
    """A prediction guided by one gradient more, shaped like its noise."""
    return replace(prediction, gradient=gradient if prediction.gradient is None else prediction.gradient + gradient)
