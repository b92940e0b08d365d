"""What the card says of the networks in a release: which there are, how large, and which of them this run trained."""

from math import prod
from typing import Any

from ...errors import CheckpointError, ReleaseError
from ...store.weight_files import VARIANTS, find_weights
from ..evidence.comparison import Claims
from ..evidence.contents import Release


def component_claims(release: Release) -> Claims:
    """One row for each network of the release.

    Raises:
        ReleaseError: a network's weights are missing or malformed.
    """
    return {"components": [describe_component(release, name) for name in release.networks]}


def describe_component(release: Release, name: str) -> dict[str, Any]:
    """Size, picture size and casts of one network, from the headers of its weight files."""
    directory = release.directory / name
    try:
        weights = find_weights(directory)
        casts = {variant: find_weights(directory, variant) for variant in VARIANTS if list(directory.glob(f"*.{variant}*.safetensors"))}
    except CheckpointError as error:
        raise ReleaseError(f"{error}; pack the release again") from error
    return {"name": name, "image_size": release.component_config(name).get("image_size"), "is_trained": name in release.trained_networks,
            "num_parameters": sum(prod(header.shape) for header in weights.headers.values()),
            "num_files": len(weights.files), "num_bytes": weights.num_bytes, "variants": list(casts)}
