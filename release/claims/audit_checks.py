"""Audits in a release, checked: each sample drawn again from ledger and seed, each bound computed again, no audit left out."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...data_filter.audits.plan import Candidate, digest_population, digest_seed, hash_text, redraw
from ...data_filter.audits.population import digest_ledger
from ...data_filter.audits.series import find_gaps, find_reused_seeds
from ...store.digests import sha256_json
from ...store.vocabulary import FITTING_ROLES
from ..evidence.comparison import equal, flatten, show
from ..evidence.contents import Release
from .audits import ReleasedAudit, read_audits


def check_audits(release: Release) -> list[str]:
    """Each audit's sample is what its seed draws from the released ledger, and its statement is what its labels give."""
    problems: list[str] = []
    commitments: list[Mapping[str, Any]] = []
    root = digest_ledger(release.record("curated"))
    for category in release.categories:
        audits = read_audits(release, category.name)
        for audit in audits:
            problems += [f"audit {audit.id}: {problem}" for problem in (*_check_sample(release, category.name, audit), *_check_result(audit))]
        problems += _check_series(audits, root)
        commitments += [audit.commitment for audit in audits] + [other.commitment for audit in audits[-1:] for other in audit.others]
    return problems + find_reused_seeds(commitments)


def _check_sample(release: Release, category: str, audit: ReleasedAudit) -> list[str]:
    """The commitment fits the released ledger, and the seed that it committed to draws the sample."""
    commitment, sample, plan = audit.commitment, audit.sample, audit.plan
    root = digest_ledger(release.record("curated"))
    if not commitment["ledger_sha256"] == audit.record.inputs.get("ledger") == root:
        return [f"was drawn from another ledger ({show(commitment['ledger_sha256'])[:14]}…) than the released one ({root[:12]}…); audit again"]
    if commitment["category"] != category or commitment["id"] != audit.id:
        return [f"states to be {show(commitment['category'])}/{show(commitment['id'])}; pack the release again"]
    kept = [Candidate(key, sha256, score) for key, sha256, decision, score in zip(
        *(release.ledger[column] for column in ("key", "sha256", "decision", f"score_{category}")), strict=True) if decision == "keep"]
    excluded = set(sample["excluded"])
    free = [candidate for candidate in kept if candidate.key not in excluded]
    num_unknown = len(excluded - _known_negatives(release, category))
    counts = [0] * len(plan.strata)
    for candidate in free:
        counts[plan.place(candidate.score)] += 1
    found = {"kept images": (plan.num_kept, len(kept)), "images without a label that can't be drawn": (plan.num_unknown, num_unknown),
             "images that can't be drawn": (len(sample["excluded"]), len(kept) - len(free)),
             "images by stratum": ([part.num_images for part in plan.strata], counts),
             "digest of the population": (commitment["population"]["sha256"], digest_population(free)),
             "digest of the seed": (commitment["seed_sha256"], digest_seed(sample["seed"]))}
    if sample["seed_text"] is not None:
        found["seed"] = (sample["seed"], hash_text(sample["seed_text"]))
    problems = [f"{name}: states {show(stated)}, the evidence gives {show(value)}"
                for name, (stated, value) in found.items() if stated != value]
    if not problems and len(sample["images"]) <= len(free):
        drawn = [{"key": image.key, "sha256": image.sha256} for image in redraw(free, plan, audit.draw_key, len(sample["images"]))]
        problems += [] if drawn == sample["images"] else ["its seed draws other images than the sample holds"]
    return problems


def _known_negatives(release: Release, category: str) -> set[str]:
    table = release.scores(category)
    rows = zip(*(table[column].to_pylist() for column in ("key", "label", "role")), strict=True)
    return {key for key, label, role in rows if label == 0 and role in FITTING_ROLES}


def _check_result(audit: ReleasedAudit) -> list[str]:
    """What the audit states is what its labels give."""
    labels, images = audit.report["labels"], audit.sample["images"]
    if len(labels) != len(images) or not all(value in (0, 1) and type(value) is int for given in labels for value in given):
        return [f"holds labels of {len(labels)} images, {len(images)} were drawn; or a label that is neither 0 nor 1"]
    stated, measured = flatten("", audit.report["result"]), flatten("", audit.measure())
    problems = [f"{name[1:]} is reported as {show(stated.get(name))}, the labels give {show(measured.get(name))}"
                for name in sorted({*stated, *measured}) if not equal(stated.get(name), measured.get(name))]
    summary = audit.record.summary
    recorded = ((name, summary[name], measured.get(f".{name}")) for name in ("status", "num_labelled", "num_positive", "rate_upper_bound"))
    problems += [f"{name} is recorded as {show(value)}, the labels give {show(given)}"
                 for name, value, given in recorded if not equal(value, given)]
    if summary["commitment_sha256"] != sha256_json(audit.commitment):
        problems.append("its commitment is not the recorded one")
    return problems


def _check_series(audits: Sequence[ReleasedAudit], root: str) -> list[str]:
    """Every audit of the category that the run has drawn is here or told of, unchanged."""
    if not audits:
        return []
    told = [other.to_json() for other in audits[-1].others]
    problems = [f"audit {audit.id}: tells otherwise of the audits of other kept sets than audit {audits[-1].id}; run `glideslope audit`, "
                "then pack" for audit in audits if [other.to_json() for other in audit.others] != told]
    commitments = [*(audit.commitment for audit in audits), *(other["commitment"] for other in told)]
    problems += find_gaps(commitments)
    problems += [f"audit {show(one['id'])}: is told of as of another kept set, but is of the released one; pack the release again"
                 for one in commitments[len(audits):] if one["ledger_sha256"] == root]
    return problems
