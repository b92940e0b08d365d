"""The model card inside the bill of materials: parameters, measured figures with their intervals, considerations."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ...recipe.components import drawing_networks
from .plain_json import claim, decimal, lower, upper

Metric = dict[str, Any]


def model_card(claims: Mapping[str, Any], *, data_ref: str) -> dict[str, Any]:
    """CycloneDX's `modelCard`, from claims alone.

    Args:
        claims: computed from a release's evidence.
        data_ref: the `bom-ref` of the curated set.
    """
    ask = partial(claim, claims)
    size = drawn_size(claims)
    return {"modelParameters": {
                "approach": {"type": "supervised"}, "task": "text-to-image", "architectureFamily": "denoising diffusion model",
                "modelArchitecture": f"GLIDE (arXiv 2112.10741): U-Net with a text transformer, {ask('training.base.num_parameters')} "
                                     "parameters, and a CLIP that reads noised pictures",
                "datasets": [{"ref": data_ref}], "inputs": [{"format": "text"}],
                "outputs": [{"format": f"RGB picture, {size} x {size} pixels"}]},
            "quantitativeAnalysis": {"performanceMetrics": performance_metrics(claims)},
            "considerations": considerations(claims)}


def drawn_size(claims: Mapping[str, Any]) -> int:
    """Side in pixels of what the networks that were trained draw, enlarged where they can."""
    ask = partial(claim, claims)
    sizes = {row["name"]: row["image_size"] for row in ask("components") if row["is_trained"]}
    return int(sizes[drawing_networks(sizes)[-1]])


def performance_metrics(claims: Mapping[str, Any]) -> list[Metric]:
    """Every measured share with its exact one-sided 95 % bound; the other end of the interval is the trivial one."""
    ask = partial(claim, claims)
    metrics = [_at_least("share of pictures whose own caption is in the better half of those compared", ask("evaluation.share"),
                         ask("evaluation.share_lower_bound"), f"{ask('evaluation.num_pairs')} pairs of prompt and seed")]
    if (enlarged := ask("evaluation.upsampler")) is not None:
        metrics.append(_at_least("share of pictures that the upsampler enlarges closer to the real ones than bicubic interpolation",
                                 enlarged["share"], enlarged["share_lower_bound"], f"{enlarged['num_pictures']} held-back pictures"))
    for category in ask("recipe.categories"):
        test = f"filters.{category}.test"
        titles = {"recall": "recall of the training-data filter", "kept_share": "other images that the training-data filter keeps"}
        for name, title in titles.items():
            metrics.append(_at_least(f"{title}: {category}", ask(test, name), ask(test, f"{name}_lower_bound"),
                                     "test labels"))
        rate = ask(test, "leak.rate_upper_bound")
        metrics.append(_at_most(f"share of {category} among what the filter keeps", ask(test, "leak.rate"), rate, "test labels"))
        metrics += [_at_most(f"share of {category} among all kept images, by audit", None, row["rate_upper_bound"],
                             f"audit {row['id']}: {row['num_labelled']} labelled of {row['num_kept']} kept, confidence {row['confidence']}")
                    for row in ask("audits", category, "list")]
        metrics += [_at_least(f"recall of the training-data filter: {category}", row["recall"], row["recall_lower_bound"],
                              f"test labels, {row['group']}: {row['value'] or 'not specified'}") for row in ask(f"filters.{category}.slices")]
    return [metric for metric in metrics if metric is not None]


def considerations(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Who may use it for what, what it cannot do, what was done about risks, and what it cost."""
    ask = partial(claim, claims)
    categories, size = ask("recipe.categories"), drawn_size(claims)
    seconds = ask("cost.seconds")
    return {
        "users": ["researchers and engineers who study the training, the guidance and the release of small diffusion models"],
        "useCases": ["studying how training data is filtered and what evidence shows of it",
                     "drawing simple pictures in the manner of the training data"],
        "technicalLimitations": [
            f"pictures of {size} x {size} pixels",
            f"trained on {ask('training.base.num_train_examples')} different images, and knows no subject beyond them",
            "prompts work in the language and wording of the training captions",
            "how closely it repeats training images was not measured"],
        "ethicalConsiderations": [{
            "name": f"pictures of {category}: {ask('filters', category, 'counts').strip()}",
            "mitigationStrategy": f"{ask('filters', category, 'num_flagged')} of {ask('ledger.num_seen')} training images were "
                                  "dropped as such; the measured bounds are among the metrics; the model does not refuse prompts"}
            for category in categories],
        "fairnessAssessments": [{
            "groupAtRisk": f"images whose caption speaks of: {row['name']}",
            "harms": f"{row['num_kept']} of {row['num_inputs']} such images were kept; with 95 % confidence their share of the data "
                     f"changed by at most {decimal(100 * row['change_upper_bound'])} %"}
            for row in ask("balance.groups") if row["change_upper_bound"] is not None and row["change_upper_bound"] < 0],
        "environmentalConsiderations": {"properties": [
            {"name": "glideslope:seconds_of_all_stages", "value": decimal(seconds)},
            {"name": "glideslope:core_seconds_of_all_stages", "value": decimal(ask("cost.core_seconds"))},
            {"name": "glideslope:energy", "value": energy_sentence(ask("cost.energy"))}]}}


def energy_sentence(rows: list[Mapping[str, Any]]) -> str:
    """What is known of the energy: a bound for each accelerator whose largest power its maker states, or that nothing was measured."""
    known = [f"training {row['model']} on {row['device_name']}: at most {upper(row['kwh_upper_bound'])} kWh on the accelerator, "
             f"from {decimal(row['seconds'])} s at {row['watts']} W" for row in rows if row["kwh_upper_bound"] is not None]
    return "; ".join(known) if known else "not measured"


def _at_least(title: str, value: float | None, bound: float | None, where: str) -> Metric | None:
    if value is None or bound is None:
        return None
    return {"type": title, "value": decimal(value), "slice": where, "confidenceInterval": {"lowerBound": lower(bound), "upperBound": "1"}}


def _at_most(title: str, value: float | None, bound: float | None, where: str) -> Metric | None:
    if bound is None:
        return None
    return {"type": title, "slice": where, "confidenceInterval": {"lowerBound": "0", "upperBound": upper(bound)},
            **({"value": decimal(value)} if value is not None else {})}
