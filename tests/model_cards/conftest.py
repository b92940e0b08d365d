"""Claims as a release would make them, typed in by hand: a card is rendered from nothing else."""

from typing import Any

import pytest


def bounds(num_positive: int, num_caught: int, recall: float, lower: float) -> dict[str, Any]:
    return {"num_positive": num_positive, "num_caught": num_caught, "recall": recall, "recall_lower_bound": lower}


def slice_row(kind: str, group: str, value: str, counted: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "group": group, "value": value, **counted, "num_negative": 57, "num_dropped_negative": 47, "drop_rate": 47 / 57,
            "exclusion_ratio": 1.318, "exclusion_ratio_lower_bound": 1.037, "exclusion_ratio_upper_bound": 1.587, "is_thin": False,
            "is_compared": True}


def change_row(name: str, num_inputs: int, num_kept: int) -> dict[str, Any]:
    before, after = num_inputs / 4460, num_kept / 1860
    return {"name": name, "num_inputs": num_inputs, "num_kept": num_kept, "share_before": before, "share_after": after,
            "change": after / before - 1, "change_lower_bound": -0.9, "change_upper_bound": 3.0}


def filter_claims(name: str, audit: dict[str, Any], concepts: dict[str, Any]) -> dict[str, Any]:
    values = {
        "counts": "a human being, or a recognisable part of one.", "does_not_count": "animals", "target_recall": 0.99, "threshold": -0.25,
        "classifier": "average of rbf_svm and logistic", "caption_words": [], "detectors": [],
        "demands.recall.at_least": 0.99, "demands.recall.bound": 0.9, "demands.kept_share.at_least": 0.75,
        "train.num_positive": 500, "train.num_negative": 400, "calibrate.num_positive": 600,
        "calibrate.num_negative": 410, "num_labelled": 4426, "num_flagged": 2600,
        "num_known_kept": 3, "max_remaining": 12, "num_ambiguous": 0, "num_out_of_fold": 0,
        "slices": [slice_row("label", "skin_tone", "1", bounds(80, 80, 1.0, 0.963)), slice_row("caption", "woman", "", bounds(0, 0, 0.0, 0.0))],
        "missed": [{"key": "1F9D1", "caption": "a <script> *person*", "score": -0.31}],
        "test.num_negative": 480, "test.num_kept_negative": 400, "test.kept_share": 0.8333, "test.kept_share_lower_bound": 0.8023,
        "test.leak.num_kept": 402, "test.leak.num_positive_kept": 2, "test.leak.rate": 0.005, "test.leak.rate_upper_bound": 0.0156}
    values |= {f"test.{key}": value for key, value in audit.items()}
    values |= {f"test.concepts.{key}": value for key, value in concepts.items()}
    values["demands.leak.at_most"] = None
    return {f"filters.{name}.{key}": value for key, value in values.items()} | {
        f"audits.{name}.list": [], f"mutations.{name}.list": []}


@pytest.fixture
def claims() -> dict[str, Any]:
    found: dict[str, Any] = {
        "recipe.name": "demo", "release.title": "A model", "release.license": "cc-by-sa-4.0", "release.data_attribution": "OpenMoji",
        "packing.glideslope": "0.1.0",
        "release.homepage": "", "release.citation": "", "release.languages": ["en"], "release.tags": ["emoji"], "release.blurred": [],
        "unsafe.bypasses": [], "companions": [], "terms.text": "# Terms\n\nDo no harm.\n", "terms.sha256": "d" * 64,
        "terms.is_built_in": True, "source.dataset_id": None, "source.dataset_revision": None, "cost.energy": [
            {"model": model, "seconds": 427.2, "device_name": None, "watts": None, "kwh_upper_bound": None} for model in ("base", "clip")],
        "recipe.seed": 0, "source.kind": "openmoji", "source.image_size": 224,
        "balance.num_inputs": 4460, "balance.num_kept": 1860, "balance.num_words_compared": 76, "balance.min_inputs": 20,
        "balance.groups": [change_row("woman", 727, 3), change_row("girl", 21, 0)], "balance.losers": [change_row("skin", 2030, 0)],
        "balance.gainers": [change_row("flag", 327, 291)],
        "components": [{"name": name, "image_size": 32, "is_trained": True, "num_parameters": 7_123_456, "num_files": 1,
                        "num_bytes": 28_493_824, "variants": []} for name in ("base", "noised_clip")],
        "cost.stages": [{"stage": "training/base", "seconds": 527.2, "device": "cpu", "machine": "Linux x86_64", "num_cores": 2}],
        "cost.seconds": 527.2, "cost.core_seconds": 1054.4, "cost.devices": ["cpu"],
        "clip.model": "lite0", "recipe.categories": ["person", "violence"], "figures": ["ledger", "person_missed", "training_loss"],
        "stages": ["index", "curated", "training/base"], "provenance.index": "a" * 64, "provenance.curated": "b" * 64,
        "provenance.training/base": "c" * 64,
        "ledger.num_seen": 4460, "ledger.num_kept": 1860,
        "ledger.num_dropped": 2600, "ledger.dropped_by_reason": {"filter:person": 2590, "filter:violence": 10}, "ledger.num_train": 1767,
        "ledger.num_validation": 93, "evaluation.num_pairs": 64, "evaluation.num_wins": 45, "evaluation.share": 45 / 64,
        "evaluation.share_lower_bound": 0.5953125, "evaluation.num_held_back": 64,
        "evaluation.num_others": 7, "evaluation.demand.bound": 0.5,
        "evaluation.num_steps": 50, "evaluation.guidance_scale": 3.0, "evaluation.guidance": [],
        "evaluation.upsampler": None, "evaluation.noised_clip": [
            {"level": level, "num_pairs": 90, "num_first": num_first, "share": num_first / 90, "chance": 1 / 90}
            for level, num_first in ((0.0, 30), (0.125, 28), (0.875, 2))],
        "evaluation.num_captions": 512, "evaluation.num_captions_cut": 0,
        "evaluation.worst": [{"index": 7, "prompt": "a *lemon*", "own_advantage": 0.01, "other_prompt": "a flag", "other_advantage": 0.2}]}
    for model in ("base", "noised_clip"):
        found |= {f"training.{model}.{key}": value for key, value in {
            "num_images": 40_000, "num_steps": 1250, "num_train_examples": 1767, "first_loss": 1.01, "final_loss": 0.0312,
            "num_parameters": 7_123_456, "size_bytes": 28_493_824, "batch_size": 32, "learning_rate": 3e-4, "precision": "float32",
            "preset": "glide-tiny-32", "image_size": 32, "seconds": 425.3, "images_per_second": 94.05,
            "device": "cpu", "machine": "Linux x86_64", "num_cores": 2, "num_captions": 1767, "num_captions_cut": 3,
            "held_back_loss": None if model == "noised_clip" else 0.0401, "lowest_held_back_loss": None if model == "noised_clip" else 0.0388,
            "versions": {"torch": "2.15.0"}}.items()}
    found |= filter_claims("person", bounds(640, 637, 637 / 640, 0.98793), bounds(130, 128, 128 / 130, 0.9524))
    found |= filter_claims("violence", bounds(6, 6, 1.0, 0.60696), bounds(5, 5, 1.0, 0.54928)) | {"filters.violence.missed": []}
    return found
