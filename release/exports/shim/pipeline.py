"""The pipeline of an export: draws as glideslope does, picture for picture."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput

from ....errors import RequestError
from ....models.diffusion import GaussianDiffusion
from ....models.guidance import ClipGradient, GradientGuidance, GuidanceInterval, TextDenoiser, text_denoiser
from ....models.options import DrawOptions, check_lengths, check_prompts
from ....models.pixels import to_pil
from ....models.samplers import SAMPLERS, SeededNoise, run
from ....models.spacing import sampling_timesteps

DRAW_BATCH = 16  # as glideslope draws


class GlidePipeline(DiffusionPipeline):  # type: ignore[misc]  # diffusers is not looked into
    """GLIDE's base model with its tokenizer, and its noised CLIP where it is wanted for guidance."""

    _optional_components = ["noised_clip"]  # noqa: RUF012 (diffusers reads a plain list)
    model_cpu_offload_seq = "base"

    def __init__(self, base: Any, tokenizer: Any, scheduler: Any, noised_clip: Any) -> None:
        """Put loaded components together; of the scheduler only the noise schedule is used, and `noised_clip` may be none.

        It has no default, as diffusers lets callers leave out only what it must ask for.
        """
        super().__init__()
        self.register_modules(base=base, tokenizer=tokenizer, scheduler=scheduler, noised_clip=noised_clip)

    @torch.no_grad()
    def __call__(self, prompt: str | Sequence[str], *, num_images_per_prompt: int = 1, guidance_scale: float = 3.0,
                 clip_guidance_scale: float = 0.0, num_inference_steps: int = 50, sampler: str = "ddpm", seed: int = 0,
                 guidance_interval: tuple[float, float] | None = None, return_dict: bool = True) -> Any:
        """Draw.

        Args:
            prompt: one caption, or several.
            num_images_per_prompt: images of each.
            guidance_scale: classifier-free guidance; 1 is none.
            clip_guidance_scale: guidance by the noised CLIP; 0 is none.
            num_inference_steps: denoising steps, 1 to 1000.
            sampler: `ddpm`, `ddim`, `dpm++`, `dpm++sde` or `unipc`.
            seed: image i is drawn from seed + i, whatever the batch.
            guidance_interval: noise levels between which guidance acts, from 0 (the image) to 1 (the noise).
            return_dict: false returns a tuple.

        Returns:
            `images`: PIL images.

        Raises:
            RequestError: a prompt or an option that cannot be drawn from; nothing was started.
        """
        options = DrawOptions(num_images_per_prompt, guidance_scale, clip_guidance_scale, num_inference_steps, sampler, seed,
                              guidance_interval)
        prompts = [text for text in check_prompts(prompt) for _ in range(options.num_images)]
        if options.clip_guidance_scale > 0 and self.noised_clip is None:
            raise RequestError("clip_guidance_scale: the noised CLIP was not loaded; set it to 0, or load noised_clip")
        check_lengths(prompts, self.tokenizer, self.base.config.text_ctx)
        if options.clip_guidance_scale > 0:
            check_lengths(prompts, self.tokenizer, self.noised_clip.config.max_text_len - 2)
        images: list[Any] = []
        for start in range(0, len(prompts), DRAW_BATCH):
            images += self.draw_batch(prompts[start:start + DRAW_BATCH], options, seed + start)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def draw_batch(self, prompts: list[str], options: DrawOptions, first_seed: int) -> list[Any]:
        """Draw one picture of each prompt, picture i from `first_seed` + i."""
        schedule, size = self.scheduler.config.beta_schedule, self.base.config.image_size
        place = self.base.token_embedding.weight.device
        noise = SeededNoise([first_seed + i for i in range(len(prompts))])
        x = noise.draw((3, size, size)).to(place)
        diffusion = GaussianDiffusion.create(schedule, sampling_timesteps(options.sampler, schedule, options.num_steps))
        return to_pil(run(SAMPLERS[options.sampler](self.guide(prompts, options), x, diffusion, noise)))

    def guide(self, prompts: list[str], options: DrawOptions) -> Any:
        """The guided denoiser of prompts, one per image."""
        base, place = self.base, self.base.token_embedding.weight.device
        captions, empty = (base.encode_text(*(part.to(place) for part in self.tokenizer.encode_padded(texts, base.config.text_ctx)))
                           for texts in (prompts, [""]))

        def denoise(x: torch.Tensor, timesteps: torch.Tensor, context: Any) -> torch.Tensor:
            seen = x.to(base.token_embedding.weight.dtype)
            found: torch.Tensor = base.denoise(seen.contiguous(memory_format=torch.channels_last), timesteps, context)
            return found

        guided: Any = text_denoiser(denoise, captions, empty, scale=options.guidance_scale)
        if options.clip_guidance_scale > 0:
            clip = self.noised_clip
            tokens, lengths = self.tokenizer.encode_delimited(prompts, clip.config.max_text_len)
            guided = GradientGuidance(guided, ClipGradient(clip, clip.encode_text(tokens.to(place), lengths.to(place)),
                                                           options.clip_guidance_scale))
        if options.guidance_interval is None:
            return guided
        return GuidanceInterval(guided, TextDenoiser(denoise, captions), options.guidance_interval)
