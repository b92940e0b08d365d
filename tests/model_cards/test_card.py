import re
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData

from glideslope.errors import ReleaseError
from glideslope.model_cards.card import render_card, render_dataset_card


def render_both(claims: dict[str, Any]) -> str:
    return render_card(claims) + render_dataset_card(claims)


def test_equal_claims_give_equal_cards(claims: dict[str, Any]) -> None:
    assert render_card(claims) == render_card(dict(reversed(claims.items())))


def test_the_front_matter_is_what_the_hub_reads(claims: dict[str, Any]) -> None:
    data = ModelCard(render_card(claims)).data
    assert isinstance(data, ModelCardData)
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-sa-4.0", "glideslope", "text-to-image")
    assert data.model_name == "A model"
    assert "glide" in (data.tags or [])


def test_the_model_index_holds_every_measured_result(claims: dict[str, Any]) -> None:
    results = ModelCard(render_card(claims)).data.eval_results
    found = {(result.task_name or result.task_type, result.metric_type): result.metric_value for result in results}
    assert found["Text to image", "caption_win_share"] == pytest.approx(45 / 64)
    assert found["Filtering the training data: person", "recall"] == pytest.approx(637 / 640)
    assert found["Filtering the training data: violence", "recall_lower_bound"] == pytest.approx(0.60696)
    assert len(results) == 10


def test_bounds_in_the_model_index_are_rounded_to_the_cautious_side(claims: dict[str, Any]) -> None:
    claims["filters.person.test.recall_lower_bound"], claims["filters.person.test.leak.rate_upper_bound"] = 0.98765499, 0.01234501
    found = {(r.task_name, r.metric_type): r.metric_value for r in ModelCard(render_card(claims)).data.eval_results}
    assert found["Filtering the training data: person", "recall_lower_bound"] == 0.987654
    assert found["Filtering the training data: person", "leak_rate_upper_bound"] == 0.012346


def test_a_missing_claim_is_an_error_that_names_it(claims: dict[str, Any]) -> None:
    unused = {"training.noised_clip.versions", "training.noised_clip.lowest_held_back_loss", "source.dataset_revision"}
    for name in sorted(claims.keys() - unused):
        with pytest.raises(ReleaseError, match=f"'{re.escape(name)}' is missing"):
            render_both({key: value for key, value in claims.items() if key != name})


def test_a_claim_of_an_odd_type_is_an_error(claims: dict[str, Any]) -> None:
    for name in ("evaluation.share", "ledger.num_seen", "filters.person.slices"):
        with pytest.raises(ReleaseError, match="model card"):
            render_card(claims | {name: "many"})


def test_the_card_answers_what_was_removed_how_sure_what_remains_and_how_to_check(claims: dict[str, Any]) -> None:
    card = render_card(claims)
    top = card.split("## What it is")[0]
    assert "**What was removed?** 2,600 of 4,460 images; 1,860 are left. The filters took 2,600 for person" in top
    assert "With 95 % confidence the person filter finds at least 98.7 % of such images (counted by concept, because images of one "\
        "concept look alike: at least 95.2 %), and the violence filter" in top
    assert "at least 60.6 % of such images (counted by concept, because images of one "\
        "concept look alike: at least 54.9 %) (little evidence)." in top
    assert "Person: at most 12 of the 1,860 kept images; violence" in top and "Nothing else was looked for" in top
    assert "637 of 640 test images: at least 98.7 %" in card
    assert "kept images (little evidence), with 95 % confidence" in top
    assert "`pip install glideslope==0.1.0`; then `glideslope verify DIRECTORY`" in top
    assert "`pip install glideslope==0.1.0` (home page: <https://a.org/b>); then" in render_card(claims | {"release.homepage": "https://a.org/b"})
    assert "(128 of 130" in card.replace("caught 128 of 130\n(98.5 %)", "(128 of 130")


def test_few_positives_are_called_little_evidence(claims: dict[str, Any]) -> None:
    person, violence = render_card(claims).split("### Filter: violence")
    assert "This is little evidence" in violence
    assert "only 6 examples of violence to test with" in violence
    assert "as much as 39.4 % of all violence images" in violence
    assert "This is little evidence" not in person
    assert "treat this filter as an attempt" in " ".join(violence.split())


def test_a_filter_without_any_positive_to_audit_says_that_nothing_is_known(claims: dict[str, Any]) -> None:
    none = {"num_positive": 0, "num_caught": 0, "recall": None, "recall_lower_bound": 0.0, "leak.rate": None, "leak.rate_upper_bound": None}
    claims |= {f"filters.violence.test.{key}": value for key, value in none.items()}
    claims |= {"filters.violence.test.concepts.num_positive": 0, "filters.violence.max_remaining": None}
    card = render_card(claims)
    assert "nothing is known about what this filter misses" in card
    assert "| Recall | 0 of 0 | not measured, asked for: 99 % | at least 0.0 %, asked for: 90 % |" in card


def test_captions_are_said_to_count_only_when_chance_is_ruled_out(claims: dict[str, Any]) -> None:
    assert "This shows that captions steer the pictures" in render_card(claims)
    card = render_card(claims | {"evaluation.num_wins": 33, "evaluation.share": 33 / 64, "evaluation.share_lower_bound": 0.406})
    assert "This does not show that captions steer the pictures" in card
    assert "This shows" not in card


def test_text_from_the_data_cannot_add_markup(claims: dict[str, Any]) -> None:
    card = render_card(claims)
    assert r"a &lt;script&gt; \*person\*" in card
    assert "<script>" not in card


def test_figures_are_shown_only_where_there_are_any(claims: dict[str, Any]) -> None:
    card = render_card(claims)
    assert "](figures/person_missed.png)" in card
    assert "](figures/violence_missed.png)" not in card
    assert "](figures/evaluation_samples.png)" not in card


def test_no_placeholder_is_left(claims: dict[str, Any]) -> None:
    card = render_card(claims)
    for sign in ("{{", "{%", "TODO", "None", "Undefined", "nan", "[More Information Needed]", "\n\n\n"):
        assert sign not in card


def test_an_audit_of_what_was_kept_is_told_with_its_weakest_bound_and_what_could_not_be_drawn(claims: dict[str, Any]) -> None:
    row = {"id": "person_001", "number": 1, "num_elsewhere": 0, "num_images": 1500, "num_kept": 1860, "num_unknown": 4,
           "num_labelled": 900, "num_drawn": 1000, "num_positive": 1,
           "rate_upper_bound": 0.00401, "confidence": 0.95, "stopping": "anytime"}
    claims |= {"audits.person.list": [row], "audits.person.rate_upper_bound": 0.00401, "audits.person.max_positive_images": 8,
               "audits.person.others": [], "audits.person.are_confident": True,
               "filters.person.demands.leak.at_most": 0.005}
    text = render_card(claims)
    assert "of the 1,860 kept images at most 0.401 % show person, asked for: 0.5 % at most (up to 8 images)" in text
    assert "| person 001 | 1,500 | 900 of 1,000 | 1 | at most 0.401 % | 95.0 % | at any time |" in text
    assert "The other 360 kept images could not be drawn" in text and "356 of them have a label that says no, 4 have none" in text
    assert "It also asks for an audit of what was kept." in text
    assert "The run has no audit of another kept set. The bound holds for this one audit, not for the best of several." in text
    assert "\n\n\n" not in text


@pytest.mark.parametrize("are_confident", [True, False])
def test_a_later_audit_says_its_number_and_how_the_others_ended(claims: dict[str, Any], are_confident: bool) -> None:
    row = {"id": "person_003", "number": 3, "num_elsewhere": 2, "num_images": 1860, "num_kept": 1860, "num_unknown": 0, "num_labelled": 900,
           "num_drawn": 900, "num_positive": 0, "rate_upper_bound": 0.00401, "confidence": 1 - 0.05 / 9, "stopping": "anytime"}
    other = {"id": "person_001", "claim": 0.005, "confidence": 0.95, "num_kept": 1900, "num_drawn": 700, "num_labelled": 700, "num_positive": 3,
             "status": "not shown"}
    others = [other, other | {"id": "person_002", "status": "open", "num_labelled": 9}, other | {"id": "person_004", "status": "met"}]
    claims |= {"audits.person.list": [row], "audits.person.rate_upper_bound": 0.00401, "audits.person.max_positive_images": 8,
               "audits.person.others": others, "audits.person.are_confident": are_confident}
    text = render_card(claims)
    assert "**Audit no. 3; 3 others looked at other kept sets, 2 of which did not show the claim.** A bound holds for its one audit" in text
    assert "| person 001 | at most 0.5 % | 1,900 | 700 of 700 | 3 | not shown |" in text
    assert "| person 002 | at most 0.5 % | 1,900 | 9 of 700 | 3 | labels are missing |" in text
    assert ("add up to at most 8.3 %" in text) is are_confident
    assert ("**The confidence above is too low for that:**" in text) is not are_confident
    assert "\n\n\n" not in text


def test_gates_that_were_set_aside_stand_at_the_top(claims: dict[str, Any]) -> None:
    reason = "the judge was *not* there"
    card = render_card(claims | {"unsafe.bypasses": [{"gate": "unsafe_skip.audits", "reason": reason}]})
    top = card.split("**What was removed?**")[0]
    assert "did not pass every gate" in top and "`unsafe" in top and r"because: the judge was \*not\* there" in top
    assert "did not pass" not in render_card(claims)


def test_networks_from_elsewhere_are_said_to_have_no_evidence(claims: dict[str, Any]) -> None:
    row = {"name": "upsampler", "image_size": 96, "is_trained": False, "num_parameters": 9, "num_files": 2, "num_bytes": 40,
           "variants": ["fp16"]}
    claims["components"].append(row)
    claims |= {"companions": ["upsampler"],
               "companions.upsampler": {"has_same_tokenizer": False, "sources": [{"file": "upsample.pt", "sha256": "e" * 64}]}}
    card = render_card(claims)
    assert "| `upsampler` | 9 | 96 × 96 | 1 kB in 2 files | fp16 | **from elsewhere, without evidence** |" in card  # noqa: RUF001 (the card's sign)
    assert "`upsampler` was trained with another vocabulary" in card
    assert "`upsampler` was not trained here" in card and "`upsample.pt`, SHA-256 `eeee" in card
    assert "An upsampler from elsewhere comes with this release" in card
    assert 'Leave it out with `components=["noised_clip"]`' in card


def test_every_network_that_was_trained_has_a_column(claims: dict[str, Any]) -> None:
    assert "| | Base model | Noised CLIP |\n|---|---:|---:|\n| Parameters | 7,123,456 | 7,123,456 |\n" in render_card(claims)
    claims["components"].append(claims["components"][0] | {"name": "upsampler", "image_size": 64})
    base = {key: value for key, value in claims.items() if key.startswith("training.base.")}
    claims |= {key.replace("base", "upsampler"): value for key, value in base.items()}
    claims |= {"training.upsampler.image_size": 64, "training.upsampler.preset": "large"}
    card = render_card(claims)
    assert "| | Base model | Noised CLIP | Upsampler |\n|---|---:|---:|---:|\n" in card
    assert "| Picture size | 32 × 32 | 32 × 32 | 64 × 64 |" in card  # noqa: RUF001 (the card's sign)
    assert "Presets `glide-tiny-32`, `glide-tiny-32` and `large`, seed 0;" in card
    assert "3 of 1,767 for the noised CLIP, 3 of 1,767 for the upsampler and 0 of 512 for the CLIP that judges the evaluation." in card
    assert "The upsampler of this release enlarges them to 64 × 64." in card and "No upsampler comes" not in card  # noqa: RUF001 (the card's sign)
    assert "| Loss on held-back images at the end (lowest on the way) | 0.040 (0.039) | not measured | 0.040 (0.039) |" in card


@pytest.mark.parametrize(("bound", "told"), [(0.61, "adds detail that belongs"), (0.5, "**This does not show that the upsampler does better")])
def test_an_upsampler_is_shown_beside_interpolation_with_what_that_means(claims: dict[str, Any], bound: float, told: str) -> None:
    assert "PSNR" not in render_card(claims)
    found = {"num_pictures": 64, "num_wins": 46, "share": 46 / 64, "share_lower_bound": bound, "mean_psnr": 24.126, "mean_ssim": 0.91,
             "mean_bicubic_psnr": 22.0, "mean_bicubic_ssim": 0.8444}
    card = render_card(claims | {"evaluation.upsampler": found, "training.upsampler.image_size": 64})
    assert "were made small (32 × 32) and enlarged to 64 × 64" in card  # noqa: RUF001 (the card's sign)
    assert "| Upsampler | 24.13 dB | 0.910 |\n| Bicubic interpolation | 22.00 dB | 0.844 |" in card
    assert f"**46 of 64** times (71.9 %); with 95 % confidence it does so at least {100 * bound:.1f} % of the time" in card
    assert told in card and "- **PSNR**, **SSIM**" in card and "SSIM\n\n## Words" in card


def test_what_the_noised_clip_sees_is_told_for_each_noise_level(claims: dict[str, Any]) -> None:
    card = render_card(claims)
    assert "By chance it would be 1.1 %." in card
    assert "| Noise level | 0 | 0.125 | 0.875 |\n|---|---:|---:|---:|\n| Own caption first | 30 of 90 | 28 of 90 | 2 of 90 |\n" in card
    assert "| Share | 33.3 % | 31.1 % | 2.2 % |\n\nWhere the share is that of chance" in card
    assert "fewer than two captions were held back" in render_card(claims | {"evaluation.noised_clip": []})


def test_a_trained_network_that_this_version_does_not_know_is_refused(claims: dict[str, Any]) -> None:
    claims["components"].append(claims["components"][0] | {"name": "unknown"})
    with pytest.raises(ReleaseError, match="a claim has an unexpected value"):
        render_card(claims)


def test_whom_a_filter_removes_by_mistake_is_told_with_an_interval(claims: dict[str, Any]) -> None:
    card = render_card(claims)
    assert "| skin tone: 1 | 47 of 57 | 82.5 % | 1.32 × | 1.03 to 1.59 |" in card  # noqa: RUF001 (the card's sign)
    assert "| caption: woman | 47 of 57" in card
    assert "| skin tone: 1 | 80 of 80 |" in card and "| caption: woman | 0 of 0" not in card


def test_words_that_became_rarer_and_more_frequent_are_told(claims: dict[str, Any]) -> None:
    for card in (render_card(claims), render_dataset_card(claims)):
        assert "| girl | 0.5 % (21) | 0.0 % (0) | gone |" in card
        assert "more frequent: flag (7.3 % → 15.6 %)" in card


def test_what_guidance_does_is_told_where_it_was_measured(claims: dict[str, Any]) -> None:
    assert "How strong should guidance be?" not in render_card(claims)
    row = {"num_pairs": 16, "num_wins": 9, "share": 9 / 16, "share_lower_bound": 0.333, "mean_own_score": 0.1, "own_error": 0.01,
           "mean_other_score": 0.05, "other_error": 0.01}
    card = render_card(claims | {"evaluation.guidance": [{"guidance_scale": scale, **row} for scale in (1.0, 3.0)]})
    assert "| 1 (no guidance) | 9 of 16 | at least 33.3 % | 0.100 | 0.050 |" in card
    assert "few pictures" in card


def test_energy_is_a_bound_or_not_stated(claims: dict[str, Any]) -> None:
    assert "No energy was metered, and for a CPU no bound is known" in render_card(claims)
    known = {"model": "base", "seconds": 3600.0, "device_name": "NVIDIA L4", "watts": 72, "kwh_upper_bound": 0.072}
    card = render_card(claims | {"cost.energy": [known]})
    assert "at most 0.072 kWh on the accelerator" in card and "for a CPU" not in card


def test_a_citation_from_the_recipe_replaces_the_made_one_and_cannot_end_its_block(claims: dict[str, Any]) -> None:
    assert "@misc{demo," in render_card(claims)
    card = render_card(claims | {"release.citation": "@article{x}\n```\n# Safe"})
    assert "@article{x}" in card and "@misc" not in card and "```\n# Safe" not in card


def test_mutations_are_told_where_they_were_measured(claims: dict[str, Any]) -> None:
    row = {"title": "upside down", "num_caught": 80, "num_positive": 100, "recall_lower_bound": 0.72, "num_other_dropped": 4, "num_other": 40}
    claims |= {"mutations.person.list": [row], "mutations.person.num_positives": 100, "mutations.person.num_others": 40}
    assert "| upside down | 80 of 100 | at least 72.0 % | 4 of 40 |" in render_card(claims)


def test_the_dataset_card_says_what_was_labelled_and_what_cannot_be_shown(claims: dict[str, Any]) -> None:
    card = render_dataset_card(claims)
    assert "| person | 4,426 | 500 yes, 400 no | 600 yes, 410 no | 640 yes, 480 no | 0 |" in card
    assert "size_categories:\n- 1K<n<10K" in card and "What this page cannot show" in card
    assert render_dataset_card(claims) == render_dataset_card(dict(reversed(claims.items())))


def test_the_name_of_a_gate_set_aside_stands_in_code_as_it_is(claims: dict[str, Any]) -> None:
    card = render_card(claims | {"unsafe.bypasses": [{"gate": "unsafe_skip.reload", "reason": "the machine was sold"}]})
    assert "> - `unsafe_skip.reload`, because: the machine was sold" in card


def test_what_no_digest_covers_is_said_to_be_the_publishers_word(claims: dict[str, Any]) -> None:
    assert "times, rate, energy and versions on this page are what the publisher says" in render_card(claims)


def test_captions_that_were_cut_are_counted_in_one_sentence(claims: dict[str, Any]) -> None:
    told = ("Captions that are longer than a network reads are cut: 3 of 1,767 for the base model, 3 of 1,767 for the noised CLIP and 0 of 512 "
            "for the CLIP that judges the evaluation.\n")
    assert told in render_card(claims)
    claims["training.base.num_captions_cut"] = claims["evaluation.num_captions_cut"] = None
    told = ("are cut: it was not counted how many for the base model, 3 of 1,767 for the noised CLIP and it was not counted how many for the "
            "CLIP that judges the evaluation.\n")
    assert told in render_card(claims)
