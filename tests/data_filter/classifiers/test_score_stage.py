import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from glideslope.data_filter.classifiers import score_stage as module
from glideslope.data_filter.classifiers.file import load_classifier
from glideslope.data_filter.classifiers.fitted import load_classifier_once
from glideslope.data_filter.classifiers.score_stage import score_index
from glideslope.data_filter.classifiers.scores import read_row_scores, read_shard_scores
from glideslope.data_filter.index.parquet import read_table, write_table
from glideslope.data_filter.index.read import read_index
from glideslope.data_filter.labels.labelled import resolve_labels
from glideslope.errors import FilterError, StageError
from glideslope.recipe.filters import Category, Detector
from glideslope.store.records import Record

from ..conftest import World, category


def score(world: World, wanted: Category | None = None, *, workers: int | None = None) -> Record:
    return score_index(wanted or category(), world.layout, workers=workers)


def rows_of(world: World) -> dict[str, dict[str, object]]:
    return {row["key"]: row for path in sorted((world.root / "scores" / "red").glob("*.parquet")) for row in read_table(path).to_pylist()}


def test_every_input_has_a_row_in_the_order_of_the_index(fitted: World) -> None:
    (fitted.root / "images" / "000.png").write_bytes(b"broken")
    fitted.index()
    fitted.label()
    fitted.fit()
    classifier = load_classifier(fitted.root / "classifiers" / "red" / "classifier.safetensors")
    for name, index in read_index(fitted.layout.index, columns=["key", "embedding"]):
        scores = read_shard_scores(fitted.layout.scores("red"), name, index)
        assert scores["key"].to_pylist() == index["key"].to_pylist()
        for embedding, row in zip(index["embedding"].to_pylist(), scores.to_pylist(), strict=True):
            expected = None if embedding is None else classifier.score(np.array([embedding], dtype=np.float16))[0]
            assert row["score"] == expected and (row["probability"] is None) == (expected is None)
    assert rows_of(fitted)["000.png"]["score"] is None
    summary = json.loads((fitted.root / "scores" / "red" / "record.json").read_text())["summary"]
    assert summary == {"num_inputs": 60, "num_scored": 59, "num_flagged": {}, "detectors": {}}


def test_probabilities_keep_the_order_of_scores(fitted: World) -> None:
    rows = sorted(rows_of(fitted).values(), key=lambda row: row["score"])  # type: ignore[arg-type, return-value]  # all are numbers
    probabilities = [row["probability"] for row in rows]
    assert probabilities == sorted(probabilities) and probabilities[0] < 0.5 < probabilities[-1]  # type: ignore[operator, type-var]


def test_a_task_can_be_sent_to_another_process(fitted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = json.loads((fitted.root / "scores" / "red" / "record.json").read_text())["digest"]
    for path in (fitted.root / "scores" / "red").iterdir():
        path.unlink()
    asked = []

    def elsewhere(function: Any, tasks: Any, *, engine: str, workers: int, progress: Any) -> list[Any]:
        asked.append((engine, workers))
        return [pickle.loads(pickle.dumps(function))(pickle.loads(pickle.dumps(task))) for task in tasks]

    monkeypatch.setattr(module, "run_tasks", elsewhere)
    assert score(fitted, workers=2).digest == digest and asked == [("local", 2)]


def test_scores_do_not_depend_on_how_the_index_is_cut(fitted: World) -> None:
    whole = rows_of(fitted)
    table = pa.concat_tables(table for _, table in read_index(fitted.root / "index"))
    classifier = load_classifier(fitted.root / "classifiers" / "red" / "classifier.safetensors")
    together = classifier.score(np.array(table["embedding"].to_pylist(), dtype=np.float16))
    assert [row["score"] for row in whole.values()] == together.tolist()


def test_words_and_detectors_flag_inputs_and_unknown_keys_are_reported(fitted: World, tmp_path: Path) -> None:
    lines = [f"{number:03d}.png,{number / 60}" for number in range(59)]
    (tmp_path / "faces.csv").write_text("key,score\n" + "\n".join([*lines, "who.png,0.1", "what.png,0.2"]) + "\n")
    faces = Detector(name="faces", path=str(tmp_path / "faces.csv"), threshold=0.9)
    record = score(fitted, category(caption_words=("RED",), detectors=(faces,)))
    rows = rows_of(fitted)
    assert rows["003.png"]["flags"] == ["caption_words"] and rows["004.png"]["flags"] == []
    assert rows["054.png"]["flags"] == ["caption_words", "faces"] and rows["055.png"]["flags"] == ["faces"]
    assert rows["059.png"]["flags"] == ["faces:missing"]
    assert record.summary["num_flagged"] == {"caption_words": 20, "faces": 5, "faces:missing": 1}
    assert record.summary["detectors"] == {"faces": {"num_keys": 61, "num_unknown_keys": 2, "unknown_keys": ["what.png", "who.png"]}}
    assert record.config["detectors"] == [{"name": "faces", "threshold": 0.9}] and str(tmp_path) not in json.dumps(record.to_json())
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "faces.csv").rename(tmp_path / "moved" / "faces.csv")
    elsewhere = faces.model_copy(update={"path": str(moved)})
    assert score(fitted, category(caption_words=("RED",), detectors=(elsewhere,))).environment == record.environment
    (tmp_path / "faces.csv").write_text("key,score\n" + "\n".join(lines[:30]) + "\n")
    assert score(fitted, category(detectors=(faces,))).summary["num_flagged"] == {"faces:missing": 30}


def test_a_detector_that_is_not_there_is_refused(fitted: World, tmp_path: Path) -> None:
    faces = Detector(name="faces", path=str(tmp_path / "none.csv"), threshold=0.9)
    with pytest.raises(FilterError, match=r"detector faces: .*none.csv cannot be read"):
        score(fitted, category(detectors=(faces,)))


def test_a_threshold_does_not_score_again_but_another_classifier_does(fitted: World) -> None:
    first = score(fitted)
    assert score(fitted, category(target_recall=0.5)).environment == first.environment
    from glideslope.data_filter.classifiers.fit_stage import fit_classifier

    fit_classifier(category(max_train_labels=10), fitted.layout)
    assert score(fitted).digest != first.digest


def test_a_swapped_classifier_is_refused(fitted: World) -> None:
    path = fitted.root / "classifiers" / "red" / "classifier.safetensors"
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(StageError, match="changed since the stage finished"):
        score(fitted, category(caption_words=("red",)))
    with pytest.raises(FilterError, match="expected 000000000000"):
        load_classifier_once(fitted.root / "classifiers" / "red", "0" * 64)


def test_scores_of_another_index_are_refused(fitted: World) -> None:
    path = fitted.root / "scores" / "red" / "shard-00001.parquet"
    write_table(path, read_table(path).slice(1))
    rows = next(rows for name, rows in resolve_labels(fitted.layout).by_shard() if name == "shard-00001")
    (_, index), = read_index(fitted.layout.index, names=["shard-00001"])
    for read, of in ((read_shard_scores, index), (read_row_scores, rows)):
        with pytest.raises(StageError, match=r"shard-00001.parquet: holds other inputs than the index"):
            read(fitted.layout.scores("red"), "shard-00001", of)
