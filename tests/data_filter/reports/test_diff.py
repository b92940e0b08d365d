import csv
import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.index.parquet import write_table
from glideslope.data_filter.reports.diff import Difference, compare_runs, write_difference
from glideslope.errors import StageError
from glideslope.store.records import run_stage
from glideslope.store.whole_files import write_json

from ..conftest import World

Shards = Mapping[str, list[tuple[str, str]]]
SCHEMA = pa.schema([(name, pa.string()) for name in ("key", "sha256", "reason", "caption")] + [("score_x", pa.float32())])
REASONS = st.sampled_from(["", "filter:x"])
GROUPS = {"woman": ("woman",), "man": ("man",)}


def write_run(root: Path, shards: Shards, *, threshold: float = 0.5, digest: str = "same") -> Path:
    """A run directory with a ledger of (key, reason) rows; the caption is the key with spaces."""
    def work(partial: Path) -> dict[str, int]:
        rows = [row for part in shards.values() for row in part]
        for name, part in shards.items():
            table = [{"key": key, "sha256": digest, "reason": reason, "caption": key.replace("_", " "), "score_x": 0.25}
                     for key, reason in part]
            write_table(partial / "ledger" / f"{name}.parquet", pa.Table.from_pylist(table, schema=SCHEMA))
        write_json(partial / "curated.json", {"seen": len(rows), "categories": {"x": {"threshold": threshold}}})
        return {}

    root.mkdir(parents=True)
    (root / "recipe.yaml").write_text(json.dumps({"categories": [{"name": "x", "target_recall": threshold}]}))
    run_stage(root / "curated", stage="curated", config={}, inputs={}, work=work)
    return root


def compare(tmp_path: Path, a: Shards, b: Shards) -> Difference:
    return compare_runs(write_run(tmp_path / "a", a), write_run(tmp_path / "b", b, threshold=0.7), GROUPS)


A: Shards = {"shard-0": [("a_woman", ""), ("a_man", "filter:x"), ("dog", "")], "shard-1": [("cat", "filter:x"), ("cow", "unreadable")]}
B: Shards = {"shard-0": [("a_woman", "filter:x"), ("a_man", ""), ("dog", "")], "shard-1": [("cat", "filter:y"), ("cow", "unreadable")]}


def test_images_that_enter_and_leave_are_listed_with_both_reasons(tmp_path: Path) -> None:
    found = compare(tmp_path, A, B)
    assert found.changes.select(["key", "change", "reason_a", "reason_b", "caption"]).to_pylist() == [
        {"key": "a_woman", "change": "leaves", "reason_a": "", "reason_b": "filter:x", "caption": "a woman"},
        {"key": "a_man", "change": "enters", "reason_a": "filter:x", "reason_b": "", "caption": "a man"}]
    assert found.changes["score_a_x"].to_pylist() == [0.25, 0.25]
    figures = found.to_json()
    assert [figures[f"num_{name}"] for name in ("inputs", "kept_a", "kept_b", "entering", "leaving")] == [5, 2, 2, 1, 1]
    assert [tuple(row.values()) for row in figures["reasons"]] == [("", "filter:x", 1), ("filter:x", "", 1), ("filter:x", "filter:y", 1)]


def test_groups_say_whom_the_change_concerns(tmp_path: Path) -> None:
    groups = {row["group"]: row for row in compare(tmp_path, A, B).to_json()["groups"]}
    assert (groups["woman"]["num_leaving"], groups["woman"]["num_entering"]) == (1, 0)
    assert (groups["man"]["num_leaving"], groups["man"]["num_entering"]) == (0, 1)


def test_the_settings_are_compared(tmp_path: Path) -> None:
    found = compare(tmp_path, A, B)
    assert found.settings == [{"what": "categories.x.target_recall", "a": 0.5, "b": 0.7}, {"what": "filters.x.threshold", "a": 0.5, "b": 0.7}]


def test_inputs_of_one_run_alone_are_counted_apart(tmp_path: Path) -> None:
    b = {"shard-0": [("dog", ""), ("new", ""), ("newer", "filter:x")], "shard-9": [("cat", ""), ("a_man", "filter:x")]}
    found = compare(tmp_path, A, b)
    assert found.only_in_a == {"": 1, "unreadable": 1}
    assert found.only_in_b == {"": 1, "filter:x": 1}
    assert found.changes.select(["key", "change"]).to_pylist() == [{"key": "cat", "change": "enters"}]


def test_runs_that_share_nothing_are_compared_too(tmp_path: Path) -> None:
    found = compare(tmp_path, {"shard-0": [("a", "")]}, {"shard-1": [("b", "filter:x")]})
    assert (found.only_in_a, found.only_in_b, found.everyone.num_inputs) == ({"": 1}, {"filter:x": 1}, 0)
    assert len(found.changes) == 0
    assert compare_runs(tmp_path / "a", tmp_path / "a", GROUPS).settings == []


def test_a_repeated_key_is_not_matched_by_guessing(tmp_path: Path) -> None:
    found = compare(tmp_path, {"shard-0": [("a", ""), ("a", "duplicate key"), ("b", "")]}, {"shard-0": [("b", ""), ("a", "filter:x")]})
    assert found.num_unmatched == [1, 0]
    assert (found.everyone.num_inputs, found.everyone.num_leaving) == (2, 1)


def test_other_bytes_under_the_same_key_are_told(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", A), write_run(tmp_path / "b", A, digest="other")
    assert compare_runs(a, b, GROUPS).num_other_content == 5


@given(rows=st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(REASONS, REASONS), min_size=1))
def test_the_order_of_the_shards_does_not_matter(rows: dict[str, tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("runs")
    a = {"shard-0": [(key, reason) for key, (reason, _) in rows.items()]}
    straight = {"shard-0": [(key, reason) for key, (_, reason) in rows.items()]}
    turned = {"shard-7": [(key, reason) for key, (_, reason) in reversed(rows.items())]}
    write_run(root / "a", a)
    found = [compare_runs(root / "a", write_run(root / name, b), GROUPS) for name, b in (("b", straight), ("c", turned))]
    assert vars(found[0].everyone) == vars(found[1].everyone)
    assert sorted(found[0].changes["key"].to_pylist()) == sorted(found[1].changes["key"].to_pylist())
    assert found[0].everyone.num_entering == sum(bool(was) and not now for was, now in rows.values())


def test_labelled_inputs_that_change_are_counted(fitted: World) -> None:
    fitted.curate()
    found = compare_runs(root_of(fitted), root_of(fitted), GROUPS)
    labelled = {(row["category"], row["label"]): row for row in found.to_json()["labelled"]}
    assert labelled["red", "1"]["num_inputs"] == 20 and labelled["red", "0"]["num_inputs"] == 40
    assert labelled["red", "1"]["num_kept_a"] < 5 < labelled["red", "0"]["num_kept_a"]


def root_of(world: World) -> Path:
    (world.root / "recipe.yaml").write_text("categories: []\n")
    return world.root


def test_a_list_for_a_spreadsheet_holds_no_formula(tmp_path: Path) -> None:
    a = {"shard-0": [('=HYPERLINK("x")', ""), ("b,\"c", "")]}
    b = {"shard-0": [('=HYPERLINK("x")', "filter:x"), ("b,\"c", "filter:x")]}
    write_difference(compare(tmp_path, a, b), tmp_path / "list.csv")
    with (tmp_path / "list.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["caption"] for row in rows] == ["'=HYPERLINK(\"x\")", 'b,"c']
    assert rows[0]["key"] == '=HYPERLINK("x")'


def test_json_holds_figures_and_rows(tmp_path: Path) -> None:
    write_difference(compare(tmp_path, A, B), tmp_path / "all.json")
    found = json.loads((tmp_path / "all.json").read_text())
    assert found["num_leaving"] == 1 and [row["key"] for row in found["changes"]] == ["a_woman", "a_man"]


def test_another_ending_and_an_unfinished_run_are_refused(tmp_path: Path) -> None:
    found = compare(tmp_path, A, B)
    with pytest.raises(StageError, match=r"must end in \.csv"):
        write_difference(found, tmp_path / "list.txt")
    with pytest.raises(StageError, match="no finished stage here"):
        compare_runs(tmp_path / "a", tmp_path / "nowhere", GROUPS)
