"""What the records of a run must say if it was run with a recipe: every setting that a result depends on, stage by stage.

`pack` and `verify` compare it with the records. A setting that a record lacks is refused like one that differs: nothing passes
because nobody wrote it down. Settings that no result depends on (`StrictModel.PACE`), places of files, and what a release merely demands of
its figures are not settings of a stage.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...data_filter.classifiers.fit_stage import FIELDS as CLASSIFIER_FIELDS
from ...data_filter.classifiers.score_stage import FIELDS as SCORES_FIELDS
from ...recipe.recipe import Recipe
from ...recipe.strict_model import StrictModel
from ...store.records import Record
from ...store.stage_places import StagePlaces
from .comparison import show
from .plan import GOLDEN_STAGE, classifier_stage, filter_stage, mutation_stage, scores_stage, training_stage

CLIP_STAGE = "clip"
IMAGE_TOWER, TEXT_TOWER = {"model", "pretrained"}, {"text_epochs", "text_batch_size", "text_learning_rate"}


def expected_settings(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Stage -> the settings that its record must state, plain data; a record may state more."""
    seed, clip = {"seed": recipe.seed}, recipe.clip.model_dump(mode="json")
    expected: dict[str, dict[str, Any]] = {
        "index": {"source": recipe.source.identity(), "clip": {key: clip[key] for key in IMAGE_TOWER},
                  "index": settings_of(recipe.index)},
        "labels": settings_of(recipe.labels), "curated": settings_of(recipe.curate),
        **{training_stage(network): settings_of(config) | seed for network, config in recipe.trainings.items()},
        "evaluation": settings_of(recipe.evaluate) | seed | {"clip": recipe.clip.model}}
    for category in recipe.categories:
        whole = {key: value for key, value in category.without_places().items() if key != "limits"}
        expected |= {classifier_stage(category.name): {key: whole[key] for key in CLASSIFIER_FIELDS} | seed,
                     scores_stage(category.name): {key: whole[key] for key in SCORES_FIELDS}, filter_stage(category.name): whole}
    if recipe.clip.model == "lite0":
        expected[CLIP_STAGE] = {"clip": {key: clip[key] for key in TEXT_TOWER}} | seed
    if recipe.release.golden_prompts:
        expected[GOLDEN_STAGE] = {"num_pictures": recipe.release.golden_prompts} | seed
    return expected


def settings_of(part: StrictModel) -> dict[str, Any]:
    """A part of a recipe as plain data, without what no result depends on."""
    return part.model_dump(mode="json", exclude=set(part.PACE))


def is_stated(settings: Mapping[str, Any], config: Any) -> bool:
    """Whether a stage's configuration states all these settings."""
    return not _compare("", settings, config)


def stages_to_do(recipe: Recipe, run_dir: Path, stages: Collection[str]) -> set[str]:
    """Which of some stages a run would do: those without a record, those with other settings, and those that read what these write.

    Only records are read, so that inputs that changed since, and files that were edited, are not seen.
    """
    found = {stage: StagePlaces.read_identity(run_dir / stage) for stage in {*stages, *expected_settings(recipe)}}
    missing = {stage for stage in stages if found[stage] is None}
    changed = {stage for stage, settings in expected_settings(recipe).items()
               if (before := found[stage]) is not None and not is_stated(settings, before["config"])}
    last = {*map(training_stage, recipe.trainings), "evaluation", GOLDEN_STAGE}
    if changed - last:
        changed |= set(stages) if "index" in changed else last
    if training_stage("base") in changed:  # the other networks read its tokenizer, its pictures are evaluated
        changed |= last
    return (missing | changed) & set(stages)


def find_changed_settings(recipe: Recipe, records: Mapping[str, Record]) -> list[str]:
    """One sentence for each setting of a stage that is not the recipe's, or that its record does not state."""
    expected, problems = expected_settings(recipe), []
    tested = {mutation_stage(category.name): {"clip": settings_of(recipe.clip)} for category in recipe.categories}
    expected |= {stage: settings for stage, settings in tested.items() if stage in records}
    for stage, settings in expected.items():
        if stage not in records:
            problems.append(f"{stage}: its record is missing, the recipe asks for this stage; run it, then pack again")
        else:
            problems += [f"{stage}: {problem}; run it again" for problem in _compare("", settings, records[stage].config)]
    problems += [f"{stage}: its record is here, the recipe does not train this network; pack again"
                 for stage in records if stage.startswith("training/") and stage not in expected]
    if GOLDEN_STAGE in records and GOLDEN_STAGE not in expected:
        problems.append(f"{GOLDEN_STAGE}: its record is here, the recipe asks for no golden pictures; pack again")
    return problems


def _compare(prefix: str, expected: Mapping[str, Any], found: Any) -> list[str]:
    problems = []
    for key, value in sorted(expected.items()):
        name = f"{prefix}{key}"
        if not isinstance(found, Mapping) or key not in found:
            problems.append(f"does not say with which {name} it was run, the recipe says {show(value)}")
        elif isinstance(value, Mapping):
            problems += _compare(f"{name}.", value, found[key])
        elif found[key] != value or type(found[key]) is not type(value):
            problems.append(f"was run with {name} {show(found[key])}, the recipe says {show(value)}")
    return problems
