"""Guidance by an ordinary CLIP, which never saw noise (the comparison of arXiv 2112.10741, section 2.4)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...clip.towers import ImageTextModel, embed_images, logit_scale
from .guidance import with_gradient
from .process import GaussianDiffusion, gather
from .samplers import Denoiser, Prediction

DATA_DEVIATION = 0.5  # of pixels in [-1, 1] around their mean; arXiv 2206.00364, table 1


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
        signal = gather(self.diffusion.tables.signal, timesteps, x)
        slope = signal.sqrt() * DATA_DEVIATION**2 / (signal * DATA_DEVIATION**2 + 1 - signal)
        return with_gradient(prediction, self.scale * slope * self.ascend(start))

    def ascend(self, images: Tensor) -> Tensor:
        """Gradient of the scaled cosines by images: (N, 3, H, W) in [-1, 1], of their shape."""
        with torch.inference_mode(False), torch.enable_grad():
            images = images.detach().clone().requires_grad_(True)
            cosines = (embed_images(self.clip, images) * self.text.clone()).sum()
            return logit_scale(self.clip) * torch.autograd.grad(cosines, images)[0]
