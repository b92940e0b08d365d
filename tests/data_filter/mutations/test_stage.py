import json

import numpy as np
import pyarrow as pa
import pytest

from glideslope.data_filter.index.parquet import read_table
from glideslope.data_filter.mutations.figures import measure_mutations
from glideslope.data_filter.mutations.image_changes import MUTATIONS
from glideslope.data_filter.mutations.stage import Plan, mutate
from glideslope.errors import FilterError, StageError
from glideslope.recipe.filters import ClipConfig
from glideslope.store.records import Record

from ..conftest import TinyClip, World, category

SMALL = Plan(num_positives=3, num_others=2)


def run(world: World, plan: Plan = SMALL) -> Record:
    return mutate(category(), world.layout, world.source, ClipConfig(), plan=plan)


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
        mutate(category(), fitted.layout, fitted.source, ClipConfig(model="ViT-B-16", pretrained="openai"))
    monkeypatch.setattr("glideslope.clip.lite0.IMAGES_FORMAT", "glideslope.lite0_images/3")
    with pytest.raises(StageError, match=r"lite0_images/2.*lite0_images/3"):
        run(fitted)
    assert not (fitted.root / "mutations").exists()






