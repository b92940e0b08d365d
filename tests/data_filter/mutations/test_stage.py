import json

import numpy as np
import pyarrow as pa
import pytest

from glideslope.data_filter.deciding.statistics import lower_bound
from glideslope.data_filter.index.parquet import read_table
from glideslope.data_filter.mutations.image_changes import MUTATIONS
from glideslope.data_filter.mutations.stage import PLANTED_SCHEMA, Plan, measure_mutations, mutate
from glideslope.errors import FilterError, StageError
from glideslope.recipe.filters import ClipConfig
from glideslope.store.records import Record

from ..conftest import TinyClip, World, category

SMALL = Plan(num_positives=3, num_others=2)


def run(world: World, plan: Plan = SMALL) -> Record:
    return mutate(category(), world.root, world.source, ClipConfig(), world.root / "mutations" / "red", plan=plan)


def test_known_positives_go_through_the_whole_pipeline_in_every_shape(fitted: World) -> None:
    record = run(fitted)
    directory = fitted.root / "mutations" / "red"
    figures = json.loads((directory / "mutations.json").read_text())
    planted = read_table(directory / "planted.parquet")
    assert len(planted) == 5 * len(MUTATIONS) and record.summary["num_unreadable"] == 0
    assert {key: figures[key] for key in measure_mutations(planted)} == measure_mutations(planted)
    rows = {row["mutation"]: row for row in figures["mutations"]}
    assert list(rows) == list(MUTATIONS)
    assert rows["unchanged"]["recall"] == rows["mirrored"]["recall"] == 1
    assert rows["inverted"]["recall"] == 0  # red turned into cyan, which is kept
    assert rows["unchanged"]["num_other_dropped"] == 0
    assert figures["num_other_verdict"] == 0
    assert {path.name for path in directory.iterdir()} == {"examples.png", "mutations.json", "mutations.png", "planted.parquet", "record.json"}


def test_planted_pictures_were_used_for_nothing_else(fitted: World) -> None:
    run(fitted)
    scores = {row["key"]: row for row in read_table(fitted.root / "filters" / "red" / "scores.parquet").to_pylist()}
    for row in read_table(fitted.root / "mutations" / "red" / "planted.parquet").to_pylist():
        assert scores[row["key"]]["role"] == "test" if row["label"] == 1 else scores[row["key"]]["role"] != "train"


def test_the_same_seed_gives_the_same_scores_and_another_does_not(fitted: World, tiny_clip: TinyClip) -> None:
    first = run(fitted)
    tiny_clip.num_images = 0
    assert run(fitted).digest == first.digest and tiny_clip.num_images == 0
    other = run(fitted, Plan(3, 2, seed=1))
    assert other.outputs != first.outputs
    assert run(fitted).digest == first.digest


def test_without_held_out_positives_there_is_nothing_to_plant(fitted: World) -> None:
    path = fitted.root / "filters" / "red" / "scores.parquet"
    table = read_table(path)
    from glideslope.data_filter.mutations.stage import read_known

    none = table.filter(pa.array([role != "test" for role in table["role"].to_pylist()]))
    with pytest.raises(FilterError, match="no held-out label is positive"):
        read_known(none, 0.0, "red", SMALL, fitted.source, fitted.root / "index")
    with pytest.raises(FilterError, match="another image that the filter keeps"):
        read_known(table, -np.inf, "red", SMALL, fitted.source, fitted.root / "index")


def test_another_clip_than_the_indexs_is_refused_before_anything_is_planted(fitted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageError, match=r"was embedded with .*lite0.*ViT-B-16.*glideslope index"):
        mutate(category(), fitted.root, fitted.source, ClipConfig(model="ViT-B-16", pretrained="openai"), fitted.root / "mutations" / "red")
    monkeypatch.setattr("glideslope.clip.lite0.IMAGES_FORMAT", "glideslope.lite0_images/3")
    with pytest.raises(StageError, match=r"lite0_images/2.*lite0_images/3"):
        run(fitted)
    assert not (fitted.root / "mutations").exists()


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
