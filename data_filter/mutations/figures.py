"""The figures of a mutation test, from the table of what was planted."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..deciding.statistics import lower_bound, upper_bound

MUTATIONS_NAME, PLANTED_NAME = "mutations.json", "planted.parquet"
# Mutations after which the subject is whole and undamaged, only smaller: these speak about size.
RESIZED = ("unchanged", "tiny_1_2", "tiny_1_4", "tiny_1_8", "collage_2x2", "collage_3x3", "screenshot")
SIZES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
PLANTED_SCHEMA = pa.schema([
    pa.field("mutation", pa.string(), nullable=False),
    pa.field("key", pa.string(), nullable=False),
    pa.field("concept", pa.string(), nullable=False),
    pa.field("label", pa.int8(), nullable=False),
    pa.field("area_share", pa.float32(), nullable=False),
    pa.field("score", pa.float32()),
    pa.field("was_dropped", pa.bool_(), nullable=False),
    pa.field("dropped", pa.bool_(), nullable=False),
])


def measure_mutations(planted: pa.Table) -> dict[str, Any]:
    """The figures of a mutation test from its table alone.

    Args:
        planted: a table of `PLANTED_SCHEMA`.

    Returns:
        Plain data. `mutations`, in the table's order: mutation, num_positive, num_caught, recall and its one-sided 95 % lower
        bound, num_lost (caught as they were, missed after the change), num_other, num_other_dropped and drop_rate_others with
        its upper bound (all of them are kept as they are), median_area_share. `sizes`: recall by the share of the picture that
        the subject takes, over the mutations that only make it smaller; an input counts once per size, as caught when each of
        its pictures is. `num_unreadable` planted pictures had no score and count as dropped; `num_other_verdict` unchanged
        ones were judged otherwise than in the run, which points to a fault of the pipeline.
    """
    names = planted["mutation"].to_pylist()
    columns = {name: planted[name].to_numpy(zero_copy_only=False) for name in ("label", "dropped", "was_dropped", "area_share")}
    mutation, key = np.array(names, dtype=object), np.array(planted["key"].to_pylist(), dtype=object)
    positive, dropped, was_dropped = columns["label"] == 1, columns["dropped"], columns["was_dropped"]
    rows = []
    for name in dict.fromkeys(names):
        here = mutation == name
        caught, others = dropped[here & positive], dropped[here & ~positive]
        rows.append({"mutation": name, **count_caught(caught), "num_lost": int((here & positive & was_dropped & ~dropped).sum()),
                     "num_other": len(others), "num_other_dropped": int(others.sum()),
                     "drop_rate_others": float(others.mean()) if len(others) else None,
                     "drop_rate_others_upper_bound": upper_bound(int(others.sum()), len(others)),
                     "median_area_share": float(np.median(columns["area_share"][here & positive]))})
    unchanged = mutation == "unchanged"
    return {"num_positives": len(set(key[positive])), "num_others": len(set(key[~positive])),
            "num_concepts": len({concept for concept, chosen in zip(planted["concept"].to_pylist(), positive, strict=True) if chosen}),
            "mutations": rows, "sizes": measure_sizes(key, np.isin(mutation, RESIZED) & positive, columns["area_share"], dropped),
            "num_unreadable": planted["score"].null_count, "num_other_verdict": int((unchanged & (dropped != was_dropped)).sum())}


def measure_sizes(key: NDArray[np.object_], chosen: NDArray[np.bool_], share: NDArray[Any], dropped: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Recall by size of the subject; see `measure_mutations`."""
    rows = []
    for low, high in pairwise(SIZES):
        here = chosen & (share >= low) & ((share < high) | (high == SIZES[-1]))
        missed = set(key[here & ~dropped])
        caught = np.array([name not in missed for name in sorted(set(key[here]))], dtype=bool)
        rows.append({"from": low, "to": high, **count_caught(caught)})
    return rows


def count_caught(caught: NDArray[np.bool_]) -> dict[str, Any]:
    """How many of some positives are caught."""
    num_caught = int(caught.sum())
    return {"num_positive": len(caught), "num_caught": num_caught, "recall": num_caught / len(caught) if len(caught) else None,
            "recall_lower_bound": lower_bound(num_caught, len(caught))}
