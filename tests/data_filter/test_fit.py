import json
from pathlib import Path

import numpy as np
import pytest
from glideslope.data_filter.evidence import measure_filter
from glideslope.data_filter.fit import fit_filter
from glideslope.data_filter.labels import ROLES, Verdict, import_labels, role_of
from glideslope.data_filter.parquet import read_table

from glideslope.config import LabelsConfig
from glideslope.errors import FilterError, StageError

from .conftest import World, category


def fit(world: World, **settings: object) -> dict[str, object]:
    fit_filter(category(**settings), world.root / "index", world.root / "labels", world.source, world.root / "filters" / "red")
    return dict(json.loads((world.root / "filters" / "red" / "filter.json").read_text()))


def test_a_filter_finds_what_it_was_shown_and_states_its_evidence(fitted: World) -> None:
    found = json.loads((fitted.root / "filters" / "red" / "filter.json").read_text())
    assert found["format"] == "glideslope.filter/1"
    assert found["category"] == {"name": "red", "counts": "a picture that is mostly red", "does_not_count": ""}
    assert found["audit"]["recall"] == 1.0 and found["audit"]["kept_share"] > 0.8
    assert (fitted.root / "filters" / "red" / "precision_recall.png").read_bytes().startswith(b"\x89PNG")
    assert not (fitted.root / "filters" / "red" / "missed.png").exists()


def test_every_figure_is_recomputed_from_the_scores_and_the_threshold(fitted: World) -> None:
    directory = fitted.root / "filters" / "red"
    found = json.loads((directory / "filter.json").read_text())
    again = measure_filter(read_table(directory / "scores.parquet"), found["threshold"])
    assert json.loads(json.dumps(again)) == {name: found[name] for name in again}


def test_scores_cover_every_label_and_training_takes_train_labels_only(fitted: World) -> None:
    rows = read_table(fitted.root / "filters" / "red" / "scores.parquet").to_pylist()
    assert len(rows) == 60
    assert all(row["role"] == "train" for row in rows if row["in_training"])
    assert all(row["role"] == role_of(row["concept"], LabelsConfig()) for row in rows)
    limited = fit(fitted, max_train_labels=8)
    assert sum(limited["train"].values()) == 8  # type: ignore[attr-defined]  # a mapping


def test_fitting_again_gives_the_same_digest(fitted: World, tmp_path: Path) -> None:
    first = json.loads((fitted.root / "filters" / "red" / "record.json").read_text())["digest"]
    again = fit_filter(category(), fitted.root / "index", fitted.root / "labels", fitted.source, tmp_path / "again" / "red")
    assert again.digest == first


def test_what_the_audit_missed_is_listed_with_pictures(fitted: World) -> None:
    path = fitted.root / "labels.csv"
    text = path.read_text()
    odd = next(n for n in range(60) if n % 3 and role_of(f"{n:03d}.png", LabelsConfig()) == "audit")
    path.write_text(text.replace(f"{odd:03d}.png,red,0", f"{odd:03d}.png,red,1"))
    world = World(fitted.root)
    verdicts = [Verdict(f"{n:03d}.png", "odd", int(n % 3 == 0 or n == odd), "", "", "") for n in range(60)]
    import_labels(verdicts, world.root / "labels", world.root / "index", LabelsConfig())
    record = fit_filter(category("odd"), world.root / "index", world.root / "labels", world.source, world.root / "filters" / "odd")
    found = json.loads((world.root / "filters" / "odd" / "filter.json").read_text())
    assert [row["key"] for row in found["missed"]] == [f"{odd:03d}.png"]
    assert found["missed"][0]["caption"] == f"green thing {odd}"
    assert (world.root / "filters" / "odd" / "missed.png").exists() and record.summary["num_missed"] == 1


def label_with(world: World, positive: list[int]) -> None:
    world.index()
    verdicts = [Verdict(f"{n:03d}.png", "red", int(n in positive), "", "", "") for n in range(60)]
    import_labels(verdicts, world.root / "labels", world.root / "index", LabelsConfig())


@pytest.mark.parametrize(("role", "message"), [("train", "train labels is positive"), ("calibrate", "calibrate labels is positive")])
def test_a_role_without_positives_is_refused_with_what_to_label(world: World, role: str, message: str) -> None:
    label_with(world, [n for n in range(0, 60, 3) if role_of(f"{n:03d}.png", LabelsConfig()) != role])
    with pytest.raises(FilterError, match=f"{message}; label images of more concepts"):
        fit(world)


def test_training_without_negatives_or_without_labels_is_refused(world: World) -> None:
    label_with(world, list(range(60)))
    with pytest.raises(FilterError, match="train labels is negative"):
        fit(world)
    with pytest.raises(FilterError, match="none of the 0 train labels is positive"):
        fit_filter(category("other"), world.root / "index", world.root / "labels", world.source, world.root / "filters" / "other")


def test_a_handful_of_positives_gives_a_filter_with_honest_bounds(world: World) -> None:
    by_role = {role: [n for n in range(0, 60, 3) if role_of(f"{n:03d}.png", LabelsConfig()) == role] for role in ROLES}
    label_with(world, [numbers[0] for numbers in by_role.values()])
    found = fit(world)
    assert found["calibrate"]["recall"] == 1.0  # type: ignore[index]  # a mapping
    assert found["audit"]["num_positive"] == 1 and found["audit"]["recall_lower_bound"] <= 0.05 + 1e-9  # type: ignore[index]


def test_an_audit_without_positives_proves_nothing_and_says_so(world: World) -> None:
    label_with(world, [n for n in range(0, 60, 3) if role_of(f"{n:03d}.png", LabelsConfig()) != "audit"])
    audit = fit(world)["audit"]
    assert audit["num_positive"] == 0 and audit["recall"] is None and audit["recall_lower_bound"] == 0.0  # type: ignore[index]


def test_fitting_needs_finished_labels(world: World) -> None:
    world.index()
    with pytest.raises(StageError, match="labels: no finished stage here"):
        fit(world)


def test_the_threshold_is_a_score_as_it_is_stored(fitted: World) -> None:
    directory = fitted.root / "filters" / "red"
    found = json.loads((directory / "filter.json").read_text())
    assert np.float32(found["threshold"]) == found["threshold"]
    assert found["threshold"] in read_table(directory / "scores.parquet")["score"].to_pylist()
