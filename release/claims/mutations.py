"""What the card says of a mutation test: whether a filter still finds what it knows in another shape."""

from typing import Any

from ...data_filter.mutations.figures import measure_mutations
from ...data_filter.mutations.image_changes import TITLES
from ...errors import ReleaseError
from ...store.run_layout import mutation_stage
from ..evidence.comparison import Claims
from ..evidence.contents import Release

ROW_KEYS = ("mutation", "num_positive", "num_caught", "recall", "recall_lower_bound", "num_other", "num_other_dropped")


def planted_path(category: str) -> str:
    """Where the table of the planted pictures lies in a release."""
    return f"evidence/mutations/{category}/planted.parquet"


def mutation_claims(release: Release, category: str) -> Claims:
    """The claims about a category's mutation test, measured from the planted pictures; an empty list where none was done.

    Raises:
        ReleaseError: the table is malformed, or its verdicts do not follow from its scores.
    """
    prefix, where = f"mutations.{category}", planted_path(category)
    if mutation_stage(category) not in release.records:
        return {f"{prefix}.list": []}
    planted = release.read_parquet(where)
    threshold = release.filter(category).get("threshold")
    verdicts = zip(planted["score"].to_pylist(), planted["dropped"].to_pylist(), strict=True)
    if any(dropped != (score is None or not score < threshold) for score, dropped in verdicts):
        raise ReleaseError(f"{where}: its verdicts do not follow from its scores and the filter's threshold; "
                           "run `glideslope filters mutate` again")
    measured = measure_mutations(planted)
    rows: list[dict[str, Any]] = [{"title": TITLES.get(row["mutation"], row["mutation"]), **{key: row[key] for key in ROW_KEYS}}
                                  for row in measured["mutations"]]
    return {f"{prefix}.list": rows, f"{prefix}.num_positives": measured["num_positives"], f"{prefix}.num_others": measured["num_others"]}
