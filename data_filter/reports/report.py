"""report.html: what a run's filters did and what is known about them, on one page that carries everything with it.

The figures are gathered as plain data from finished stages (`gather_report`), then rendered. Nothing is scored again; pictures
are read from the source. Text from the data (keys, captions, labels) is hostile: the template escapes all of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...clip.model import load_clip
from ...progress import Progress
from ...recipe.filters import Category
from ...recipe.policy import Policy, reaches
from ...recipe.recipe import Recipe
from ...store.records import read_record
from ...store.run_layout import CURATED, INDEX, LABELS, RunLayout, classifier_stage, filter_stage, mutation_stage, scores_stage
from ...store.stage_places import RECORD_NAME
from ...store.vocabulary import Cause, Reason, Role
from ...store.whole_files import read_json, write_bytes
from ...text import number_text as wording
from ..classifiers.fitted import REPORT_NAME
from ..deciding.filter_figures import combined_scores
from ..deciding.ledger import Ledger, open_ledger
from ..deciding.threshold import FILTER_NAME, SCORES_NAME, is_dropped
from ..index.parquet import read_table
from ..labels.labelled import resolve_labels
from ..mutations.figures import MUTATIONS_NAME
from ..mutations.image_changes import TITLES
from ..sources.source import Source
from .balance import count_captions, measure_balance, word_groups
from .charts import draw_curve, draw_histogram
from .galleries import Pictures, ScoreScan, Shown, all_keys, make_thumbnails, missed_rows, sample_rows, scan_scores
from .page import load_template
from .slices import count_attributes, measure_slices, slice_by_groups, slice_by_words

NUM_SHOWN = 24
MAX_THUMBNAILS = 900  # of about 3 kB each: the page stays below 5 MB


@dataclass(frozen=True)
class Report:
    """What a report says.

    Attributes:
        figures: plain data: run, ledger, categories, balance, attributes, audits, stages.
        scans: category -> its scores over all inputs.
        galleries: name (`kept`, or `<category>/<which>`) -> what is shown.
    """

    figures: Mapping[str, Any]
    scans: Mapping[str, ScoreScan]
    galleries: Mapping[str, Sequence[Shown]]


def write_report(recipe: Recipe, layout: RunLayout, source: Source | None, path: Path, *, policy: Policy, pictures: Pictures = "veiled",
                 progress: Progress | None = None) -> Report:
    """Gather, render and write a run's report.

    Args:
        recipe: of the run.
        layout: of the run, curated; what there is of mutation tests and audits is told too.
        source: read for the thumbnails; None: no pictures.
        path: the HTML file to write.
        policy: what the run's release is asked for, printed beside each figure.
        pictures: `veiled` blurs what the filters look for until the reader asks to see it, `clear` shows all, `blurred` holds
            thumbnails of a few pixels only, `none` holds none.
        progress: told which part is being made.

    Raises:
        StageError: a stage has not finished, or was changed.
        StorageError: the file cannot be written.
    """
    tell = progress or (lambda done, total, text: None)
    tell(0, 3, "figures")
    report = gather_report(recipe, layout, policy)
    tell(1, 3, "pictures")
    thumbnails = make_thumbnails(source, layout.index, sorted(set(all_keys(report.galleries))), pictures)
    tell(2, 3, "page")
    write_bytes(path, render_report(report, thumbnails, pictures).encode("utf-8", "replace"))
    tell(3, 3, "page")
    return report


def gather_report(recipe: Recipe, layout: RunLayout, policy: Policy) -> Report:
    """All figures of a report from finished stages; see `write_report`."""
    ledger = open_ledger(layout.curated)
    words = word_groups(recipe)
    balance = measure_balance(count_captions(layout.ledger, words))
    number = max(6, min(NUM_SHOWN, MAX_THUMBNAILS // (4 * len(recipe.categories) + 1)))
    galleries: dict[str, Sequence[Shown]] = {"kept": sample_rows(ledger, Reason(Cause.NOTHING), number)}
    categories, scans = [], {}
    for category in recipe.categories:
        figures = describe_category(category, layout, words) | compare_with_demands(category.name, layout, policy)
        scan = scan_scores(ledger, category.name, figures["filter"]["threshold"], 2 * number // 3)
        categories.append(figures | {"num_scored": scan.num_scored})
        scans[category.name] = scan
        galleries |= {f"{category.name}/below": scan.below, f"{category.name}/above": scan.above,
                      f"{category.name}/missed": missed_rows(figures["filter"]["missed"], number),
                      f"{category.name}/dropped": sample_rows(ledger, Reason(Cause.FILTER, category.name), number, score=category.name)}
    return Report({"run": recipe.name, "ledger": describe_ledger(ledger), "categories": categories, "balance": balance,
                   "attributes": measure_attributes(recipe, layout), "source": recipe.source.model_dump(mode="json"),
                   "clip": recipe.clip.model, "stages": describe_stages(recipe, layout)}, scans, galleries)


def describe_ledger(ledger: Ledger) -> dict[str, Any]:
    """How many inputs were seen, kept and dropped, by reason."""
    return {name: ledger.curated[name] for name in ("seen", "kept", "dropped", "splits")}


def describe_category(category: Category, layout: RunLayout, words: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Everything that is known about one category's filter."""
    directory = layout.filter(category.name)
    filter_report, scores = read_json(directory / FILTER_NAME), read_table(directory / SCORES_NAME)
    dropped = is_dropped(combined_scores(scores), filter_report["threshold"])
    unseen = np.array([role == Role.TEST for role in scores["role"].to_pylist()], dtype=bool)
    held_out = scores.filter(unseen)
    slices = slice_by_groups([dict(pairs) for pairs in held_out["groups"].to_pylist()]) + slice_by_words(held_out["caption"].to_pylist(), words)
    labels = held_out["label"].to_numpy().astype(np.int64)
    score = held_out["score"].to_numpy()
    mutations, classifier = layout.mutations(category.name), read_json(directory / REPORT_NAME)
    return {"name": category.name, "counts": category.counts, "does_not_count": category.does_not_count, "examples": list(category.examples),
            "filter": filter_report, "classifier": classifier,
            "slices": measure_slices(labels, dropped[unseen], slices),
            "positives": score[labels == 1].tolist(), "negatives": score[labels == 0].tolist(),
            "mutations": read_json(mutations / MUTATIONS_NAME) if (mutations / RECORD_NAME).is_file() else None,
            "candidates": rank_candidates(classifier), "audits": describe_audits(layout, category.name),
            "cautions": list_cautions(category, filter_report, layout)}


def compare_with_demands(category: str, layout: RunLayout, policy: Policy) -> dict[str, Any]:
    """What the policy demands of a filter, and which of it the test labels show; no demands where the policy does not name the category."""
    demands = policy.categories.get(category)
    if demands is None:
        return {"demands": None, "met": None}
    figures = read_json(layout.filter(category) / FILTER_NAME)["test"]
    met = {"recall": reaches(figures["recall"], demands.recall.at_least) and reaches(figures["recall_lower_bound"], demands.recall.bound),
           "kept_share": reaches(figures["kept_share"], demands.kept_share.at_least)}
    return {"demands": demands.model_dump(mode="json"), "met": met}


def rank_candidates(classifier: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classifiers that cross-validation compared, best first; none where there was no comparison."""
    selection = classifier["selection"]
    candidates = [{**candidate, "mean": float(np.mean(candidate["kept_shares"])),
                   "is_chosen": candidate["parts"] == selection["chosen"]["parts"]}
                  for candidate in selection.get("candidates", [])]
    return sorted(candidates, key=lambda candidate: -candidate["mean"])


def describe_audits(layout: RunLayout, category: str) -> list[dict[str, Any]]:
    """The audits of a category: what was claimed and what the labels prove so far; no result before there are labels."""
    if not layout.audits(category).is_dir():
        return []
    from ..audits.audit import RESULT_NAME, list_audits
    from ..audits.population import digest_ledger

    audits, root = list_audits(layout, category), digest_ledger(read_record(layout.curated))
    results = [read_json(path)["result"] if (path := audit.directory / RESULT_NAME).is_file() else None for audit in audits]
    stale = {"status": "stale", "rate_upper_bound": None}  # curated again since: it says nothing about what is kept now
    return [{"id": audit.id, "plan": audit.plan.to_json(), "num_drawn": len(audit.keys),
             "result": result if result is None or audit.commitment["ledger_sha256"] == root else result | stale}
            for audit, result in zip(audits, results, strict=True)]


def list_cautions(category: Category, report: Mapping[str, Any], layout: RunLayout) -> list[str]:
    """What the labels cannot show, in sentences with this filter's own numbers."""
    test = report["test"]
    positives, negatives = test["num_positive"], test["num_negative"]
    labels = [label for label in resolve_labels(layout).labels.current if label.category == category.name]
    seen = read_record(layout.index).summary["num_inputs"]
    concepts = len({label.concept for label in labels if label.role == Role.TEST and label.label == 1})
    best = wording.at_least(recall_bound(positives))
    said = [f"{wording.count(len({label.key for label in labels}))} of {wording.count(seen)} inputs have a label for {category.name}; "
            "recall and kept share hold for inputs like the labelled ones. Where the labelled images were chosen and not drawn at random, "
            "they say nothing certain about the rest: an audit of the kept set does.",
            f"Even if all are found, {wording.count(positives)} held-out positives prove a recall of {best}, and no more."]
    if concepts and concepts < positives:
        said.append(f"These positives show only {wording.count(concepts)} different concepts. Images of one concept stand or fall together, "
                    "so that bounds which take images as independent are too sure of themselves: counted by concept, the most that could "
                    f"be proved is a recall of {wording.at_least(recall_bound(concepts))}.")
    if negatives:
        said.append(f"The share of positives among the held-out labels ({wording.percent(positives / (positives + negatives))}) need not be "
                    "that of the collection: what is left in the kept set follows from an audit, not from these labels.")
    people = sorted({label.who for label in labels if label.who})
    if len(people) < 2:
        said.append("One source of labels judged everything; how far people would disagree is unknown.")
    if not any(label.groups for label in labels):
        said.append("The labels name no groups (columns group:<name>): figures for groups rest on caption words alone, and a caption often "
                    "does not say who is in the picture.")
    return said


def recall_bound(num_positive: int) -> float:
    """The best lower bound on recall that so many positives can give."""
    return float(0.05 ** (1 / num_positive)) if num_positive else 0.0


def measure_attributes(recipe: Recipe, layout: RunLayout) -> list[dict[str, Any]]:
    """The zero-shot attributes of the recipe; none where it names none."""
    if not recipe.report.attributes:
        return []
    text_dir = layout.clip if recipe.clip.model == "lite0" else None
    clip = load_clip(recipe.clip, text_dir=text_dir)
    prompts = {attribute.name: {value.value: value.prompt for value in attribute.values} for attribute in recipe.report.attributes}
    return count_attributes(layout.index, layout.ledger, prompts, clip)


def describe_stages(recipe: Recipe, layout: RunLayout) -> list[dict[str, Any]]:
    """Digest, time and duration of each finished stage."""
    categories = [category.name for category in recipe.categories]
    names = [INDEX, LABELS, *(stage(name) for name in categories for stage in (classifier_stage, scores_stage, filter_stage)), CURATED,
             *map(mutation_stage, categories)]
    rows = []
    for name in names:
        if (layout.stage(name) / RECORD_NAME).is_file():
            record = read_record(layout.stage(name))
            rows.append({"stage": name, "digest": record.digest, "finished": record.environment.get("finished"),
                          "version": record.environment.get("versions", {}).get("glideslope")})
    return rows


def render_report(report: Report, thumbnails: Mapping[str, str], pictures: Pictures) -> str:
    """The page."""
    charts = {category["name"]: {"curve": draw_curve(category), "histogram": draw_histogram(category, report.scans[category["name"]])}
              for category in report.figures["categories"]}
    return str(load_template("report.html.jinja").render(**report.figures, charts=charts, galleries=report.galleries, thumbnails=thumbnails,
                                                         pictures=pictures, titles=TITLES))
