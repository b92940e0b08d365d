"""Which inputs show the same concept, and the role that follows from a concept."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from ...recipe.filters import LabelsConfig
from ...store.vocabulary import FITTING_ROLES, Role
from ..sources.source import hash_share
from .csv_files import Verdict
from .index_rows import Indexed, look_up
from .store import Label


def role_of(concept: str, config: LabelsConfig) -> Role:
    """The role of a concept's labels where none has been given yet; the same whatever the category, the input or the day."""
    share = hash_share(config.salt, concept)
    if share < config.train_share:
        return Role.TRAIN
    return Role.CALIBRATE if share < config.train_share + config.calibrate_share else Role.TEST


def own_concepts(labels: Iterable[Label], verdicts: Iterable[Verdict]) -> list[tuple[str, str]]:
    """Key and concept wherever a label file names one."""
    return [*((label.key, label.own_concept) for label in labels if label.own_concept),
            *((verdict.key, verdict.concept) for verdict in verdicts if verdict.concept)]


def find_fitted(labels: Sequence[Label], category: str, index_dir: Path) -> frozenset[str]:
    """The concepts, as the index and the labels call them, that have train or calibrate labels of a category, for whatever bytes.

    Args:
        labels: all labels, also those of other categories: they may say which inputs show the same concept.
        category: its name.
        index_dir: the finished index.
    """
    known = look_up(index_dir, {label.key for label in labels})
    concepts = join_concepts(known, own_concepts(labels, ()))
    fitting = [label for label in labels if label.category == category and label.role in FITTING_ROLES]
    fitted = {concepts[label.key] for label in fitting if label.key in concepts}
    return frozenset({label.concept for label in fitting} | {known[key].concept for key, concept in concepts.items() if concept in fitted})


def join_concepts(known: Mapping[str, Indexed], own: Iterable[tuple[str, str]], *, join_copies: bool = False) -> dict[str, str]:
    """Key -> concept; concepts that are one bear the name that comes first in order.

    Args:
        known: what the index says of the keys.
        own: key and concept as a label file names it: one with the concept that the index names, and with all that bear its name.
        join_copies: concepts that share an image byte for byte are one: a copy of an image that a classifier was fitted to can't
            testify about it.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for key, concept in own:
        if key in known:
            groups.setdefault(("own", concept), [concept]).append(known[key].concept)
    for indexed in known.values() if join_copies else ():
        if indexed.sha256:
            groups.setdefault(("copies", indexed.sha256), []).append(indexed.concept)
    joined = join_groups(groups.values())
    return {key: joined.get(indexed.concept, indexed.concept) for key, indexed in known.items()}


def join_groups(groups: Iterable[Collection[str]]) -> dict[str, str]:
    """Names that are connected by the groups they share -> the first of them in order (a union-find forest)."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    for group in groups:
        roots = sorted({root(name) for name in group})
        parents |= dict.fromkeys(roots, roots[0]) if roots else {}
    return {name: root(name) for name in parents}
