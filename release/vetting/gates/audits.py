"""The gate on audits of what was kept: drawn as they say, and showing what the policy demands."""

from ....recipe.policy import LeakDemand, stays_within
from ...claims.audit_checks import check_audits
from ...claims.audits import ReleasedAudit, read_audits
from ...evidence.contents import Release
from .gate import Asked, Gate


def find_weak_audits(release: Release, asked: Asked) -> list[str]:
    """One sentence for each category whose audits of what was kept are missing, unfinished, or show more than the policy allows.

    Every audit of the released ledger counts: the best of many would show too little.
    """
    problems = []
    for category in release.categories:
        demands = asked.policy.categories.get(category.name)
        if demands is None or demands.leak is None:
            continue
        audits, leak = read_audits(release, category.name), demands.leak
        if not audits:
            claim = f" --claim {leak.at_most:g}" if leak.at_most < 1 else ""
            problems.append(f"audit of {category.name}: the policy asks for a leak of at most {leak.at_most:.4%}, but no audit of what was "
                            f"kept is here; run `glideslope audit RECIPE --category {category.name}{claim}`, then pack")
        problems += [problem for audit in audits for problem in _judge(audit, leak)]
    return problems


def _judge(audit: ReleasedAudit, leak: LeakDemand) -> list[str]:
    least, bound = audit.required_confidence, audit.measure()["rate_upper_bound"]
    if audit.plan.confidence < least:
        return [f"audit {audit.id}: its confidence is {audit.plan.confidence}, a release asks for at least {least:.6g}"
                f"{f' after {audit.num_elsewhere} of other kept sets' if audit.num_elsewhere else ''}; audit again"]
    if stays_within(bound, leak.at_most):
        return []
    return [f"audit {audit.id}: shows {'nothing, as labels are missing' if bound is None else f'a leak of at most {bound:.4%}'}; the policy "
            f"asks for at most {leak.at_most:.4%}; label the rest of its sample or extend it with `glideslope audit`, or filter more strictly"]


AUDITS = Gate("audits", "an audit was drawn from another ledger than the released one, with a seed that was used before, or with less "
              "confidence than an audit after so many needs; one is missing that another names; or it shows a larger leak than is asked for",
              key="categories.*.leak", checks={"audits": check_audits}, demand=find_weak_audits)
