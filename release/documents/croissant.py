"""evidence/croissant.json: the curated set and its ledger as Croissant 1.0 describes data sets, with its RAI vocabulary.

The images are not in the release: their files are listed by digest, for whoever holds or rebuilds them. The ledger is, so
that any Croissant reader can open it. Source: the MLCommons Croissant format specification 1.0 and the Croissant RAI
specification 1.0.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ...store.file_lists import FileEntry
from ..evidence.contents import Release
from .licences import SPDX_OF
from .plain_json import claim, decimal, json_text, lower, upper

CROISSANT_PATH = "evidence/croissant.json"
PARQUET = "application/x-parquet"
# The context that the specification prescribes for version 1.0.
CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column", "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/", "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field", "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject", "fileSet": "cr:fileSet", "format": "cr:format", "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField",
    "path": "cr:path", "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated",
    "replace": "cr:replace", "samplingRate": "cr:samplingRate", "sc": "https://schema.org/", "separator": "cr:separator",
    "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform"}
CONFORMS_TO = ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]
TEXT, NUMBER, IMAGE = "sc:Text", "sc:Float", "sc:ImageObject"


def croissant_text(release: Release, claims: Mapping[str, Any]) -> str:
    """The text of evidence/croissant.json.

    Raises:
        ReleaseError: evidence or a claim is missing.
    """
    ask = partial(claim, claims)
    data = [_file("curated", entry) for entry in release.curated_files]
    ledger = [_file("ledger", entry, below="") for entry in release.record("curated").outputs.files if entry.path.startswith("ledger/")]
    return json_text({
        "@context": CONTEXT, "@type": "sc:Dataset", "conformsTo": CONFORMS_TO, "name": _plain_name(ask("recipe.name")),
        "description": describe(claims), "version": "1.0.0", "license": licence_address(ask("release.license")),
        "url": ask("release.homepage") or f"urn:sha256:{release.curated_root}", "inLanguage": list(ask("release.languages")),
        "keywords": ["text-to-image", "filtered data"],
        **({"creditText": credit} if (credit := ask("release.data_attribution").strip()) else {}),
        **({"citeAs": citation} if (citation := ask("release.citation").strip()) else {}),
        **rai_properties(claims),
        "distribution": [*data, *_file_sets("curated", data, "data"), *ledger, *_file_sets("ledger", ledger, "ledger")],
        "recordSet": [_record_set("pairs", "Image and caption pairs of the curated set", "curated-files", PAIR_FIELDS),
                      _record_set("ledger", "One row for each input that the run has seen, kept or not", "ledger-files",
                                  ledger_fields(ask("recipe.categories")))]})


# Column, type, column inside it, meaning.
PAIR_FIELDS = (
    ("image", IMAGE, "bytes", "the original file, never encoded again"), ("caption", TEXT, None, "the caption as it came with the image"),
    ("key", TEXT, None, "name of the input"), ("sha256", TEXT, None, "SHA-256 of the original file"),
    ("concept", TEXT, None, "what variants of one image share"), ("weight", NUMBER, None, "how much the pair counts in training"))


def ledger_fields(categories: list[str]) -> tuple[tuple[str, str, str | None, str], ...]:
    """The ledger's columns that have one value a row; which other judges flagged an input (a list) is left out."""
    fields: list[tuple[str, str, str | None, str]] = [
        ("key", TEXT, None, "name of the input"), ("sha256", TEXT, None, "SHA-256 of the original file"),
        ("decision", TEXT, None, "keep or drop"), ("reason", TEXT, None, "why it was dropped"),
        ("split", TEXT, None, "train or validation, for what was kept"), ("weight", NUMBER, None, "how much the pair counts in training"),
        ("caption", TEXT, None, "the caption as it came with the image")]
    for category in categories:
        fields += [(f"score_{category}", NUMBER, None, f"score of the filter {category}; it keeps what lies below its threshold"),
                   (f"classifier_{category}", TEXT, None, f"SHA-256 of the classifier that scored for {category}")]
    return tuple(fields)


def describe(claims: Mapping[str, Any]) -> str:
    """What the data set is, in one paragraph."""
    ask = partial(claim, claims)
    return (f"Captioned images on which the model \"{ask('release.title')}\" was trained: {ask('ledger.num_kept')} of "
            f"{ask('ledger.num_seen')} inputs, {ask('ledger.num_train')} for training and "
            f"{ask('ledger.num_validation')} held back. Images of {', '.join(ask('recipe.categories'))} had been filtered out. "
            "The images are not part of the release that this file belongs to; the ledger, with a row for each input, is.")


def rai_properties(claims: Mapping[str, Any]) -> dict[str, Any]:
    """How the data was collected, filtered and labelled, and what is known of its biases and limits (Croissant RAI 1.0)."""
    ask = partial(claim, claims)
    categories, biases, labels, limits = ask("recipe.categories"), [], [], []
    for category in categories:
        filtered = f"filters.{category}"
        test = f"{filtered}.test"
        labels.append(f"{category}: {ask(filtered, 'num_labelled')} inputs have a label that says whether they count as: "
                      f"{ask(filtered, 'counts').strip()}")
        rate = ask(test, "leak.rate_upper_bound")
        limits.append(f"what remains of {category} among kept images: " + (
            "not measured" if rate is None else f"with 95 % confidence at most a share of {upper(rate)}, by {ask(test, 'leak.num_kept')} "
                                                "kept images with test labels"))
        share = ask(test, "kept_share")
        if share is not None:
            biases.append(f"the filter {category} also drops images that do not show it: of {ask(test, 'num_negative')} such test "
                          f"images it keeps a share of {decimal(share)} (with 95 % confidence at least "
                          f"{lower(ask(test, 'kept_share_lower_bound'))})")
    biases += [f"images whose caption speaks of {row['name']} became rarer: {row['num_kept']} of {row['num_inputs']} were kept"
               for row in ask("balance.groups") if row["change_upper_bound"] is not None and row["change_upper_bound"] < 0]
    limits.append(f"only {', '.join(categories)} were looked for; nothing else was filtered")
    return {"rai:dataCollection": f"taken as they were from a source of the kind {ask('source.kind')}; every input has a row in the "
                                  "ledger with the digest of its original bytes",
            "rai:dataPreprocessingProtocol": [f"filter {category}: {ask('filters', category, 'classifier')} on embeddings of the CLIP "
                                              f"{ask('clip.model')}, threshold "
                                              f"{decimal(ask('filters', category, 'threshold'))}; an input that cannot be read or scored is "
                                              "dropped" for category in categories],
            "rai:dataAnnotationProtocol": labels, "rai:dataBiases": biases, "rai:dataLimitations": limits,
            "rai:personalSensitiveInformation": [f"images that were taken for {category} were removed: "
                                                 f"{ask('filters', category, 'num_flagged')} of {ask('ledger.num_seen')}"
                                                 for category in categories],
            "rai:dataUseCases": ["training of the model that this file belongs to, and checking how its data was filtered"]}


def licence_address(hub_licence: str) -> str:
    """Where a licence can be read, by its SPDX identifier; the Hub's own name where SPDX knows none."""
    spdx = SPDX_OF.get(hub_licence.lower())
    return hub_licence if spdx is None else f"https://spdx.org/licenses/{spdx}.html"


def _plain_name(name: str) -> str:
    return f"{name}-curated"


def _file(kind: str, entry: FileEntry, below: str = "curated/") -> dict[str, Any]:
    return {"@type": "cr:FileObject", "@id": f"{kind}/{entry.path.rpartition('/')[2]}", "name": entry.path.rpartition("/")[2],
            "contentUrl": f"{below}{entry.path}", "contentSize": f"{entry.size_bytes} B", "encodingFormat": PARQUET, "sha256": entry.sha256}


def _file_sets(kind: str, files: list[dict[str, Any]], folder: str) -> list[dict[str, Any]]:
    """All files of a kind as one set, from which a record set takes its rows."""
    below = f"curated/{folder}" if kind == "curated" else folder
    return [{"@type": "cr:FileSet", "@id": f"{kind}-files", "name": f"{kind}-files", "encodingFormat": PARQUET,
             "includes": f"{below}/*.parquet"}]


def _record_set(name: str, meaning: str, files: str, fields: tuple[tuple[str, str, str | None, str], ...]) -> dict[str, Any]:
    rows = []
    for column, kind, _, text in fields:
        extract: dict[str, Any] = {"column": column}
        source: dict[str, Any] = {"fileSet": {"@id": files}, "extract": extract}
        if kind == IMAGE:
            source["transform"] = {"jsonPath": "bytes"}
        rows.append({"@type": "cr:Field", "@id": f"{name}/{column}", "name": column, "description": text, "dataType": kind, "source": source})
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": meaning, "key": {"@id": f"{name}/key"}, "field": rows}
