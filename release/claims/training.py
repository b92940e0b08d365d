"""What the card says of training, evaluation and what they cost, computed from metrics, weights, pairs and records."""

import math
from typing import Any

from ...data_filter.statistics import lower_bound
from ...errors import ReleaseError
from ...weight_files import find_weights
from ..comparison import Claims
from ..contents import Release, need
from ..layout import parse_json_lines
from ..plan import training_stage
from ..weights import count_parameters

FINAL_FRACTION = 10
NUM_WORST = 8
PAIRS_PATH = "evidence/evaluation/pairs.jsonl"
GUIDANCE_PATH = "evidence/evaluation/guidance.jsonl"


def training_claims(release: Release, model: str) -> Claims:
    """The claims about the training of one model.

    Raises:
        ReleaseError: evidence is missing or malformed.
    """
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
    return {f"{prefix}.num_images": images[-1], f"{prefix}.num_steps": len(rows),
            f"{prefix}.num_train_examples": need(record.summary, "num_train_examples", where=f"record of training/{model}"),
            f"{prefix}.first_loss": losses[0], f"{prefix}.final_loss": final_loss(release, model),
            f"{prefix}.num_parameters": count_parameters(release.weights_header(model)),
            f"{prefix}.size_bytes": sum(file.stat().st_size for file in find_weights(release.directory / model).files),
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


def evaluation_claims(release: Release) -> Claims:
    """The claims about the evaluation, counted from its pairs and the ledger.

    Raises:
        ReleaseError: no pair, or malformed ones.
    """
    pairs = release.pairs
    if not pairs:
        raise ReleaseError(f"{PAIRS_PATH}: no pair was evaluated; run the evaluation again, then pack")
    held_back = {key for key, split in zip(release.ledger["key"], release.ledger["split"], strict=True) if split == "validation"}
    settings, counted = release.recipe.evaluate, count_wins(pairs)
    counted |= {"num_held_back": sum(need(pair, "key", where=PAIRS_PATH) in held_back for pair in pairs),
                "min_share_lower_bound": release.recipe.release.min_ranked_share_lower_bound,
                "num_steps": settings.num_steps, "guidance_scale": settings.guidance_scale, "worst": list_worst(pairs),
                "guidance": measure_guidance(release)}
    return {f"evaluation.{name}": value for name, value in counted.items()}


def count_wins(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """How often a picture's own caption won, with the exact one-sided 95 % lower bound of its share."""
    own = [need(pair, "own_score", where=PAIRS_PATH) for pair in pairs]
    other = [need(pair, "random_score", where=PAIRS_PATH) for pair in pairs]
    num_wins = sum(a > b for a, b in zip(own, other, strict=True))
    return {"num_pairs": len(pairs), "num_wins": num_wins, "share": num_wins / len(pairs),
            "share_lower_bound": lower_bound(num_wins, len(pairs))}


def list_worst(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The eight pictures whose own caption fits least compared with the random one, worst first."""
    keys = ("index", "prompt", "random_prompt", "own_score", "random_score")
    rows = [{key: need(pair, key, where=PAIRS_PATH) for key in keys} for pair in pairs]
    return sorted(rows, key=lambda row: (row["own_score"] - row["random_score"], row["index"]))[:NUM_WORST]


def measure_guidance(release: Release) -> list[dict[str, Any]]:
    """For each guidance scale that was tried: wins, and mean CLIP scores with their standard errors. Empty: not measured."""
    if not (release.directory / GUIDANCE_PATH).is_file():
        return []
    rows, found = release.read(GUIDANCE_PATH, parse_json_lines), []
    for scale in sorted({need(row, "guidance_scale", where=GUIDANCE_PATH) for row in rows}):
        here = [row for row in rows if row["guidance_scale"] == scale]
        counted = count_wins(here)
        figures: dict[str, float] = {}
        for kind in ("own", "random"):
            figures |= mean_and_error([row[f"{kind}_score"] for row in here], kind)
        found.append({"guidance_scale": scale, **counted, **figures})
    return found


def mean_and_error(values: list[float], kind: str) -> dict[str, float]:
    """Mean of some scores and its standard error, as `mean_<kind>_score` and `<kind>_error`; the error of one score is 0."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return {f"mean_{kind}_score": mean, f"{kind}_error": math.sqrt(variance / len(values))}


def cost_claims(release: Release) -> Claims:
    """How long the stages took on what, as their records state: training by its rate, other stages by their clock.

    A stage that was stopped and resumed states the time of its last start only; training is not affected.
    """
    rows = []
    for stage, record in sorted(release.records.items()):
        environment = record.environment
        seconds = environment.get("seconds")
        if "images_per_second" in environment and stage.startswith("training/"):
            seconds = release.metrics(stage.removeprefix("training/"))[-1]["num_images"] / environment["images_per_second"]
        rows.append({"stage": stage, "seconds": None if seconds is None else round(seconds, 1), "device": environment.get("device", "cpu"),
                     "machine": environment.get("machine", "unknown"), "num_cores": environment.get("num_cores")})
    timed = [row for row in rows if row["seconds"] is not None]
    return {"cost.stages": rows, "cost.seconds": round(math.fsum(row["seconds"] for row in timed), 1),
            "cost.core_seconds": round(math.fsum(row["seconds"] * (row["num_cores"] or 1) for row in timed), 1),
            "cost.devices": sorted({row["device"] for row in rows})}
