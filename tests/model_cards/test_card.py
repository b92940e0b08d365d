import re
from typing import Any

import pytest
from glideslope.model_cards.card import render_card, render_dataset_card
from huggingface_hub import ModelCard, ModelCardData

from glideslope.errors import ReleaseError


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
    claims["filters.person.audit.recall_lower_bound"], claims["filters.person.audit.leak.rate_upper_bound"] = 0.98765499, 0.01234501
    found = {(r.task_name, r.metric_type): r.metric_value for r in ModelCard(render_card(claims)).data.eval_results}
    assert found["Filtering the training data: person", "recall_lower_bound"] == 0.987654
    assert found["Filtering the training data: person", "leak_rate_upper_bound"] == 0.012346


def test_a_missing_claim_is_an_error_that_names_it(claims: dict[str, Any]) -> None:
    unused = {"training.noised_clip.versions"}
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
    assert "With 95 % confidence the person filter finds at least 98.7 % of such images, and the violence filter" in top
    assert "at least 60.6 % of such images (little evidence)." in top
    assert "Person: at most 12 of the 1,860 kept images; violence" in top and "Nothing else was looked for" in top
    assert "637 of 640 test images: at least 98.7 %" in card
    assert "glideslope verify DIRECTORY" in card
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
    claims |= {f"filters.violence.audit.{key}": value for key, value in none.items()}
    claims |= {"filters.violence.audit.concepts.num_positive": 0, "filters.violence.max_remaining": None}
    card = render_card(claims)
    assert "nothing is known about what this filter misses" in card
    assert "| Recall | 0 of 0 | not measured | at least 0.0 %" in card


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
    row = {"id": "person_001", "num_images": 1500, "num_kept": 1860, "num_unknown": 4, "num_labelled": 900, "num_drawn": 1000,
           "num_positive": 1,
           "rate_upper_bound": 0.00401, "confidence": 0.95, "stopping": "anytime"}
    claims |= {"audits.person.list": [row], "audits.person.rate_upper_bound": 0.00401, "audits.person.max_positive_images": 8,
               "filters.person.limits.max_leak_rate": 0.005}
    text = render_card(claims)
    assert "of the 1,860 kept images at most 0.401 % show person (up to 8 images)" in text
    assert "| person 001 | 1,500 | 900 of 1,000 | 1 | at most 0.401 % | 95.0 % | at any time |" in text
    assert "The other 360 kept images could not be drawn" in text and "356 of them have a label that says no, 4 have none" in text
    assert "left among all kept images by audit at most 0.5 %" in text
