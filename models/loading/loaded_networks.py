"""The networks of a release as one value, and what is known of them before their weights are read."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...clip.towers import ImageTextModel
from ...device.dtype_device import choose_device, choose_dtype
from ...device.processor import warn_of_slow_type
from ...errors import CheckpointError, RequestError
from ...recipe.components import COMPONENTS, CONFIG_NAME, NETWORKS, OPTIONAL_NETWORKS, SCHEDULERS, TOKENIZERS
from ...recipe.strict_model import StrictModel
from ...text.vocabulary_files import MAX_TOKENIZER_BYTES
from ...trust.checked_bytes import Digests, read_bytes
from ...trust.opening import OpenRelease
from ..diffusion.process import NoiseSchedule
from ..networks.noised_clip import NoisedClip, NoisedClipConfig
from ..networks.unet import TextConditionedUNet, UNetConfig
from ..tokenizer import CaptionTokenizer
from .components import load_component, read_component_config, read_schedule
from .needed_files import held_components, needed_files

SCHEDULE, UPSAMPLER_SCHEDULE = (NoiseSchedule(SCHEDULERS[name].schedule) for name in ("scheduler", "upsampler_scheduler"))


@dataclass(frozen=True)
class Networks:
    """The networks that are loaded, with their tokenizers and noise schedules. They can draw with one another.

    Attributes:
        base: draws the images.
        tokenizer: captions to tokens, for the base and the networks beside it.
        schedule: of `base` and `base_inpaint`.
        upsampler: enlarges what the base draws. Like all that follow it is None where a release has none or it was not asked for.
        base_inpaint: the base, fine-tuned to see known pixels (arXiv 2112.10741, section 4.3).
        upsampler_inpaint: the upsampler, fine-tuned likewise.
        upsampler_schedule: of both upsamplers; the published ones use `linear` betas.
        noised_clip: guides, and ranks images.
        clip_tokenizer: captions to the tokens of `noised_clip`; None: `tokenizer` does that.
        guiding_clip: an ordinary CLIP that guides in place of `noised_clip`, such as `Clip.of(...)`.
    """

    base: TextConditionedUNet
    tokenizer: CaptionTokenizer
    schedule: NoiseSchedule = SCHEDULE
    upsampler: TextConditionedUNet | None = None
    base_inpaint: TextConditionedUNet | None = None
    upsampler_inpaint: TextConditionedUNet | None = None
    upsampler_schedule: NoiseSchedule = UPSAMPLER_SCHEDULE
    noised_clip: NoisedClip | None = None
    clip_tokenizer: CaptionTokenizer | None = None
    guiding_clip: ImageTextModel | None = None

    def __post_init__(self) -> None:
        """Refuse networks that cannot draw with one another.

        Raises:
            CheckpointError: one takes other inputs than its place says, knows too few tokens, or its images have another size.
        """
        vocab_size = self.tokenizer.vocab_size
        for name, network in {"base": self.base, **self.companions}.items():
            config, row = network.config, NETWORKS[name]
            if (config.super_res, config.inpaint) != (row.super_res, row.inpaint):
                raise CheckpointError(f"{name}: super_res is {config.super_res} and inpaint is {config.inpaint}, expected "
                                      f"{row.super_res} and {row.inpaint}; this is another network, put it in its own place")
            if vocab_size > config.n_vocab:
                raise CheckpointError(f"{name}: knows {config.n_vocab} tokens, but the tokenizer has {vocab_size}")
        check_sizes(self.base.config, {name: network.config for name, network in self.companions.items()})
        if self.noised_clip is not None:
            check_noised_clip(self.noised_clip.config, self.base.config, vocab_size=self.noised_clip_tokenizer.vocab_size)

    @property
    def companions(self) -> dict[str, TextConditionedUNet]:
        """The U-Nets beside the base that are there, by name."""
        beside = {"upsampler": self.upsampler, "base_inpaint": self.base_inpaint, "upsampler_inpaint": self.upsampler_inpaint}
        return {name: network for name, network in beside.items() if network is not None}

    def schedule_of(self, unet: TextConditionedUNet) -> NoiseSchedule:
        """The noise schedule of one of the U-Nets."""
        return self.upsampler_schedule if unet.config.super_res else self.schedule

    @property
    def noised_clip_tokenizer(self) -> CaptionTokenizer:
        """Captions to the tokens of `noised_clip`."""
        return self.tokenizer if self.clip_tokenizer is None else self.clip_tokenizer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.base.token_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.base.token_embedding.weight.dtype


def check_sizes(base: UNetConfig, configs: Mapping[str, UNetConfig]) -> None:
    """Refuse networks whose images or captions do not fit the base's.

    Args:
        base: architecture of the base.
        configs: architectures of the networks beside it, by name.

    Raises:
        CheckpointError: they do not.
    """
    inpaint = configs.get("base_inpaint", base)
    if inpaint.image_size != base.image_size:
        raise CheckpointError(f"base_inpaint: draws images of side {inpaint.image_size}, but base draws {base.image_size}")
    if inpaint.text_ctx != base.text_ctx:
        raise CheckpointError(f"base_inpaint: reads captions of {inpaint.text_ctx} tokens, but base reads {base.text_ctx}")
    sizes = {name: config.image_size for name, config in configs.items() if config.super_res}
    for name, size in sizes.items():
        if size <= base.image_size:
            raise CheckpointError(f"{name}: draws images of side {size}, which is not larger than base's {base.image_size}")
    if len(set(sizes.values())) > 1:
        raise CheckpointError(f"upsampler and upsampler_inpaint draw images of different sides: {sizes}")


def check_noised_clip(clip: NoisedClipConfig, base: UNetConfig, *, vocab_size: int) -> None:
    """Refuse a noised CLIP that cannot judge what the base draws.

    Args:
        clip: its architecture.
        base: architecture of the base.
        vocab_size: tokens of its tokenizer.

    Raises:
        CheckpointError: it knows too few tokens, or reads images of another size.
    """
    if vocab_size > clip.n_vocab:
        raise CheckpointError(f"noised_clip: knows {clip.n_vocab} tokens, but the tokenizer has {vocab_size}")
    if clip.image_size != base.image_size:
        raise CheckpointError(f"noised_clip: reads images of side {clip.image_size}, but base draws {base.image_size}")


@dataclass(frozen=True)
class Architecture:
    """What will be loaded, known before its weights are: the configuration of each network, and the tokenizers, both by name."""

    configs: Mapping[str, StrictModel]
    tokenizers: Mapping[str, CaptionTokenizer]

    def check_lengths(self, prompts: Sequence[str]) -> None:
        """Refuse prompts that one of the networks cannot read to their end.

        Raises:
            RequestError: naming the prompt, its length and the limit.
        """
        for config in self.configs.values():
            if isinstance(config, UNetConfig):
                check_lengths(prompts, self.tokenizers["tokenizer"], config.text_ctx)
            elif isinstance(config, NoisedClipConfig):
                check_lengths(prompts, self.tokenizers.get("clip_tokenizer", self.tokenizers["tokenizer"]), config.max_text_len - 2)


def check_lengths(prompts: Sequence[str], tokenizer: CaptionTokenizer, max_tokens: int) -> None:
    """Refuse prompts that a model cannot read to their end.

    Raises:
        RequestError: naming the prompt, its length and the limit.
    """
    for text in prompts:
        length = len(tokenizer.encode(text, sys.maxsize))
        if length > max_tokens:
            raise RequestError(f"prompt: {text!r:.60} is {length} tokens long, this model reads {max_tokens}; shorten it, or allow it "
                               "to be cut (--cut-long-prompts; in Python cut_long_prompts=True)")


def load_networks(release: OpenRelease, components: Collection[str] | None = None, *, dtype: torch.dtype | str | None = None,
                  variant: str | None = None, device: str | torch.device | None = None,
                  before_weights: Callable[[Architecture], None] | None = None) -> Networks:
    """Load the networks of a release that was opened; arguments and errors are those of `GlidePipeline.from_pretrained`.

    `before_weights` is called with what will be loaded before any weights are read, to refuse a request that does not fit it.
    """
    dtype, target = choose_dtype(dtype), choose_device(device)

    # Choose the parts; their digests are checked from here on.
    root, held = release.directory, held_components(release)
    optional = [name for name in OPTIONAL_NETWORKS if name in held]
    chosen = choose_components(optional, components, where=release.snapshot.name)
    parts = held if chosen is None else held - (frozenset(optional) - chosen)
    digests = release.prepare(needed_files(release, held, parts, variant))

    # Tokenizers, and the architectures for whoever wants to refuse.
    tokenizers: dict[str, CaptionTokenizer] = {
        name: CaptionTokenizer.parse(read_bytes(path, MAX_TOKENIZER_BYTES, digests), where=str(path))
        for name in ("tokenizer", "clip_tokenizer") if name in parts and ("noised_clip" in parts or name == "tokenizer")
        for path in (root / name / COMPONENTS[name].file,)}
    if before_weights is not None:
        models = [name for name in NETWORKS if name in parts]
        before_weights(Architecture({name: read_component_config(root / name / CONFIG_NAME, digests)[1] for name in models}, tokenizers))

    # Weights: the base first, then the noised CLIP, then the networks beside the base.
    base = load_unet(root / "base", dtype=dtype, device=target, variant=variant, digests=digests)
    warn_of_slow_type(base.token_embedding.weight.dtype, target, "dtype float32")
    clip = None
    if "noised_clip" in parts:
        clip = load_component(root / "noised_clip", dtype=dtype, device=target, variant=variant, digests=digests)
    if not (clip is None or isinstance(clip, NoisedClip)):
        raise CheckpointError(f"{root / 'noised_clip'}: holds a {type(clip).__name__}, expected a NoisedClip")
    beside = {name: load_unet(root / name, dtype=dtype, device=target, variant=variant, digests=digests)
              for name in ("upsampler", "base_inpaint", "upsampler_inpaint") if name in parts}

    # Noise schedules: that of the upsamplers is there where one of them is.
    schedules = {name: read_schedule(root / name / SCHEDULERS[name].file, digests)
                 for name in dict.fromkeys(NETWORKS[network].scheduler for network in ("base", *beside))}
    networks = Networks(base, tokenizers["tokenizer"], schedules["scheduler"], beside.get("upsampler"), beside.get("base_inpaint"),
                        beside.get("upsampler_inpaint"), noised_clip=clip, clip_tokenizer=tokenizers.get("clip_tokenizer"))
    return replace(networks, upsampler_schedule=schedules.get("upsampler_scheduler", networks.upsampler_schedule))


def load_trained(training: Path, networks: Collection[str], *, device: str | torch.device = "cpu") -> Networks:
    """Load networks as a run has trained them.

    Args:
        training: the directory that holds a folder for each trained network.
        networks: which of them, the base included.
        device: where they go.

    Raises:
        CheckpointError: a training has not finished, or its weights do not fit.
    """
    loaded = {name: load_component(training / name, device=device, weights_name=NETWORKS[name].trained_file) for name in networks}
    if wrong := [name for name, network in loaded.items() if type(network).__name__ != NETWORKS[name].class_name]:
        raise CheckpointError(f"{training / wrong[0]}: holds a {type(loaded[wrong[0]]).__name__}, expected a {NETWORKS[wrong[0]].class_name}")
    unets: dict[str, Any] = {name: network for name, network in loaded.items() if name != "noised_clip"}
    clip: Any = loaded.get("noised_clip")
    schedules = {name: read_schedule(training / str(row.trained_with) / row.file)
                 for name, row in SCHEDULERS.items() if row.trained_with in networks}
    return Networks(tokenizer=CaptionTokenizer.load(training / "base" / TOKENIZERS["tokenizer"].file), schedule=schedules["scheduler"],
                    upsampler_schedule=schedules.get("upsampler_scheduler", UPSAMPLER_SCHEDULE), noised_clip=clip, **unets)


def choose_components(held: Collection[str], components: Collection[str] | None, *, where: str) -> frozenset[str] | None:
    """Which optional models to load, decided before a long file is fetched or read.

    Args:
        held: the optional models of the release.
        components: names; None: all that the release has.
        where: names the release in messages.

    Returns:
        The names, or None for all.

    Raises:
        RequestError: a name that is unknown, or that the release does not hold.
    """
    if components is None:
        return None
    if isinstance(components, str):
        raise RequestError(f"components is {components!r}; expected a list of names, such as [{components!r}]")
    unknown = [name for name in components if name not in OPTIONAL_NETWORKS]
    if unknown:
        raise RequestError(f"components: {', '.join(map(repr, unknown))} is unknown; choose from {', '.join(OPTIONAL_NETWORKS)} "
                           "(base, tokenizer and schedulers are always loaded)")
    missing = [name for name in components if name not in held]
    if missing:
        raise RequestError(f"components: {where} has no {', '.join(missing)}; beside base it holds {', '.join(held) or 'nothing'}")
    return frozenset(components)


def load_unet(directory: Path, *, dtype: torch.dtype | None, device: torch.device, variant: str | None = None,
              digests: Digests | None = None) -> TextConditionedUNet:
    """Load a component that must be a U-Net; raises as `load_component` does, and CheckpointError when it is something else."""
    network = load_component(directory, dtype=dtype, device=device, variant=variant, digests=digests)
    if not isinstance(network, TextConditionedUNet):
        raise CheckpointError(f"{directory}: holds a {type(network).__name__}, expected a TextConditionedUNet")
    return network
