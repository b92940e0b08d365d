from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from glideslope.data_filter.deciding.statistics import lower_bound, upper_bound
from glideslope.data_filter.index.parquet import read_table, write_table
from glideslope.data_filter.reports.slices import assign_attributes, count_attributes, measure_slices, slice_by_groups, slice_by_words
from glideslope.errors import StageError

from ..conftest import World


class ColourWords:
    """A text tower for the colours of the tiny CLIP."""

    def encode_text(self, captions: Sequence[str]) -> NDArray[np.float32]:
        colours = {"red": (1, 0, 0), "green": (0, 1, 1)}
        rows = np.array([[*colours[word], *colours[word], 0.2, 0.3] for word in captions], dtype=np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)

    def center(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        return embeddings


PROMPTS = {"colour": {"reddish": "red", "other": "green"}}


def test_figures_of_a_group_count_its_rows_only() -> None:
    label = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    dropped = np.array([1, 0, 1, 1, 1, 0, 1, 0, 0, 0], dtype=bool)
    groups = [{"tone": "dark"}] * 2 + [{"tone": ""}] + [{"tone": "dark"}] * 3 + [{}] * 4
    found = {row["value"]: row for row in measure_slices(label, dropped, slice_by_groups(groups))}
    dark = found["dark"]
    assert (dark["num_positive"], dark["num_caught"], dark["recall"]) == (2, 1, 0.5)
    assert dark["recall_lower_bound"] == lower_bound(1, 2)
    assert (dark["num_dropped_negative"], dark["num_negative"]) == (2, 3)
    assert dark["exclusion_ratio"] == pytest.approx((2 / 3) / (1 / 4))
    assert dark["exclusion_ratio_lower_bound"] < 1 < dark["exclusion_ratio_upper_bound"]
    assert dark["leak"] == {"num_kept": 2, "num_positive_kept": 1, "rate": 0.5, "rate_upper_bound": upper_bound(1, 2)}
    assert dark["is_thin"]
    assert found[""]["num_positive"] == 1


def test_captions_make_groups_and_a_group_of_nobody_is_left_out() -> None:
    parts = slice_by_words(["a Woman runs", "a dog", None], {"woman": ("woman",), "man": ("man",)})
    assert [(part.group, part.rows.tolist()) for part in parts] == [("woman", [True, False, False])]


def test_an_attribute_is_the_nearest_prompt() -> None:
    embeddings = ColourWords().encode_text(["green", "red", "green"])
    parts = assign_attributes(embeddings, PROMPTS, ColourWords())
    assert {part.value: part.rows.tolist() for part in parts} == {"reddish": [False, True, False], "other": [True, False, True]}


def test_attributes_are_counted_over_everything_that_a_filter_judged(fitted: World) -> None:
    fitted.curate()
    found = {row["value"]: row for row in count_attributes(fitted.root / "index", fitted.root / "curated" / "ledger", PROMPTS, ColourWords())}
    assert found["reddish"]["num_inputs"] == 20 and found["other"]["num_inputs"] == 40
    assert found["reddish"]["drop_rate"] > found["other"]["drop_rate"]
    assert found["reddish"]["exclusion_ratio_lower_bound"] > 1


def test_a_ledger_of_another_index_is_refused(fitted: World, tmp_path: Path) -> None:
    fitted.curate()
    first = fitted.root / "curated" / "ledger" / "shard-00000.parquet"
    table = read_table(first)
    keys = pa.array([f"x{key}" for key in table["key"].to_pylist()])
    write_table(first, table.set_column(0, table.schema.field(0), keys))
    with pytest.raises(StageError, match="other inputs than the index"):
        count_attributes(fitted.root / "index", fitted.root / "curated" / "ledger", PROMPTS, ColourWords())
