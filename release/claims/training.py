"""What the card says of training and of what all stages cost, computed from metrics, weights and records."""

import math

from ...errors import ReleaseError
from ...store.records import Record
from ...store.run_layout import training_stage
from ...store.weight_files import find_weights
from ..evidence.comparison import Claims, stated_cuts
from ..evidence.contents import Release, need
from ..weights import count_parameters

FINAL_FRACTION = 10
PRECISIONS = ("float32", "bfloat16")


def training_claims(release: Release, network: str) -> Claims:
    """The claims about the training of one network.

    Raises:
        ReleaseError: evidence is missing or malformed.
    """
    prefix, where = f"training.{network}", f"evidence/training/{network}/metrics.jsonl"
    record, rows, config = release.record(training_stage(network)), release.metrics(network), release.component_config(network)
    if not rows:
        raise ReleaseError(f"{where}: no step is recorded; train again, then pack")
    losses = [need(row, "loss", where=where) for row in rows]
    images = [need(row, "num_images", where=where) for row in rows]
    if images != sorted(set(images)):
        raise ReleaseError(f"{where}: the number of images does not grow from step to step; train again, then pack")
    environment = record.environment
    rate = need(environment, "images_per_second", where=f"record of {training_stage(network)}")
    if not rate > 0:
        raise ReleaseError(f"record of {training_stage(network)}: images_per_second is {rate!r}, expected more than 0; train again")
    settings = release.recipe.trainings[network]
    return {f"{prefix}.num_images": images[-1], f"{prefix}.num_steps": len(rows),
            f"{prefix}.num_train_examples": need(record.summary, "num_train_examples", where=f"record of training/{network}"),
            f"{prefix}.first_loss": losses[0], f"{prefix}.final_loss": final_loss(release, network),
            f"{prefix}.num_parameters": count_parameters(release.weights_header(network)),
            f"{prefix}.size_bytes": sum(file.stat().st_size for file in find_weights(release.directory / network).files),
            f"{prefix}.batch_size": settings.batch_size, f"{prefix}.learning_rate": settings.learning_rate,
            f"{prefix}.precision": taken_precision(record, settings.precision), f"{prefix}.preset": settings.preset,
            f"{prefix}.image_size": need(config, "image_size", where=f"{network}/config.json"),
            f"{prefix}.images_per_second": rate, f"{prefix}.seconds": round(images[-1] / rate, 1),
            f"{prefix}.device": environment.get("device", "cpu"),
            f"{prefix}.machine": environment.get("machine", "unknown"),
            f"{prefix}.num_cores": environment.get("num_cores"),
            f"{prefix}.versions": dict(environment.get("versions", {})),
            **{f"{prefix}.{name}": value for name, value in (stated_cuts(record) | held_back_loss(release, network)).items()}}


def held_back_loss(release: Release, network: str) -> Claims:
    """The loss on images that were held back, at the end of training and at its lowest; none where it was not measured.

    Raises:
        ReleaseError: the rows are malformed, or do not end with the training.
    """
    where = f"evidence/training/{network}/held_back.jsonl"
    rows = release.held_back_losses(network)
    if not rows:
        return {"held_back_loss": None, "lowest_held_back_loss": None}
    losses, images = ([need(row, key, where=where) for row in rows] for key in ("loss", "num_images"))
    if images != sorted(set(images)) or images[-1] != release.metrics(network)[-1]["num_images"]:
        raise ReleaseError(f"{where}: the number of images does not grow to that of the last step; train again, then pack")
    return {"held_back_loss": losses[-1], "lowest_held_back_loss": min(losses)}


def taken_precision(record: Record, asked: str) -> str:
    """In which precision a model was trained: what its record states; records from before it was stated took what the recipe asks for.

    Raises:
        ReleaseError: the record states another precision than the recipe asks for, or none that there is.
    """
    taken = record.summary.get("precision", asked)
    if taken not in PRECISIONS or asked not in ("auto", taken):
        raise ReleaseError(f"record of {record.stage}: precision is {taken!r}, the recipe asks for {asked!r}; train again, then pack")
    return str(taken)


def final_loss(release: Release, model: str) -> float:
    """Mean loss over the last tenth of a model's steps."""
    where = f"evidence/training/{model}/metrics.jsonl"
    losses = [need(row, "loss", where=where) for row in release.metrics(model)]
    tail = losses[-max(1, len(losses) // FINAL_FRACTION):]
    return math.fsum(tail) / len(tail)


def cost_claims(release: Release) -> Claims:
    """How long the stages took on what, as their records state: training by its rate, other stages by their clock.

    A stage that was stopped and resumed states the time of its last start only; training is not affected.
    """
    rows = []
    for stage, record in sorted(release.records.items()):
        environment = record.environment
        seconds = environment.get("seconds")
        if "images_per_second" in environment and stage.startswith(training_stage("")):
            seconds = release.metrics(stage.removeprefix("training/"))[-1]["num_images"] / environment["images_per_second"]
        rows.append({"stage": stage, "seconds": None if seconds is None else round(seconds, 1), "device": environment.get("device", "cpu"),
                     "machine": environment.get("machine", "unknown"), "num_cores": environment.get("num_cores")})
    timed = [row for row in rows if row["seconds"] is not None]
    return {"cost.stages": rows, "cost.seconds": round(math.fsum(row["seconds"] for row in timed), 1),
            "cost.core_seconds": round(math.fsum(row["seconds"] * (row["num_cores"] or 1) for row in timed), 1),
            "cost.devices": sorted({row["device"] for row in rows})}
