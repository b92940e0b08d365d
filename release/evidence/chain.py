"""The chain from the released weights back to the inputs: records, files and the ledger's decisions, checked again."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...data_filter.deciding.filter_figures import measure_filter
from ...data_filter.judges.filter import reason_of
from ...data_filter.labels.concepts import role_of
from ...recipe.components import TOKENIZERS, components_of
from ...recipe.stage_settings import find_changed_settings
from ...recipe.training import DenoiserTraining
from ...store.digests import sha256_json
from ...store.run_layout import classifier_stage, training_stage
from ...store.strict_json import load_object
from ...store.vocabulary import OF_CATEGORY, Cause, Decision, Reason, Role, Split
from ..claims.audits import read_audits
from ..claims.evaluation import check_evaluation_design, evaluation_claims
from ..claims.noised_clip import check_noised_clip_design
from ..claims.training import final_loss, held_back_loss
from ..claims.upsampler import check_upsampler_design
from ..weights import count_parameters, joined_digest
from .comparison import equal, flatten, shorten, show
from .contents import Release, need
from .plan import plan_copies, required_inputs, required_stages, stated_weights

SCORE_TOLERANCE = 1e-5
LOSS_TOLERANCE = 1e-5


def check_records(release: Release) -> list[str]:
    """Every stage's record is there and names, as its inputs, the records that lie beside it."""
    problems = []
    for stage in required_stages(release.recipe):
        if stage not in release.records:
            problems.append(f"records: the record of stage {stage} is missing; pack the release again")
    for stage, record in release.records.items():
        judges = ["clip"] if stage == "evaluation" and "clip" in release.records else []
        for name in [*required_inputs(stage, release.recipe), *judges]:
            if name not in record.inputs:
                problems.append(f"records: stage {stage} does not say which {name} it used; run it again")
        for name, digest in record.inputs.items():
            source = release.records.get(name)
            if source is not None and source.digest != digest:
                problems.append(f"records: stage {stage} used {name} {digest[:12]}…, the release holds {source.digest[:12]}…: "
                                f"{name} changed since; run {stage} and what follows again")
    return problems


def check_copies(release: Release) -> list[str]:
    """Every file that a stage wrote has the digest that the stage's record states."""
    problems = []
    copies = plan_copies(release.recipe, release.records)
    for path, (stage, inner) in copies.items():
        stated = {entry.path: entry.sha256 for entry in release.records[stage].outputs.files}[inner]
        if not (release.directory / path).is_file():
            problems.append(f"{path}: file is missing; pack the release again")
        elif release.digest(path) != stated:
            problems.append(f"{path}: is not the {inner} that stage {stage} recorded; pack the release again")
    return problems


def check_weights(release: Release) -> list[str]:
    """The weights are those that a stage recorded, whether they lie in one file or in shards."""
    problems = []
    for network in release.networks:
        weights, stated = release.weights(network), stated_weights(release.recipe, release.records, network)
        found = joined_digest(weights) if len(weights.files) > 1 else release.digest(f"{network}/{weights.files[0].name}")
        if found != stated:
            problems.append(f"{network}: the weights have the digest {found[:12]}…, the stage that wrote them recorded {stated[:12]}…; "
                            "pack the release again")
    return problems


def check_settings(release: Release) -> list[str]:
    """Every stage was run with the settings that the recipe states."""
    return shorten(find_changed_settings(release.recipe, release.records))


def check_label_roles(release: Release) -> list[str]:
    """The role of each label is the one that its concept and the recipe's salt give: nobody chose what tests a filter.

    A concept that an audit of this release has drawn is a test concept, whatever its hash says.
    """
    problems = []
    for category in release.categories:
        rows = list(zip(*(release.scores(category.name)[name].to_pylist() for name in ("key", "concept", "role")), strict=True))
        drawn = {image["key"] for audit in read_audits(release, category.name) for image in audit.sample["images"]}
        audited = {concept for key, concept, _ in rows if key in drawn}
        for key, concept, role in rows:
            expected = role_of(concept, release.recipe.labels)
            if role != expected and not (role == Role.TEST and concept in audited):
                problems.append(f"labels of {category.name}: {show(key)} has the role {role}, its concept {show(concept)} and the recipe's "
                                f"salt and shares give {expected}; if these changed since the labels were given, set them back, or remove the "
                                "run's labels and import them again")
    return shorten(problems)


def check_consumed(release: Release) -> list[str]:
    """Each model was trained on exactly the images that the ledger keeps for training."""
    ledger = release.ledger
    rows = zip(ledger["sha256"], ledger["decision"], ledger["split"], strict=True)
    expected = sha256_json(sorted(sha256 for sha256, decision, split in rows if decision == Decision.KEEP and split == Split.TRAIN))
    problems = []
    for network in release.trained_networks:
        stage = training_stage(network)
        consumed = need(release.record(stage).summary, "consumed_sha256", where=f"record of {stage}")
        if consumed != expected:
            problems.append(f"{stage}: trained on other images than the ledger keeps for training "
                            f"(consumed {str(consumed)[:12]}…, ledger {expected[:12]}…); train again")
    return problems


def check_filter_reports(release: Release) -> list[str]:
    """Each figure that a filter reported is what its scores give."""
    problems = []
    for category in release.categories:
        where = f"evidence/filters/{category.name}/filter.json"
        report = release.filter(category.name)
        measured = measure_filter(release.scores(category.name), need(report, "threshold", where=where))
        found = flatten("", {key: report.get(key) for key in measured})
        for name, value in flatten("", measured).items():
            if not equal(found.get(name), value):
                problems.append(f"filter {category.name}: {name[1:]} is reported as {show(found.get(name))}, the scores give {show(value)}")
    return problems


def check_summaries(release: Release) -> list[str]:
    """Figures that training recorded are those of the evidence, and each network reads the released tokenizer."""
    problems = []
    for network in release.trained_networks:
        stage = training_stage(network)
        summary, rows, tail = release.record(stage).summary, release.metrics(network), final_loss(release, network)
        found = {"num_steps": len(rows), "num_images_seen": rows[-1]["num_images"] if rows else 0,
                 "num_parameters": count_parameters(release.weights_header(network)),
                 "num_train_examples": release.ledger["split"].count(Split.TRAIN)}
        problems += [f"{stage}: {key} is recorded as {summary[key]}, the evidence gives {number}"
                     for key, number in found.items() if key in summary and summary[key] != number]
        if "final_loss" in summary and not math.isclose(summary["final_loss"], tail, abs_tol=LOSS_TOLERANCE):
            problems.append(f"{stage}: final_loss is recorded as {summary['final_loss']}, the metrics give {tail:.6f}")
        problems += [f"{stage}: {problem}" for problem in _check_held_back_loss(release, network)]
        tokenizer = next(name for name in components_of([network], release.components) if name in TOKENIZERS)
        stated = release.record(stage).inputs.get("tokenizer")
        if stated is not None and stated != release.digest(f"{tokenizer}/{TOKENIZERS[tokenizer].file}"):
            problems.append(f"{stage}: was trained with another tokenizer than the released one; train it again")
    return problems


def _check_held_back_loss(release: Release, network: str) -> Iterator[str]:
    """A U-Net's loss on held-back images is there where images are held back, and is the one that was recorded."""
    stated, found = release.record(training_stage(network)).summary.get("held_back_loss"), held_back_loss(release, network)["held_back_loss"]
    is_measured = isinstance(release.recipe.trainings[network], DenoiserTraining) and Split.VALIDATION in release.ledger["split"]
    if is_measured and found is None:
        yield "no loss on the held-back images is there; train again"
    elif stated != found:
        yield f"held_back_loss is recorded as {show(stated)}, the evidence gives {show(found)}"


def check_evaluation(release: Release) -> list[str]:
    """What the evaluation reported is what its rows give, and each row is of what the recipe's seed chooses."""
    found = evaluation_claims(release)
    report = release.read("evidence/evaluation/evaluation.json", load_object)
    figures = {key.removeprefix("evaluation."): value for key, value in found.items()}
    problems = [f"evaluation: {name} is reported as {show(report[name])}, its rows give {show(value)}" for name, value in figures.items()
                if name in report and not equal(report[name], value)]
    problems += [f"evaluation: {name} is not reported in evaluation.json; run the evaluation again" for name in ("upsampler", "noised_clip")
                 if name not in report]
    splits = {key: split for key, split in zip(release.ledger["key"], release.ledger["split"], strict=True) if split}
    for pair in release.pairs:
        if splits.get(pair["key"]) != pair["split"]:
            problems.append(f"evaluation: {pair['key']} is stated to be of split {pair['split']}, the ledger says {splits.get(pair['key'])}")
    return shorten([*check_evaluation_design(release), *check_upsampler_design(release), *check_noised_clip_design(release), *problems])


def check_ledger(release: Release) -> list[str]:
    """The ledger's counts add up, and each of its decisions follows from scores and thresholds."""
    return [*_check_counts(release), *_check_decisions(release), *_check_scores(release)]


def _check_counts(release: Release) -> list[str]:
    ledger, curated = release.ledger, release.curated
    rows = list(zip(ledger["decision"], ledger["reason"], ledger["split"], strict=True))
    counted: dict[str, Any] = {"seen": len(rows), "kept": sum(decision == Decision.KEEP for decision, _, _ in rows),
               "dropped": dict(Counter(reason for decision, reason, _ in rows if decision == Decision.DROP)),
               "splits": {split.value: 0 for split in Split} | Counter(split for decision, _, split in rows if decision == Decision.KEEP)}
    index, problems = release.record("index").summary, []
    num_inputs, num_bad = (need(index, key, where="record of index") for key in ("num_inputs", "num_bad"))
    if num_inputs != len(rows):
        problems.append(f"ledger: has {len(rows)} rows, the index has {num_inputs} inputs: every input has one row; curate and pack again")
    problems += [f"ledger: {counted['dropped'].get(reason, 0)} rows say {show(reason)}, the index has {number} such inputs; curate and pack "
                 "again" for reason, number in num_bad.items() if counted["dropped"].get(reason, 0) < number]
    for key, found in counted.items():
        stated = curated.get(key)
        if isinstance(stated, dict) and isinstance(found, dict):
            stated = {name: number for name, number in stated.items() if number or name in found}
        if stated != found:
            problems.append(f"ledger: {key} counts {show(found)}, curated.json states {show(stated)}")
    return problems


def _check_decisions(release: Release) -> list[str]:
    ledger, names = release.ledger, [category.name for category in release.categories]
    thresholds = {name: need(release.filter(name), "threshold", where=f"evidence/filters/{name}/filter.json") for name in names}
    labels = {name: _labels_by_key(release, name) for name in names}
    # what audits found among kept images is dropped too; the labels of audits that came before are not in the release
    found = {str(Reason(Cause.LABEL, name)) for name in names} if "audit_findings" in release.record("curated").inputs else set()
    columns = zip(ledger["key"], ledger["decision"], ledger["reason"], ledger["split"], ledger["sha256"],
                  zip(*(ledger[f"score_{name}"] for name in names), strict=True),
                  zip(*(ledger[f"flags_{name}"] for name in names), strict=True), strict=True)
    wrong = []
    for key, decision, reason, split, sha256, scores, flags in columns:
        verdicts = [reason_of(name, score is None or not score < thresholds[name], score is not None and math.isfinite(score), flagged)
                    for name, score, flagged in zip(names, scores, flags, strict=True)]
        named = [str(Reason(Cause.LABEL, name)) for name in names if labels[name].get(key) == 1]
        objections = [verdict for verdict in (*verdicts, *named) if verdict]
        if decision == Decision.KEEP and (objections or reason or not sha256 or split not in tuple(Split)):
            wrong.append(f"ledger: {key} is kept, against {', '.join(objections) or 'its reason, digest or split'}")
        elif decision == Decision.DROP and (not reason or split):
            wrong.append(f"ledger: {key} is dropped without a reason, or into a split")
        elif reason.partition(":")[0] in OF_CATEGORY and reason not in found and not _is_first(reason, objections, key, labels):
            wrong.append(f"ledger: {key} is dropped as {reason}, its scores and labels say {', '.join(objections) or 'keep'}")
    kept = Counter(key for key, decision in zip(ledger["key"], ledger["decision"], strict=True) if decision == Decision.KEEP)
    wrong += [f"ledger: {key} is kept {number} times" for key, number in kept.items() if number > 1]
    return shorten(wrong)


def _labels_by_key(release: Release, category: str) -> dict[str, int]:
    table = release.scores(category)
    return dict(zip(table["key"].to_pylist(), table["label"].to_pylist(), strict=True))


def _is_first(reason: str, objections: Sequence[str], key: str, labels: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether a reason is the first objection. Where people disagree the evidence holds no label: then only a 0 contradicts."""
    if objections:
        return reason == objections[0]
    cause, _, category = reason.partition(":")
    return cause == Cause.LABEL and category in labels and key not in labels[category]


def _check_scores(release: Release) -> list[str]:
    ledger, wrong = release.ledger, []
    for category in release.categories:
        name = category.name
        sha256 = release.digest(f"evidence/filters/{name}/classifier.safetensors")
        judges = {judge for judge, score in zip(ledger[f"classifier_{name}"], ledger[f"score_{name}"], strict=True) if score is not None}
        if judges - {sha256}:
            wrong.append(f"ledger: scores of {name} come from another classifier than the released one; curate again")
        fitted = {entry.path: entry.sha256 for entry in release.record(classifier_stage(name)).outputs.files}
        if not sha256 == release.filter(name).get("classifier", {}).get("sha256") == fitted.get("classifier.safetensors"):
            wrong.append(f"filter {name}: filter.json or the record of {classifier_stage(name)} names another classifier than the released "
                         "one; fit again")
        rows = zip(ledger["key"], ledger[f"score_{name}"], ledger[f"flags_{name}"], strict=True)
        scored = {key: (score, flags) for key, score, flags in rows if score is not None}
        table = release.scores(name)
        for key, score, flags in zip(*(table[column].to_pylist() for column in ("key", "score", "flags")), strict=True):
            if key not in scored or not abs(scored[key][0] - score) <= SCORE_TOLERANCE or scored[key][1] != flags:
                wrong.append(f"ledger: {name} score and flags of {key} are {scored.get(key)}, the filter's own table says {(score, flags)}")
    return shorten(wrong)
