"""Every number of the model card, computed from the raw evidence in a release.

Nothing here reads what the release claims of itself: counts come from the ledger, recalls from the scores, losses
from the metrics, parameters from the headers of the weight files. `verify` computes the claims again and compares.
"""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Category
from ..data_filter.evidence import combined_scores, measure_filter
from ..data_filter.statistics import lower_bound
from ..errors import ReleaseError
from .audits import audit_claims
from .contents import Release, need
from .layout import WEIGHTS_NAME
from .plan import training_stage
from .weights import count_parameters

FINAL_FRACTION = 10
RELATIVE_TOLERANCE = 1e-9

Claims = dict[str, Any]


def compute_claims(release_dir: Path) -> Claims:
    """Compute every claim of a release's card.

    Args:
        release_dir: the release; its claims.json and README.md are not read.

    Returns:
        claim id, parts joined by dots -> value, plain data.

    Raises:
        ReleaseError: evidence is missing, malformed, or contradicts itself.
    """
    return claims_of(Release(release_dir))


def claims_of(release: Release) -> Claims:
    """`compute_claims` of a release that is already open."""
    claims: Claims = {}
    _add_recipe(claims, release)
    _add_ledger(claims, release)
    for category in release.categories:
        _add_filter(claims, release, category)
        claims |= audit_claims(release, category)
    for model in release.models:
        _add_training(claims, release, model)
    add_evaluation(claims, release)
    claims |= {f"provenance.{stage}": record.digest for stage, record in release.records.items()}
    claims |= {"stages": sorted(release.records), "figures": release.figures}
    return claims


def compare_claims(stated: Mapping[str, Any], computed: Mapping[str, Any]) -> list[str]:
    """One sentence for every claim that is missing, unknown, or not what the evidence gives."""
    problems = []
    for name in sorted({*stated, *computed}):
        if name not in stated:
            problems.append(f"claim {name}: missing, the evidence gives {show(computed[name])}")
        elif name not in computed:
            problems.append(f"claim {name}: states {show(stated[name])}, no evidence gives it")
        elif not equal(stated[name], computed[name]):
            problems.append(f"claim {name}: states {show(stated[name])}, the evidence gives {show(computed[name])}")
    return problems


def equal(stated: Any, computed: Any) -> bool:
    """Whether two plain values agree; floats to 9 digits, as machines differ in the last bits of a bound."""
    if isinstance(stated, float) and isinstance(computed, float):
        return math.isclose(stated, computed, rel_tol=RELATIVE_TOLERANCE)
    if isinstance(stated, dict) and isinstance(computed, dict):
        return stated.keys() == computed.keys() and all(equal(stated[key], computed[key]) for key in stated)
    if isinstance(stated, list | tuple) and isinstance(computed, list | tuple):
        return len(stated) == len(computed) and all(equal(a, b) for a, b in zip(stated, computed, strict=True))
    return type(stated) is type(computed) and bool(stated == computed)


def show(value: Any) -> str:
    """A value for a message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def flatten(prefix: str, value: Mapping[str, Any]) -> Claims:
    """Nested mappings as claims: `{"a": {"b": 1}}` becomes `{"prefix.a.b": 1}`; lists stay values."""
    claims: Claims = {}
    for key, inner in value.items():
        name = f"{prefix}.{key}"
        claims |= flatten(name, inner) if isinstance(inner, Mapping) else {name: inner}
    return claims


def _add_recipe(claims: Claims, release: Release) -> None:
    recipe = release.recipe
    claims |= {"recipe.name": recipe.name, "release.title": recipe.release.title, "release.license": recipe.release.license,
               "release.data_attribution": recipe.release.data_attribution, "source.kind": recipe.source.kind,
               "source.image_size": getattr(recipe.source, "image_size", None),
               "clip.model": recipe.clip.model, "clip.pretrained": recipe.clip.pretrained, "recipe.seed": recipe.seed,
               "recipe.categories": [category.name for category in release.categories]}


def _add_ledger(claims: Claims, release: Release) -> None:
    ledger = release.ledger
    decisions = Counter(ledger["decision"])
    dropped = Counter(reason for reason, decision in zip(ledger["reason"], ledger["decision"], strict=True) if decision == "drop")
    splits = Counter(split for split, decision in zip(ledger["split"], ledger["decision"], strict=True) if decision == "keep")
    if set(decisions) - {"keep", "drop"} or set(splits) - {"train", "validation"}:
        raise ReleaseError(f"evidence/ledger: unknown decisions or splits ({dict(decisions)}, {dict(splits)}); curate again")
    claims |= {"ledger.num_seen": len(ledger["key"]), "ledger.num_kept": decisions["keep"], "ledger.num_dropped": decisions["drop"],
               "ledger.dropped_by_reason": dict(sorted(dropped.items())),
               "ledger.num_train": splits["train"], "ledger.num_validation": splits["validation"]}


def _add_filter(claims: Claims, release: Release, category: Category) -> None:
    name, prefix = category.name, f"filters.{category.name}"
    where = f"evidence/filters/{name}/filter.json"
    report = release.filter(name)
    threshold = need(report, "threshold", where=where)
    table = release.scores(name)
    measured = dict(measure_filter(table, threshold))
    measured.pop("curve", None)
    claims |= flatten(prefix, measured)
    claims |= {f"{prefix}.counts": category.counts, f"{prefix}.does_not_count": category.does_not_count,
               f"{prefix}.target_recall": category.target_recall, f"{prefix}.threshold": threshold,
               f"{prefix}.classifier": describe_classifier(need(report, "classifier", where=where)),
               f"{prefix}.caption_words": list(category.caption_words),
               f"{prefix}.detectors": [detector.name for detector in category.detectors],
               f"{prefix}.limits.min_recall": category.limits.min_recall,
               f"{prefix}.limits.min_recall_lower_bound": category.limits.min_recall_lower_bound,
               f"{prefix}.limits.min_kept_share": category.limits.min_kept_share}
    claims |= {f"{prefix}.audit.concepts.{key}": value for key, value in measure_concepts(table, threshold).items()}
    ledger = release.ledger
    kept = {key for key, decision in zip(ledger["key"], ledger["decision"], strict=True) if decision == "keep"}
    labels = dict(zip(table["key"].to_pylist(), table["label"].to_pylist(), strict=True))
    verdicts = zip(ledger[f"score_{name}"], ledger[f"flags_{name}"], strict=True)
    rate = measured["audit"]["leak"]["rate_upper_bound"]
    claims |= {f"{prefix}.num_labelled": len(labels),
               f"{prefix}.num_flagged": sum(score is not None and not (score < threshold and not flags) for score, flags in verdicts),
               f"{prefix}.num_known_kept": sum(1 for key, label in labels.items() if label == 1 and key in kept),
               f"{prefix}.max_remaining": None if rate is None else math.ceil(rate * len(kept))}


def describe_classifier(classifier: Mapping[str, Any]) -> str:
    """A classifier's kind, and for an average what it averages."""
    parts = [f"{part['kind']} (gamma {part['gamma']:g})" if "gamma" in part else str(part["kind"]) for part in classifier["parts"]]
    return parts[0] if len(parts) == 1 else f"average of {' and '.join(parts)}"


def measure_concepts(scores: Any, threshold: float) -> dict[str, Any]:
    """Recall on audit positives counted by concept: a concept is caught only when each of its images is.

    Images of one concept (a drawing in several skin tones, say) stand or fall together, so that a bound that takes
    images as independent is too sure of itself; this one is not.

    Args:
        scores: a table of `data_filter.evidence.SCORES_SCHEMA`.
        threshold: images with a lower score are kept, unless another judge flagged them.
    """
    columns = (scores[name].to_pylist() for name in ("concept", "label", "role"))
    caught: dict[str, bool] = {}
    for concept, label, role, score in zip(*columns, combined_scores(scores).tolist(), strict=True):
        if label == 1 and role == "audit":
            caught[concept] = caught.get(concept, True) and not score < threshold
    num_caught = sum(caught.values())
    return {"num_positive": len(caught), "num_caught": num_caught, "recall": num_caught / len(caught) if caught else None,
            "recall_lower_bound": lower_bound(num_caught, len(caught))}


def _add_training(claims: Claims, release: Release, model: str) -> None:
    prefix, where = f"training.{model}", f"evidence/training/{model}/metrics.jsonl"
    record, rows, config = release.record(training_stage(model)), release.metrics(model), release.component_config(model)
    if not rows:
        raise ReleaseError(f"{where}: no step is recorded; train again, then pack")
    losses = [need(row, "loss", where=where) for row in rows]
    images = [need(row, "num_images", where=where) for row in rows]
    if images != sorted(set(images)):
        raise ReleaseError(f"{where}: the number of images does not grow from step to step; train again, then pack")
    environment = record.environment
    rate = need(environment, "images_per_second", where=f"record of {training_stage(model)}")
    if not rate > 0:
        raise ReleaseError(f"record of {training_stage(model)}: images_per_second is {rate!r}, expected more than 0; train again")
    settings = release.recipe.base if model == "base" else release.recipe.noised_clip
    claims |= {f"{prefix}.num_images": images[-1], f"{prefix}.num_steps": len(rows),
               f"{prefix}.num_train_examples": need(record.summary, "num_train_examples", where=f"record of training/{model}"),
               f"{prefix}.first_loss": losses[0], f"{prefix}.final_loss": final_loss(release, model),
               f"{prefix}.num_parameters": count_parameters(release.weights_header(model)),
               f"{prefix}.size_bytes": release.path(f"{model}/{WEIGHTS_NAME}").stat().st_size,
               f"{prefix}.batch_size": settings.batch_size, f"{prefix}.learning_rate": settings.learning_rate,
               f"{prefix}.precision": settings.precision, f"{prefix}.preset": settings.preset,
               f"{prefix}.image_size": need(config, "image_size", where=f"{model}/config.json"),
               f"{prefix}.images_per_second": rate, f"{prefix}.seconds": round(images[-1] / rate, 1),
               f"{prefix}.device": environment.get("device", "cpu"),
               f"{prefix}.machine": environment.get("machine", "unknown"),
               f"{prefix}.num_cores": environment.get("num_cores"),
               f"{prefix}.versions": dict(environment.get("versions", {}))}


def final_loss(release: Release, model: str) -> float:
    """Mean loss over the last tenth of a model's steps."""
    where = f"evidence/training/{model}/metrics.jsonl"
    losses = [need(row, "loss", where=where) for row in release.metrics(model)]
    tail = losses[-max(1, len(losses) // FINAL_FRACTION):]
    return math.fsum(tail) / len(tail)


def add_evaluation(claims: Claims, release: Release) -> None:
    """Add the claims about the evaluation, counted from its pairs and the ledger."""
    pairs, where = release.pairs, "evidence/evaluation/pairs.jsonl"
    held_back = {key for key, split in zip(release.ledger["key"], release.ledger["split"], strict=True) if split == "validation"}
    own = [need(pair, "own_score", where=where) for pair in pairs]
    other = [need(pair, "random_score", where=where) for pair in pairs]
    num_wins = sum(a > b for a, b in zip(own, other, strict=True))
    if not pairs:
        raise ReleaseError(f"{where}: no pair was evaluated; run the evaluation again, then pack")
    settings = release.recipe.evaluate
    claims |= {"evaluation.num_pairs": len(pairs), "evaluation.num_wins": num_wins,
               "evaluation.share": num_wins / len(pairs), "evaluation.share_lower_bound": lower_bound(num_wins, len(pairs)),
               "evaluation.num_held_back": sum(need(pair, "key", where=where) in held_back for pair in pairs),
               "evaluation.min_share_lower_bound": release.recipe.release.min_ranked_share_lower_bound,
               "evaluation.num_steps": settings.num_steps, "evaluation.guidance_scale": settings.guidance_scale}


