"""One call for the command `audit`: plan, draw, take labels back, report; and the report in sentences that a release manager understands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import FilterError
from ...recipe.filters import Category
from ...store.run_layout import RunLayout
from ...text.number_text import precise_percent
from ..sources.source import Source
from .audit import draw_audit, export_review, import_review, list_audits, refresh_audit
from .population import AuditRequest, open_kept, tabulate_plan


@dataclass(frozen=True)
class AuditReport:
    """What the command found.

    Attributes:
        plans: for each category without an audit, how many labels prove which claims; see `population.tabulate_plan`.
        audits: every drawn audit of the categories; see `audit.refresh_audit`.
        written: files for the reviewer that were written now.
    """

    plans: Sequence[Mapping[str, Any]]
    audits: Sequence[Mapping[str, Any]]
    written: Sequence[Path]

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {"plans": [dict(plan) for plan in self.plans], "audits": [dict(audit) for audit in self.audits],
                "written": [str(path) for path in self.written]}

    def describe(self) -> str:
        """The report as text."""
        parts = [describe_plan(plan) for plan in self.plans] + [describe_audit(audit) for audit in self.audits]
        return "\n\n".join([*parts, *([describe_files(self.written)] if self.written else [])])


def run_audit(categories: Sequence[Category], layout: RunLayout, source: Source, request: AuditRequest, *,
              import_file: Path | None = None, who: str = "") -> AuditReport:
    """Plan, draw or continue an audit, or take its labels back, and report on every audit of the wanted categories.

    Args:
        categories: of the recipe.
        layout: of the run, which is curated.
        source: read for the pictures of the contact sheets.
        request: what is asked for. With neither claim, number, seed nor `again` nothing is drawn.
        import_file: a filled-in CSV file; nothing is drawn then.
        who: stands behind labels whose `who` is empty.

    Raises:
        FilterError: a request that can't be met.
        LabelError: a file that does not fit.
        StageError: the run is not curated, or its files were changed.
    """
    chosen = choose_categories(categories, request, is_import=import_file is not None)
    written: list[Path] = []
    if import_file is not None and request.draws:
        raise FilterError("audit: --import takes labels back and draws nothing; import first, then ask for more")
    if import_file is not None:
        audit = import_review(import_file, layout, [category.name for category in categories], who=who)
        chosen = [category for category in categories if category.name == audit.category]
    elif request.draws:
        kept = open_kept(chosen[0], layout)
        audit, num_before = draw_audit(kept, request)
        if len(audit.keys) > num_before:
            written = export_review(kept, audit, source, start=num_before, blur=request.blur)
    plans, audits = [], []
    for category in chosen:
        drawn = list_audits(layout, category.name)
        kept = open_kept(category, layout)
        audits += [refresh_audit(kept, audit) for audit in drawn]
        if not drawn:
            plans.append(tabulate_plan(kept, request))
    return AuditReport(plans, audits, written)


def choose_categories(categories: Sequence[Category], request: AuditRequest, *, is_import: bool) -> list[Category]:
    """The categories that a request is about.

    Raises:
        FilterError: an unknown one, or none named where one is needed.
    """
    names = ", ".join(category.name for category in categories)
    if request.category is None:
        if request.draws and not is_import and len(categories) > 1:
            raise FilterError(f"audit: name the category to audit with --category; the recipe has {names}")
        return list(categories)
    chosen = [category for category in categories if category.name == request.category]
    if not chosen:
        raise FilterError(f"audit: unknown category {request.category!r}; the recipe has {names}")
    return chosen


def describe_plan(plan: Mapping[str, Any]) -> str:
    """The table of how many labels prove which claims."""
    name, confidence = plan["category"], f"{plan['confidence']:.4g}"
    lines = [f"{name}: the filter kept {plan['num_kept']:,} images; {plan['num_images']:,} of them can be audited."]
    lines += describe_excluded(plan["num_kept"] - plan["num_images"], plan["num_unknown"])
    lines += [f"Labels that prove a claim with confidence {confidence}, when so many of them show {name}:", "",
              "  claim: at most   may look and stop early       positives: " + "".join(f"{hits:>9}" for hits in plan["num_hits"])]
    for row in plan["rows"]:
        how = "yes" if row["stopping"] == "anytime" else "no, fixed number (--fixed)"
        numbers = "".join(f"{'never' if num is None else format(num, ','):>9}" for num in row["num_labels"])
        lines.append(f"  {precise_percent(row['claim']):>14}   {how:<26}                {numbers}")
    lines += ["", f"Draw a sample: glideslope audit RECIPE --category {name} --claim {plan['claim']:g}"]
    return "\n".join(lines)


def describe_excluded(num_excluded: int, num_unknown: int) -> list[str]:
    """Why some kept images can't be drawn, and what that means."""
    if not num_excluded:
        return []
    lines = [f"The other {num_excluded:,} show concepts whose labels fitted the filter or set its threshold; they can't testify about it. "
             f"{num_excluded - num_unknown:,} of them have a label of their own, which says no."]
    if num_unknown:
        lines.append(f"{num_unknown:,} have none and count as positive in every bound below.")
    return lines


def describe_audit(audit: Mapping[str, Any]) -> str:
    """What an audit says so far, and what to do next."""
    plan, name = audit["plan"], audit["category"]
    num_images = sum(part["num_images"] for part in plan["strata"])
    claim = f"at most {precise_percent(plan['claim'])} of the {plan['num_kept']:,} kept images show {name}"
    doubt = f" ({audit['num_ambiguous']:,} because people disagree)" if audit["num_ambiguous"] else ""
    lines = [f"{audit['id']}: {VERDICTS[audit['status']]} (claim: {claim}, confidence {plan['confidence']:g})",
             f"  {audit['num_labelled']:,} of {audit['num_drawn']:,} drawn images are labelled, in their order; "
             f"{audit['num_positive']:,} of them count{'s' * (audit['num_positive'] == 1)} as positive{doubt}."]
    if audit["others"] and audit["status"] != "stale":
        lines.append(f"  {describe_series(audit)}")
    if audit["num_labels_after_gap"]:
        gap, behind = audit["num_labelled"] + 1, f"{audit['num_labels_after_gap']:,}"
        lines.append(f"  Number {gap} has no label; {behind} behind it have one, and count once it has.")
    lines += [f"  {line}" for line in describe_excluded(plan["num_kept"] - num_images, plan["num_unknown"])]
    if audit["rate_upper_bound"] is not None and audit["num_labelled"] and audit["status"] != "stale":
        share = precise_percent(audit["rate_upper_bound"], up=True)
        most = audit["max_positive_images"] + plan["num_unknown"]
        lines.append(f"  What the labels prove: at most {most:,} of the {plan['num_kept']:,} kept images, {share}.")
    if audit["num_positive"] and audit["status"] != "stale":
        lines.append("  What was found is still in the curated set; `glideslope curate` drops it, and the next audit is about what is left.")
    lines.append("  " + describe_next(audit))
    double = audit["double_labels"]
    if double is not None:
        lines.append(f"  Two people judged {double['num_images']:,} of the images and disagreed on {double['num_split']:,}"
                     + (f"; one person alone sees at least {double['sensitivity_lower_bound']:.0%} of the positives, as far as these tell"
                        if double["sensitivity"] is not None else "") + ".")
    return "\n".join(lines)


def describe_series(audit: Mapping[str, Any]) -> str:
    """Which audit of its category in the run it is, how the others ended, and what that costs."""
    num, missed = len(audit["others"]), sum(other["status"] != "met" for other in audit["others"])
    return (f"It is audit no. {audit['number']} of {audit['category']} in this run; {num} looked at other kept sets, {missed} of which did not "
            "show the claim. What it proves holds for this audit, not for the best of several; a later one is therefore drawn with a higher "
            "confidence.")


VERDICTS = {"met": "the claim is shown", "refuted": "the claim is refuted", "open": "labels are missing", "not shown": "the claim is not shown",
            "stale": "stale: the data was curated again since it was drawn"}


def describe_next(audit: Mapping[str, Any]) -> str:
    """What the reviewer may do now."""
    more, num_drawn, num_labelled = audit["num_more"], audit["num_drawn"], audit["num_labelled"]
    if audit["status"] != "stale" and more is None:
        why = "more images show it than the claim allows" if audit["status"] == "refuted" else "no further label can show the claim"
        return f"You may stop: {why}. Lower the threshold or fit again, curate, then audit anew."
    if audit["status"] == "open":
        is_fixed, num_left = audit["plan"]["stopping"] == "fixed", num_drawn - num_labelled
        if is_fixed:
            return f"This audit has a fixed size and says nothing before all of it is labelled; {num_left:,} labels are missing."
        longer = f" The sample holds only {num_left:,} of them: extend it with --num-images {num_labelled + more}." if more > num_left else ""
        return f"If none of the next {more:,} images is positive, the claim is shown.{longer}"
    return {"stale": "It says nothing about what is kept now. Its labels stay in the store and count when a new audit draws the same images.",
            "met": "You may stop here or go on." if audit["plan"]["stopping"] == "anytime" else "The sample is complete.",
            "not shown": f"To show it takes at least {more} more labels, none of them positive: extend the sample with "
                         f"--num-images {num_drawn + (more or 0)}."}[audit["status"]]


def describe_files(paths: Sequence[Path]) -> str:
    """Where the reviewer's files are and what to do with them."""
    tables = [path for path in paths if path.suffix == ".csv"]
    sheets = len(paths) - len(tables)
    lines = [f"Wrote {path}" for path in tables]
    lines.append(f"Wrote {sheets} contact sheet{'s' if sheets != 1 else ''} beside it, with the same numbers.")
    lines.append("Fill in the column `label` (1: shows it, also when in doubt; 0: does not), in the order of the numbers, then: "
                 "glideslope audit RECIPE --import FILE.csv")
    return "\n".join(lines)
