import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.deciding import threshold_stage as filters
from glideslope.data_filter.deciding.filter_figures import measure_filter
from glideslope.data_filter.deciding.statistics import choose_threshold
from glideslope.data_filter.deciding.threshold_stage import build_filter
from glideslope.data_filter.index.parquet import read_table
from glideslope.data_filter.labels.concepts import role_of
from glideslope.data_filter.labels.csv_files import Verdict
from glideslope.data_filter.labels.stage import import_labels
from glideslope.errors import FilterError
from glideslope.recipe.filters import LabelsConfig
from glideslope.store.records import read_record
from glideslope.store.vocabulary import Role

from ..classifiers.test_fit_stage import label_with
from ..conftest import World, category


def report(world: World, name: str = "red") -> dict[str, Any]:
    return dict(json.loads((world.root / "filters" / name / "filter.json").read_text()))


def test_a_filter_finds_what_it_was_shown_and_states_its_evidence(fitted: World) -> None:
    found = report(fitted)
    assert found["format"] == "glideslope.filter/4"
    assert found["category"] == {"name": "red", "counts": "a picture that is mostly red", "does_not_count": ""}
    assert found["test"]["recall"] == 1.0 and found["test"]["kept_share"] > 0.8
    directory = fitted.root / "filters" / "red"
    assert (directory / "precision_recall.png").read_bytes().startswith(b"\x89PNG")
    assert not (directory / "missed.png").exists()
    for name in ("classifier.safetensors", "classifier.json"):
        assert (directory / name).read_bytes() == (fitted.root / "classifiers" / "red" / name).read_bytes()


def test_every_figure_is_recomputed_from_the_scores_and_the_threshold(fitted: World) -> None:
    found = report(fitted)
    again = measure_filter(read_table(fitted.root / "filters" / "red" / "scores.parquet"), found["threshold"])
    assert json.loads(json.dumps(again)) == {name: found[name] for name in again}


def test_scores_cover_every_label_and_say_which_were_learned_from(fitted: World) -> None:
    rows = read_table(fitted.root / "filters" / "red" / "scores.parquet").to_pylist()
    assert len(rows) == 60
    assert all(row["role"] == "train" for row in rows if row["in_training"])
    assert all(row["role"] == role_of(row["concept"], LabelsConfig()) for row in rows)
    trained = read_table(fitted.root / "classifiers" / "red" / "training.parquet")["key"].to_pylist()
    assert sorted(row["key"] for row in rows if row["in_training"]) == sorted(trained)


def test_another_target_gives_another_threshold_from_the_same_scores(fitted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = report(fitted)
    monkeypatch.setattr("glideslope.data_filter.classifiers.kinds.classifier.Preparation.score", None)
    build_filter(category(target_recall=0.6), fitted.layout, fitted.source)
    assert report(fitted)["threshold"] > first["threshold"]
    assert report(fitted)["classifier"] == first["classifier"]


def test_the_threshold_is_a_score_as_it_is_stored(fitted: World) -> None:
    found = report(fitted)
    assert np.float32(found["threshold"]) == found["threshold"]
    held_out, crossed = threshold_scores(fitted)
    assert found["threshold"] in held_out + crossed


def threshold_scores(world: World) -> tuple[list[float], list[float]]:
    """Scores of the positives that may set the threshold: of those that the classifier never saw, and out of fold."""
    scores = read_table(world.root / "filters" / "red" / "scores.parquet").to_pylist()
    training = read_table(world.root / "classifiers" / "red" / "training.parquet").to_pylist()
    return ([row["score"] for row in scores if row["label"] == 1 and row["role"] == "calibrate"],
            [row["out_of_fold_score"] for row in training if row["label"] == 1])


def test_every_positive_helps_to_set_the_threshold_by_a_classifier_that_never_saw_it(fitted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out, crossed = threshold_scores(fitted)
    found = report(fitted)
    assert found["threshold_set_on"] == {"num_held_out": len(held_out), "num_out_of_fold": len(crossed)} and held_out and crossed
    assert found["threshold"] == choose_threshold(held_out + crossed, 0.99)
    monkeypatch.setattr("glideslope.data_filter.deciding.threshold_stage.ENOUGH_HELD_OUT", len(held_out))
    fitted.fit(category(target_recall=0.98))
    found = report(fitted)
    assert found["threshold_set_on"] == {"num_held_out": len(held_out), "num_out_of_fold": 0}
    assert found["threshold"] == choose_threshold(held_out, 0.98)


def test_without_calibrate_positives_those_out_of_fold_set_the_threshold(world: World) -> None:
    label_with(world, [n for n in range(0, 60, 3) if role_of(f"{n:03d}.png", LabelsConfig()) != "calibrate"])
    world.fit()
    assert report(world)["threshold_set_on"]["num_held_out"] == 0 and report(world)["test"]["recall"] == 1.0


def test_where_no_positive_can_set_a_threshold_it_says_what_to_label(world: World) -> None:
    label_with(world, [next(n for n in range(0, 60, 3) if role_of(f"{n:03d}.png", LabelsConfig()) == "train")])
    with pytest.raises(FilterError, match="none of the calibrate labels is positive, and the train labels are too few"):
        world.fit()


def test_what_the_audit_missed_is_listed_with_pictures(fitted: World) -> None:
    odd = next(n for n in range(60) if n % 3 and role_of(f"{n:03d}.png", LabelsConfig()) == "test")
    verdicts = [Verdict(f"{n:03d}.png", "odd", int(n % 3 == 0 or n == odd), "", "", "") for n in range(60)]
    import_labels(verdicts, fitted.root / "labels", fitted.root / "index", LabelsConfig())
    record = fitted.fit(category("odd"))
    found = report(fitted, "odd")
    assert [row["key"] for row in found["missed"]] == [f"{odd:03d}.png"]
    assert found["missed"][0]["caption"] == f"green thing {odd}"
    assert (fitted.root / "filters" / "odd" / "missed.png").exists() and record.summary["num_missed"] == 1


def test_a_word_in_the_caption_catches_what_the_classifier_misses(fitted: World) -> None:
    odd = next(n for n in range(60) if n % 3 and role_of(f"{n:03d}.png", LabelsConfig()) == "test")
    verdicts = [Verdict(f"{n:03d}.png", "odd", int(n % 3 == 0 or n == odd), "", "", "") for n in range(60)]
    import_labels(verdicts, fitted.root / "labels", fitted.root / "index", LabelsConfig())
    fitted.fit(category("odd", caption_words=(f"Thing {odd}",)))
    found = report(fitted, "odd")
    assert found["missed"] == [] and found["test"]["recall"] == 1.0 and found["judges"]["caption_words"] == [f"Thing {odd}"]


def test_judges_that_flag_every_positive_leave_no_threshold_to_set(fitted: World, tmp_path: Path) -> None:
    with pytest.raises(FilterError, match="all 16 positive labels that could set the classifier's threshold are flagged"):
        fitted.fit(category(caption_words=("red",)))


def test_a_handful_of_positives_gives_a_filter_with_honest_bounds(world: World) -> None:
    by_role = {role: [n for n in range(0, 60, 3) if role_of(f"{n:03d}.png", LabelsConfig()) == role] for role in Role}
    label_with(world, [numbers[0] for numbers in by_role.values()])
    world.fit()
    found = report(world)
    assert found["calibrate"]["recall"] == 1.0
    assert found["test"]["num_positive"] == 1 and found["test"]["recall_lower_bound"] <= 0.05 + 1e-9


def test_labels_without_a_positive_to_test_with_prove_nothing_and_says_so(world: World) -> None:
    label_with(world, [n for n in range(0, 60, 3) if role_of(f"{n:03d}.png", LabelsConfig()) != "test"])
    world.fit()
    test = report(world)["test"]
    assert test["num_positive"] == 0 and test["recall"] is None and test["recall_lower_bound"] == 0.0


def test_labels_of_inputs_without_a_score_are_counted_and_left_out(fitted: World) -> None:
    (fitted.root / "images" / "000.png").write_bytes(b"broken")
    fitted.index()
    fitted.label()
    fitted.fit()
    assert report(fitted)["num_labels_without_score"] == 1
    assert len(read_table(fitted.root / "filters" / "red" / "scores.parquet")) == 59


def test_scores_of_another_classifier_are_refused(fitted: World) -> None:
    from glideslope.data_filter.classifiers.fit_stage import fit_classifier

    fit_classifier(category(max_train_labels=9), fitted.layout)
    with pytest.raises(FilterError, match="scores of another classifier"):
        build_filter(category(), fitted.layout, fitted.source)






def test_the_summary_says_how_many_labels_its_shares_rest_on_and_rounds_bounds_down(fitted: World) -> None:
    test, summary = report(fitted)["test"], read_record(fitted.root / "filters" / "red").summary
    assert {name: summary[name] for name in ("num_positive", "num_negative", "recall", "kept_share")} == {
        name: test[name] for name in ("num_positive", "num_negative", "recall", "kept_share")}
    for name in ("recall_lower_bound", "kept_share_lower_bound"):
        assert 0 < test[name] - summary[name] < 1e-4 or test[name] == summary[name]
    assert summary["num_labels_without_score"] == 0


@given(st.floats(0, 1))
def test_a_bound_is_never_rounded_up(bound: float) -> None:
    assert 0 <= filters.round_down(bound) <= bound + 1e-9 and bound - filters.round_down(bound) < 1.01e-4
