"""What the records of a run must say if it was run with a recipe: every setting that a result depends on, stage by stage.

`pack` and `verify` compare it with the records. A setting that a record lacks is refused like one that differs: nothing passes
because nobody wrote it down. Settings that no result depends on (`StrictModel.PACE`) and places of files are not settings of a stage.
"""

from collections.abc import Mapping
from typing import Any

from ..store.records import Record
from ..store.run_layout import (
    CLIP,
    CURATED,
    EVALUATION,
    GOLDEN,
    INDEX,
    LABELS,
    classifier_stage,
    filter_stage,
    mutation_stage,
    scores_stage,
    training_stage,
)
from .recipe import Recipe
from .strict_model import StrictModel

# What of a category a classifier depends on; the target recall is not among it, so that a new threshold needs no new classifier.
CLASSIFIER_FIELDS = frozenset({"name", "max_train_labels", "classifiers", "kernel_gamma", "prompts"})
# What of a category its scores depend on, beside the classifier.
SCORES_FIELDS = frozenset({"name", "caption_words", "detectors"})
IMAGE_TOWER, TEXT_TOWER = {"model", "pretrained"}, {"text_epochs", "text_batch_size", "text_learning_rate"}


def expected_settings(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Stage -> the settings that its record must state, plain data; a record may state more."""
    seed, clip = {"seed": recipe.seed}, recipe.clip.model_dump(mode="json")
    expected: dict[str, dict[str, Any]] = {
        INDEX: {"source": recipe.source.identity(), "clip": {key: clip[key] for key in IMAGE_TOWER},
                  "index": settings_of(recipe.index)},
        LABELS: settings_of(recipe.labels), CURATED: settings_of(recipe.curate),
        **{training_stage(network): settings_of(config) | seed for network, config in recipe.trainings.items()},
        EVALUATION: settings_of(recipe.evaluate) | seed | {"clip": recipe.clip.model}}
    for category in recipe.categories:
        whole = category.without_places()
        expected |= {classifier_stage(category.name): {key: whole[key] for key in CLASSIFIER_FIELDS} | seed,
                     scores_stage(category.name): {key: whole[key] for key in SCORES_FIELDS}, filter_stage(category.name): whole}
    if recipe.clip.model == "lite0":
        expected[CLIP] = {"clip": {key: clip[key] for key in TEXT_TOWER}} | seed
    if recipe.release.golden_prompts:
        expected[GOLDEN] = {"num_pictures": recipe.release.golden_prompts} | seed
    return expected


def settings_of(part: StrictModel) -> dict[str, Any]:
    """A part of a recipe as plain data, without what no result depends on."""
    return part.model_dump(mode="json", exclude=set(part.PACE))


def is_stated(settings: Mapping[str, Any], config: Any) -> bool:
    """Whether a stage's configuration states all these settings."""
    return not differing_settings(settings, config)


def find_changed_settings(recipe: Recipe, records: Mapping[str, Record]) -> list[str]:
    """One sentence for each setting of a stage that is not the recipe's, or that its record does not state."""
    expected, problems = expected_settings(recipe), []
    tested = {mutation_stage(category.name): {"clip": settings_of(recipe.clip)} for category in recipe.categories}
    expected |= {stage: settings for stage, settings in tested.items() if stage in records}
    for stage, settings in expected.items():
        if stage not in records:
            problems.append(f"{stage}: its record is missing, the recipe asks for this stage; run it, then pack again")
        else:
            problems += [f"{stage}: {problem}; run it again" for problem in differing_settings(settings, records[stage].config)]
    problems += [f"{stage}: its record is here, the recipe does not train this network; pack again"
                 for stage in records if stage.startswith(training_stage("")) and stage not in expected]
    if GOLDEN in records and GOLDEN not in expected:
        problems.append(f"{GOLDEN}: its record is here, the recipe asks for no golden pictures; pack again")
    return problems


def differing_settings(expected: Mapping[str, Any], found: Any, prefix: str = "") -> list[str]:
    """One sentence for each setting that a stage's configuration states otherwise, or not at all; `prefix` stands before the names."""
    problems = []
    for key, value in sorted(expected.items()):
        name = f"{prefix}{key}"
        if not isinstance(found, Mapping) or key not in found:
            problems.append(f"does not say with which {name} it was run, the recipe says {shorten(value)}")
        elif isinstance(value, Mapping):
            problems += differing_settings(value, found[key], f"{name}.")
        elif found[key] != value or type(found[key]) is not type(value):
            problems.append(f"was run with {name} {shorten(found[key])}, the recipe says {shorten(value)}")
    return problems


def shorten(value: Any) -> str:
    """A value for a message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
