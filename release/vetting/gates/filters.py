"""What the gates look for: each function names what is wrong with a release, one sentence a problem, each with what to do."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....data_filter.deciding.filter_figures import measure_filter
from ....data_filter.labels.stage import FITTING_ROLES
from ....errors import ReleaseError
from ....recipe.filters import Category
from ....recipe.recipe import Recipe
from ....store.whole_files import read_json
from ...claims.audits import read_audits
from ...claims.evaluation import count_wins
from ...evidence.chain import check_filter_reports
from ...evidence.comparison import shorten
from ...evidence.contents import Release, need
from ...evidence.layout import MEGABYTE, walk
from ...evidence.plan import filter_stage
from ...verify import check_generated
from ..policy import CategoryPolicy, load_policy

AUDIT_LABELS = {"min_recall": "recall", "min_recall_lower_bound": "recall_lower_bound", "min_kept_share": "kept_share"}
RELOAD_CODE = """
import json, sys
from pathlib import Path
from glideslope import GlidePipeline
from glideslope.errors import GlideslopeError
from glideslope.trust.hub import Snapshot
from glideslope.models.loading.opening import Trust, open_release
try:
    opened = open_release(Snapshot(Path(sys.argv[1]), is_view=True), Trust(verify="required"))
    pipe = GlidePipeline.from_release(opened, device="cpu")
    image = pipe("a red circle", num_images=1, num_steps=2, seed=0).images[0]
    low, high = image.convert("L").getextrema()
    problem = f"the picture is blank: every value is {low}" if low == high else None
except GlideslopeError as error:
    problem = str(error)
print(json.dumps({"problem": problem}))
"""


def find_weak_filters(release: Release, policies: Mapping[str, CategoryPolicy]) -> list[str]:
    """One sentence for each category whose evidence is missing, edited, or outside the limits of recipe or policy."""
    names = [category.name for category in release.categories]
    problems = [f"filter {name}: the policy names this category, but the release has no evidence that it was filtered; add it to the "
                "recipe's categories, label, fit and curate again" for name in policies if name not in names]
    problems += check_filter_reports(release)
    for category in release.categories:
        problems += compare_with_limits(release, category, policies.get(category.name, CategoryPolicy()))
    return problems


def compare_with_limits(release: Release, category: Category, policy: CategoryPolicy) -> list[str]:
    """One sentence for each limit of recipe or policy that a category's measured evidence does not keep."""
    where = f"evidence/filters/{category.name}/filter.json"
    audit = measure_filter(release.scores(category.name), need(release.filter(category.name), "threshold", where=where))["audit"]
    return find_missed_limits(category, audit, policy)


def check_filters(recipe: Recipe, run_dir: Path) -> None:
    """Refuse to go on where a run's filters show less on audit labels than its release will be asked for.

    Raises:
        ReleaseError: every limit that is missed.
    """
    policy = load_policy(None if recipe.release.policy is None else Path(recipe.release.policy))
    if "filter evidence" in policy.unsafe_skip:
        return
    problems = [problem for category in recipe.categories
                for problem in find_missed_limits(category, read_json(run_dir / filter_stage(category.name) / "filter.json")["audit"],
                                                  policy.categories.get(category.name, CategoryPolicy()))]
    if problems:
        raise ReleaseError(f"recipe {recipe.name}: what it trains would not be let out: {'; '.join(problems)}. To train all the same, go stage "
                           "by stage: curate, train, evaluate, pack")


def find_missed_limits(category: Category, audit: Mapping[str, Any], policy: CategoryPolicy) -> list[str]:
    """One sentence for each limit of recipe or policy that figures on audit labels do not keep."""
    problems = []
    for asker, limits in (("recipe", category.limits), ("policy", policy)):
        for key, name in AUDIT_LABELS.items():
            least, found = getattr(limits, key), audit[name]
            if least is None or (found is not None and found >= least):
                continue
            problems.append(f"filter {category.name}: {name.replace('_', ' ')} on audit labels is "
                            f"{'not measured' if found is None else format(found, '.4f')}, the {asker} asks for at least {least:.4f}; "
                            f"label more images and fit again, or accept less in the {asker} and say so on the card")
    return problems


def find_weak_audits(release: Release, policies: Mapping[str, CategoryPolicy], *, is_required: bool = False) -> list[str]:
    """One sentence for each category whose audits of what was kept are missing, unfinished, or show more than a limit.

    Every audit of the released ledger counts: the best of many would show too little.
    """
    problems = []
    for category in release.categories:
        policy = policies.get(category.name, CategoryPolicy())
        limits = {"recipe": category.limits.max_leak_rate, "policy": policy.max_leak_rate}
        audits, asked = read_audits(release, category.name), {who: limit for who, limit in limits.items() if limit is not None}
        claim = f" --claim {min(asked.values()):g}" if asked else ""
        if not audits and (asked or is_required):
            who, what = next(((who, f"a leak of at most {limit:.4%}") for who, limit in asked.items()), ("policy", "an audit"))
            problems.append(f"audit of {category.name}: the {who} asks for {what}, but no audit of what was kept is here; run "
                            f"`glideslope audit RECIPE --category {category.name}{claim}`, then pack")
        for audit in audits:
            least = audit.required_confidence
            if (asked or is_required) and audit.plan.confidence < least:
                problems.append(f"audit {audit.id}: its confidence is {audit.plan.confidence}, a release asks for at least {least:.6g}"
                                f"{f' after {audit.num_elsewhere} of other kept sets' if audit.num_elsewhere else ''}; audit again")
                continue
            bound = audit.measure()["rate_upper_bound"]
            if is_required and bound is None:
                problems.append(f"audit {audit.id}: shows nothing, as labels are missing; the policy asks for an audit; label the rest of its "
                                "sample with `glideslope audit`")
            problems += [f"audit {audit.id}: shows {'nothing, as labels are missing' if bound is None else f'a leak of at most {bound:.4%}'}; "
                         f"the {who} asks for at most {limit:.4%}; label the rest of its sample or extend it with `glideslope audit`, or "
                         "filter more strictly" for who, limit in asked.items() if bound is None or not bound <= limit]
    return problems


def find_reused_labels(release: Release) -> list[str]:
    """One sentence for each use of a label in two roles: what shows how good a filter is was used for nothing else."""
    problems = []
    for category in release.categories:
        where = f"labels of {category.name}"
        columns = ("key", "concept", "role", "in_training")
        rows = list(zip(*(release.scores(category.name)[column].to_pylist() for column in columns), strict=True))
        roles: dict[tuple[str, str], set[str]] = defaultdict(set)
        for key, concept, role, is_trained in rows:
            for place in (("key", key), ("concept", concept)):
                roles[place].add(role)
            if is_trained and role != "train":
                problems.append(f"{where}: {key} has the role {role}, but the classifier was trained on it; fit again")
        problems += [f"{where}: the {kind} {value[:24]} has the roles {', '.join(sorted(found))}; a label has one role only, give it one and "
                     "fit again" for (kind, value), found in roles.items() if len(found) > 1]
        fitted = {key for key, _, role, _ in rows if role in FITTING_ROLES}
        for audit in read_audits(release, category.name):
            reused = sorted(fitted & {image["key"] for image in audit.sample["images"]})
            if reused:
                problems.append(f"audit {audit.id}: its sample holds {len(reused)} images whose labels fitted the filter, {reused[0]} for one; "
                                "audit again")
    return shorten(problems)


def find_weak_captions(release: Release, *, policy_limit: float = 0.0) -> list[str]:
    """One sentence when too few pictures fit their own caption."""
    counted = count_wins(release.pairs)
    bound = counted["share_lower_bound"]
    limits = {"recipe": release.recipe.release.min_ranked_share_lower_bound, "policy": policy_limit}
    return [f"evaluation: for {counted['num_wins']} of {counted['num_pairs']} pictures the own caption is in the better half of the captions "
            f"that it was compared with, which proves a share of at least {bound:.3f}; the {who} asks for more than {least:.3f}; train longer, "
            "then evaluate and pack again"
            for who, least in limits.items() if not (bound > least or (who == "policy" and bound >= least))]


def find_excess(release: Release, max_size_mb: int) -> list[str]:
    """One sentence when the release is larger than the policy allows."""
    size = sum(entry.stat().st_size for _, entry in walk(release.directory))
    if size <= max_size_mb * MEGABYTE:
        return []
    return [f"size: {size / MEGABYTE:.1f} MB, the policy allows {max_size_mb} MB; leave out variants or train a smaller model, or raise "
            "max_size_mb in the policy"]


def find_license_problems(release: Release, accepted: tuple[str, ...]) -> list[str]:
    """One sentence when the licence is not an accepted one, or LICENSE is not what such a release holds."""
    stated = release.recipe.release.license
    problems = [problem for problem in check_generated(release) if problem.startswith("LICENSE")]
    if stated.casefold() not in {name.casefold() for name in accepted}:
        problems.append(f"licence: the recipe names {stated!r}, the policy accepts {', '.join(accepted)}; choose one of them in "
                        "release.license, or add yours to the policy")
    return problems


def find_reload_problems(release: Release, timeout_s: float) -> list[str]:
    """One sentence when a release does not load in a fresh process, or draws a blank picture there."""
    command = [sys.executable, "-P", "-c", RELOAD_CODE, str(release.origin.resolve())]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
                              env=environment)
    except subprocess.TimeoutExpired:
        return [f"loading and drawing took more than {timeout_s:.0f} s; try `glideslope sample` on the release"]
    try:
        problem = json.loads(done.stdout.strip().splitlines()[-1])["problem"] if done.returncode == 0 else _last_line(done.stderr)
    except (ValueError, KeyError, IndexError, TypeError):
        problem = f"its answer cannot be read: {done.stdout[-200:]!r}"
    return [] if problem is None else [f"does not load or draw in a fresh process: {problem}; try `glideslope sample` on the release"]


def _last_line(text: str) -> str:
    return (text.strip() or "no message").splitlines()[-1]
