"""The gate on the labels: what shows how good a filter is was used for nothing else."""

from collections import defaultdict

from ....store.vocabulary import FITTING_ROLES, Role
from ...claims.audits import read_audits
from ...evidence.comparison import shorten
from ...evidence.contents import Release
from .gate import Asked, Gate


def find_reused_labels(release: Release, asked: Asked) -> list[str]:
    """One sentence for each use of a label in two roles."""
    problems = []
    for category in release.categories:
        where = f"labels of {category.name}"
        columns = ("key", "concept", "role", "in_training")
        rows = list(zip(*(release.scores(category.name)[column].to_pylist() for column in columns), strict=True))
        roles: dict[tuple[str, str], set[str]] = defaultdict(set)
        for key, concept, role, is_trained in rows:
            for labelled in (("key", key), ("concept", concept)):
                roles[labelled].add(role)
            if is_trained and role != Role.TRAIN:
                problems.append(f"{where}: {key} has the role {role}, but the classifier was trained on it; fit again")
        problems += [f"{where}: the {kind} {value[:24]} has the roles {', '.join(sorted(given))}; a label has one role only, give it one and "
                     "fit again" for (kind, value), given in roles.items() if len(given) > 1]
        fitted = {key for key, _, role, _ in rows if role in FITTING_ROLES}
        for audit in read_audits(release, category.name):
            reused = sorted(fitted & {image["key"] for image in audit.sample["images"]})
            if reused:
                problems.append(f"audit {audit.id}: its sample holds {len(reused)} images whose labels fitted the filter, {reused[0]} for one; "
                                "audit again")
    return shorten(problems)


LABELS_NOT_REUSED = Gate("labels not reused", "a key or concept has labels in two roles, the classifier was trained on a label that measures "
                         "it, or an audit drew images whose labels fitted the filter", demand=find_reused_labels)
