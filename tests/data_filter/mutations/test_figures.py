import pyarrow as pa

from glideslope.data_filter.deciding.statistics import lower_bound
from glideslope.data_filter.mutations.figures import PLANTED_SCHEMA, measure_mutations


def table_of(*rows: tuple[str, str, int, float, bool, bool]) -> pa.Table:
    names = ("mutation", "key", "label", "area_share", "was_dropped", "dropped")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) | {"concept": row[1], "score": 0.0} for row in rows], schema=PLANTED_SCHEMA)


def test_figures_are_counts_of_the_table() -> None:
    figures = measure_mutations(table_of(
        ("unchanged", "a", 1, 0.5, True, True), ("unchanged", "b", 1, 0.5, False, False), ("unchanged", "x", 0, 1.0, False, True),
        ("tiny_1_4", "a", 1, 0.02, True, False), ("tiny_1_4", "b", 1, 0.02, False, True), ("tiny_1_4", "x", 0, 0.06, False, False)))
    unchanged, tiny = figures["mutations"]
    assert (unchanged["num_caught"], unchanged["num_positive"], unchanged["num_lost"], unchanged["drop_rate_others"]) == (1, 2, 0, 1.0)
    assert (tiny["num_caught"], tiny["num_lost"], tiny["recall_lower_bound"]) == (1, 1, lower_bound(1, 2))
    assert figures["num_other_verdict"] == 1
    sizes = {row["from"]: row for row in figures["sizes"]}
    assert (sizes[0.01]["num_positive"], sizes[0.01]["num_caught"]) == (2, 1)
    assert (sizes[0.3]["num_positive"], sizes[0.3]["num_caught"]) == (2, 1)
    assert sizes[0.1]["recall"] is None


def test_a_positive_counts_once_per_size_and_as_caught_only_when_it_always_is() -> None:
    figures = measure_mutations(table_of(("unchanged", "a", 1, 0.5, True, True), ("screenshot", "a", 1, 0.4, True, False)))
    assert [(row["num_positive"], row["num_caught"]) for row in figures["sizes"]] == [(0, 0)] * 4 + [(1, 0)]
