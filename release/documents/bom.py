"""evidence/mlbom.cdx.json: the bill of materials of a release as CycloneDX 1.6 writes it (ECMA-424, with the model card of its ML-BOM).

It holds no time and no random number: its serial number is drawn from the claims, so that equal releases have equal bills.
"""

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from ...store.digests import sha256_json
from ..evidence.contents import Release
from .bom_model_card import model_card
from .licences import PACKAGE_LICENCES, cyclonedx_licence
from .plain_json import claim, json_text
from .record_environment import describe

BOM_PATH = "evidence/mlbom.cdx.json"
SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://glideslope.dev/release/v1")
MODEL_REF, DATA_REF = "model", "data:curated"


def bom_text(release: Release, claims: Mapping[str, Any]) -> str:
    """The text of evidence/mlbom.cdx.json.

    Raises:
        ReleaseError: evidence or a claim is missing.
    """
    ask = partial(claim, claims)
    networks, packages = [network_component(release, claims, row) for row in ask("components")], package_components(release)
    bom = {"$schema": SCHEMA, "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
           "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, sha256_json(claims))}",
           "metadata": {"component": model_component(claims), "tools": {"components": [_tool(packages)]},
                        "properties": [_property("glideslope:provenance:" + stage, ask("provenance", stage))
                                       for stage in ask("stages")]},
           "components": [*networks, data_component(release, claims), *packages],
           "dependencies": list_dependencies(claims, networks, packages)}
    return json_text(bom)


def model_component(claims: Mapping[str, Any]) -> dict[str, Any]:
    """The model as a whole, with its model card."""
    ask = partial(claim, claims)
    homepage = ask("release.homepage")
    return {"type": "machine-learning-model", "bom-ref": MODEL_REF, "name": ask("release.title"),
            "description": f"Text-to-image diffusion model trained on {ask('ledger.num_train')} captioned images, from which images of "
                           f"{', '.join(ask('recipe.categories'))} had been filtered",
            "licenses": cyclonedx_licence(ask("release.license")), "modelCard": model_card(claims, data_ref=DATA_REF),
            **({"externalReferences": [{"type": "website", "url": homepage}]} if homepage else {})}


def network_component(release: Release, claims: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """One network: the digest of each of its weight files; one that came from elsewhere says so."""
    ask = partial(claim, claims)
    name = row["name"]
    files = release.weights(name).files
    variants = [file for variant in row["variants"] for file in release.weights(name, variant).files]
    properties = [_property("glideslope:num_parameters", row["num_parameters"]), _property("glideslope:is_trained_here", row["is_trained"]),
                  _property("glideslope:image_size", row["image_size"])]
    digest = partial(file_digest, release)
    parts = [{"type": "file", "bom-ref": f"file:{name}/{file.name}", "name": f"{name}/{file.name}",
              "hashes": [{"alg": "SHA-256", "content": digest(f"{name}/{file.name}")}]} for file in (*files, *variants)]
    return {"type": "machine-learning-model", "bom-ref": f"network:{name}", "name": name, "components": parts,
            "licenses": cyclonedx_licence(ask("release.license")) if row["is_trained"] else [],
            "properties": [one for one in properties if one["value"] != "None"]}


def data_component(release: Release, claims: Mapping[str, Any]) -> dict[str, Any]:
    """The curated set: not in the release, named by the root over its files."""
    ask = partial(claim, claims)
    counts = {"seen": "ledger.num_seen", "kept": "ledger.num_kept", "dropped": "ledger.num_dropped", "train": "ledger.num_train",
              "validation": "ledger.num_validation"}
    properties = [_property(f"glideslope:num_{name}", ask(key)) for name, key in counts.items()]
    properties += [_property(f"glideslope:dropped:{reason}", number) for reason, number in ask("ledger.dropped_by_reason").items()]
    credit = ask("release.data_attribution").strip()
    return {"type": "data", "bom-ref": DATA_REF, "name": f"{ask('recipe.name')}, curated set",
            "description": "The captioned images that the filters kept. They are not part of the release; evidence/croissant.json lists their "
                           "files by digest, evidence/ledger has a row for each input.",
            "hashes": [{"alg": "SHA-256", "content": release.curated_root}], **({"copyright": credit} if credit else {}),
            "data": [{"type": "dataset", "name": "curated set", "contents": {"properties": properties},
                      "description": f"source of the kind {ask('source.kind')}, as found by this run"}]}


def package_components(release: Release) -> list[dict[str, Any]]:
    """The packages that the stages ran with, each version once."""
    found = {(name, version) for record in release.records.values() for name, version in describe(record)["versions"].items()}
    rows = []
    for name, version in sorted(found):
        place = "generic/python" if name == "python" else f"pypi/{name.lower().replace('_', '-')}"
        purl = f"pkg:{place}@{version.replace('+', '%2B')}"
        licence = PACKAGE_LICENCES.get(name)
        rows.append({"type": "platform" if name == "python" else "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
                     **({"licenses": [{"license": {"id": licence}}]} if licence else {})})
    return rows


def list_dependencies(claims: Mapping[str, Any], networks: list[dict[str, Any]], packages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was made from what: the model from its networks, those that were trained here from the data and the packages."""
    ask = partial(claim, claims)
    refs, trained = [package["bom-ref"] for package in packages], {row["name"] for row in ask("components") if row["is_trained"]}
    rows = [{"ref": MODEL_REF, "dependsOn": [network["bom-ref"] for network in networks]}]
    rows += [{"ref": network["bom-ref"], "dependsOn": [DATA_REF, *refs] if network["name"] in trained else []} for network in networks]
    return [*rows, {"ref": DATA_REF, "dependsOn": refs}, *({"ref": ref, "dependsOn": []} for ref in refs)]


def file_digest(release: Release, path: str) -> str:
    """SHA-256 of a file; verification has hashed every file before."""
    return release.digest(path)


def _tool(packages: list[dict[str, Any]]) -> dict[str, Any]:
    own = next((package for package in packages if package["name"] == "glideslope"), None)
    return {"type": "application", "name": "glideslope", **({"version": own["version"]} if own else {})}


def _property(name: str, value: Any) -> dict[str, str]:
    return {"name": name, "value": str(value).lower() if isinstance(value, bool) else str(value)}
