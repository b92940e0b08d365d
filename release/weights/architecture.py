"""Released networks held against their architectures: names, shapes and types from headers, the cut into files, and one another."""

from collections.abc import Mapping

from ...errors import GlideslopeError
from ...recipe.components import NETWORKS, SCHEDULERS, TOKENIZERS
from ...store.strict_json import load_object
from ...store.weight_files import TensorHeader
from ..evidence.contents import Release
from . import DTYPE_ORDER, find_noncanonical, find_nonfinite
from .shards import MEGABYTE, cut, index_json, weight_file_names
from .variants import DTYPES


def check_architecture(release: Release) -> list[str]:
    """One sentence for every tensor that is missing, unknown, or of another shape or type than the architecture's."""
    problems = []
    for network in release.networks:
        problems += _check_network(release, network)
    return problems or _check_together(release)


def check_forms(release: Release) -> list[str]:
    """Every weight file is the canonical one of its tensors, cut as the recipe says, and the index is the one of that cut."""
    problems = []
    for network in release.networks:
        for variant in (None, *release.recipe.release.variants):
            problems += _check_form(release, network, variant)
    return problems


def check_finite(release: Release) -> list[str]:
    """One sentence for every weight tensor that holds a NaN or an infinity."""
    return [f"{network}: tensor {name} holds values that are not finite; train again"
            for network in release.networks for name in find_nonfinite(release.weights(network))]


def weight_paths(release: Release) -> set[str]:
    """Every weight file that a release of these tensors holds, indices included."""
    max_bytes = release.recipe.release.max_shard_mb * MEGABYTE
    return {f"{network}/{name}" for network in release.networks for variant in (None, *release.recipe.release.variants)
            for name in weight_file_names(release.weights(network, variant).headers, variant, max_bytes)}


def _check_network(release: Release, network: str) -> list[str]:
    from ...models.loading.components import read_component_config
    from ...models.networks.components import expected_tensors

    class_name, config = read_component_config(release.path(f"{network}/config.json"))
    if class_name != (expected_name := NETWORKS[network].class_name):
        return [f"{network}/config.json: _class_name is {class_name}, expected {expected_name}"]
    expected, problems = expected_tensors(class_name, config), []
    for variant in (None, *release.recipe.release.variants):
        where = network if variant is None else f"{network} {variant}"
        types = DTYPE_ORDER if variant is None else (DTYPES[variant],)
        problems += [f"{where}: {problem}" for problem in _compare(expected, release.weights(network, variant).headers, types)]
    return problems


def _compare(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, TensorHeader], types: tuple[str, ...]) -> list[str]:
    problems = [f"tensor {name} is missing" for name in sorted(expected.keys() - found.keys())]
    problems += [f"tensor {name} is not part of the architecture" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        header = found[name]
        if header.shape != tuple(expected[name]):
            problems.append(f"tensor {name} has shape {header.shape}, expected {tuple(expected[name])}")
        if header.dtype not in types:
            problems.append(f"tensor {name} has type {header.dtype}, expected {' or '.join(types)}")
    return problems


def _check_together(release: Release) -> list[str]:
    """Whether the networks can draw with one another; they are built without storage."""
    from ...models.loading.components import read_component_config, read_schedule
    from ...models.loading.loaded_networks import Networks
    from ...models.networks.components import build_on_meta
    from ...models.tokenizer import CaptionTokenizer

    built = {name: build_on_meta(*read_component_config(release.path(f"{name}/config.json"))) for name in release.networks}
    try:
        tokenizers = {name: CaptionTokenizer.load(release.path(f"{name}/{TOKENIZERS[name].file}"))
                      for name in TOKENIZERS if name in release.components or (release.directory / name).is_dir()}
        Networks(**built, **tokenizers)  # type: ignore[arg-type]  # classes checked above
        for name in release.components:
            if name in SCHEDULERS:
                read_schedule(release.path(f"{name}/{SCHEDULERS[name].file}"))
    except GlideslopeError as error:
        return [str(error)]
    return []


def _check_form(release: Release, network: str, variant: str | None) -> list[str]:
    weights, max_bytes = release.weights(network, variant), release.recipe.release.max_shard_mb * MEGABYTE
    where = network if variant is None else f"{network} {variant}"
    found = sorted(file.name for file in (*weights.files, *([weights.index] if weights.index else [])))
    expected = sorted(weight_file_names(weights.headers, variant, max_bytes))
    if found != expected:
        return [f"{where}: lies in {', '.join(found)}, the recipe cuts it into {', '.join(expected)}; pack the release again"]
    problems = [f"{where}: {problem}; pack the release again" for problem in find_noncanonical(weights)]
    if weights.index is not None:
        stated = release.read(f"{network}/{weights.index.name}", load_object)
        if stated != index_json(weights.headers, cut(weights.headers, max_bytes), variant):
            problems.append(f"{network}/{weights.index.name}: is not the index of these shards; pack the release again")
    return problems
