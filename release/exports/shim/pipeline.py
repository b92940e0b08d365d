"""The pipeline of an export: glideslope's own, with the components that diffusers loads."""

from collections.abc import Callable, Sequence
from typing import Any

from diffusers import DiffusionPipeline, ImagePipelineOutput
from PIL import Image

from ....errors import CheckpointError, RequestError
from ....models.diffusion.process import NoiseSchedule
from ....models.diffusion.samplers import SampleState
from ....models.drawing.editing import UpsampleOptions
from ....models.drawing.options import DrawOptions
from ....models.drawing.pipeline import GlideOutput, GlidePipeline
from ....models.loading.loaded_networks import Networks
from ....recipe.components import NETWORKS, required_components


def noise_schedule(scheduler: Any) -> NoiseSchedule:
    """What one of diffusers' schedulers says of the networks that draw with it."""
    return NoiseSchedule(scheduler.config.beta_schedule, scheduler.config.prediction_type)


class GlideDiffusionPipeline(DiffusionPipeline):  # type: ignore[misc]  # diffusers is not looked into
    """GLIDE's base model with its tokenizer and, where they are loaded, noised CLIP, upsampler and inpainting variants.

    Attributes:
        draw_options, upsample_options: classes of the options that `draw`, `inpaint` and `vary`, and `upsample`, take.
        guiding_clip: an ordinary CLIP that guides in place of the noised one, see `ImageTextModel` of glideslope; none at first.
    """

    _optional_components = ["noised_clip", "clip_tokenizer", "upsampler", "base_inpaint", "upsampler_inpaint",  # noqa: RUF012 (a plain list)
                            "upsampler_scheduler"]
    draw_options = DrawOptions
    upsample_options = UpsampleOptions

    def __init__(self, base: Any, tokenizer: Any, scheduler: Any, noised_clip: Any, clip_tokenizer: Any,
                 upsampler: Any, base_inpaint: Any, upsampler_inpaint: Any, upsampler_scheduler: Any) -> None:
        """Put loaded components together; those that are optional may be none. Of a scheduler only the noise schedule is used.

        They have no defaults, as diffusers lets callers leave out only what it must ask for.

        Raises:
            CheckpointError: one is missing, or they do not belong together.
        """
        super().__init__()
        self.register_modules(base=base, tokenizer=tokenizer, scheduler=scheduler, noised_clip=noised_clip, clip_tokenizer=clip_tokenizer,
                              upsampler=upsampler, base_inpaint=base_inpaint, upsampler_inpaint=upsampler_inpaint,
                              upsampler_scheduler=upsampler_scheduler)
        self.guiding_clip: Any = None
        self.glide()

    def glide(self) -> GlidePipeline:
        """Glideslope's pipeline of the components as they are now: they may be exchanged between two calls.

        Raises:
            CheckpointError: one is missing, or they do not belong together.
        """
        for name in required_components(()):
            if getattr(self, name) is None:
                raise CheckpointError(f"{name}: is missing, and nothing is drawn without it; load it with the others")
        for name, row in NETWORKS.items():
            for needed in (row.tokenizers[0], row.scheduler):  # an export gives every network its own tokenizer, if it may have one
                if getattr(self, name) is not None and getattr(self, needed) is None:
                    raise CheckpointError(f"{name}: needs {needed}, which is missing; load both, or leave out {name}")
        schedules = {} if self.upsampler_scheduler is None else {"upsampler_schedule": noise_schedule(self.upsampler_scheduler)}
        return GlidePipeline(Networks(
            self.base, self.tokenizer, noise_schedule(self.scheduler), self.upsampler, self.base_inpaint, self.upsampler_inpaint,
            noised_clip=self.noised_clip, clip_tokenizer=self.clip_tokenizer, guiding_clip=self.guiding_clip, **schedules))

    def __call__(self, prompt: str | Sequence[str], *, num_images_per_prompt: int = 1,
                 guidance_scale: float = 3.0, clip_guidance_scale: float = 0.0, num_inference_steps: int = 50, sampler: str = "ddpm",
                 seed: int = 0, guidance_interval: tuple[float, float] | None = None, return_dict: bool = True) -> Any:
        """Draw, with diffusers' names for the options; `draw` takes them together.

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
        images = self.draw(prompt, DrawOptions(num_images_per_prompt, guidance_scale, clip_guidance_scale, num_inference_steps, sampler, seed,
                                               guidance_interval)).images
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def draw(self, prompt: str | Sequence[str], options: DrawOptions, *, preview: Callable[[SampleState], None] | None = None) -> GlideOutput:
        """Draw, as `GlidePipeline.draw`."""
        return self.glide().draw(prompt, options, preview=preview)

    def inpaint(self, prompt: str | Sequence[str], image: Image.Image, mask: Image.Image, *, options: DrawOptions | None = None,
                preview: Callable[[SampleState], None] | None = None) -> GlideOutput:
        """Draw a part of a picture anew, as `GlidePipeline.inpaint`: WHITE in the mask is drawn, black is kept."""
        return self.glide().inpaint(prompt, image, mask, options=options, preview=preview)

    def vary(self, image: Image.Image, prompt: str | Sequence[str], strength: float = 0.6, *, options: DrawOptions | None = None,
             preview: Callable[[SampleState], None] | None = None) -> GlideOutput:
        """Draw from a photograph or a line sketch, as `GlidePipeline.vary`."""
        return self.glide().vary(image, prompt, strength, options=options, preview=preview)

    def upsample(self, images: Image.Image | Sequence[Image.Image], prompt: str | Sequence[str], *, source: Image.Image | None = None,
                 mask: Image.Image | None = None, options: UpsampleOptions | None = None,
                 preview: Callable[[SampleState], None] | None = None) -> GlideOutput:
        """Enlarge pictures to the upsampler's size, as `GlidePipeline.upsample`."""
        return self.glide().upsample(images, prompt, source=source, mask=mask, options=options, preview=preview)

    def rank(self, images: Image.Image | Sequence[Image.Image], prompt: str, *, clip: Any = None,
             cut_long_prompts: bool = False) -> list[tuple[int, float]]:
        """Order images by how well they fit the prompt, as `GlidePipeline.rank`."""
        return self.glide().rank(images, prompt, clip=clip, cut_long_prompts=cut_long_prompts)

    def enable_model_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: offloading hooks into calls of whole networks, and this pipeline calls parts of them."""
        raise RequestError('offloading: this pipeline cannot be offloaded; move it whole, with .to("cuda"), or leave components out')

    def enable_sequential_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """Refuse, as `enable_model_cpu_offload`."""
        self.enable_model_cpu_offload()

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Refuse: diffusers would leave out the networks and only warn."""
        raise RequestError(f"save_pretrained: an export is not written to {save_directory!r:.80} again; copy its directory")
