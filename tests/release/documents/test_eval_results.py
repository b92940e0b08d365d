from typing import Any

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from glideslope.release.documents.eval_results import EVAL_RESULTS_PATH, eval_results_text
from glideslope.release.evidence.contents import Release


def test_the_client_of_the_hub_reads_the_results(release: Release, stated: dict[str, Any]) -> None:
    entries = {entry.task_id: entry for entry in parse_eval_result_entries(yaml.safe_load((release.directory / EVAL_RESULTS_PATH).read_text()))}
    assert entries["caption_win_share"].value == pytest.approx(stated["evaluation.share"], abs=1e-6)
    assert entries["filter_person_recall"].value == pytest.approx(stated["filters.person.test.recall"], abs=1e-6)
    assert entries["filter_person_leak_upper_bound"].value >= stated["filters.person.test.leak.rate_upper_bound"]
    assert {entry.dataset_id for entry in entries.values()} == {"local/small"}
    assert all("lower bound" in entry.notes or "upper bound" in entry.notes for entry in entries.values())


def test_data_that_is_not_on_the_hub_is_said_not_to_be(stated: dict[str, Any]) -> None:
    assert all("is not on the Hub" in row["notes"] for row in yaml.safe_load(eval_results_text(stated)))


def test_data_of_the_hub_is_named_with_its_revision(stated: dict[str, Any]) -> None:
    claims = stated | {"source.dataset_id": "org/name", "source.dataset_revision": "a" * 40, "release.homepage": "https://example.org/model"}
    for row in yaml.safe_load(eval_results_text(claims)):
        assert (row["dataset"]["id"], row["dataset"]["revision"]) == ("org/name", "a" * 40)
        assert row["source"] == {"url": "https://example.org/model", "name": "Small test model"}
        assert "not on the Hub" not in row["notes"]


def test_what_was_not_measured_has_no_result(stated: dict[str, Any]) -> None:
    names = ("recall", "recall_lower_bound", "kept_share", "kept_share_lower_bound", "leak.rate_upper_bound")
    without = stated | {f"filters.violence.test.{name}": None for name in names}
    tasks = [row["dataset"]["task_id"] for row in yaml.safe_load(eval_results_text(without))]
    assert not [task for task in tasks if "violence" in task]
