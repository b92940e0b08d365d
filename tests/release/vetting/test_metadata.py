import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCardData

from glideslope.errors import ReleaseError
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.vetting.metadata import (
    DATASET_FIELDS,
    HEADER,
    MODEL_FIELDS,
    MODEL_REQUIRED,
    check_eval_results,
    check_header,
    find_bad_metadata,
    read_header,
)

GOOD: dict[str, Any] = {
    "license": "apache-2.0", "language": ["en"], "library_name": "glideslope", "pipeline_tag": "text-to-image", "tags": ["glide"],
    "model-index": [{"name": "m", "results": [{"task": {"type": "text-to-image"}, "dataset": {"type": "x", "name": "x"},
                                               "metrics": [{"type": "recall", "value": 0.5}]}]}]}
RESULT: dict[str, Any] = {"dataset": {"id": "org/name", "task_id": "recall"}, "value": 0.5, "notes": "n"}


def problems(header: dict[str, Any]) -> list[str]:
    text = f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n# Card\n"
    return check_header(text, where="README.md", fields=MODEL_FIELDS, required=MODEL_REQUIRED)


def test_a_packed_release_has_good_metadata(packed_run: Path) -> None:
    assert find_bad_metadata(open_evidence(packed_run / "release")) == []


def test_the_header_holds_the_terms_for_a_gated_copy(packed_run: Path) -> None:
    header = read_header((packed_run / "release/README.md").read_text(), where="README.md")
    terms = (packed_run / "release/USE_POLICY.md").read_text()
    assert header["extra_gated_prompt"] == terms.partition("\n")[2].strip()
    assert list(header["extra_gated_fields"].values()) == ["checkbox"]
    assert ModelCardData(**header).to_dict()["extra_gated_heading"] == "Terms of use: Small test model"


def test_a_good_header_passes() -> None:
    assert problems(GOOD) == []
    assert problems(GOOD | {"license": "other", "license_name": "our-own", "license_link": "LICENSE", "datasets": ["org/name"],
                            "co2_eq_emissions": {"emissions": 12.5, "source": "measured"}, "thumbnail": "x.png", "inference": False,
                            "extra_gated_fields": {"Why": {"type": "select", "options": ["study"]}, "I agree": "checkbox"}}) == []


NO_METRICS = {"task": {"type": "t"}, "dataset": {"type": "x", "name": "x"}, "metrics": []}


@pytest.mark.parametrize(("change", "said"), [
    ({"license": "Apache 2"}, "no licence that the Hub knows"),
    ({"license": "other"}, "needs license_name and license_link"),
    ({"license_name": "My Licence"}, "short name in small letters"),
    ({"language": ["English"]}, "language code"),
    ({"language": "en"}, "a list"),
    ({"pipeline_tag": "text-to-picture"}, "no task"),
    ({"tags": []}, "not empty"),
    ({"tags": ["a", "a"]}, "twice"),
    ({"tags": ["a,b"]}, "commas"),
    ({"tags": [1]}, "commas"),
    ({"datasets": ["openmoji"]}, "owner/name"),
    ({"datasets": ["a/b/c"]}, "owner/name"),
    ({"lisence": "mit"}, "does not know"),
    ({"co2_eq_emissions": "little"}, "finite number"),
    ({"co2_eq_emissions": {"grams": 1}}, "expected `emissions`"),
    ({"extra_gated_fields": {"name": "words"}}, "expected one of"),
    ({"extra_gated_fields": []}, "mapping"),
    ({"extra_gated_prompt": 3}, "a text"),
    ({"inference": "yes"}, "true, false"),
    ({"model-index": []}, "not empty"),
    ({"model-index": [{"name": "", "results": []}]}, "without a name"),
    ({"model-index": [{"name": "m", "results": [NO_METRICS]}]}, "without task"),
    ({"model-index": [{"name": "m", "results": [{"task": {}}]}]}, "malformed")])
def test_what_the_hub_would_refuse_or_ignore_is_found(change: dict[str, Any], said: str) -> None:
    found = problems(GOOD | change)
    assert len(found) == 1 and said in found[0] and next(iter(change)) in found[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", True, None])
def test_a_metric_that_is_no_finite_number_is_found(value: Any) -> None:
    header = yaml.safe_load(yaml.safe_dump(GOOD))
    header["model-index"][0]["results"][0]["metrics"][0]["value"] = value
    assert "finite value" in problems(header)[0]


@pytest.mark.parametrize("name", MODEL_REQUIRED)
def test_a_header_that_lacks_something_is_found(name: str) -> None:
    assert any(f"header lacks {name}" in problem for problem in problems({key: value for key, value in GOOD.items() if key != name}))


@pytest.mark.parametrize(("text", "said"), [
    ("# Card\n", "does not begin"), ("---\nlicense: mit\n", "does not begin"), ("---\nlicense: mit\nlicense: mit\n---\n", "twice"),
    ("---\n- a\n---\n", "no mapping"), ("---\na: [\n---\n", "not readable"), (f"---\na: {'x' * 200_000}\n---\n", "at most")])
def test_a_header_that_cannot_be_read_is_found(text: str, said: str) -> None:
    with pytest.raises(ReleaseError, match=said):
        read_header(text, where="README.md")


def test_a_card_that_was_edited_for_the_hub_is_found_by_its_own_parser(tamper: Any) -> None:
    tamper.text("README.md", "license: apache-2.0\n", "license: apache-2.0\nmodel_name: 3\n")
    found = find_bad_metadata(open_evidence(tamper.directory))
    assert any("'model_name', which the Hub does not know" in problem for problem in found)


def test_the_header_of_the_dataset_card_is_checked(tamper: Any) -> None:
    tamper.text("DATASET_CARD.md", "size_categories:\n- n<1K", "size_categories:\n- tiny")
    problem, = find_bad_metadata(open_evidence(tamper.directory))
    assert "DATASET_CARD.md: header, size_categories" in problem
    assert {"license", "size_categories"} <= DATASET_FIELDS.keys()


def results(*rows: Any) -> list[str]:
    return check_eval_results(yaml.safe_dump(list(rows)), where="r.yaml")


def test_good_results_pass() -> None:
    assert results(RESULT, RESULT | {"dataset": {"id": "org/name", "task_id": "other", "revision": "a" * 40},
                                     "source": {"url": "https://example.org"}}) == []


@pytest.mark.parametrize(("change", "said"), [
    ({"dataset": {"id": "name", "task_id": "t"}}, "owner/name"), ({"dataset": {"id": "org/name"}}, "cannot be read"),
    ({"value": "high"}, "finite"), ({"dataset": {"id": "org/name", "task_id": "a task"}}, "a plain name"),
    ({"value": float("nan")}, "finite"), ({"notes": 3}, "a text"),
    ({"source": {"name": "x"}}, "source_url"), ({"source": {"url": "ftp://x"}}, "an address"), ({"error": "no"}, "at least one result")])
def test_results_that_the_hub_would_refuse_or_skip_are_found(change: dict[str, Any], said: str) -> None:
    problem, = results(RESULT | change)
    assert said in problem


def test_results_that_stand_twice_or_are_no_list_are_found() -> None:
    assert "each its own task" in results(RESULT, copy.deepcopy(RESULT))[0]
    assert "at least one" in results()[0]
    assert "at least one" in check_eval_results("a: 1\n", where="r.yaml")[0]
    assert "cannot be read" in check_eval_results("[", where="r.yaml")[0]


def test_the_header_ends_where_the_hub_sees_its_end() -> None:
    assert HEADER.match("---\na: 1\n---\ntext\n---\n")[1] == "a: 1\n"  # type: ignore[index]
