"""Mutation tests in a release, checked: what was planted was known and held out, nothing is left out, figures are those of the table."""

from collections import Counter
from typing import Any

from ...data_filter.mutations.figures import measure_mutations
from ...store.run_layout import mutation_stage
from ...store.vocabulary import Role
from ..evidence.comparison import equal, show
from ..evidence.contents import Release
from .mutations import planted_path

ROLES = {1: frozenset({Role.TEST}), 0: frozenset({Role.TEST, Role.CALIBRATE})}  # positives had no part in the filter, others none in fitting it
UNCHANGED = "unchanged"


def check_mutations(release: Release) -> list[str]:
    """The mutation tests of a release are of its filters, their inputs are held out, their records state what their tables give."""
    problems = []
    for category in release.categories:
        stage = mutation_stage(category.name)
        if stage in release.records:
            planted = release.read_parquet(planted_path(category.name))
            found = (*_check_record(release, category.name, planted), *_check_inputs(release, category.name, planted))
            problems += [f"{stage}: {problem}" for problem in found]
    return problems


def _check_record(release: Release, category: str, planted: Any) -> list[str]:
    """The test names its filter, and its summary is what the table gives."""
    record = release.record(mutation_stage(category))
    problems = [f"does not say which {name} it used; run `glideslope filters mutate` again"
                for name in (f"classifiers/{category}", f"filters/{category}") if name not in record.inputs]
    measured = measure_mutations(planted)
    worst = min(measured["mutations"], key=lambda row: row["recall"])
    found = {"num_positives": measured["num_positives"], "num_planted": len(planted), "num_unreadable": measured["num_unreadable"],
             "worst_recall": worst["recall"]}
    return problems + [f"{name} is recorded as {show(record.summary.get(name))}, its table gives {show(value)}"
                       for name, value in found.items() if not equal(record.summary.get(name), value)]


def _check_inputs(release: Release, category: str, planted: Any) -> list[str]:
    """Every planted input has the label and a role that the filter's table knows, and stands once in every shape."""
    table = release.scores(category)
    known = {key: (label, role) for key, label, role in zip(*(table[name].to_pylist() for name in ("key", "label", "role")), strict=True)}
    rows = list(zip(*(planted[name].to_pylist() for name in ("mutation", "key", "label")), strict=True))
    inputs, shapes = {(key, label) for _, key, label in rows}, {mutation for mutation, _, _ in rows}
    wrong = sorted(key for key, label in inputs if known.get(key, (None, ""))[0] != label or known[key][1] not in ROLES[label])
    problems = [f"{len(wrong)} planted inputs have another label in the filter's table or were used to fit it ({show(wrong[0])} first)"
                for _ in wrong[:1]]
    counted = Counter((mutation, key) for mutation, key, _ in rows)
    if UNCHANGED not in shapes or set(counted.values()) != {1} or len(counted) != len(shapes) * len({key for key, _ in inputs}):
        problems.append("not every planted input stands exactly once in every shape, unchanged among them; "
                        "run `glideslope filters mutate` again")
    return problems
