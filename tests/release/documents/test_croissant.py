import copy
import json
from pathlib import Path
from typing import Any

import mlcroissant
import pytest

from glideslope.release.documents.croissant import CROISSANT_PATH, croissant_text, licence_address
from glideslope.release.evidence.contents import Release
from glideslope.store.digests import sha256_file


@pytest.fixture(scope="module")
def dataset(release: Release) -> Any:
    return mlcroissant.Dataset(release.directory / CROISSANT_PATH)


def test_the_reader_of_mlcommons_finds_no_error(dataset: Any) -> None:
    assert not dataset.metadata.issues.errors


def test_the_reader_would_notice(release: Release, read: Any, tmp_path: Path) -> None:
    value = copy.deepcopy(read(CROISSANT_PATH))
    value["recordSet"][0]["field"][0]["source"]["fileSet"]["@id"] = "nowhere"
    (tmp_path / "croissant.json").write_text(json.dumps(value))
    with pytest.raises(mlcroissant.ValidationError):
        mlcroissant.Dataset(tmp_path / "croissant.json")


def test_the_ledger_can_be_read_through_it(dataset: Any, release: Release) -> None:
    rows = list(dataset.records("ledger"))
    assert [row["ledger/key"].decode() for row in rows] == release.ledger["key"]
    assert [row["ledger/decision"].decode() for row in rows] == release.ledger["decision"]


def test_every_file_has_its_digest_and_the_images_are_named_but_not_there(release: Release, read: Any) -> None:
    files = {row["@id"]: row for row in read(CROISSANT_PATH)["distribution"] if row["@type"] == "cr:FileObject"}
    assert files["curated/train-00000.parquet"]["contentUrl"] == "curated/data/train-00000.parquet"
    for row in files.values():
        place = release.directory / "evidence" / row["contentUrl"]
        assert place.is_file() == row["@id"].startswith("ledger/")
        assert not place.is_file() or row["sha256"] == sha256_file(place)


def test_fields_are_the_columns_of_the_ledger(release: Release, read: Any) -> None:
    ledger = next(one for one in read(CROISSANT_PATH)["recordSet"] if one["@id"] == "ledger")
    named = {field["name"] for field in ledger["field"]}
    assert named <= set(release.ledger)
    assert {"score_person", "score_violence", "decision", "reason"} <= named


def test_biases_annotations_and_limits_come_from_the_claims(release: Release, stated: dict[str, Any], read: Any) -> None:
    value = read(CROISSANT_PATH)
    assert any("keeps a share of" in text for text in value["rai:dataBiases"])
    assert any(str(stated["filters.person.num_labelled"]) in text for text in value["rai:dataAnnotationProtocol"])
    assert value["rai:dataLimitations"][-1] == "only person, violence were looked for; nothing else was filtered"
    rarer = {"name": "a <group>", "num_inputs": 50, "num_kept": 1, "change_upper_bound": -0.5}
    other = json.loads(croissant_text(release, stated | {"balance.groups": [rarer], "filters.violence.test.leak.rate_upper_bound": None}))
    assert "images whose caption speaks of a <group> became rarer: 1 of 50 were kept" in other["rai:dataBiases"]
    assert "what remains of violence among kept images: not measured" in other["rai:dataLimitations"]


def test_licences_are_addresses_where_spdx_knows_them() -> None:
    assert licence_address("cc-by-sa-4.0") == "https://spdx.org/licenses/CC-BY-SA-4.0.html"
    assert licence_address("openrail") == "openrail"
