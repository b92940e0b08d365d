"""The metadata that the Hub reads from a release, checked without the Hub: headers of the cards, evaluation results.

The Hub checks a header when it is pushed, and by then it is late; some of what it accepts it silently ignores. The rules
are those of its documentation and of `huggingface_hub`, whose own parsers are run too.
"""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

from ...errors import ReleaseError
from ...store.strict_yaml import load_yaml
from ...text.one_line import one_line
from ..documents.licences import HUB_LICENCES
from ..evidence.contents import Release

CARD_PATH, DATASET_CARD_PATH, EVAL_RESULTS_FOLDER = "README.md", "DATASET_CARD.md", ".eval_results"
HEADER = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")
TAG = re.compile(r"[^\s,][^,\n]{0,99}")
REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
REVISION = re.compile(r"[0-9a-f]{40}|[A-Za-z0-9][A-Za-z0-9._/-]{0,100}")
TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
PIPELINE_TAGS = frozenset({"text-to-image", "image-to-image", "unconditional-image-generation", "image-classification",
                           "zero-shot-image-classification"})
SIZE_CATEGORIES = frozenset({"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B", "10B<n<100B",
                             "100B<n<1T", "n>1T"})
GATED_FIELD_TYPES = frozenset({"text", "checkbox", "country", "date_picker", "ip_location"})
MAX_TEXT = 20_000
MAX_HEADER_BYTES = 100_000

Check = Callable[[Any], str | None]


def find_bad_metadata(release: Release) -> list[str]:
    """One sentence for everything in the headers of the cards and in the evaluation results that the Hub would refuse, ignore or misread."""
    problems = check_header(release.read(CARD_PATH, bytes.decode), where=CARD_PATH, fields=MODEL_FIELDS, required=MODEL_REQUIRED)
    problems += check_with_client(release)
    if (release.directory / DATASET_CARD_PATH).is_file():
        problems += check_header(release.read(DATASET_CARD_PATH, bytes.decode), where=DATASET_CARD_PATH, fields=DATASET_FIELDS, required=())
    for path in sorted((release.directory / EVAL_RESULTS_FOLDER).glob("*")):
        relative = PurePosixPath(EVAL_RESULTS_FOLDER, path.name)
        problems += check_eval_results(release.read(str(relative), bytes.decode), where=str(relative))
    return problems


def read_header(text: str, *, where: str) -> dict[str, Any]:
    """The YAML header of a card.

    Raises:
        ReleaseError: there is none, it is too long, holds a key twice, or is no mapping.
    """
    match = HEADER.match(text)
    if match is None:
        raise ReleaseError(f"{where}: does not begin with a YAML header between two lines of three dashes; pack the release again")
    if len(match[1].encode()) > MAX_HEADER_BYTES:
        raise ReleaseError(f"{where}: header of {len(match[1].encode())} bytes, at most {MAX_HEADER_BYTES} are allowed; "
                           "shorten the terms of use")
    try:
        value = load_yaml(match[1])
    except yaml.YAMLError as error:
        raise ReleaseError(f"{where}: header is not readable as YAML ({one_line(error, None)}); pack the release again") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ReleaseError(f"{where}: header is no mapping of names; pack the release again")
    return value


def check_header(text: str, *, where: str, fields: Mapping[str, Check], required: tuple[str, ...]) -> list[str]:
    """Compare a card's header with the fields that there are."""
    try:
        header = read_header(text, where=where)
    except ReleaseError as error:
        return [str(error)]
    problems = [f"{where}: header lacks {name}; pack the release again" for name in required if name not in header]
    for name, value in header.items():
        if name not in fields:
            problems.append(f"{where}: header holds {name!r}, which the Hub does not know; remove it from the card's header")
        elif (problem := fields[name](value)) is not None:
            problems.append(f"{where}: header, {name}: {problem}")
    if header.get("license") == "other" and not {"license_name", "license_link"} <= header.keys():
        problems.append(f"{where}: header, license: `other` needs license_name and license_link beside it")
    return problems


def check_with_client(release: Release) -> list[str]:
    """Whether the Hub's own client reads the model card and finds in it what we wrote."""
    from huggingface_hub import ModelCard

    text = release.read(CARD_PATH, bytes.decode)
    try:
        header = read_header(text, where=CARD_PATH)
        found = ModelCard(text, ignore_metadata_errors=False).data.to_dict()
    except ReleaseError:
        return []  # reported by check_header
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        return [f"{CARD_PATH}: header cannot be read by huggingface_hub ({one_line(error)}); pack the release again"]
    lost = sorted(key for key, value in header.items() if key != "model-index" and found.get(key) != value)
    return [f"{CARD_PATH}: header, {key}: huggingface_hub reads {found.get(key)!r:.80} instead of {header[key]!r:.80}" for key in lost]


def check_eval_results(text: str, *, where: str) -> list[str]:
    """Compare a file of evaluation results with what the Hub reads: `huggingface_hub.EvalResultEntry`."""
    from huggingface_hub import parse_eval_result_entries

    try:
        rows = load_yaml(text)
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and not {"error", "data"} & row.keys() for row in rows):
            return [f"{where}: expected a list of at least one result; pack the release again"]
        entries = parse_eval_result_entries(rows)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        return [f"{where}: cannot be read by huggingface_hub ({type(error).__name__}: {one_line(error)}); "
                "pack the release again"]
    problems = []
    for number, entry in enumerate(entries, start=1):
        found = {"dataset.id": _matches(REPO_ID, "owner/name")(entry.dataset_id),
                 "dataset.task_id": _matches(TASK, "a plain name")(entry.task_id),
                 "value": _finite(entry.value), "notes": _text(entry.notes or ""),
                 "dataset.revision": None if entry.dataset_revision is None else _matches(REVISION, "a revision")(entry.dataset_revision),
                 "source.url": None if entry.source_url is None else _address(entry.source_url)}
        problems += [f"{where}: result {number}, {name}: {problem}" for name, problem in found.items() if problem is not None]
    twice = len(entries) - len({(entry.dataset_id, entry.task_id) for entry in entries})
    return problems + ([f"{where}: {twice} results have the data set and task of another; give each its own task"] if twice else [])


def _matches(pattern: re.Pattern[str], expected: str) -> Check:
    return lambda value: None if isinstance(value, str) and pattern.fullmatch(value) else f"is {value!r:.60}, expected {expected}"


def _list_of(check: Check) -> Check:
    def find(value: Any) -> str | None:
        if not isinstance(value, list) or not value:
            return f"is {value!r:.60}, expected a list that is not empty"
        return next((problem for problem in map(check, value) if problem is not None), None) or _repeats(value)

    return find


def _repeats(values: list[Any]) -> str | None:
    return None if len({str(value) for value in values}) == len(values) else "names something twice"


def _one_of(known: frozenset[str], what: str) -> Check:
    return lambda value: None if isinstance(value, str) and value in known else f"is {value!r:.60}, which is no {what} that the Hub knows"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and len(value) <= MAX_TEXT else f"is {value!r:.60}, expected a text of at most {MAX_TEXT} characters"


def _address(value: Any) -> str | None:
    return None if isinstance(value, str) and re.fullmatch(r"https?://\S+", value) else f"is {value!r:.60}, expected an address (https://…)"


def _finite(value: Any) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return None if good else f"is {value!r:.60}, expected a finite number"


def _emissions(value: Any) -> str | None:
    """Grams of CO2-equivalent, alone or with source, training type, place and hardware."""
    if not isinstance(value, dict):
        return _finite(value)
    if set(value) - {"emissions", "source", "training_type", "geographical_location", "hardware_used"} or "emissions" not in value:
        return "expected `emissions` in grams, and at most source, training_type, geographical_location, hardware_used"
    return _finite(value["emissions"])


def _gated(value: Any) -> str | None:
    if not isinstance(value, dict) or not value or not all(isinstance(name, str) for name in value):
        return "expected a mapping of questions to kinds of answers"
    for name, kind in value.items():
        if isinstance(kind, dict):
            if kind.get("type") != "select" or not isinstance(kind.get("options"), list):
                return f"{name!r:.60}: expected type `select` with options"
        elif kind not in GATED_FIELD_TYPES:
            return f"{name!r:.60}: is {kind!r:.40}, expected one of {', '.join(sorted(GATED_FIELD_TYPES))}"
    return None


def _model_index(value: Any) -> str | None:
    """Names, tasks, data sets and finite metrics, as `huggingface_hub.EvalResult` has them."""
    try:
        for model in value:
            if not model["name"] or not model["results"]:
                return "a model without a name or without results"
            for result in model["results"]:
                if not result["task"]["type"] or not result["dataset"]["type"] or not result["dataset"]["name"] or not result["metrics"]:
                    return "a result without task, data set or metrics"
                for metric in result["metrics"]:
                    if not metric["type"] or _finite(metric["value"]) is not None:
                        return f"a metric without a type or a finite value: {metric!r:.80}"
    except (KeyError, TypeError) as error:
        return f"malformed ({error!r:.80})"
    return None if isinstance(value, list) and value else "expected a list that is not empty"


MODEL_REQUIRED = ("license", "library_name", "pipeline_tag", "tags", "model-index")
MODEL_FIELDS: Mapping[str, Check] = {
    "license": _one_of(HUB_LICENCES, "licence"), "license_name": _matches(re.compile(r"[a-z0-9.-]{1,60}"), "a short name in small letters"),
    "license_link": _text, "language": _list_of(_matches(LANGUAGE, "a language code of two or three letters")),
    "library_name": _matches(re.compile(r"[a-z0-9_.-]{1,60}"), "a package name"), "pipeline_tag": _one_of(PIPELINE_TAGS, "task for pictures"),
    "tags": _list_of(_matches(TAG, "a short text without commas")), "datasets": _list_of(_matches(REPO_ID, "owner/name")),
    "base_model": _list_of(_matches(REPO_ID, "owner/name")), "metrics": _list_of(_text), "model-index": _model_index, "thumbnail": _text,
    "inference": lambda value: None if isinstance(value, bool | dict) else f"is {value!r:.60}, expected true, false or parameters",
    "co2_eq_emissions": _emissions, "extra_gated_prompt": _text, "extra_gated_heading": _text, "extra_gated_description": _text,
    "extra_gated_button_content": _text, "extra_gated_fields": _gated}
DATASET_FIELDS: Mapping[str, Check] = {
    "pretty_name": _text, "license": MODEL_FIELDS["license"], "license_name": MODEL_FIELDS["license_name"], "license_link": _text,
    "language": MODEL_FIELDS["language"], "tags": MODEL_FIELDS["tags"],
    "task_categories": _list_of(_one_of(PIPELINE_TAGS, "task for pictures")),
    "size_categories": _list_of(_one_of(SIZE_CATEGORIES, "class of size")), "source_datasets": _list_of(_text),
    "annotations_creators": _list_of(_text), "extra_gated_prompt": _text, "extra_gated_heading": _text, "extra_gated_fields": _gated,
    "extra_gated_button_content": _text}
