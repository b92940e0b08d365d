import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from glideslope.data_filter import curation
from glideslope.data_filter.classifier import RbfSvm
from glideslope.data_filter.curation import Filter, curate, decide
from glideslope.data_filter.index import INDEX_SCHEMA
from glideslope.data_filter.parquet import read_tables

from glideslope.config import CurateConfig
from glideslope.errors import FilterError, StageError, StorageError
from glideslope.manifest import sha256_bytes

from .conftest import World, category, draw


class FixedScores:
    """A classifier that gives the scores it was told, in order."""

    def __init__(self, *scores: float) -> None:
        self.scores = scores

    def score(self, embeddings: np.ndarray) -> np.ndarray:
        return np.array(self.scores[: len(embeddings)], dtype=np.float32)


def judge(name: str, threshold: float, *scores: float) -> Filter:
    classifier: RbfSvm = FixedScores(*scores)  # type: ignore[assignment]  # stands in for one
    return Filter(name, classifier, f"digest of {name}", threshold)


def index_table(**changes: list[object]) -> pa.Table:
    rows = [{"key": f"k{n}", "concept": f"k{n}", "sha256": "0" * 64, "size_bytes": 1, "width": 1, "height": 1, "caption": "c",
             "status": "ok", "reason": "", "error": None, "embedding": [1.0, 2.0]} for n in range(4)]
    for name, values in changes.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


def reasons(*filters: Filter, **changes: list[object]) -> list[str]:
    rows = decide(index_table(**changes), filters, 0.0)
    assert all((row["decision"] == "keep") == (row["reason"] == "") for row in rows)
    return [row["reason"] for row in rows]


def test_only_a_score_below_the_threshold_keeps_an_image() -> None:
    assert reasons(judge("a", 0.5, 0.4, 0.5, 0.6, 0.49)) == ["", "filter:a", "filter:a", ""]


def test_nan_and_infinite_scores_are_dropped_as_missing() -> None:
    assert reasons(judge("a", 0.5, np.nan, np.inf, -np.inf, 0.0)) == ["missing score", "missing score", "", ""]
    rows = decide(index_table(), [judge("a", 0.5, np.nan, 0, 0, 0)], 0.0)
    assert rows[0]["score_a"] is None and rows[1]["score_a"] == 0.0


def test_a_missing_embedding_is_dropped_as_missing_score() -> None:
    assert reasons(judge("a", 0.5, 0, 0, 0), embedding=[[1.0, 2.0], None, [1.0, 2.0], [1.0, 2.0]]) == ["", "missing score", "", ""]


def test_a_bad_row_is_dropped_for_what_is_wrong_with_it_even_with_an_embedding() -> None:
    found = reasons(judge("a", 0.5, 0, 0, 0, 0), status=["bad", "bad", "ok", "bad"], reason=["caption", "duplicate key", "", ""])
    assert found == ["caption", "duplicate key", "", "unreadable"]


def test_the_first_filter_in_the_recipe_names_the_reason_and_every_score_is_recorded() -> None:
    first, second = judge("a", 0.5, 0.9, 0.1, 0.9, 0.1), judge("b", 0.5, 0.9, 0.9, 0.1, 0.1)
    assert reasons(first, second) == ["filter:a", "filter:b", "filter:a", ""]
    rows = decide(index_table(), [first, second], 0.0)
    assert [row["score_b"] for row in rows] == pytest.approx([0.9, 0.9, 0.1, 0.1])
    assert {row["classifier_b"] for row in rows} == {"digest of b"}


def test_the_ledger_has_one_row_for_every_input_and_the_counts_add_up(fitted: World) -> None:
    (fitted.root / "images" / "zero.png").write_bytes(b"")
    fitted.index()
    fitted.label()
    fitted.fit()
    record = fitted.curate()
    summary = json.loads((fitted.root / "curated" / "curated.json").read_text())
    rows = [row for table in read_tables(fitted.root / "curated" / "ledger") for row in table.to_pylist()]
    assert [row["key"] for row in rows] == [entry.key for entry in fitted.source.entries]
    assert summary["seen"] == len(rows) == 61 == summary["kept"] + sum(summary["dropped"].values())
    assert summary["dropped"] == {"filter:red": summary["dropped"]["filter:red"], "unreadable": 1}
    assert sum(summary["splits"].values()) == summary["kept"] == sum(row["decision"] == "keep" for row in rows)
    bad = next(row for row in rows if row["key"] == "zero.png")
    assert (bad["decision"], bad["detail"], bad["split"], bad["weight"]) == ("drop", "file is empty (0 bytes)", "", 0.0)
    assert record.summary["kept"] == summary["kept"]
    sha256 = json.loads((fitted.root / "filters" / "red" / "filter.json").read_text())["classifier"]["sha256"]
    assert summary["categories"]["red"]["classifier_sha256"] == sha256 == rows[0]["classifier_red"]


def test_load_dataset_opens_the_curated_set_with_the_original_bytes(fitted: World) -> None:
    import datasets

    fitted.curate()
    found = datasets.load_dataset(str(fitted.root / "curated"), cache_dir=str(fitted.root / "cache"))
    summary = json.loads((fitted.root / "curated" / "curated.json").read_text())
    assert {split: len(rows) for split, rows in found.items()} == summary["splits"]
    assert found["train"][0]["image"].size == (16, 16)
    raw = found["train"].cast_column("image", datasets.Image(decode=False))
    for row in raw:
        data = (fitted.root / "images" / row["key"]).read_bytes()
        assert row["image"]["bytes"] == data and row["sha256"] == sha256_bytes(data)
        assert row["caption"].endswith(f"thing {int(row['key'][:3])}") and row["weight"] == 1.0


def test_an_input_that_changed_since_it_was_indexed_is_dropped(fitted: World) -> None:
    ledger = [{"key": "001.png", "decision": "keep", "reason": "", "split": "train", "weight": 1.0, "detail": None}]
    index = pa.table({"sha256": [sha256_bytes((fitted.root / "images" / "001.png").read_bytes())]})
    shard = fitted.source.shards()[0]
    assert [place for place, _ in curation.read_kept(fitted.source, shard, index, ledger)] == [0]
    draw(fitted.root / "images" / "001.png", (0, 0, 0))
    assert list(curation.read_kept(fitted.source, shard, index, ledger)) == []
    assert (ledger[0]["decision"], ledger[0]["reason"], ledger[0]["split"]) == ("drop", "changed since index", "")
    ledger[0]["decision"] = "keep"
    (fitted.root / "images" / "001.png").unlink()
    assert list(curation.read_kept(fitted.source, shard, index, ledger)) == []


def test_curating_again_and_after_a_kill_gives_the_same_digest(fitted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fitted.curate()
    assert fitted.curate().digest == first.digest
    for path in sorted((fitted.root / "curated").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (fitted.root / "curated").rmdir()
    real, calls = curation.write_table, []

    def killed(path: Path, table: pa.Table) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(path, table)

    monkeypatch.setattr(curation, "write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        fitted.curate()
    monkeypatch.setattr(curation, "write_table", real)
    assert fitted.curate().digest == first.digest


def test_variants_of_a_concept_share_a_split() -> None:
    table = index_table(concept=["a", "a", "b", "b"])
    for share in (0.1, 0.5, 0.9):
        splits = [row["split"] for row in decide(table, [judge("a", 0.5, 0, 0, 0, 0)], share)]
        assert splits[0] == splits[1] and splits[2] == splits[3]


@pytest.mark.parametrize("threshold", ["null", "NaN", '"0.5"', "true"])
def test_a_threshold_that_is_no_number_is_refused(fitted: World, threshold: str) -> None:
    path = fitted.root / "filters" / "red" / "filter.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "threshold": 0}).replace('"threshold": 0', f'"threshold": {threshold}'))
    with pytest.raises(StageError, match="changed since the stage finished"):
        fitted.curate()
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(curation, "check_outputs", lambda directory, record: None)
        with pytest.raises(FilterError, match=r"threshold is .*, expected a number"):
            fitted.curate()


def test_a_swapped_classifier_is_refused(fitted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fitted.root / "filters" / "red" / "classifier.safetensors"
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(StageError, match=r"classifier.safetensors: sha256"):
        fitted.curate()
    monkeypatch.setattr(curation, "check_outputs", lambda directory, record: None)
    with pytest.raises(FilterError, match=r"filter.json names .*fit the filter again"):
        fitted.curate()


def test_no_filter_a_missing_filter_and_an_empty_result_are_refused(fitted: World) -> None:
    root, config = fitted.root, CurateConfig()
    with pytest.raises(FilterError, match="no category to filter"):
        curate(fitted.source, [], root / "index", root / "filters", config, root / "curated")
    with pytest.raises(StageError, match="no finished stage here"):
        curate(fitted.source, [category("blue")], root / "index", root / "filters", config, root / "curated")
    assert not (root / "curated").exists()


def test_nothing_left_is_refused_with_the_counts(tmp_path: Path) -> None:
    from collections import Counter

    with pytest.raises(StageError, match="nothing is left of 3 inputs"):
        curation.write_summary(tmp_path, 3, Counter({"filter:a": 3}), {"train": 0, "validation": 0}, [])
    with pytest.raises(StageError, match="do not add up"):
        curation.write_summary(tmp_path, 3, Counter({"filter:a": 1, "": 1}), {"train": 1, "validation": 0}, [])


def test_an_unwritable_directory_is_one_clear_error(fitted: World) -> None:
    (fitted.root / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        curate(fitted.source, [category()], fitted.root / "index", fitted.root / "filters", CurateConfig(), fitted.root / "file" / "curated")
