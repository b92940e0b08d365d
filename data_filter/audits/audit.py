"""Audits: draw a sample of what a filter kept, have people label it, and state what that proves.

An audit lives in `audits/<category>/<id>/`:

    commitment.json   the plan, digests of ledger, population and seed, and the audits before it: fixed before anything is drawn
    sample.json       the seed, the images drawn with it, and which images could not be drawn
    audit.json        the labels so far and what they prove; audits of other kept sets and their labels
    record.json       digests of the three
    review/           what the reviewer works with: CSV and contact sheets; no evidence

Nothing drawn is ever drawn anew: asking again for an audit of the same images goes on with the next images of the same order, and a
second one beside it is listed with the first, and each of them has to prove the claim. An audit of what was kept after curating
again needs a seed of its own, says how the audits before it ended, and is held to more (`series`).
"""

import secrets
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import FilterError, LabelError, StageError
from ...store.digests import sha256_file, sha256_json
from ...store.file_lists import FileEntry
from ...store.records import Record, describe_environment, read_record
from ...store.run_layout import RunLayout, audit_stage
from ...store.stage_manifest import Manifest
from ...store.stage_places import RECORD_NAME
from ...store.vocabulary import Role
from ...store.whole_files import read_json, sync_directory, write_json
from ..labels.stage import import_audit_labels
from ..labels.store import AUDIT_PREFIX, read_audit_labels, read_labels
from ..sources.source import Source
from .plan import FORMAT, Candidate, Plan, bind_seed, digest_population, digest_seed, hash_text, measure_audit, redraw
from .population import AuditRequest, Kept, choose_number, digest_ledger, plan_audit
from .review import Picture, read_review_csv, write_review_csv, write_sheets
from .series import OtherAudit, count_elsewhere, find_gaps, normalize_seed, number_of

COMMITMENT_NAME, SAMPLE_NAME, RESULT_NAME, REVIEW = "commitment.json", "sample.json", "audit.json", "review"
EVIDENCE = (COMMITMENT_NAME, SAMPLE_NAME, RESULT_NAME)
MAX_SEED_LENGTH = 1000


@dataclass(frozen=True)
class Audit:
    """A drawn audit as its files say it.

    Attributes:
        directory: where it lies.
        commitment, sample: the files' content.
        plan: of the commitment.
    """

    directory: Path
    commitment: Mapping[str, Any]
    sample: Mapping[str, Any]
    plan: Plan

    @property
    def id(self) -> str:
        """Unique in the run: `<category>_<number>`."""
        return str(self.commitment["id"])

    @property
    def category(self) -> str:
        """Name of the category."""
        return str(self.commitment["category"])

    @property
    def draw_key(self) -> bytes:
        """What the images are drawn with."""
        return bind_seed(self.sample["seed"], self.commitment["population"]["sha256"])

    @property
    def keys(self) -> list[str]:
        """The drawn images, in their order."""
        return [image["key"] for image in self.sample["images"]]


def list_audits(layout: RunLayout, category: str) -> list[Audit]:
    """The drawn audits of a category, in order.

    Raises:
        StageError: an audit's files are damaged.
    """
    directory = layout.audits(category)
    directories = [path for path in directory.glob(f"{category}_*") if path.is_dir() and path.name.removeprefix(f"{category}_").isdigit()]
    return [load_audit(path) for path in sorted(directories, key=lambda path: int(path.name.removeprefix(f"{category}_")))]


def load_audit(directory: Path) -> Audit:
    """Read a drawn audit.

    Raises:
        StageError: damaged, of another format, or its commitment was changed.
    """
    record = read_record(directory)
    commitment, sample = read_json(directory / COMMITMENT_NAME), read_json(directory / SAMPLE_NAME)
    if commitment.get("format") != FORMAT:
        raise StageError(f"{directory / COMMITMENT_NAME}: format is {commitment.get('format')!r:.60}, expected {FORMAT!r}: other versions draw "
                         "otherwise; audit in a new run")
    if record.summary.get("commitment_sha256") != sha256_json(commitment):
        raise StageError(f"{directory / COMMITMENT_NAME}: changed since the audit was drawn; restore the file from a copy")
    try:
        return Audit(directory, commitment, sample, Plan.from_json(commitment["plan"]))
    except (KeyError, TypeError, ValueError) as error:
        raise StageError(f"{directory}: malformed audit ({error!r}); restore the files from a copy") from error


def draw_audit(kept: Kept, request: AuditRequest) -> tuple[Audit, int]:
    """Draw an audit, or go on with the one that was drawn from the same images.

    Returns:
        The audit, and how many of its images had been drawn before.

    Raises:
        FilterError: a claim, seed or number that can't be, a seed that was used before, or nothing to draw from.
        LabelError: labels were added since the data was curated.
        StageError: an earlier audit is missing or was changed.
        StorageError: the run can't be written.
    """
    check_current(kept)
    earlier = list_audits(kept.layout, kept.category.name)
    check_complete(kept.layout, kept.category.name, earlier)
    named = [{"id": audit.id, "commitment_sha256": sha256_json(audit.commitment), "ledger_sha256": audit.commitment["ledger_sha256"]}
             for audit in earlier]
    plan, population = plan_audit(kept, request, num_elsewhere=count_elsewhere(named, kept.root))
    same = [audit for audit in earlier if audit.commitment["population"]["sha256"] == population["sha256"] and is_fresh(kept, audit)]
    if same and not request.again:
        return extend_audit(kept, same[-1], request), len(same[-1].keys)
    num, seed = choose_number(plan, request.num), make_seed(request.seed)
    check_seed(kept.layout, seed, request.seed)
    name = f"{kept.category.name}_{len(earlier) + 1:03d}"
    commitment = {"format": FORMAT, "id": name, "category": kept.category.name, "plan": plan.to_json(), "ledger_sha256": kept.root,
                  "population": {"sha256": population["sha256"], "num_images": plan.num_images}, "seed_sha256": digest_seed(seed),
                  "earlier": named}
    images = redraw(kept.candidates(), plan, bind_seed(seed, population["sha256"]), num)
    sample = {"format": FORMAT, "seed": seed, "seed_text": request.seed, "excluded": population["excluded"], "images": describe_images(images)}
    directory = kept.layout.audit(kept.category.name, name)
    partial = directory.with_name(name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_json(partial / COMMITMENT_NAME, commitment)
    write_json(partial / SAMPLE_NAME, sample)
    write_result(Audit(partial, commitment, sample, plan), kept.layout)
    partial.rename(directory)
    sync_directory(directory.parent)
    return load_audit(directory), 0


def is_fresh(kept: Kept, audit: Audit) -> bool:
    """Whether an audit speaks about what is kept now."""
    return bool(audit.commitment["ledger_sha256"] == kept.root)


def check_current(kept: Kept) -> None:
    """Refuse to draw when labels came in that the filter does not know yet."""
    curated_with, current = kept.ledger.record.inputs.get("labels"), read_record(kept.layout.labels).digest
    if curated_with is not None and curated_with != current:
        raise LabelError(f"audit of {kept.category.name}: labels were added since the data was curated; run `glideslope fit` and "
                         "`glideslope curate`, then draw")


def make_seed(text: str | None) -> str:
    """A seed of 64 hexadecimal digits.

    Raises:
        FilterError: a text that is empty or too long.
    """
    if text is None:
        return secrets.token_hex(32)
    if not text.strip() or len(text) > MAX_SEED_LENGTH:
        raise FilterError(f"seed: expected a text of 1 to {MAX_SEED_LENGTH} characters that nobody could foresee, such as thrown dice, "
                          f"got {text!r:.60}")
    return hash_text(text)


def check_seed(layout: RunLayout, seed: str, text: str | None) -> None:
    """Refuse a seed that an audit of the run was drawn with, of whatever category and kept set.

    Raises:
        FilterError: it was; known numbers draw nothing that nobody could foresee.
    """
    for directory in sorted(path for path in layout.all_audits.glob("*") if path.is_dir()):
        for audit in list_audits(layout, directory.name):
            known = audit.sample["seed_text"]
            if audit.sample["seed"] == seed or (text is not None and known is not None and normalize_seed(text) == normalize_seed(known)):
                raise FilterError(f"seed: audit {audit.id} of this run was drawn with it ({known!r:.60}), and a seed is good for one audit; "
                                  "choose a new one that nobody could foresee, such as dice thrown now, or leave --seed out")


def check_complete(layout: RunLayout, category: str, audits: Sequence[Audit]) -> None:
    """Check that no drawn audit of a category was taken away or changed, as far as the others and the label store tell.

    Raises:
        StageError: one was.
    """
    problems = find_gaps([audit.commitment for audit in audits])
    named = {label.how.removeprefix(AUDIT_PREFIX) for label in read_audit_labels(layout.labels) if label.category == category}
    problems += [f"audit {name}: has labels in the store, but is missing" for name in sorted(named - {audit.id for audit in audits})]
    if problems:
        raise StageError(f"{layout.audits(category)}: {'; '.join(problems)}; restore the folder from a copy: every audit that was drawn "
                         "has to be told")


def list_others(layout: RunLayout, audit: Audit) -> list[OtherAudit]:
    """The audits of the same category and other kept sets, earlier or later, with the labels that their own files hold."""
    return [OtherAudit.of_labels(other.commitment, read_json(other.directory / RESULT_NAME)["labels"])
            for other in list_audits(layout, audit.category) if other.commitment["ledger_sha256"] != audit.commitment["ledger_sha256"]]


def list_fresh(layout: RunLayout, category: str) -> list[Record]:
    """Records of the audits that speak about what is kept now, their evidence hashed again.

    Raises:
        StageError: an audit's files were changed since they were recorded, an audit is missing, or one does not tell of all others.
    """
    records, audits = [], list_audits(layout, category)
    root = digest_ledger(read_record(layout.curated))
    check_complete(layout, category, audits)
    for audit in audits:
        record = read_record(audit.directory)
        review = (f"{REVIEW}/", f"{RECORD_NAME}:")
        problems = [problem for problem in record.outputs.differences(audit.directory) if not problem.startswith(review)]
        if problems:
            raise StageError(f"{audit.directory}: changed since it was recorded: {'; '.join(problems)}; run `glideslope audit`, "
                             "or restore the files from a copy")
        if audit.commitment["ledger_sha256"] == root:
            if read_json(audit.directory / RESULT_NAME)["others"] != [other.to_json() for other in list_others(layout, audit)]:
                raise StageError(f"{audit.directory / RESULT_NAME}: does not tell of the audits of other kept sets as they are now; run "
                                 "`glideslope audit RECIPE`, which writes it anew")
            records.append(record)
    return records


def extend_audit(kept: Kept, audit: Audit, request: AuditRequest) -> Audit:
    """Go on with an audit: more images of the same order, under the same plan.

    Raises:
        FilterError: another plan is asked for, or a fixed sample can't be extended.
    """
    wish = {"claim": request.claim, "design": request.design if request.design != "simple" else None,
            "stopping": request.stopping if request.fixed else None, "seed": request.seed}
    has = {"claim": audit.plan.claim, "design": audit.plan.design, "stopping": audit.plan.stopping, "seed": audit.sample["seed_text"]}
    different = [name for name, value in wish.items() if value is not None and value != has[name]]
    if different:
        raise FilterError(f"audit {audit.id} was drawn from the same images with another {' and '.join(different)}; go on with it, or draw "
                          "a second one with --again: both are listed, and each has to prove the claim")
    num = len(audit.keys) if request.num is None else choose_number(audit.plan, request.num)
    if num <= len(audit.keys):
        return audit
    if audit.plan.stopping == "fixed":
        raise FilterError(f"audit {audit.id} has a fixed sample of {len(audit.keys)} images, which can't be extended once it is drawn; "
                          "draw a second audit with --again")
    check_sample(kept, audit)
    images = redraw(kept.candidates(), audit.plan, audit.draw_key, num)
    longer = Audit(audit.directory, audit.commitment, {**audit.sample, "images": describe_images(images)}, audit.plan)
    write_json(audit.directory / SAMPLE_NAME, longer.sample)
    write_result(longer, kept.layout)
    return longer


def check_sample(kept: Kept, audit: Audit) -> None:
    """Check that an audit's sample is what was drawn: by its record, or, after a kill between the two files, by drawing it again.

    Raises:
        StageError: it is not.
    """
    outputs = {entry.path: entry.sha256 for entry in read_record(audit.directory).outputs.files}
    if outputs.get(SAMPLE_NAME) == sha256_file(audit.directory / SAMPLE_NAME) or (is_fresh(kept, audit) and is_redrawn(kept, audit)):
        return
    raise StageError(f"{audit.directory / SAMPLE_NAME}: is not the sample that was drawn; restore the file from a copy")


def is_redrawn(kept: Kept, audit: Audit) -> bool:
    """Whether the revealed seed is the one that was committed to, and draws the audit's images from what is kept."""
    images, seed = audit.sample["images"], audit.sample["seed"]
    return (audit.commitment["seed_sha256"] == digest_seed(seed) and len(images) <= audit.plan.num_images
            and digest_population(kept.candidates()) == audit.commitment["population"]["sha256"]
            and describe_images(redraw(kept.candidates(), audit.plan, audit.draw_key, len(images))) == images)


def describe_images(images: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Drawn images as plain data."""
    return [{"key": image.key, "sha256": image.sha256} for image in images]


def write_result(audit: Audit, layout: RunLayout) -> dict[str, Any]:
    """Take the labels from the store and the outcomes of other audits, write audit.json and the record; returns what the labels prove."""
    started = datetime.now(UTC).timestamp()
    labels = read_judged(audit, layout)
    result = measure_audit(audit.plan, labels)
    others = [other.to_json() for other in list_others(layout, audit)]
    write_json(audit.directory / RESULT_NAME, {"format": FORMAT, "labels": labels, "result": result, "others": others})
    files = (FileEntry(name, (path := audit.directory / name).stat().st_size, sha256_file(path)) for name in EVIDENCE)
    summary = {"status": result["status"], "num_labelled": result["num_labelled"], "num_positive": result["num_positive"],
               "rate_upper_bound": result["rate_upper_bound"], "commitment_sha256": sha256_json(audit.commitment)}
    record = Record(audit_stage(audit.category, audit.id), audit.plan.to_json(), {"ledger": audit.commitment["ledger_sha256"]},
                    Manifest(tuple(sorted(files))), summary, describe_environment(started))
    write_json(audit.directory / RECORD_NAME, record.to_json())
    return result


def read_judged(audit: Audit, layout: RunLayout) -> list[list[int]]:
    """For each drawn image, what each person said of these very bytes, in the order in which they came to the store; only labels with
    the role test.
    """
    said: dict[str, dict[str, int]] = defaultdict(dict)
    drawn = {image["key"]: image["sha256"] for image in audit.sample["images"]}
    for label in [*read_labels(layout.labels), *read_audit_labels(layout.labels)]:
        if label.category == audit.category and label.role == Role.TEST and label.sha256 == drawn.get(label.key):
            said[label.key][label.who] = label.label
    return [list(said[key].values()) if key in said else [] for key in audit.keys]


def refresh_audit(kept: Kept, audit: Audit) -> dict[str, Any]:
    """State again what an audit proves, with the labels that there are now; plain data.

    An audit of another ledger than the current one is stale: its status is that, whatever its labels say.

    Raises:
        StageError: the sample is not what was drawn.
    """
    check_sample(kept, audit)
    fresh = is_fresh(kept, audit)
    result = write_result(audit, kept.layout) if fresh else read_json(audit.directory / RESULT_NAME)["result"]
    return {"id": audit.id, "category": audit.category, "directory": str(audit.directory), "plan": audit.plan.to_json(), **result,
            "status": result["status"] if fresh else "stale", "num_excluded": len(audit.sample["excluded"]),
            "number": number_of(audit.commitment), "others": [other.summarize() for other in list_others(kept.layout, audit)]}


def export_review(kept: Kept, audit: Audit, source: Source, *, start: int, blur: bool) -> list[Path]:
    """Write what the reviewer needs for the drawn images from a place on that have no label yet; a CSV that is there stays as it is.

    Args:
        kept: what the audit was drawn from.
        audit: the audit.
        source: read for the pictures.
        start: images before this place were exported earlier.
        blur: blur the pictures.

    Returns:
        The files that were written.
    """
    labels = read_judged(audit, kept.layout)
    unlabelled = {image["key"]: (number, image["sha256"]) for number, image in enumerate(audit.sample["images"], start=1)
              if number > start and not labels[number - 1]}
    if not unlabelled:
        return []
    captions: dict[str, str] = {}
    for _, table in kept.ledger.tables(columns=["key", "caption"]):
        rows = table.filter(pc.is_in(table["key"], value_set=pa.array(list(unlabelled), type=pa.string())))
        captions |= {key: caption or "" for key, caption in zip(rows["key"].to_pylist(), rows["caption"].to_pylist(), strict=True)}
    pictures = [Picture(number, key, sha256, captions.get(key, "")) for key, (number, sha256) in unlabelled.items()]
    path = audit.directory / REVIEW / ("sample.csv" if start == 0 else f"sample-from-{start + 1}.csv")
    written = [path] if write_review_csv(path, audit.id, pictures) else []
    return written + write_sheets(audit.directory / REVIEW, source, kept.layout.index, pictures, blur=blur)


def import_review(path: Path, layout: RunLayout, categories: Sequence[str], *, who: str = "") -> Audit:
    """Take a filled-in CSV file back into the label store.

    Args:
        path: the file.
        layout: of the run.
        categories: names of the recipe's categories.
        who: stands behind labels whose `who` is empty.

    Returns:
        The audit that it belongs to.

    Raises:
        LabelError: the file does not fit an audit of the run, contradicts earlier labels, or holds labels that the filter
            learned from.
    """
    audits = {audit.id: audit for category in categories for audit in list_audits(layout, category)}
    audit_id, verdicts = read_review_csv(path, category_of={name: audit.category for name, audit in audits.items()},
                                         keys_of={name: audit.keys for name, audit in audits.items()}, who=who)
    if not verdicts:
        raise LabelError(f"{path}: no row has a label; write 1 (shows {audits[audit_id].category}) or 0 (does not) into the column `label`")
    drawn = {image["key"]: image["sha256"] for image in audits[audit_id].sample["images"]}  # what the reviewer looked at
    import_audit_labels([replace(verdict, sha256=drawn[verdict.key]) for verdict in verdicts], layout.labels, layout.index,
                        audit_id=audit_id)
    return audits[audit_id]
