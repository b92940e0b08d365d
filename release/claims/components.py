"""What the card says of the networks in a release: which there are, how large, and which of them this run trained."""

from math import prod
from typing import Any

from ...errors import CheckpointError, ReleaseError
from ...store.weight_files import VARIANTS, find_weights
from ..evidence.comparison import Claims
from ..evidence.contents import Release
from ..evidence.layout import MODELS, OPTIONAL_MODELS
from ..evidence.plan import training_stage


def component_claims(release: Release) -> Claims:
    """One row for each network of the release, trained ones first.

    Raises:
        ReleaseError: a network's weights are missing or malformed.
    """
    rows = [describe_component(release, name) for name in (*MODELS, *OPTIONAL_MODELS)
            if name in MODELS or (release.directory / name / "config.json").is_file()]
    return {"components": rows}


def describe_component(release: Release, name: str) -> dict[str, Any]:
    """Size, picture size and casts of one network, from the headers of its weight files."""
    directory = release.directory / name
    try:
        weights = find_weights(directory)
        casts = {variant: find_weights(directory, variant) for variant in VARIANTS if list(directory.glob(f"*.{variant}*.safetensors"))}
    except CheckpointError as error:
        raise ReleaseError(f"{error}; pack the release again") from error
    return {"name": name, "image_size": release.component_config(name).get("image_size"), "is_trained": training_stage(name) in release.records,
            "num_parameters": sum(prod(header.shape) for header in weights.headers.values()),
            "num_files": len(weights.files), "num_bytes": weights.num_bytes, "variants": list(casts)}
