import json
import re
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from glideslope.release.documents.bom import BOM_PATH, bom_text
from glideslope.release.documents.bom_model_card import energy_sentence, performance_metrics
from glideslope.release.documents.licences import HUB_LICENCES, OTHER_HUB_LICENCES, SPDX_OF, cyclonedx_licence
from glideslope.release.evidence.contents import Release
from glideslope.store.digests import sha256_file
from glideslope.store.stage_manifest import Manifest


def validate(text: str) -> str:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return "" if error is None else str(error)


def test_the_bill_of_materials_validates_strictly_against_the_schema_of_cyclonedx(release: Release) -> None:
    assert validate((release.directory / BOM_PATH).read_text()) == ""


def test_the_validator_would_notice(release: Release, read: Any) -> None:
    bom = read(BOM_PATH)
    bom["metadata"]["component"]["modelCard"]["surprise"] = 1
    assert "surprise" in validate(json.dumps(bom))


@pytest.mark.parametrize("licence", sorted(HUB_LICENCES))
def test_every_licence_of_the_hub_validates(read: Any, licence: str) -> None:
    bom = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [
        {"type": "data", "name": "x", "licenses": cyclonedx_licence(licence)}]}
    assert validate(json.dumps(bom)) == ""
    assert not OTHER_HUB_LICENCES & SPDX_OF.keys()


def test_the_serial_number_follows_from_the_claims(release: Release, stated: dict[str, Any], read: Any) -> None:
    serial = read(BOM_PATH)["serialNumber"]
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", serial)
    other = stated | {"evaluation.num_wins": stated["evaluation.num_wins"] + 1}
    assert json.loads(bom_text(release, stated))["serialNumber"] == serial != json.loads(bom_text(release, other))["serialNumber"]


def test_each_weight_file_has_its_digest(release: Release, read: Any) -> None:
    networks = {row["name"]: row for row in read(BOM_PATH)["components"] if row["bom-ref"].startswith("network:")}
    assert networks.keys() == {"base", "noised_clip"}
    for row in networks.values():
        for file in row["components"]:
            assert file["hashes"] == [{"alg": "SHA-256", "content": sha256_file(release.directory / file["name"])}]


def test_a_release_of_every_network_has_all_its_files_in_the_bill(full_release: Path) -> None:
    text = (full_release / BOM_PATH).read_text()
    assert validate(text) == ""
    listed = {file["name"] for row in json.loads(text)["components"] for file in row.get("components", ())}
    assert listed == {path.relative_to(full_release).as_posix() for path in full_release.glob("*/*.safetensors")}
    brought_in = next(row for row in json.loads(text)["components"] if row["name"] == "upsampler")
    assert {"name": "glideslope:is_trained_here", "value": "false"} in brought_in["properties"]
    assert brought_in.get("licenses", []) == []


def test_the_data_is_named_by_the_root_of_its_files_and_counted(release: Release, stated: dict[str, Any], read: Any) -> None:
    data, = (row for row in read(BOM_PATH)["components"] if row["type"] == "data")
    assert [entry.path for entry in release.curated_files] == ["data/train-00000.parquet"]
    assert data["hashes"][0]["content"] == release.curated_root == Manifest(tuple(release.curated_files)).root
    counts = {one["name"]: one["value"] for one in data["data"][0]["contents"]["properties"]}
    assert counts["glideslope:num_kept"] == str(stated["ledger.num_kept"])
    assert counts["glideslope:dropped:unreadable"] == "1"


def test_every_reference_leads_somewhere_and_is_unique(read: Any) -> None:
    bom = read(BOM_PATH)
    refs = [bom["metadata"]["component"]["bom-ref"], *(row["bom-ref"] for row in bom["components"])]
    assert len(set(refs)) == len(refs)
    assert {row["ref"] for row in bom["dependencies"]} == set(refs)
    assert {ref for row in bom["dependencies"] for ref in row["dependsOn"]} <= set(refs)
    assert {"ref": "data:curated"} in bom["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"]


def test_packages_have_versions_addresses_and_licences(read: Any) -> None:
    rows = {row["name"]: row for row in read(BOM_PATH)["components"] if row["type"] in ("library", "platform")}
    assert rows["scikit-learn"]["purl"] == f"pkg:pypi/scikit-learn@{rows['scikit-learn']['version']}"
    assert rows["open_clip_torch"]["purl"].startswith("pkg:pypi/open-clip-torch@") if "open_clip_torch" in rows else True
    assert rows["torch"]["licenses"] == [{"license": {"id": "BSD-3-Clause"}}]
    assert rows["python"]["type"] == "platform"


def test_intervals_are_those_of_the_claims_rounded_so_that_they_hold(stated: dict[str, Any]) -> None:
    metrics = {(row["type"], row["slice"]): row for row in performance_metrics(stated)}
    row = metrics["recall of the training-data filter: person", "test labels"]
    bound = stated["filters.person.test.recall_lower_bound"]
    assert 0 <= bound - float(row["confidenceInterval"]["lowerBound"]) < 1e-6
    assert row["confidenceInterval"]["upperBound"] == "1"
    leak = metrics["share of person among what the filter keeps", "test labels"]
    assert 0 <= float(leak["confidenceInterval"]["upperBound"]) - stated["filters.person.test.leak.rate_upper_bound"] < 1e-6
    assert any("gender: female" in slice_ for _, slice_ in metrics)


def test_figures_that_were_not_measured_are_left_out(stated: dict[str, Any]) -> None:
    names = ("recall", "recall_lower_bound", "leak.rate", "leak.rate_upper_bound")
    without = stated | {f"filters.violence.test.{name}": None for name in names}
    titles = [row["type"] for row in performance_metrics(without) if row["slice"] == "test labels"]
    assert "recall of the training-data filter: violence" not in titles
    assert "share of violence among what the filter keeps" not in titles


def test_energy_is_a_bound_with_its_origin_or_not_measured() -> None:
    assert energy_sentence([{"model": "base", "kwh_upper_bound": None}]) == "not measured"
    known = {"model": "base", "device_name": "NVIDIA L4", "watts": 72, "seconds": 3600.0, "kwh_upper_bound": 0.072}
    assert energy_sentence([known]) == "training base on NVIDIA L4: at most 0.072 kWh on the accelerator, from 3600 s at 72 W"
