import json
import shutil
from typing import Any

import numpy as np
import pytest

from glideslope.data_filter.classifiers import fit_stage as fit
from glideslope.data_filter.classifiers.file import load_classifier
from glideslope.data_filter.classifiers.fit_stage import fit_classifier
from glideslope.data_filter.index.parquet import read_table
from glideslope.data_filter.labels.concepts import role_of
from glideslope.data_filter.labels.csv_files import Verdict
from glideslope.data_filter.labels.labelled import resolve_labels
from glideslope.data_filter.labels.stage import import_labels
from glideslope.errors import FilterError, StageError
from glideslope.recipe.filters import LabelsConfig

from ..conftest import World, category


def fit_to(world: World, name: str = "red", **settings: object) -> dict[str, Any]:
    fit_classifier(category(name, **settings), world.layout)
    return dict(json.loads((world.root / "classifiers" / name / "classifier.json").read_text()))


def label_with(world: World, positive: list[int], name: str = "red") -> None:
    world.index()
    verdicts = [Verdict(f"{n:03d}.png", name, int(n in positive), "", "", "") for n in range(60)]
    import_labels(verdicts, world.root / "labels", world.root / "index", LabelsConfig())


def test_what_was_chosen_why_and_how_reliable_it_is_stands_in_the_report(fitted: World) -> None:
    found = json.loads((fitted.root / "classifiers" / "red" / "classifier.json").read_text())
    assert found["format"] == "glideslope.classifier_report/2" and found["kind"] in ("average", "rbf_svm", "logistic")
    assert found["selection"]["chosen"] == {"kind": found["kind"], "parts": found["parts"]}
    assert {row["kind"] for row in found["selection"]["candidates"]} == {"average", "rbf_svm", "logistic"}
    assert found["calibration"]["slope"] > 0
    assert found["reliability"]["labels"] == "calibrate" and found["reliability"]["brier"] < found["reliability"]["brier_of_constant"]
    assert sum(found["num_train"].values()) == len(read_table(fitted.root / "classifiers" / "red" / "training.parquet"))


def test_training_takes_train_labels_only_and_keeps_their_scores_out_of_fold(fitted: World) -> None:
    rows = read_table(fitted.root / "classifiers" / "red" / "training.parquet").to_pylist()
    assert all(role_of(row["key"], LabelsConfig()) == "train" for row in rows)
    assert {row["fold"] for row in rows} == set(range(5))
    assert np.mean([row["out_of_fold_score"] > 0 for row in rows if row["label"]]) > 0.8
    assert sum(fit_to(fitted, max_train_labels=8)["num_train"].values()) == 8


@pytest.mark.parametrize("kind", ["rbf_svm", "logistic", "mlp"])
def test_a_recipe_may_name_one_kind(fitted: World, kind: str) -> None:
    found = fit_to(fitted, classifiers=(kind,))
    assert found["kind"] == kind == found["parts"][0]["kind"]
    assert load_classifier(fitted.root / "classifiers" / "red" / "classifier.safetensors").kind == kind


def test_the_kernel_may_be_fixed(fitted: World) -> None:
    assert fit_to(fitted, classifiers=("rbf_svm",), kernel_gamma=3.5)["parts"] == [{"kind": "rbf_svm", "gamma": 3.5, "C": 10.0}]


def test_zero_shot_comes_from_the_prompts_of_the_category(fitted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class TextTower:
        image_mean = None

        def encode_text(self, captions: tuple[str, ...]) -> np.ndarray:
            asked.append(captions)
            return np.eye(8, dtype=np.float32)[[0, 3]]  # the red of both halves

    monkeypatch.setattr("glideslope.clip.model.load_clip", lambda config, text_dir: TextTower())
    found = fit_to(fitted, classifiers=("zero_shot",), prompts=("a red thing", "something red"))
    assert asked == [("a red thing", "something red")] and found["kind"] == "zero_shot"
    scores = load_classifier(fitted.root / "classifiers" / "red" / "classifier.safetensors").score(np.eye(8))
    np.testing.assert_allclose(scores, [0.5**0.5, 0, 0, 0.5**0.5, 0, 0, 0, 0], atol=1e-6)
    fit_to(fitted, classifiers=("zero_shot", "logistic"))
    assert asked[-1] == ("red",)


def test_another_target_recall_needs_no_other_classifier_but_other_labels_do(fitted: World) -> None:
    def digest() -> str:
        return str(json.loads((fitted.root / "classifiers" / "red" / "record.json").read_text())["digest"])

    first = digest()
    fit_to(fitted, target_recall=0.5, caption_words=("red",))
    assert digest() == first
    fit_to(fitted, max_train_labels=9)
    assert digest() != first


def test_fitting_again_gives_the_same_digest(fitted: World) -> None:
    first = json.loads((fitted.root / "classifiers" / "red" / "record.json").read_text())["digest"]
    shutil.rmtree(fitted.layout.classifier("red"))
    assert fit_classifier(category(), fitted.layout).digest == first


def test_more_labels_than_choose_the_classifier_are_learned_from_and_scored_out_of_fold(fitted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "MAX_CROSS_VALIDATED", 12)
    found = fit_to(fitted, max_train_labels=20)
    rows = read_table(fitted.root / "classifiers" / "red" / "training.parquet").to_pylist()
    assert found["selection"]["num_labels"] == 12 and len(rows) == 20
    assert all(row["out_of_fold_score"] is not None for row in rows)


def test_inputs_on_which_people_disagree_are_left_out(fitted: World) -> None:
    other = [Verdict("000.png", "red", 0, "somebody else", "", "")]
    import_labels(other, fitted.root / "labels", fitted.root / "index", LabelsConfig())
    data = resolve_labels(fitted.layout).embedded_set("red")
    assert data.num_ambiguous == 1 and "000.png" not in {one.key for one in data.judgements} and len(data.judgements) == 59
    assert fit_to(fitted)["num_ambiguous"] == 1


def test_training_without_positives_is_refused_with_what_to_label(world: World) -> None:
    label_with(world, [n for n in range(0, 60, 3) if role_of(f"{n:03d}.png", LabelsConfig()) != "train"])
    with pytest.raises(FilterError, match="train labels is positive; label images of more concepts"):
        fit_to(world)


def test_training_without_negatives_or_without_labels_is_refused(world: World) -> None:
    label_with(world, list(range(60)))
    with pytest.raises(FilterError, match="train labels is negative"):
        fit_to(world)
    with pytest.raises(FilterError, match="none of the 0 train labels is positive"):
        fit_to(world, "other")


def test_a_single_positive_concept_gives_a_classifier_without_probabilities(world: World) -> None:
    by_role = {role: next(n for n in range(0, 60, 3) if role_of(f"{n:03d}.png", LabelsConfig()) == role) for role in ("train", "calibrate")}
    label_with(world, list(by_role.values()))
    found = fit_to(world)
    assert found["calibration"] is None and found["reliability"] is None and found["selection"]["method"].startswith("none")


def test_fitting_needs_finished_labels(world: World) -> None:
    world.index()
    with pytest.raises(StageError, match="labels: no finished stage here"):
        fit_to(world)


def test_labels_of_inputs_that_have_no_embedding_are_counted_by_reason(world: World) -> None:
    positive = [n for n in range(0, 60, 3) if role_of(f"{n:03d}.png", LabelsConfig()) == "train"]
    for number in positive[1:]:
        (world.root / "images" / f"{number:03d}.png").write_bytes(b"no image")
    (world.root / "images" / f"{positive[0]:03d}.png").unlink()
    label_with(world, positive)
    with pytest.raises(FilterError, match=rf"train labels is positive; .*\. {len(positive)} labelled inputs have no embedding "
                                          rf"\(1 x missing, {len(positive) - 1} x unreadable\)$"):
        fit_to(world)
