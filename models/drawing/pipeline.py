"""The pipeline a stranger loads and draws with."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ...device.dtype_device import choose_device, choose_dtype
from ...device.processor import warn_of_slow_type
from ...device.torch_state import PlainTorch
from ...errors import CheckpointError, RequestError
from ...recipe.components import CONFIG_NAME, NETWORKS
from ...text.vocabulary_files import MAX_TOKENIZER_BYTES
from ...trust.hub import HubOptions
from ...trust.signers import Keys
from ..diffusion.clip_guidance import ClipGuidance, ImageTextModel, embed_captions
from ..diffusion.guidance import ClipGradient, Finite, GradientGuidance, GuidanceInterval, TextDenoiser, refuse_not_finite, text_denoiser
from ..diffusion.process import GaussianDiffusion
from ..diffusion.sampler_timesteps import sampling_timesteps
from ..diffusion.samplers import SAMPLERS, Denoiser, SeededNoise
from ..loading.companions import Companions, check_together, choose_components, load_companions, load_unet
from ..loading.components import load_component, read_bytes, read_component_config, read_schedule
from ..loading.loaded_networks import Architecture
from ..loading.opening import OpenRelease, Trust, find_release
from ..networks.noised_clip import NoisedClip
from ..networks.unet import PromptContext, TextConditionedUNet
from ..tokenizer import CaptionTokenizer
from .editing import Batch, Known, Preview, UpsampleOptions, check_strength, choose_upsampler, inpaint, to_tensor, upsample, vary, walk
from .masks import MaskLike, fit_mask, fit_picture, read_mask, read_picture
from .options import DrawOptions, check_kind, check_lengths, check_prompts
from .pixels import to_pil
from .ranking import ImageTextScorer

DRAW_BATCH = 16
UPSAMPLE_BATCH = 4
TOKENIZER_NAME = "tokenizer.json"


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
        guiding_clip: an ordinary CLIP that guides in place of the noised one, such as `OpenClip.of(...)`; none at first.
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
        self.guiding_clip: ImageTextModel | None = None

    @classmethod
    def from_pretrained(cls, pretrained: str | Path, *, revision: str | None = None,  # noqa: PLR0913 (what callers of such a method expect)
                        dtype: torch.dtype | str | None = None, variant: str | None = None, device: str | torch.device | None = None,
                        components: Collection[str] | None = None, local_files_only: bool = False, cache_dir: str | Path | None = None,
                        token: str | bool | None = None, verify: Literal["auto", "required", "off"] = "auto",
                        signer: Keys | None = None, lock: str | Path | None = None, allow_withdrawn: bool = False,
                        unsafe_stale_status: bool = False) -> "GlidePipeline":
        """Load a release from a directory or the Hub: manifest and signature first, then digests, then shapes, then weights.

        No code of a repository is ever run, and no pickle read. What verification guards and what it does not: see `opening`.

        Args:
            pretrained: the directory of a release, or `org/name` on the Hub.
            revision: branch, tag or commit on the Hub; looked up once. None takes the lock file's commit, else the default branch.
            dtype: of the weights, float32, float16 or bfloat16 (torch's, or the name); none keeps what is stored.
            variant: `fp16` or `bf16` takes the files of that variant, none those as trained.
            device: none takes a GPU where there is one.
            components: which of `noised_clip`, `upsampler`, `base_inpaint` and `upsampler_inpaint` to load (and fetch) beside the
                base; none takes what the release has, an empty list the base alone.
            local_files_only: take everything from the cache and ask nobody.
            cache_dir: where files of the Hub are kept; none takes the client's own place.
            token: for private and gated repositories; none takes the one that is stored, False sends none.
            verify: `auto` checks every file against the manifest if there is one, `required` refuses a release without one,
                `off` does not look.
            signer: who must have signed the release: key id or path of a public key; several of them, who must all have signed; or
                `SignerRule.of(keys, threshold)`.
            lock: a lock file that pins repository, commit, manifest and signer: written when it is not there, else enforced.
            allow_withdrawn: load a release that its publisher has taken back.
            unsafe_stale_status: load though the status of its repository is missing, has expired, cannot be looked up or does not count.

        Raises:
            RequestError: options that contradict one another, a component or variant that the release does not hold, or a type or
                device that cannot be used.
            DownloadError: the Hub does not give the release.
            VerificationError: it is not what its manifest, its signer or the lock file say, or it was withdrawn.
            CheckpointError: not a release, or weights that do not fit the architecture.
        """
        dtype, device = choose_dtype(dtype), choose_device(device)
        trust = Trust(verify, signer, lock, allow_withdrawn, unsafe_stale_status)
        found = find_release(pretrained, revision, trust=trust, options=HubOptions(token, cache_dir, local_files_only))
        return cls.from_release(found, dtype=dtype, variant=variant, device=device, components=components)

    @classmethod
    def from_release(cls, release: OpenRelease, *, dtype: torch.dtype | str | None = None, variant: str | None = None,
                     device: str | torch.device | None = None, components: Collection[str] | None = None,
                     before_weights: Callable[[Architecture], None] | None = None) -> "GlidePipeline":
        """Load a release that was opened; arguments and errors are those of `from_pretrained`.

        `before_weights` is called with what will be loaded before any weights are read, to refuse a request that does not fit it.
        """
        dtype, place = choose_dtype(dtype), choose_device(device)
        root, held = release.snapshot.path, release.parts
        wanted = choose_components(release.held_models, components, where=release.snapshot.name)
        parts = held if wanted is None else held - (frozenset(release.held_models) - wanted)
        digests = release.prepare(parts, variant)
        tokenizers: dict[str, CaptionTokenizer] = {
            name: CaptionTokenizer.parse(read_bytes(path, MAX_TOKENIZER_BYTES, digests), where=str(path))
            for name in ("tokenizer", "clip_tokenizer") if name in parts and ("noised_clip" in parts or name == "tokenizer")
            for path in (root / name / TOKENIZER_NAME,)}
        if before_weights is not None:
            models = [name for name in NETWORKS if name in parts]
            before_weights(Architecture({name: read_component_config(root / name / CONFIG_NAME, digests)[1] for name in models}, tokenizers))
        base = load_unet(root / "base", dtype=dtype, device=place, variant=variant, digests=digests)
        warn_of_slow_type(base.token_embedding.weight.dtype, place, "dtype float32")
        clip = None
        if "noised_clip" in parts:
            clip = load_component(root / "noised_clip", dtype=dtype, device=place, variant=variant, digests=digests)
        if not (clip is None or isinstance(clip, NoisedClip)):
            raise CheckpointError(f"{root / 'noised_clip'}: holds a {type(clip).__name__}, expected a NoisedClip")
        return cls(base, tokenizers["tokenizer"], noised_clip=clip, clip_tokenizer=tokenizers.get("clip_tokenizer"),
                   schedule=read_schedule(root / "scheduler" / "scheduler_config.json", digests),
                   companions=load_companions(root, parts, dtype=dtype, device=place, variant=variant, digests=digests))

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

    @PlainTorch()
    def __call__(self, prompt: str | Sequence[str], *, num_images: int = 1, guidance_scale: float = 3.0,
                 clip_guidance_scale: float = 0.0, num_steps: int = 50, sampler: str = "ddpm", seed: int = 0,
                 guidance_interval: tuple[float, float] | None = None, preview: Preview | None = None) -> GlideOutput:
        """Draw; `draw` does the same from options kept together.

        Args:
            prompt: one caption, or several.
            num_images: images per prompt.
            guidance_scale: classifier-free guidance; 1 is none.
            clip_guidance_scale: guidance by `guiding_clip` or else the noised CLIP; 0 is none.
            num_steps: denoising steps, 1 to 1000.
            sampler: `ddpm`, `ddim`, `dpm++`, `dpm++sde` or `unipc`.
            seed: image i is drawn from seed + i, whatever the batch.
            guidance_interval: noise levels between which guidance acts, from 0 (the image) to 1 (the noise) in fractions
                of the training's timesteps; elsewhere only the caption's pass runs, at half the cost. None: everywhere.
            preview: called with every state of every batch.

        Raises:
            RequestError: a prompt or an option that cannot be drawn from; nothing was started. Or the network computes no numbers: half
                precision that is too small for it, say.
        """
        return self.draw(prompt, DrawOptions(num_images, guidance_scale, clip_guidance_scale, num_steps, sampler, seed, guidance_interval),
                         preview=preview)

    @PlainTorch()
    def draw(self, prompt: str | Sequence[str], options: DrawOptions, *, preview: Preview | None = None) -> GlideOutput:
        """Draw `options.num_images` images of each prompt, image i of all from `options.seed` + i.

        Raises:
            RequestError: a prompt that cannot be drawn from, or CLIP guidance without a CLIP; nothing was started.
        """
        return self._in_batches(Batch.of(self.prompts(prompt, options), options, preview), self._draw)

    def _draw(self, batch: Batch) -> Tensor:
        size, options, noise = self.base.config.image_size, batch.options, SeededNoise(batch.seeds)
        x = noise.draw((3, size, size)).to(self.device)
        diffusion = GaussianDiffusion.create(self.schedule, sampling_timesteps(options.sampler, self.schedule, options.num_steps))
        denoiser = self.guide(self.base, batch.prompts, options)
        return walk(SAMPLERS[options.sampler](denoiser, x, diffusion, noise), batch.preview)

    def guide(self, unet: TextConditionedUNet, prompts: list[str], options: DrawOptions, *,
              condition: Callable[[Tensor], Tensor] | None = None) -> Denoiser:
        """The guided denoiser of prompts, one per image.

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
        context, empty = unet.encode_text(tokens, mask), unet.encode_text(empty_tokens, empty_mask)

        def denoise(x: Tensor, timesteps: Tensor, context: PromptContext) -> Tensor:
            seen = (x if condition is None else condition(x)).to(unet.token_embedding.weight.dtype)
            return unet.denoise(seen.contiguous(memory_format=torch.channels_last), timesteps, context)

        guided = text_denoiser(denoise, context, empty, scale=options.guidance_scale)
        if options.clip_guidance_scale > 0:
            guided = self._guide_with_clip(guided, prompts, options.clip_guidance_scale)
        if options.guidance_interval is not None:
            guided = GuidanceInterval(guided, TextDenoiser(denoise, context), options.guidance_interval)
        return Finite(guided, unet.token_embedding.weight.dtype)

    def _guide_with_clip(self, denoiser: Denoiser, prompts: list[str], scale: float) -> Denoiser:
        if self.guiding_clip is None:
            return GradientGuidance(denoiser, ClipGradient(self._clip(), self._encode_text(prompts), scale))
        text = embed_captions(self.guiding_clip, prompts).to(self.device)
        return ClipGuidance(denoiser, self.guiding_clip, text, scale, GaussianDiffusion.create(self.schedule))

    def prompts(self, prompt: str | Sequence[str], options: DrawOptions) -> list[str]:
        """Checked prompts, each as often as images are wanted of it.

        Raises:
            RequestError: a prompt that is empty, not text or too long for the models, or CLIP guidance without a CLIP.
        """
        check_kind("options", options, DrawOptions)
        prompts = check_prompts(prompt)
        by_noised_clip = options.clip_guidance_scale > 0 and self.guiding_clip is None
        if by_noised_clip and self.noised_clip is None:
            raise RequestError("clip_guidance_scale: this release has no noised_clip; set it to 0, or set the pipeline's guiding_clip")
        if not options.cut_long_prompts:
            check_lengths(prompts, self.tokenizer, self.base.config.text_ctx)
            if by_noised_clip:
                check_lengths(prompts, self.clip_tokenizer, self._clip().config.max_text_len - 2)
        return [text for text in prompts for _ in range(options.num_images)]

    @PlainTorch()
    def inpaint(self, prompt: str | Sequence[str], image: Image.Image, mask: MaskLike, *, options: DrawOptions | None = None,
                preview: Preview | None = None) -> GlideOutput:
        """Draw a part of a picture anew: WHITE in the mask is drawn, black is kept.

        With `base_inpaint` where the release has it, else with the base and projection (see `editing`). The result has
        the model's size; there, kept pixels are those of the picture's middle square bit for bit, so that the result
        can be edited again.

        Args:
            prompt: what the whole picture shall show; one caption, or several.
            image: any mode and size; its middle square is brought to the model's size.
            mask: image or numpy array as large as the image, black and white (see `masks.read_mask`); a pixel of the model's that holds any
                white is drawn.
            options: as for drawing; image i is drawn from options.seed + i.
            preview: called with every state of every batch.

        Raises:
            RequestError: prompt, image, mask or options that cannot be used; nothing was started.
        """
        options, size = DrawOptions() if options is None else options, self.base.config.image_size
        prompts, pixels = self.prompts(prompt, options), read_picture(image)
        draw = fit_mask(read_mask(mask, size=(pixels.shape[1], pixels.shape[0])), size)
        known = Known(to_tensor([fit_picture(pixels, size)], self.device), torch.from_numpy(draw).to(self.device)[None, None])
        return self._in_batches(Batch.of(prompts, options, preview), lambda batch: inpaint(self, batch, known))

    @PlainTorch()
    def vary(self, image: Image.Image, prompt: str | Sequence[str], strength: float = 0.6, *, options: DrawOptions | None = None,
             preview: Preview | None = None) -> GlideOutput:
        """Draw from a photograph or a line sketch: noise it to a strength, denoise it with the prompt (SDEdit).

        Args:
            image: any mode and size; its middle square is brought to the model's size.
            prompt: one caption, or several.
            strength: above 0 (nearly the picture) to 1 (drawn from noise alone, as if there were no picture).
            options: as for drawing; all steps go from the strength's noise to none.
            preview: called with every state of every batch.

        Raises:
            RequestError: prompt, image, strength or options that cannot be used; nothing was started.
        """
        strength = check_strength(strength)
        options = DrawOptions() if options is None else options
        prompts = self.prompts(prompt, options)
        picture = to_tensor([fit_picture(read_picture(image), self.base.config.image_size)], self.device)
        return self._in_batches(Batch.of(prompts, options, preview), lambda batch: vary(self, batch, picture, strength))

    @PlainTorch()
    def upsample(self, images: Image.Image | Sequence[Image.Image], prompt: str | Sequence[str], *, source: Image.Image | None = None,
                 mask: MaskLike | None = None, options: UpsampleOptions | None = None, preview: Preview | None = None) -> GlideOutput:
        """Enlarge pictures to the upsampler's size; after inpainting, keep what was kept at that size too.

        Args:
            images: what the base has drawn, one or several; other sizes are cropped and scaled to the base's.
            prompt: one caption for all, or one for each image.
            source: the picture that was inpainted, in full resolution; none: nothing is kept.
            mask: its mask (white was drawn), with `source` only.
            options: temperature, steps, seed.
            preview: called with every state of every batch.

        Raises:
            RequestError: images, prompt, mask or options that cannot be used, or no upsampler; nothing was started.
        """
        options = UpsampleOptions() if options is None else options
        check_kind("options", options, UpsampleOptions)
        pictures = [images] if isinstance(images, Image.Image) else list(images)
        prompts = self.prompts(prompt, options.drawing())
        if not pictures or len(prompts) not in (1, len(pictures)):
            raise RequestError(f"upsample: {len(pictures)} images with {len(prompts)} prompts; give images, and one prompt or one for each")
        if (source is None) != (mask is None):
            raise RequestError("upsample: source and mask go together; give both, or neither")
        known = self._known_enlarged(source, mask) if source is not None and mask is not None else None
        network = choose_upsampler(self, inpaint=known is not None)
        if not options.cut_long_prompts:
            check_lengths(prompts, self.tokenizer, network.config.text_ctx)
        small = self.base.config.image_size
        low_res = to_tensor([fit_picture(read_picture(picture), small) for picture in pictures], self.device)
        whole = Batch.of(prompts * (len(pictures) // len(prompts)), options.drawing(), preview)

        def draw(batch: Batch) -> Tensor:
            first = batch.seeds[0] - options.seed
            return upsample(self, batch, low_res[first:first + len(batch.seeds)], options, known)

        return self._in_batches(whole, draw, size=UPSAMPLE_BATCH)

    @PlainTorch()
    def rank(self, images: Image.Image | Sequence[Image.Image], prompt: str, *, clip: ImageTextScorer | None = None,
             cut_long_prompts: bool = False) -> list[tuple[int, float]]:
        """Order images by how well they fit the prompt.

        Args:
            images: of any mode and size, one or several.
            prompt: one caption.
            clip: who judges, such as `ranking.CosineScorer`; none: the release's noised CLIP, told there is no noise.
            cut_long_prompts: cut a prompt that is longer than the noised CLIP reads instead of refusing it; other CLIPs cut as they do.

        Returns:
            (position in `images`, score) pairs, best first; the noised CLIP's and open_clip's scores are cosines.

        Raises:
            RequestError: no image, an unusable image or prompt, or neither a CLIP nor a release with a noised one.
        """
        given = [images] if isinstance(images, Image.Image) else list(images)
        if not given:
            raise RequestError("rank: no images were given")
        if clip is not None and not callable(getattr(clip, "score", None)):
            raise RequestError(f"rank: clip is a {type(clip).__name__}, which scores nothing; give one with `score(images, captions)`: "
                               "ranking.CosineScorer makes one of an OpenClip")
        prompts, pictures = check_prompts(prompt), [read_picture(image) for image in given]
        if len(prompts) != 1:
            raise RequestError(f"rank: {len(prompts)} prompts were given; rank for one prompt at a time")
        if clip is not None:
            scores = [float(score) for score in clip.score(pictures, prompts * len(pictures))]
        else:
            noised = self._clip()
            if not cut_long_prompts:
                check_lengths(prompts, self.clip_tokenizer, noised.config.max_text_len - 2)
            x = to_tensor([fit_picture(picture, noised.config.image_size) for picture in pictures], self.device)
            cosines = noised.encode_image(x, torch.zeros(len(x), dtype=torch.int64, device=self.device))
            found = cosines @ self._encode_text(prompts)[0]
            refuse_not_finite("the noised CLIP's scores", found, next(noised.parameters()).dtype)
            scores = found.tolist()
        return sorted(enumerate(scores), key=lambda pair: -pair[1])

    def _known_enlarged(self, source: Image.Image, mask: MaskLike) -> Known:
        """A picture at the upsampler's size, with the mask at the base's size enlarged to it, as the base has drawn it."""
        small, size = self.base.config.image_size, choose_upsampler(self, inpaint=True).config.image_size
        pixels = read_picture(source, name="source")
        draw = torch.from_numpy(fit_mask(read_mask(mask, size=(pixels.shape[1], pixels.shape[0])), small)).to(self.device)[None, None]
        enlarged = functional.interpolate(draw.float(), (size, size), mode="nearest") > 0
        return Known(to_tensor([fit_picture(pixels, size)], self.device), enlarged)

    def _in_batches(self, whole: Batch, draw: Callable[[Batch], Tensor], *, size: int | None = None) -> GlideOutput:
        images: list[Image.Image] = []
        size = size or DRAW_BATCH
        for start in range(0, len(whole.seeds), size):
            images += to_pil(draw(whole.rows(start, start + size)))
        return GlideOutput(images, whole.seeds)

    def _clip(self) -> NoisedClip:
        if self.noised_clip is None:
            raise RequestError("this release has no noised_clip; draw with clip_guidance_scale=0, and rank with another CLIP")
        return self.noised_clip

    def _encode_text(self, prompts: Sequence[str]) -> Tensor:
        clip = self._clip()
        tokens, lengths = self.clip_tokenizer.encode_delimited(prompts, clip.config.max_text_len)
        return clip.encode_text(tokens.to(self.device), lengths.to(self.device))
