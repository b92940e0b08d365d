import json
from pathlib import Path
from typing import Any

import pytest

from glideslope.errors import ReleaseError
from glideslope.release.claims.claims import claims_of
from glideslope.release.documents import DOCUMENT_PATHS, documents_of
from glideslope.release.evidence.contents import Release, open_evidence
from glideslope.release.evidence.plan import GENERATED
from glideslope.release.vetting.gates.files import check_generated


def test_every_document_is_on_the_list_of_what_pack_writes() -> None:
    assert {*DOCUMENT_PATHS, "USE_POLICY.md"} <= set(GENERATED)


def test_pack_writes_what_the_evidence_gives(release: Release) -> None:
    documents = documents_of(release, claims_of(release))
    assert documents.keys() == set(DOCUMENT_PATHS)
    assert all((release.directory / path).read_text() == text for path, text in documents.items())


def test_documents_do_not_depend_on_the_order_of_the_claims(release: Release, stated: dict[str, Any]) -> None:
    assert documents_of(release, stated) == documents_of(release, dict(reversed(stated.items())))


@pytest.mark.parametrize("path", DOCUMENT_PATHS)
def test_a_document_that_says_something_else_is_found(tamper: Any, path: str) -> None:
    text = (tamper.directory / path).read_text()
    (tamper.directory / path).write_text(text[:-2] + ("  " if text[-2] == " " else " ") + text[-2:])
    problem, = check_generated(open_evidence(tamper.directory))
    assert problem.startswith(f"{path}: line ")


@pytest.mark.parametrize("path", [*DOCUMENT_PATHS, "USE_POLICY.md"])
def test_a_document_that_is_not_there_is_an_error_that_names_it(release_dir: Path, path: str) -> None:
    (release_dir / path).unlink()
    with pytest.raises(ReleaseError, match=rf"{path}: file is missing"):
        check_generated(open_evidence(release_dir))


@pytest.mark.parametrize("claim", ["components", "release.license", "filters.person.test.recall", "cost.energy", "balance.groups"])
def test_a_claim_that_is_not_there_is_an_error_that_names_it(release: Release, stated: dict[str, Any], claim: str) -> None:
    with pytest.raises(ReleaseError, match=claim):
        documents_of(release, {name: value for name, value in stated.items() if name != claim})


def test_documents_hold_no_time_and_no_name_of_a_machine(release: Release) -> None:
    for path in DOCUMENT_PATHS:
        text = (release.directory / path).read_text()
        assert "started" not in text and "finished" not in text and "timestamp" not in text
        assert str(Path.home()) + "/" not in text and str(release.directory) not in text


def test_json_documents_are_in_the_form_of_this_project(release: Release) -> None:
    for path in (path for path in DOCUMENT_PATHS if path.endswith(".json")):
        text = (release.directory / path).read_text()
        assert text == json.dumps(json.loads(text), sort_keys=True, indent=2, ensure_ascii=False) + "\n"
