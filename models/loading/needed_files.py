"""Which files of a release loading reads, known before any of them is fetched."""

from collections.abc import Collection

from ...errors import RequestError
from ...recipe.components import COMPONENTS, INDEX_NAME, NETWORKS, OPTIONAL_NETWORKS, components_of
from ...store.weight_files import VARIANTS, index_name, parse_weights_name
from ...trust.opening import OpenRelease, named
from .components import read_index


def held_components(release: OpenRelease) -> frozenset[str]:
    """The components that a release holds, by its index.

    Raises:
        CheckpointError: it has no index, or one that is not of this format.
        VerificationError: the index is not what the manifest lists.
    """
    with named(release.snapshot, INDEX_NAME):
        return read_index(release.index, release.digests)


def held_models(release: OpenRelease) -> list[str]:
    """The optional networks that a release holds; raises as `held_components` does."""
    held = held_components(release)
    return [name for name in OPTIONAL_NETWORKS if name in held]


def needed_files(release: OpenRelease, held: Collection[str], parts: Collection[str], variant: str | None = None) -> list[str]:
    """Relative paths of what loading reads.

    Args:
        release: where from.
        held: the components that it holds.
        parts: which of them are loaded.
        variant: of the weights.

    Raises:
        RequestError: an unknown variant, or one that a component does not have.
    """
    if variant is not None and variant not in VARIANTS:
        raise RequestError(f"variant is {variant!r:.80}; expected none or one of {', '.join(VARIANTS)}")
    networks = [name for name in NETWORKS if name in parts]
    paths = [INDEX_NAME, *(f"{name}/{COMPONENTS[name].file}" for name in components_of(networks, held))]
    return paths + [path for network in networks for path in _weight_paths(release, network, variant)]


def _weight_paths(release: OpenRelease, model: str, variant: str | None) -> list[str]:
    names = [path.removeprefix(f"{model}/") for path in release.names if path.startswith(f"{model}/")]
    parsed = {name: found for name in names if (found := parse_weights_name(name)) is not None}
    chosen = [name for name, found in parsed.items() if found[0] == variant]
    if not chosen and variant is not None:
        held = sorted({found[0] for found in parsed.values() if found[0] is not None})
        raise RequestError(f"variant: {release.snapshot.name} has no {variant} weights of {model}, only as trained"
                           f"{''.join(f' and {name}' for name in held)}; leave variant out, and give dtype to cast them")
    index = [index_name(variant)] if index_name(variant) in names else []
    return [f"{model}/{name}" for name in (*chosen, *index)]
