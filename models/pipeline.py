"""The pipeline a stranger loads and draws with."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from ..errors import CheckpointError, RequestError, VerificationError
from ..manifest import MANIFEST_NAME, Manifest
from .companions import Companions, check_together, choose_components, load_companions, load_unet
from .diffusion import GaussianDiffusion, space_timesteps
from .guidance import ClipGradient, text_denoiser
from .loading import INDEX_NAME, load_component, read_index, read_object, read_schedule
from .noised_clip import NoisedClip
from .options import DrawOptions, check_prompts
from .pixels import from_pil, to_pil
from .samplers import SAMPLERS, Denoiser, Gradient, SampleState, SeededNoise
from .tokenizer import CaptionTokenizer
from .unet import TextConditionedUNet

DRAW_BATCH = 16
TOKENIZER_NAME = "tokenizer.json"
Preview = Callable[[SampleState], None]


@dataclass(frozen=True)
class GlideOutput:
    """What a call of the pipeline returns: the images, and the seed of each."""

    images: list[Image.Image]
    seeds: list[int]


class GlidePipeline:
    """A GLIDE base model with its tokenizer and, where they are, noised CLIP, upsampler and inpainting variants.

    Attributes:
        base: the denoiser.
        tokenizer: captions to tokens.
        noised_clip: for CLIP guidance and ranking, or none.
        schedule: name of the noise schedule.
        clip_tokenizer: the noised CLIP's tokens, where they are others than the base's.
        companions: the networks beside the base.
    """

    def __init__(self, base: TextConditionedUNet, tokenizer: CaptionTokenizer, *, noised_clip: NoisedClip | None = None,
                 clip_tokenizer: CaptionTokenizer | None = None, schedule: str = "squaredcos_cap_v2",
                 companions: Companions | None = None) -> None:
        """Put loaded components together; `from_pretrained` loads them.

        Raises:
            CheckpointError: components that do not belong together.
        """
        self.companions = companions or Companions()
        check_together(base, self.companions, vocab_size=tokenizer.vocab_size)
        self.clip_tokenizer = clip_tokenizer or tokenizer
        if noised_clip is not None and self.clip_tokenizer.vocab_size > noised_clip.config.n_vocab:
            raise CheckpointError(f"noised_clip: knows {noised_clip.config.n_vocab} tokens, but the tokenizer has "
                                  f"{self.clip_tokenizer.vocab_size}")
        if noised_clip is not None and noised_clip.config.image_size != base.config.image_size:
            raise CheckpointError(f"noised_clip: reads images of side {noised_clip.config.image_size}, but base draws {base.config.image_size}")
        self.base, self.tokenizer, self.noised_clip, self.schedule = base, tokenizer, noised_clip, schedule

    @classmethod
    def from_pretrained(cls, directory: str | Path, *, dtype: torch.dtype | None = None, device: str | torch.device | None = None,
                        verify: Literal["auto", "required", "off"] = "auto", components: Collection[str] | None = None) -> "GlidePipeline":
        """Load a release directory: digests first, then shapes, then weights.

        Args:
            directory: the release.
            dtype: of the weights; none keeps what is stored.
            device: none takes a GPU where there is one.
            verify: `auto` checks every file against the manifest if there is one, `required` refuses a release
                without a manifest, `off` does not look.
            components: which of `noised_clip`, `upsampler`, `base_inpaint` and `upsampler_inpaint` to load beside the
                base; none loads what the release has, an empty list the base alone.

        Raises:
            RequestError: a component is asked for that the release does not hold.
            VerificationError: files do not match the manifest, or there is none where it is required.
            CheckpointError: not a release, or weights that do not fit the architecture.
        """
        root = Path(directory)
        if not root.is_dir():
            raise CheckpointError(f"{root}: no such directory; give the directory of a release (the one with {INDEX_NAME})")
        wanted = choose_components(root, components)
        verify_files(root, verify)
        held = read_index(root / INDEX_NAME)
        parts = held if wanted is None else held & wanted
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        base = load_unet(root / "base", dtype=dtype, device=place)
        clip = load_component(root / "noised_clip", dtype=dtype, device=place) if "noised_clip" in parts else None
        if not (clip is None or isinstance(clip, NoisedClip)):
            raise CheckpointError(f"{root / 'noised_clip'}: holds a {type(clip).__name__}, expected a NoisedClip")
        clip_tokenizer = CaptionTokenizer.load(root / "clip_tokenizer" / TOKENIZER_NAME) if clip and "clip_tokenizer" in held else None
        return cls(base, CaptionTokenizer.load(root / "tokenizer" / TOKENIZER_NAME), noised_clip=clip, clip_tokenizer=clip_tokenizer,
                   schedule=read_schedule(root / "scheduler" / "scheduler_config.json"),
                   companions=load_companions(root, parts, dtype=dtype, device=place))

    @classmethod
    def from_training(cls, training: Path, *, device: str | torch.device = "cpu") -> "GlidePipeline":
        """Load the averaged base model straight from its training directory, without noised CLIP.

        Raises:
            CheckpointError: the stage has not finished, or its weights do not fit.
        """
        base = load_component(training, device=device, weights_name="ema.safetensors")
        if not isinstance(base, TextConditionedUNet):
            raise CheckpointError(f"{training}: expected the training of a TextConditionedUNet")
        return cls(base, CaptionTokenizer.load(training / TOKENIZER_NAME))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.base.token_embedding.weight.device

    @torch.no_grad()
    def __call__(self, prompt: str | Sequence[str], *, num_images: int = 1, guidance_scale: float = 3.0,
                 clip_guidance_scale: float = 0.0, num_steps: int = 50, sampler: str = "ddpm", seed: int = 0,
                 preview: Preview | None = None) -> GlideOutput:
        """Draw.

        Args:
            prompt: one caption, or one for each image.
            num_images: images per prompt.
            guidance_scale: classifier-free guidance; 1 is none.
            clip_guidance_scale: guidance by the noised CLIP; 0 is none.
            num_steps: denoising steps, 1 to 1000.
            sampler: `ddpm` or `ddim`.
            seed: image i is drawn from seed + i, whatever the batch.
            preview: called with every state of every batch.

        Raises:
            RequestError: a prompt or an option that cannot be drawn from; nothing was started.
        """
        options = DrawOptions(num_images, guidance_scale, clip_guidance_scale, num_steps, sampler, seed)
        if clip_guidance_scale and self.noised_clip is None:
            raise RequestError("clip_guidance_scale: this release has no noised_clip; set it to 0")
        prompts = [text for text in check_prompts(prompt) for _ in range(num_images)]
        seeds = list(range(seed, seed + len(prompts)))
        images: list[Image.Image] = []
        for start in range(0, len(prompts), DRAW_BATCH):
            part = slice(start, start + DRAW_BATCH)
            images += self._draw(prompts[part], seeds[part], options, preview)
        return GlideOutput(images, seeds)

    def _draw(self, prompts: list[str], seeds: list[int], options: DrawOptions, preview: Preview | None) -> list[Image.Image]:
        config, noise = self.base.config, SeededNoise(seeds)
        x = noise.draw((3, config.image_size, config.image_size)).to(self.device)
        denoiser, gradient = self.guide(self.base, prompts, options)
        diffusion = GaussianDiffusion.create(self.schedule, space_timesteps(options.num_steps))
        for state in SAMPLERS[options.sampler](denoiser, x, diffusion, noise, gradient):
            if preview is not None:
                preview(state)
        return to_pil(state.x)

    def guide(self, unet: TextConditionedUNet, prompts: list[str], options: DrawOptions, *,
              condition: Callable[[Tensor], Tensor] | None = None) -> tuple[Denoiser, Gradient | None]:
        """The guided denoiser of prompts, one per image, and the gradient of CLIP guidance if asked for.

        Args:
            unet: the network: the base, or a companion.
            prompts: one for each image of the batch.
            options: scales of guidance.
            condition: appends to the noised images, (N, 3, H, W), what the network sees beside them; N may be a
                multiple of the batch, in repeats of the whole batch.
        """
        config = unet.config
        tokens, mask = (t.to(self.device) for t in self.tokenizer.encode_padded(prompts, config.text_ctx))
        empty_tokens, empty_mask = (t.to(self.device) for t in self.tokenizer.encode_padded([""], config.text_ctx))
        dtype = unet.token_embedding.weight.dtype

        def network(x: Tensor, *rest: Tensor) -> Tensor:
            return torch.as_tensor(unet((x if condition is None else condition(x)).to(dtype), *rest))

        denoiser = text_denoiser(network, tokens, mask, empty_tokens=empty_tokens, empty_mask=empty_mask, scale=options.guidance_scale)
        guided = options.clip_guidance_scale > 0
        return denoiser, ClipGradient(self._clip(), self._encode_text(prompts), options.clip_guidance_scale) if guided else None

    @torch.no_grad()
    def rank(self, images: Sequence[Image.Image], prompt: str) -> list[tuple[int, float]]:
        """Order images by how well the noised CLIP, told there is no noise, finds that they fit the prompt.

        Returns:
            (position in `images`, cosine) pairs, best first.

        Raises:
            RequestError: no image, an unusable prompt, or a release without a noised CLIP.
        """
        if not images:
            raise RequestError("rank: no images were given")
        clip = self._clip()
        x = from_pil(images, clip.config.image_size).to(self.device)
        cosines = clip.encode_image(x, torch.zeros(len(x), dtype=torch.int64, device=self.device))
        scores = (cosines @ self._encode_text(check_prompts(prompt))[0]).tolist()
        return sorted(enumerate(scores), key=lambda pair: -pair[1])

    def _clip(self) -> NoisedClip:
        if self.noised_clip is None:
            raise RequestError("this release has no noised_clip; draw with clip_guidance_scale=0, and rank with another CLIP")
        return self.noised_clip

    def _encode_text(self, prompts: Sequence[str]) -> Tensor:
        clip = self._clip()
        tokens, lengths = self.clip_tokenizer.encode_delimited(prompts, clip.config.max_text_len)
        return clip.encode_text(tokens.to(self.device), lengths.to(self.device))


def verify_files(root: Path, verify: str) -> None:
    """Compare a release with its manifest as `GlidePipeline.from_pretrained` is asked to."""
    if verify not in ("auto", "required", "off"):
        raise RequestError(f"verify is {verify!r}; expected 'auto', 'required' or 'off'")
    path = root / MANIFEST_NAME
    if verify == "off" or (verify == "auto" and not path.exists()):
        return
    if not path.exists():
        raise VerificationError(str(root), [f"{MANIFEST_NAME} is missing, and verification is required"])
    try:
        manifest = Manifest.from_json(read_object(path))
    except CheckpointError as error:
        raise VerificationError(str(root), [str(error)]) from error
    problems = manifest.differences(root)
    if problems:
        raise VerificationError(str(root), problems)
