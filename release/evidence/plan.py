"""Which file of a release comes from which file of which stage: the list that pack copies and verify follows back."""

from collections.abc import Collection, Mapping, Sequence

from ...errors import ReleaseError
from ...recipe.components import COMPONENTS, NETWORKS, SCHEDULERS, TOKENIZERS, Scheduler, Tokenizer, drawing_networks
from ...recipe.recipe import Recipe
from ...store.records import Record
from ...store.run_layout import (
    CLIP,
    COMPANIONS,
    CURATED,
    EVALUATION,
    GOLDEN,
    INDEX,
    LABELS,
    audit_stage,
    classifier_stage,
    filter_stage,
    mutation_stage,
    scores_stage,
    training_stage,
)

Origin = tuple[str, str]

FILTER_FILES = ("filter.json", "scores.parquet", "classifier.json", "classifier.safetensors")
AUDIT_FILES = ("commitment.json", "sample.json", "audit.json")
GENERATED = ("evidence/packing.json",
             "LICENSE", "README.md", "DATASET_CARD.md", "model_index.json", "evidence/claims.json", "evidence/policy.yaml",
             "evidence/recipe.yaml", "USE_POLICY.md", "evidence/environment.json", "evidence/mlbom.cdx.json", "evidence/croissant.json",
             ".eval_results/glideslope.yaml")


def audit_stages(records: Mapping[str, Record], category: str) -> list[str]:
    """Names of the stages of a category's audits, in order."""
    return sorted(stage for stage in records if stage.startswith(audit_stage(category, "")))


def record_path(stage: str) -> str:
    """Where a stage's record lies in a release."""
    return f"evidence/records/{stage.replace('/', '__')}.json"


def required_stages(recipe: Recipe) -> list[str]:
    """The stages without which there is no release, in their order; `clip` comes on top where its text tower was trained."""
    filters = [stage(category.name) for category in recipe.categories for stage in (classifier_stage, scores_stage, filter_stage)]
    return [INDEX, LABELS, *filters, CURATED, *map(training_stage, recipe.trainings), EVALUATION]


def evaluated_networks(recipe: Recipe) -> tuple[str, ...]:
    """Names of the networks that the evaluation looks at, and that golden pictures are drawn with."""
    return (*drawing_networks(recipe.trainings), "noised_clip")


def required_inputs(stage: str, recipe: Recipe) -> list[str]:
    """The stages whose records a stage must name among its inputs."""
    if stage.startswith(training_stage("")):
        continued = NETWORKS[stage.removeprefix(training_stage(""))].continues
        return [CURATED] if continued is None else [CURATED, training_stage(continued)]
    categories = [category.name for category in recipe.categories]
    needed = {CLIP: [INDEX], EVALUATION: [*map(training_stage, evaluated_networks(recipe)), CURATED],
              GOLDEN: [*map(training_stage, evaluated_networks(recipe)), EVALUATION],
              CURATED: [INDEX, LABELS, *map(scores_stage, categories), *map(filter_stage, categories)]}
    for category in categories:
        classifier, scores = classifier_stage(category), scores_stage(category)
        needed |= {classifier: [INDEX, LABELS], scores: [INDEX, classifier], filter_stage(category): [INDEX, LABELS, classifier, scores]}
    return needed.get(stage, [])


def networks(recipe: Recipe, records: Mapping[str, Record]) -> tuple[str, ...]:
    """Names of the networks of a release: those that the run trained and those that were brought in."""
    return tuple(name for name in components(recipe, records) if name in NETWORKS)


def components(recipe: Recipe, records: Mapping[str, Record]) -> tuple[str, ...]:
    """Names of everything that model_index.json lists."""
    held = {*recipe.trainings, *trained_along(recipe), *brought_in(recipe, records)}
    return tuple(name for name in COMPONENTS if name in held)


def trained_along(recipe: Recipe) -> dict[str, str]:
    """Tokenizers and noise schedules that the trainings of a recipe write -> the network whose training does."""
    rows: list[Tokenizer | Scheduler] = [*TOKENIZERS.values(), *SCHEDULERS.values()]
    return {row.name: row.trained_with for row in rows if row.trained_with is not None and row.trained_with in recipe.trainings}


def brought_in(recipe: Recipe, records: Mapping[str, Record]) -> list[str]:
    """Names of the components that come from the recipe's directory of companions."""
    if COMPANIONS not in records:
        return []
    held = records[COMPANIONS].summary.get("parts")
    expected = [name for name in COMPONENTS if name not in {*recipe.trainings, *trained_along(recipe)}]
    if not isinstance(held, list) or set(held) - set(expected) or len(set(held)) != len(held):
        raise ReleaseError(f"{record_path(COMPANIONS)}: parts are {held!r:.200}, expected some of {', '.join(expected)}; pack the "
                           "release again")
    return held


def stated_weights(recipe: Recipe, records: Mapping[str, Record], network: str) -> str:
    """SHA-256 of a network's weights in one canonical file, as the stage that wrote or gathered them recorded it.

    Raises:
        ReleaseError: the record does not say.
    """
    if network in recipe.trainings:
        stage, name = training_stage(network), str(NETWORKS[network].trained_file)
        digests = {entry.path: entry.sha256 for entry in records[stage].outputs.files}
    else:
        stage, name = COMPANIONS, network
        digests = dict(records[stage].summary.get("weights", {}))
    if name not in digests:
        raise ReleaseError(f"stage {stage} has not recorded {name}; remove the stage's directory and run it again")
    return str(digests[name])


def plan_copies(recipe: Recipe, records: Mapping[str, Record]) -> dict[str, Origin]:
    """What a release copies from the stages byte for byte; weights are written by `weights.writing`.

    Args:
        recipe: of the run. Of a category that it blurs no picture is copied: the blurred one is none of the stages' files.
        records: stage name -> its record; their outputs say which files there are.

    Returns:
        path in the release -> stage and path in that stage's directory.

    Raises:
        ReleaseError: a stage is missing, or has not written a file that every release holds.
    """
    missing = [stage for stage in required_stages(recipe) if stage not in records]
    if missing:
        raise ReleaseError(f"records of stages are missing: {', '.join(map(record_path, missing))}; run the stages, then pack")
    copies: dict[str, Origin] = {}
    for category in [category.name for category in recipe.categories]:
        stage, folder = filter_stage(category), f"evidence/filters/{category}"
        copies |= {f"{folder}/{name}": (stage, name) for name in FILTER_FILES}
        copies[f"figures/{category}_precision_recall.png"] = (stage, "precision_recall.png")
        if category not in recipe.release.blurred:
            copies |= _optional(records, f"figures/{category}_missed.png", (stage, "missed.png"))
        if (mutated := mutation_stage(category)) in records:
            copies |= {f"evidence/{mutated}/planted.parquet": (mutated, "planted.parquet"),
                       f"figures/{category}_mutations.png": (mutated, "mutations.png")}
        copies |= {f"evidence/{audit}/{name}": (audit, name) for audit in audit_stages(records, category) for name in AUDIT_FILES}
    if GOLDEN in records:
        copies |= {f"evidence/golden/{path}": (GOLDEN, path) for path in _outputs(records[GOLDEN])}
    copies["evidence/curated.json"] = (CURATED, "curated.json")
    copies |= {f"evidence/{path}": (CURATED, path) for path in _outputs(records[CURATED]) if path.startswith("ledger/")}
    for network in recipe.trainings:
        stage, file = training_stage(network), NETWORKS[network].file
        copies |= {f"{network}/{file}": (stage, file), f"evidence/training/{network}/metrics.jsonl": (stage, "metrics.jsonl")}
        copies |= _optional(records, f"evidence/training/{network}/held_back.jsonl", (stage, "held_back.jsonl"))
        sheets = sorted(path for path in _outputs(records[stage]) if path.startswith("samples/") and path.endswith(".png"))
        copies |= {f"figures/{network}_samples.png": (stage, path) for path in sheets[-1:]}
    for name, network in trained_along(recipe).items():
        copies[f"{name}/{COMPONENTS[name].file}"] = (training_stage(network), COMPONENTS[name].file)
    for name in brought_in(recipe, records):
        path = f"{name}/{COMPONENTS[name].file}"
        copies[path] = (COMPANIONS, path)
    copies |= {f"evidence/evaluation/{name}": (EVALUATION, name) for name in ("pairs.jsonl", "noised_clip.jsonl", "evaluation.json")}
    copies |= {"evidence/evaluation/upsampler.jsonl": (EVALUATION, "upsampler.jsonl")} if "upsampler" in recipe.trainings else {}
    copies |= _optional(records, "evidence/evaluation/guidance.jsonl", (EVALUATION, "guidance.jsonl"))
    copies |= _optional(records, "figures/evaluation_samples.png", (EVALUATION, "samples.png"))
    _check_written(copies, records)
    return copies


def figure_paths(categories: Sequence[str], records: Mapping[str, Record]) -> set[str]:
    """The figures that are drawn while packing, from what the release holds."""
    paths = {"figures/ledger.png", "figures/training_loss.png", *(f"figures/{category}_scores.png" for category in categories)}
    written = _outputs(records[EVALUATION])
    if "samples.png" in written:
        paths |= {"figures/evaluation_captions.png", "figures/evaluation_worst.png"}
    return paths | ({"figures/guidance.png"} if "guidance.jsonl" in written else set())


def blurred_paths(blurred: Collection[str], records: Mapping[str, Record]) -> dict[str, Origin]:
    """The pictures that are released blurred only: path in the release -> stage and path of the clear picture."""
    origins = {f"figures/{category}_missed.png": (filter_stage(category), "missed.png") for category in blurred}
    return {path: (stage, inner) for path, (stage, inner) in origins.items() if inner in _outputs(records[stage])}


def expected_paths(recipe: Recipe, records: Mapping[str, Record]) -> set[str]:
    """Every path of a release but the manifest's and the weights'."""
    copied = {*plan_copies(recipe, records), *blurred_paths(recipe.release.blurred, records)}
    return {*copied, *GENERATED, *figure_paths([category.name for category in recipe.categories], records), *map(record_path, records)}


def _outputs(record: Record) -> list[str]:
    return [entry.path for entry in record.outputs.files]


def _optional(records: Mapping[str, Record], path: str, origin: Origin) -> dict[str, Origin]:
    stage, inner = origin
    return {path: origin} if inner in _outputs(records[stage]) else {}


def _check_written(copies: Mapping[str, Origin], records: Mapping[str, Record]) -> None:
    for path, (stage, inner) in copies.items():
        if inner not in _outputs(records[stage]):
            raise ReleaseError(f"stage {stage} has not written {inner}, which the release holds as {path}; "
                               "remove the stage's directory and run it again")
