"""A recipe that was edited after the run states what was not done: neither pack nor verify lets it pass."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from glideslope.data_filter.sources.kinds import read_source
from glideslope.errors import ReleaseError, VerificationError
from glideslope.recipe.load import parse_recipe
from glideslope.recipe.recipe import Recipe
from glideslope.recipe.stage_settings import expected_settings, find_changed_settings
from glideslope.release import pack
from glideslope.release.evidence.chain import check_ledger
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.verify import verify
from glideslope.store.records import Record

from ..conftest import concept_with

# key of the recipe -> another value; every one changes a result
EDITS: dict[str, Any] = {
    "seed": 7, "source.kind": "folder", "source.image_size": 64, "source.limit": 10, "clip.model": "ViT-B-32", "clip.pretrained": "openai",
    "clip.text_epochs": 3, "clip.text_batch_size": 8, "clip.text_learning_rate": 0.5, "index.max_pixels": 1000, "index.shard_size": 3,
    "labels.salt": "another", "labels.train_share": 0.5, "labels.calibrate_share": 0.2, "curate.validation_share": 0.5,
    "curate.captions": "optional", "curate.shard_size": 3, "categories.0.target_recall": 0.5, "categories.0.counts": "nothing at all",
    "categories.1.kernel_gamma": 2.0, "categories.1.classifiers": ["logistic"], "categories.0.caption_words": ["gun"],
    "categories.0.max_train_labels": 5, "base.num_images": 5_000_000, "base.learning_rate": 1.0, "base.caption_dropout": 0.9,
    "base.preset": "glide-tiny-32", "noised_clip.num_images": 5_000_000, "noised_clip.weight_decay": 0.5, "evaluate.num_pairs": 9,
    "evaluate.guidance_scale": 7.0, "evaluate.num_steps": 3, "evaluate.captions_from": "train", "release.golden_prompts": 5}
# no result depends on these, or the release itself shows them
FREE = {"clip.batch_size": 3, "base.checkpoint_images": 7, "noised_clip.checkpoint_images": 7, "policy": "policies/mine.yaml",
        "release.title": "Another", "name": "another"}


def edited(recipe: Recipe, key: str, value: Any) -> Recipe:
    plain = recipe.model_dump(mode="json")
    *way, last = key.split(".")
    place: Any = plain
    for part in way:
        place = place[int(part)] if part.isdigit() else place[part]
    if key == "source.kind":
        plain["source"] = {"kind": "folder", "path": "photos"}
    else:
        place[last] = value
    return parse_recipe(plain, read_source, where="edited")


def leaves(value: Any, way: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, inner in value.items():
        yield from leaves(inner, (*way, key)) if isinstance(inner, Mapping) else [(*way, key)]


def problems_of(directory: Path) -> str:
    with pytest.raises(VerificationError) as refused:
        verify(directory)
    return str(refused.value)


@pytest.fixture
def records(packed_run: Path) -> dict[str, Record]:
    return dict(open_evidence(packed_run / "release").records)


def test_a_run_passes_with_the_recipe_that_it_was_run_with(recipe: Recipe, records: dict[str, Record]) -> None:
    assert find_changed_settings(recipe, records) == []


@pytest.mark.parametrize("key", FREE)
def test_what_no_result_depends_on_may_change(recipe: Recipe, records: dict[str, Record], key: str) -> None:
    assert find_changed_settings(edited(recipe, key, FREE[key]), records) == []


@pytest.mark.parametrize("key", EDITS)
def test_every_other_edit_is_named(recipe: Recipe, records: dict[str, Record], key: str) -> None:
    problems = find_changed_settings(edited(recipe, key, EDITS[key]), records)
    assert any("the recipe says" in problem or "the recipe asks" in problem for problem in problems)


def test_every_setting_that_a_record_does_not_state_is_named(recipe: Recipe, records: dict[str, Record]) -> None:
    expected = expected_settings(recipe)
    tried = 0
    for stage, settings in expected.items():
        for *way, last in leaves(settings):
            config: Any = copy.deepcopy(dict(records[stage].config))
            place = config
            for part in way:
                place = place[part]
            del place[last]
            changed = find_changed_settings(recipe, records | {stage: replace(records[stage], config=config)})
            assert [problem for problem in changed if last in problem and "does not say" in problem], (stage, last)
            tried += 1
    assert tried > 80


def test_a_stage_without_a_record_is_named(recipe: Recipe, records: dict[str, Record]) -> None:
    for stage in expected_settings(recipe):
        assert any("record is missing" in problem for problem in
                   find_changed_settings(recipe, {name: record for name, record in records.items() if name != stage}))


def test_a_training_that_the_recipe_does_not_name_is_refused(recipe: Recipe, records: dict[str, Record]) -> None:
    more = records | {"training/upsampler": replace(records["training/base"], stage="training/upsampler")}
    assert find_changed_settings(recipe, more) == [
        "training/upsampler: its record is here, the recipe does not train this network; pack again"]


@pytest.mark.parametrize(("key", "told"), [("clip.model", "index: was run with clip.model 'lite0'"), ("seed", "was run with seed 0"),
                                           ("source.kind", "index: was run with source.kind 'openmoji'")])
def test_pack_refuses_another_recipe_than_the_run_was_run_with(run_dir: Path, recipe: Recipe, key: str, told: str) -> None:
    with pytest.raises(ReleaseError, match="was not run with this recipe") as refused:
        pack(run_dir, edited(recipe, key, EDITS[key]), run_dir / "release")
    assert told in str(refused.value) or key == "seed"


@pytest.mark.parametrize("key", ["clip.model", "seed", "source.kind", "labels.salt", "index.max_pixels"])
def test_verify_refuses_a_recipe_that_was_edited_in_the_release(tamper: Any, recipe: Recipe, key: str) -> None:
    path = tamper.directory / "evidence/recipe.yaml"
    path.write_text(yaml.safe_dump(edited(open_evidence(tamper.directory).recipe, key, EDITS[key]).model_dump(mode="json"), sort_keys=False))
    tamper.seal()
    assert "the recipe says" in problems_of(tamper.directory)


def test_a_label_in_a_role_that_its_concept_does_not_give_is_refused(tamper: Any) -> None:
    def move(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["role"] == "train" and row["label"] == 1).update(role="test", in_training=False)

    tamper.table("evidence/filters/person/scores.parquet", move)
    tamper.seal()
    assert "the recipe's salt and shares give train" in problems_of(tamper.directory)


def test_a_concept_that_gives_the_wanted_role_needs_the_store_to_say_so(tamper: Any) -> None:
    def split(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["role"] == "train")
        row.update(role="test", concept=concept_with("test", row["concept"]))

    tamper.table("evidence/filters/person/scores.parquet", split)
    tamper.seal()
    assert "is not the scores.parquet that stage" in problems_of(tamper.directory)


def test_a_ledger_that_lacks_inputs_of_the_index_is_refused(tamper: Any) -> None:
    tamper.record("index", lambda record: record["summary"].update(num_inputs=500))
    assert "has 401 rows, the index has 500 inputs" in "\n".join(check_ledger(open_evidence(tamper.directory)))
    tamper.record("index", lambda record: record["summary"].update(num_inputs=401, num_bad={"unreadable": 1, "too large": 3}))
    assert "0 rows say 'too large', the index has 3" in "\n".join(check_ledger(open_evidence(tamper.directory)))
    tamper.record("index", lambda record: record["summary"].pop("num_inputs"))
    with pytest.raises(ReleaseError, match="num_inputs"):
        check_ledger(open_evidence(tamper.directory))
