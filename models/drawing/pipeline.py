"""The pipeline a stranger loads and draws with: it checks what it is given, and hands it to `guided_drawing`, `editing` and `ranking`."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ...clip.towers import ImageTextModel
from ...device.dtype_device import choose_device, choose_dtype
from ...device.torch_state import PlainTorch
from ...errors import RequestError
from ...trust.hub import HubOptions
from ...trust.opening import OpenRelease, Trust, open_release
from ...trust.signers import Keys
from ..diffusion.samplers import Preview
from ..loading.loaded_networks import Architecture, Networks, check_lengths, load_networks, load_trained
from .editing import KeptRegion, UpsampleOptions, check_strength, choose_upsampler, inpaint, to_tensor, upsample, vary
from .guided_drawing import Batch, draw, get_noised_clip
from .masks import MaskLike, fit_mask, fit_picture, read_mask, read_picture
from .options import DrawOptions, check_kind, check_prompts
from .pixels import to_pil
from .ranking import ImageTextScorer, score_with_noised_clip

DRAW_BATCH = 16
UPSAMPLE_BATCH = 4


@dataclass(frozen=True)
class GlideOutput:
    """What a call of the pipeline returns: the images, and the seed of each."""

    images: list[Image.Image]
    seeds: list[int]


class GlidePipeline:
    """A GLIDE base model with its tokenizer and, where they are, noised CLIP, upsampler and inpainting variants.

    Attributes:
        networks: everything that is loaded.
    """

    def __init__(self, networks: Networks) -> None:
        """Draw with loaded networks; `from_pretrained` loads them."""
        self.networks = networks

    @property
    def guiding_clip(self) -> ImageTextModel | None:
        """An ordinary CLIP that guides in place of the noised one, such as `Clip.of(...)`; None at first."""
        return self.networks.guiding_clip

    @guiding_clip.setter
    def guiding_clip(self, clip: ImageTextModel | None) -> None:
        self.networks = replace(self.networks, guiding_clip=clip)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.networks.device

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
            dtype: of the weights, float32, float16 or bfloat16 (torch's, or the name); None keeps what is stored.
            variant: `fp16` or `bf16` takes the files of that variant, None those as trained.
            device: None takes a GPU where there is one.
            components: which of `noised_clip`, `upsampler`, `base_inpaint` and `upsampler_inpaint` to load (and fetch) beside the
                base; None takes what the release has, an empty list the base alone.
            local_files_only: take everything from the cache and ask nobody.
            cache_dir: where files of the Hub are kept; None takes the client's own place.
            token: for private and gated repositories; None takes the one that is stored, False sends no token.
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
        release = open_release(pretrained, trust, revision=revision, options=HubOptions(token, cache_dir, local_files_only))
        return cls.from_release(release, dtype=dtype, variant=variant, device=device, components=components)

    @classmethod
    def from_release(cls, release: OpenRelease, *, dtype: torch.dtype | str | None = None, variant: str | None = None,
                     device: str | torch.device | None = None, components: Collection[str] | None = None,
                     before_weights: Callable[[Architecture], None] | None = None) -> "GlidePipeline":
        """Load a release that was opened; arguments and errors are those of `from_pretrained`.

        `before_weights` is called with what will be loaded before any weights are read, to refuse a request that does not fit it.
        """
        return cls(load_networks(release, components, dtype=dtype, variant=variant, device=device, before_weights=before_weights))

    @classmethod
    def from_training(cls, training: Path, networks: Collection[str] = ("base",), *, device: str | torch.device = "cpu") -> "GlidePipeline":
        """Load networks as a run has trained them, before there is a release.

        Args:
            training: the directory that holds a folder for each trained network.
            networks: which of them, the base included.
            device: where they go.

        Raises:
            CheckpointError: a training has not finished, or its weights do not fit.
        """
        return cls(load_trained(training, networks, device=device))

    @PlainTorch()
    def __call__(self, prompt: str | Sequence[str], *, num_images: int = 1, guidance_scale: float = 3.0,  # noqa: PLR0913 (one an option)
                 clip_guidance_scale: float = 0.0, num_steps: int = 50, sampler: str = "ddpm", seed: int = 0,
                 guidance_interval: tuple[float, float] | None = None, upsample: bool = True, preview: Preview | None = None) -> GlideOutput:
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
            upsample: enlarge with the upsampler, where one is loaded.
            preview: called with every state of every batch.

        Raises:
            RequestError: a prompt or an option that cannot be drawn from; nothing was started. Or the network computes no numbers: half
                precision that is too small for it, say.
        """
        return self.draw(prompt, DrawOptions(num_images, guidance_scale, clip_guidance_scale, num_steps, sampler, seed, guidance_interval),
                         upsample=upsample, preview=preview)

    @PlainTorch()
    def draw(self, prompt: str | Sequence[str], options: DrawOptions, *, upsample: bool = True,
             preview: Preview | None = None) -> GlideOutput:
        """Draw `options.num_images` images of each prompt, image i of all from `options.seed` + i.

        Where an upsampler is loaded and `upsample` is true they are enlarged, as `upsample` does with its own defaults and the same seeds.

        Raises:
            RequestError: a prompt that cannot be drawn from, or CLIP guidance without a CLIP; nothing was started.
        """
        prompts = self.prompts(prompt, options)
        drawn = draw_in_batches(Batch.of(prompts, options, preview), lambda batch: draw(self.networks, batch))
        if not upsample or self.networks.upsampler is None:
            return drawn
        enlarging = UpsampleOptions(seed=options.seed, cut_long_prompts=options.cut_long_prompts)
        return self.upsample(drawn.images, prompts, options=enlarging, preview=preview)

    def prompts(self, prompt: str | Sequence[str], options: DrawOptions) -> list[str]:
        """Checked prompts, each as often as images are wanted of it.

        Raises:
            RequestError: a prompt that is empty, not text or too long for the models, or CLIP guidance without a CLIP.
        """
        check_kind("options", options, DrawOptions)
        networks, prompts = self.networks, check_prompts(prompt)
        by_noised_clip = options.clip_guidance_scale > 0 and networks.guiding_clip is None
        if by_noised_clip and networks.noised_clip is None:
            raise RequestError("clip_guidance_scale: this release has no noised_clip; set it to 0, or set the pipeline's guiding_clip")
        if not options.cut_long_prompts:
            check_lengths(prompts, networks.tokenizer, networks.base.config.text_ctx)
            if by_noised_clip:
                check_lengths(prompts, networks.noised_clip_tokenizer, get_noised_clip(networks).config.max_text_len - 2)
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
        options, networks = DrawOptions() if options is None else options, self.networks
        prompts, pixels = self.prompts(prompt, options), read_picture(image)
        size = networks.base.config.image_size
        drawn = torch.from_numpy(fit_mask(read_mask(mask, size=(pixels.shape[1], pixels.shape[0])), size)).to(self.device)[None, None]
        kept = KeptRegion(to_tensor([fit_picture(pixels, size)], self.device), drawn)
        return draw_in_batches(Batch.of(prompts, options, preview), lambda batch: inpaint(networks, batch, kept))

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
        networks, prompts = self.networks, self.prompts(prompt, options)
        picture = to_tensor([fit_picture(read_picture(image), networks.base.config.image_size)], self.device)
        return draw_in_batches(Batch.of(prompts, options, preview), lambda batch: vary(networks, batch, picture, strength))

    @PlainTorch()
    def upsample(self, images: Image.Image | Sequence[Image.Image], prompt: str | Sequence[str], *, source: Image.Image | None = None,
                 mask: MaskLike | None = None, options: UpsampleOptions | None = None, preview: Preview | None = None) -> GlideOutput:
        """Enlarge pictures to the upsampler's size; after inpainting, keep what was kept at that size too.

        Args:
            images: what the base has drawn, one or several; other sizes are cropped and scaled to the base's.
            prompt: one caption for all, or one for each image.
            source: the picture that was inpainted, in full resolution; None: nothing is kept.
            mask: its mask (white was drawn), with `source` only.
            options: temperature, steps, seed.
            preview: called with every state of every batch.

        Raises:
            RequestError: images, prompt, mask or options that cannot be used, or no upsampler; nothing was started.
        """
        options = UpsampleOptions() if options is None else options
        check_kind("options", options, UpsampleOptions)
        networks, pictures = self.networks, [images] if isinstance(images, Image.Image) else list(images)
        prompts = self.prompts(prompt, options.drawing())
        if not pictures or len(prompts) not in (1, len(pictures)):
            raise RequestError(f"upsample: {len(pictures)} images with {len(prompts)} prompts; give images, and one prompt or one for each")
        if (source is None) != (mask is None):
            raise RequestError("upsample: source and mask go together; give both, or neither")
        kept = enlarged_region(networks, source, mask) if source is not None and mask is not None else None
        unet = choose_upsampler(networks, inpaint=kept is not None)
        if not options.cut_long_prompts:
            check_lengths(prompts, networks.tokenizer, unet.config.text_ctx)
        small = networks.base.config.image_size
        low_res = to_tensor([fit_picture(read_picture(picture), small) for picture in pictures], self.device)
        whole = Batch.of(prompts * (len(pictures) // len(prompts)), options.drawing(), preview)

        def enlarge(batch: Batch) -> Tensor:
            first = batch.seeds[0] - options.seed
            return upsample(networks, batch, low_res[first:first + len(batch.seeds)], options, kept)

        return draw_in_batches(whole, enlarge, size=UPSAMPLE_BATCH)

    @PlainTorch()
    def rank(self, images: Image.Image | Sequence[Image.Image], prompt: str, *, clip: ImageTextScorer | None = None,
             cut_long_prompts: bool = False) -> list[tuple[int, float]]:
        """Order images by how well they fit the prompt.

        Args:
            images: of any mode and size, one or several.
            prompt: one caption.
            clip: who judges, such as `Clip.of(...)`; None: the release's noised CLIP, told there is no noise.
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
                               "glideslope.clip.model.Clip.of makes one of a model of open_clip")
        prompts, pictures = check_prompts(prompt), [read_picture(image) for image in given]
        if len(prompts) != 1:
            raise RequestError(f"rank: {len(prompts)} prompts were given; rank for one prompt at a time")
        if clip is not None:
            scores = [float(score) for score in clip.score(pictures, prompts * len(pictures))]
        else:
            scores = score_with_noised_clip(self.networks, pictures, prompts[0], cut_long_prompts=cut_long_prompts)
        return sorted(enumerate(scores), key=lambda pair: -pair[1])


def enlarged_region(networks: Networks, source: Image.Image, mask: MaskLike) -> KeptRegion:
    """A picture at the upsampler's size, with the mask at the base's size enlarged to it, as the base has drawn it.

    Raises:
        RequestError: picture or mask that cannot be used, or no upsampler.
    """
    small, size = networks.base.config.image_size, choose_upsampler(networks, inpaint=True).config.image_size
    pixels = read_picture(source, name="source")
    drawn = torch.from_numpy(fit_mask(read_mask(mask, size=(pixels.shape[1], pixels.shape[0])), small)).to(networks.device)[None, None]
    enlarged = functional.interpolate(drawn.float(), (size, size), mode="nearest") > 0
    return KeptRegion(to_tensor([fit_picture(pixels, size)], networks.device), enlarged)


def draw_in_batches(whole: Batch, draw_batch: Callable[[Batch], Tensor], *, size: int | None = None) -> GlideOutput:
    """Draw so many images at once, DRAW_BATCH where no size is given.

    Args:
        whole: all images.
        draw_batch: draws some of them, (N, 3, H, W) in about [-1, 1].
        size: of a batch.
    """
    images: list[Image.Image] = []
    size = size or DRAW_BATCH
    for start in range(0, len(whole.seeds), size):
        images += to_pil(draw_batch(whole.rows(start, start + size)))
    return GlideOutput(images, whole.seeds)
