"""From prompts to images: what is drawn at once, the denoiser that prompts guide, and drawing from noise alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...clip.towers import embed_captions
from ...errors import RequestError
from ..diffusion.clip_guidance import ClipGuidance
from ..diffusion.guidance import ClipGradient, Finite, GradientGuidance, GuidanceInterval, TextDenoiser, guide_freely, image_process
from ..diffusion.process import GaussianDiffusion
from ..diffusion.sampler_timesteps import sampling_timesteps
from ..diffusion.samplers import SAMPLERS, Denoiser, Preview, SeededNoise, run
from ..loading.loaded_networks import Networks
from ..networks.noised_clip import NoisedClip
from ..networks.unet import PromptContext, TextConditionedUNet
from .options import DrawOptions, check_seeds


@dataclass(frozen=True)
class Batch:
    """What is drawn at once: a prompt and a seed for each image, the options, and who watches."""

    prompts: list[str]
    seeds: list[int]
    options: DrawOptions
    preview: Preview | None

    @classmethod
    def of(cls, prompts: list[str], options: DrawOptions, preview: Preview | None) -> "Batch":
        """One image per prompt, image i from options.seed + i.

        Raises:
            RequestError: there are not so many seeds.
        """
        check_seeds(options.seed, len(prompts))
        return cls(prompts, list(range(options.seed, options.seed + len(prompts))), options, preview)

    def rows(self, start: int, stop: int) -> "Batch":
        """A part of it."""
        return Batch(self.prompts[start:stop], self.seeds[start:stop], self.options, self.preview)


def draw(networks: Networks, batch: Batch) -> Tensor:
    """Draw from noise with the base: float32 (N, 3, S, S) in about [-1, 1]."""
    size, options, betas, noise = networks.base.config.image_size, batch.options, networks.schedule.betas, SeededNoise(batch.seeds)
    x = noise.draw((3, size, size)).to(networks.device)
    denoiser = guided_denoiser(networks, networks.base, batch)
    diffusion = GaussianDiffusion.create(betas, sampling_timesteps(options.sampler, betas, options.num_steps), device=networks.device)
    return run(SAMPLERS[options.sampler](denoiser, x, diffusion, noise), batch.preview)


def guided_denoiser(networks: Networks, unet: TextConditionedUNet, batch: Batch, *,
                    condition: Callable[[Tensor], Tensor] | None = None) -> Denoiser:
    """The denoiser that a batch's prompts guide, as its options say.

    Args:
        networks: tokenizers and CLIPs.
        unet: which of the U-Nets denoises.
        batch: prompts and scales of guidance.
        condition: appends to the noised images, (N, 3, H, W), what the network sees beside them; N may be a
            multiple of the batch, in repeats of the whole batch.
    """
    options, dtype = batch.options, unet.token_embedding.weight.dtype

    # The captions, and none, encoded once for all steps.
    context, empty = encode_prompts(networks, unet, batch.prompts), encode_prompts(networks, unet, [""])

    # The network with what it sees beside the noised images.
    def denoise(x: Tensor, timesteps: Tensor, context: PromptContext) -> Tensor:
        seen = (x if condition is None else condition(x)).to(dtype)
        return unet.denoise(seen.contiguous(memory_format=torch.channels_last), timesteps, context)

    # Guidance around it, the innermost first; what comes out is checked.
    captions = TextDenoiser(denoise, context, image_process(networks.schedule_of(unet), device=networks.device))
    guided = guide_freely(captions, empty, scale=options.guidance_scale)
    if options.clip_guidance_scale > 0:
        guided = guide_with_clip(networks, guided, batch.prompts, options.clip_guidance_scale)
    if options.guidance_interval is not None:
        guided = GuidanceInterval(guided, captions, options.guidance_interval)
    return Finite(guided, dtype)


def encode_prompts(networks: Networks, unet: TextConditionedUNet, prompts: list[str]) -> PromptContext:
    """What a U-Net needs of prompts."""
    tokens, mask = networks.tokenizer.encode_padded(prompts, unet.config.text_ctx)
    return unet.encode_text(tokens.to(networks.device), mask.to(networks.device))


def guide_with_clip(networks: Networks, denoiser: Denoiser, prompts: list[str], scale: float) -> Denoiser:
    """Guide a denoiser with the ordinary CLIP where there is one, else with the noised one.

    Raises:
        RequestError: there is neither.
    """
    if networks.guiding_clip is None:
        return GradientGuidance(denoiser, ClipGradient(get_noised_clip(networks), embed_prompts(networks, prompts), scale))
    text = embed_captions(networks.guiding_clip, prompts).to(networks.device)
    return ClipGuidance(denoiser, networks.guiding_clip, text, scale, GaussianDiffusion.create(networks.schedule.betas, device=networks.device))


def get_noised_clip(networks: Networks) -> NoisedClip:
    """The noised CLIP.

    Raises:
        RequestError: there is none.
    """
    if networks.noised_clip is None:
        raise RequestError("this release has no noised_clip; draw with clip_guidance_scale=0, and rank with another CLIP")
    return networks.noised_clip


def embed_prompts(networks: Networks, prompts: list[str]) -> Tensor:
    """Unit embeddings (N, n_embd) of prompts, by the noised CLIP.

    Raises:
        RequestError: there is none.
    """
    clip = get_noised_clip(networks)
    tokens, lengths = networks.noised_clip_tokenizer.encode_delimited(prompts, clip.config.max_text_len)
    return clip.encode_text(tokens.to(networks.device), lengths.to(networks.device))
