"""Guidance: turns a network and a prompt into a denoiser, and a noised CLIP and a prompt into a gradient."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .noised_clip import NoisedClip
from .samplers import Denoiser, Prediction


@dataclass(frozen=True)
class TextDenoiser:
    """A network with its captions, as a denoiser.

    Attributes:
        network: a GLIDE U-Net, or a function with its signature.
        tokens: int64 (N, text_ctx), one caption per image.
        mask: bool (N, text_ctx).
    """

    network: Callable[..., Tensor]
    tokens: Tensor
    mask: Tensor

    def __call__(self, x: Tensor, timesteps: Tensor) -> Prediction:
        """Predict with the captions."""
        noise, fraction = self.network(x, timesteps, self.tokens, self.mask).float().chunk(2, dim=1)
        return Prediction(noise, fraction)


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """Away from "no caption" and beyond the caption (arXiv 2207.12598; arXiv 2112.10741, section 2.3).

    Attributes:
        conditional: the denoiser with captions.
        empty_tokens: int64 (1, text_ctx), "no caption".
        empty_mask: bool (1, text_ctx).
        scale: 1 is the caption alone.
    """

    conditional: TextDenoiser
    empty_tokens: Tensor
    empty_mask: Tensor
    scale: float

    def __call__(self, x: Tensor, timesteps: Tensor) -> Prediction:
        """Run both halves in one batch; the variance is the caption's."""
        n = len(x)
        tokens = torch.cat([self.conditional.tokens, self.empty_tokens.expand(n, -1)])
        mask = torch.cat([self.conditional.mask, self.empty_mask.expand(n, -1)])
        both = TextDenoiser(self.conditional.network, tokens, mask)(torch.cat([x, x]), torch.cat([timesteps, timesteps]))
        with_caption, without = both.noise.chunk(2)
        fraction = None if both.variance_fraction is None else both.variance_fraction[:n]
        return Prediction(without + self.scale * (with_caption - without), fraction)


def text_denoiser(network: Callable[..., Tensor], tokens: Tensor, mask: Tensor, *, empty_tokens: Tensor, empty_mask: Tensor,
                  scale: float) -> Denoiser:
    """A denoiser with classifier-free guidance, or without where the scale is 1 (one pass instead of two)."""
    conditional = TextDenoiser(network, tokens, mask)
    return conditional if scale == 1 else ClassifierFreeGuidance(conditional, empty_tokens, empty_mask, scale)


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
