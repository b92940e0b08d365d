"""Guidance by an ordinary CLIP, which never saw noise (the comparison of arXiv 2112.10741, section 2.4)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import RequestError
from .guidance import with_gradient
from .process import GaussianDiffusion, gather
from .samplers import Denoiser, Prediction

DATA_DEVIATION = 0.5  # of pixels in [-1, 1] around their mean; arXiv 2206.00364, table 1


class ImageTextModel(Protocol):
    """What guidance needs of a CLIP. `glideslope.clip.model.Clip` has it; `OpenClip` makes it of any open_clip model."""

    @property
    def model(self) -> nn.Module:
        """Has open_clip's `encode_image`, `encode_text` and `logit_scale`."""
        ...

    @property
    def image_size(self) -> int:
        """Side of its images in pixels."""
        ...

    @property
    def pixel_mean(self) -> tuple[float, ...]:
        """Per channel, of pixels in [0, 1]."""
        ...

    @property
    def pixel_std(self) -> tuple[float, ...]:
        """Per channel, of pixels in [0, 1]."""
        ...

    @property
    def tokenize(self) -> Callable[[list[str]], Tensor] | None:
        """Captions to int64 (N, context); none where there is no text tower."""
        ...


@dataclass(frozen=True)
class OpenClip:
    """An open_clip model with its tokenizer: an `ImageTextModel`.

    Attributes:
        model: in evaluation mode.
        image_size: side of its images in pixels.
        pixel_mean, pixel_std: per channel, of pixels in [0, 1].
        tokenize: captions -> int64 (N, context).
    """

    model: nn.Module
    image_size: int
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    tokenize: Callable[[list[str]], Tensor]

    @classmethod
    def of(cls, model: nn.Module, tokenizer: Callable[[list[str]], Any]) -> "OpenClip":
        """Read size and pixel statistics from a model that `open_clip.create_model` made.

        Args:
            model: a CLIP or CustomTextCLIP of open_clip.
            tokenizer: what `open_clip.get_tokenizer` gives for it.

        Raises:
            RequestError: the model does not say how its pixels are normalised.
        """
        settings: Any = getattr(getattr(model, "visual", None), "preprocess_cfg", None)
        if settings is None:
            raise RequestError(f"clip: {type(model).__name__} does not say how its pixels are normalised (visual.preprocess_cfg); make it with "
                               "open_clip.create_model, or give OpenClip its statistics")
        size = settings["size"]
        return cls(model.eval(), size if isinstance(size, int) else size[0], tuple(settings["mean"]), tuple(settings["std"]),
                   lambda captions: torch.as_tensor(tokenizer(captions)))


@dataclass(frozen=True)
class ClipGuidance:
    """A denoiser guided by the agreement of its predicted image with the captions.

    The gradient of the scaled cosine is taken at the predicted image, clipped to [-1, 1], and carried to the noised image
    by the slope of the best prediction for Gaussian data of deviation 0.5, sqrt(a) s^2 / (a s^2 + 1 - a) with a the signal
    power: bounded at every noise level, unlike 1 / sqrt(a), and without a pass back through the network, which would cost
    more than the guidance itself and which a compiled network cannot give.

    Attributes:
        inner: the denoiser to guide.
        clip: the judge.
        text: (N, D) unit embeddings of the captions, by `embed_captions`.
        scale: factor on the gradient; the cosine is multiplied by the CLIP's own logit scale, as for a noised CLIP.
        diffusion: the complete process.
    """

    inner: Denoiser
    clip: ImageTextModel
    text: Tensor
    scale: float
    diffusion: GaussianDiffusion

    def __call__(self, x: Tensor, timesteps: Tensor) -> Prediction:
        """Predict, and add the gradient to what the inner denoiser brings."""
        prediction = self.inner(x, timesteps)
        start = self.diffusion.predict_start(x, prediction.noise, timesteps)
        signal = gather(self.diffusion.alphas_cumprod, timesteps, x)
        slope = signal.sqrt() * DATA_DEVIATION**2 / (signal * DATA_DEVIATION**2 + 1 - signal)
        return with_gradient(prediction, self.scale * slope * self.ascend(start))

    def ascend(self, images: Tensor) -> Tensor:
        """Gradient of the scaled cosines by images: (N, 3, H, W) in [-1, 1], of their shape."""
        with torch.inference_mode(False), torch.enable_grad():
            images = images.detach().clone().requires_grad_(True)
            cosines = (embed_images(self.clip, images) * self.text.clone()).sum()
            return logit_scale(self.clip) * torch.autograd.grad(cosines, images)[0]


def embed_images(clip: ImageTextModel, images: Tensor) -> Tensor:
    """Unit embeddings (N, D) of images: (N, 3, H, W) in [-1, 1], resized (bicubic, antialiased) and differentiable."""
    model: Any = clip.model
    weight = next(clip.model.parameters())
    pixels = (images.to(weight.device) + 1) / 2
    if pixels.shape[-2:] != (clip.image_size, clip.image_size):
        pixels = functional.interpolate(pixels, (clip.image_size, clip.image_size), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (clip.pixel_mean, clip.pixel_std))
    embedded = model.encode_image(((pixels - mean) / std).to(weight.dtype))
    return functional.normalize(embedded.float(), dim=-1).to(images.device)


@torch.no_grad()
def embed_captions(clip: ImageTextModel, captions: Sequence[str]) -> Tensor:
    """Unit embeddings (N, D) of captions.

    Raises:
        RequestError: the CLIP has no text tower.
    """
    if clip.tokenize is None:
        raise RequestError("clip: this CLIP reads no captions; give one with a trained text tower")
    model: Any = clip.model
    tokens = clip.tokenize(list(captions)).to(next(clip.model.parameters()).device)
    return functional.normalize(model.encode_text(tokens).float(), dim=-1)


def logit_scale(clip: ImageTextModel) -> float:
    """The CLIP's own factor on cosines; open_clip stores its logarithm."""
    model: Any = clip.model
    return math.exp(float(model.logit_scale.detach()))
