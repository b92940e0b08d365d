"""The networks that a release may hold beside its base model: upsampler and inpainting variants."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from ...errors import CheckpointError, RequestError
from ...recipe.components import NETWORKS, OPTIONAL_NETWORKS
from ..networks.unet import TextConditionedUNet, UNetConfig
from .components import load_component, read_schedule
from .weights import Digests


@dataclass(frozen=True)
class Companions:
    """Networks beside the base, each none where a release has none or it was not asked for.

    Attributes:
        upsampler: enlarges what the base draws.
        base_inpaint: the base, fine-tuned to see known pixels (arXiv 2112.10741, section 4.3).
        upsampler_inpaint: the upsampler, fine-tuned likewise.
        upsampler_schedule: noise schedule of both upsamplers; the published ones use `linear`.
    """

    upsampler: TextConditionedUNet | None = None
    base_inpaint: TextConditionedUNet | None = None
    upsampler_inpaint: TextConditionedUNet | None = None
    upsampler_schedule: str = "linear"

    @property
    def networks(self) -> dict[str, TextConditionedUNet]:
        """Those that are there, by name."""
        found = {"upsampler": self.upsampler, "base_inpaint": self.base_inpaint, "upsampler_inpaint": self.upsampler_inpaint}
        return {name: network for name, network in found.items() if network is not None}


def check_together(base: TextConditionedUNet, companions: Companions, *, vocab_size: int) -> None:
    """Refuse networks that cannot draw with one another.

    Args:
        base: the base model.
        companions: what stands beside it.
        vocab_size: tokens of the tokenizer.

    Raises:
        CheckpointError: one takes other inputs than its place says, knows too few tokens, or its images have another size.
    """
    for name, network in {"base": base, **companions.networks}.items():
        config, row = network.config, NETWORKS[name]
        if (config.super_res, config.inpaint) != (row.super_res, row.inpaint):
            raise CheckpointError(f"{name}: super_res is {config.super_res} and inpaint is {config.inpaint}, expected "
                                  f"{row.super_res} and {row.inpaint}; this is another network, put it in its own place")
        if vocab_size > config.n_vocab:
            raise CheckpointError(f"{name}: knows {config.n_vocab} tokens, but the tokenizer has {vocab_size}")
    _check_sizes(base.config, {name: network.config for name, network in companions.networks.items()})


def _check_sizes(base: UNetConfig, configs: dict[str, UNetConfig]) -> None:
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


def choose_components(held: Collection[str], components: Collection[str] | None, *, where: str) -> frozenset[str] | None:
    """Which optional models to load, decided before a long file is fetched or read.

    Args:
        held: the optional models of the release.
        components: names; none for all that the release has.
        where: names the release in messages.

    Returns:
        The names, or none for all.

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


def load_companions(root: Path, names: Collection[str], *, dtype: torch.dtype | None, device: torch.device, variant: str | None = None,
                    digests: Digests | None = None) -> Companions:
    """Load the named networks of a release directory; see `load_component` for the rest.

    Raises:
        CheckpointError: weights that do not fit, or that are no U-Net's.
        VerificationError: a file does not fit its digest.
    """
    networks: dict[str, TextConditionedUNet | None] = dict.fromkeys(("upsampler", "base_inpaint", "upsampler_inpaint"))
    for name in networks:
        if name in names:
            networks[name] = load_unet(root / name, dtype=dtype, device=device, variant=variant, digests=digests)
    if all(networks[name] is None for name in networks if NETWORKS[name].super_res):
        return Companions(base_inpaint=networks["base_inpaint"])
    return Companions(networks["upsampler"], networks["base_inpaint"], networks["upsampler_inpaint"],
                      read_schedule(root / "upsampler_scheduler" / "scheduler_config.json", digests))


def load_unet(directory: Path, *, dtype: torch.dtype | None, device: torch.device, variant: str | None = None,
              digests: Digests | None = None) -> TextConditionedUNet:
    """Load a component that must be a U-Net; raises as `load_component` does, and CheckpointError when it is something else."""
    network = load_component(directory, dtype=dtype, device=device, variant=variant, digests=digests)
    if not isinstance(network, TextConditionedUNet):
        raise CheckpointError(f"{directory}: holds a {type(network).__name__}, expected a TextConditionedUNet")
    return network
