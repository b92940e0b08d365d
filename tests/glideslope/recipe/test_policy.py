from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from glideslope.errors import ReleaseError
from glideslope.recipe.policy import CategoryDemands, Policy, load_policy, parse_policy, reaches, stays_within

REASON = "the reference machine was sold last year"
DEMANDS = {"recall": {"at_least": 0.9, "bound": 0.5}, "kept_share": {"at_least": 0.5}}


def policy_with(**changes: Any) -> dict[str, Any]:
    return load_policy(None).model_dump(mode="json") | changes


def text_of(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False).encode()


def test_the_built_in_policy_names_a_category_and_leaves_nothing_out() -> None:
    policy = load_policy(None)
    assert "person" in policy.categories
    assert policy.unsafe_skip == {}
    assert parse_policy(policy.text.encode(), where="again") == policy


@pytest.mark.parametrize(("data", "message"), [
    (b"", "expected a mapping, got nothing; an empty policy would check nothing"),
    (b"# nothing\n", "an empty policy would check nothing"),
    (b"- a list", "expected a mapping, got list"),
    (b"{", "not readable as YAML"),
    (b"\xff", "not readable as YAML"),
    (b"a: 1\na: 2", "the key 'a' stands twice"),
    (b"format: glideslope.policy/2", "categories: required key is missing"),
    (b" " * 100_001, "more than 100000 bytes"),
    (text_of(policy_with(categories={})), "categories: "),
    (text_of(policy_with(categories=None)), "categories: "),
    (text_of(policy_with(gates=[])), r"gates: unknown key; docs/policy\.md lists the keys of a policy$"),
    (text_of(policy_with(format="glideslope.policy/1")), "format: "),
    (text_of(policy_with(licenses=[])), "licenses: "),
    (text_of(policy_with(size={"at_most_mb": "many"})), r"size\.at_most_mb: "),
    (text_of(policy_with(companions="some")), "companions: "),
    (text_of(policy_with(captions={"bound": -0.1})), r"captions\.bound: "),
    (text_of(policy_with(categories={"person": {}})), r"categories\.person\.recall: required key is missing; categories\.person\.kept_share: "),
    (text_of(policy_with(categories={"person": DEMANDS | {"recal": 0.9}})), r"categories\.person\.recal: unknown key"),
    (text_of(policy_with(categories={"person": DEMANDS | {"recall": {"at_least": 0.9}}})), r"categories\.person\.recall\.bound: required key"),
    (text_of(policy_with(categories={"person": DEMANDS | {"recall": {"at_least": 1.5, "bound": 0}}})), r"person\.recall\.at_least: "),
    (text_of(policy_with(categories={"person": DEMANDS | {"leak": {"at_least": 0.5}}})), r"categories\.person\.leak\.at_most: required key"),
    (text_of(policy_with(categories={"Person": DEMANDS})), "categories"),
    (text_of(policy_with(golden={"max_mean_difference": {"abacus": 1.0}})), r"golden\.max_mean_difference"),
    (text_of(policy_with(golden={"min_pictures": 0, "max_mean_difference": {"cpu": 0.5}})),
     r"golden\.min_pictures: .*greater than or equal to 1"),
    (text_of(policy_with(golden={"max_mean_difference": {"cpu": 10.5}})), r"golden\.max_mean_difference\.cpu: .*less than or equal to 10"),
    (text_of(policy_with(golden={"max_mean_difference": {"cuda": float("nan")}})), r"golden\.max_mean_difference\.cuda: "),
    (text_of(policy_with(unsafe_skip={"reload": " ".join("\u200b" * n for n in range(1, 12))})), "is too short"),
    (text_of(policy_with(unsafe_skip={"reload": " ".join("\u3164" * n for n in range(1, 12))})), "is too short"),
    (text_of(policy_with(unsafe_skip={"reload": " ".join("\u2800" * n for n in range(1, 12))})), "is too short"),
    (text_of(policy_with(unsafe_skip={"reload": "--- ... !!! ___ *** +++ ///"})), "is too short"),
    (text_of(policy_with(unsafe_skip={"reload": "no\u200b no\u200b\u200b no\u200b\u200b\u200b no\u200c no\u200d no no"})), "is too short"),
    (text_of(policy_with(publish={"require_signature": True})),
     r"signers names no key, so a signature by anybody would do; write signers: \{keys: \[<key id>\], threshold: 1\}"),
    (text_of(policy_with(signers={"keys": [], "threshold": 1})), "keys"),
    (text_of(policy_with(signers={"keys": ["58" + "00" * 31]})), "threshold: required key is missing"),
    (text_of(policy_with(signers={"keys": ["58" + "00" * 31] * 2, "threshold": 2})), "the threshold is 2, but 1 different keys are named"),
    (text_of(policy_with(signers={"keys": ["01" + "00" * 31], "threshold": 1})), "point of small order"),
    (text_of(policy_with(signers={"keys": ["58"], "threshold": 1})), "keys"),
    (text_of(policy_with(unsafe_skip={"reload": ""})), r"unsafe_skip\.reload: the reason '' is too short"),
    (text_of(policy_with(unsafe_skip={"reload": "because"})), r"unsafe_skip\.reload: the reason 'because' is too short"),
    (text_of(policy_with(unsafe_skip={"reload": "x x x x x x x x x x x x"})), "is too short"),
])
def test_a_policy_that_would_check_less_than_it_seems_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ReleaseError, match=f"mine: .*{message}"):
        parse_policy(data, where="mine")


def test_a_reason_may_be_in_any_script_of_words() -> None:
    policy = parse_policy(text_of(policy_with(unsafe_skip={"reload": "опорная машина была продана в прошлом году"})), where="mine")
    assert list(policy.unsafe_skip) == ["reload"]


def test_a_policy_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="No such file"):
        load_policy(tmp_path / "policy.yaml")


SIGNERS = {"keys": ["58" + "00" * 31, "59" + "00" * 31], "threshold": 2}
CHANCES = st.floats(0, 1)
CATEGORY = st.builds(lambda recall, bound, kept, leak: {"recall": {"at_least": recall, "bound": bound}, "kept_share": {"at_least": kept},
                                                        "leak": None if leak is None else {"at_most": leak}},
                     CHANCES, CHANCES, CHANCES, st.none() | CHANCES)
POLICIES = st.builds(
    lambda categories, captions, size, licenses, companions, tolerance, exact, skipped: Policy.model_validate(policy_with(
        categories=categories, captions={"bound": captions}, size={"at_most_mb": size}, licenses=["MIT", *licenses], companions=companions,
        golden={"min_pictures": 1 + size % 3, "exact_on_same_machine": exact, "max_mean_difference": {"cpu": tolerance}},
        publish={"require_signature": exact}, signers=SIGNERS if exact or size > 50 else None,
        unsafe_skip=dict.fromkeys(skipped, REASON))),
    st.dictionaries(st.sampled_from(["person", "violence", "gore"]), CATEGORY, min_size=1), CHANCES,
    st.integers(1, 100), st.sets(st.sampled_from(["Apache-2.0", "CC0-1.0"])), st.sampled_from(["refuse", "allow"]), st.floats(0, 10),
    st.booleans(), st.sets(st.sampled_from(["reload", "audits", "secrets"])))


def is_at_least_as_strict(one: Policy, other: Policy) -> bool:
    def most(demands: CategoryDemands) -> float:
        return 2.0 if demands.leak is None else demands.leak.at_most

    return (set(one.categories) >= set(other.categories)
            and all(one.categories[name].recall.at_least >= demands.recall.at_least
                    and one.categories[name].recall.bound >= demands.recall.bound
                    and one.categories[name].kept_share.at_least >= demands.kept_share.at_least and most(one.categories[name]) <= most(demands)
                    for name, demands in other.categories.items())
            and one.captions.bound >= other.captions.bound and one.size.at_most_mb <= other.size.at_most_mb
            and set(one.licenses) <= set(other.licenses) and (one.companions, other.companions) != ("allow", "refuse")
            and one.golden.min_pictures >= other.golden.min_pictures
            and one.golden.exact_on_same_machine >= other.golden.exact_on_same_machine
            and one.golden.max_mean_difference["cpu"] <= other.golden.max_mean_difference["cpu"]
            and one.publish.require_signature >= other.publish.require_signature
            and set(one.signers) >= set(other.signers)
            and set(one.unsafe_skip) <= set(other.unsafe_skip))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(POLICIES, POLICIES)
def test_policies_together_ask_for_at_least_what_each_does(one: Policy, other: Policy) -> None:
    both = one.combine(other)
    assert is_at_least_as_strict(both, one)
    assert is_at_least_as_strict(both, other)
    assert is_at_least_as_strict(one.combine(one), one)
    assert is_at_least_as_strict(one, one.combine(one))


def test_a_figure_that_nobody_measured_meets_no_demand() -> None:
    assert reaches(0.5, 0.5) and reaches(0.6, 0.5) and not reaches(0.4, 0.5)
    assert stays_within(0.5, 0.5) and stays_within(0.4, 0.5) and not stays_within(0.6, 0.5)
    assert not reaches(None, 0.0) and not stays_within(None, 1.0)
    assert not reaches(float("nan"), 0.0) and not stays_within(float("nan"), 1.0)


def test_a_category_without_demands_is_named() -> None:
    policy = load_policy(None)
    assert policy.find_unnamed(["person"]) == []
    assert "filter violence: the policy demands nothing of this category" in policy.find_unnamed(["person", "violence"])[0]


def test_one_rule_for_signers_may_be_written_without_a_list_and_all_are_read_back() -> None:
    named = Policy.model_validate(policy_with(signers=SIGNERS))
    assert yaml.safe_load(named.text)["signers"] == [SIGNERS]
    assert parse_policy(named.text.encode(), where="mine") == named
    other = Policy.model_validate(policy_with(signers=SIGNERS | {"threshold": 1}))
    both = named.combine(other)
    assert parse_policy(both.text.encode(), where="mine") == both
    assert [rule.threshold for rule in both.signer_rules] == [2, 1]


def test_policies_without_a_common_licence_are_refused() -> None:
    one, other = (Policy.model_validate(policy_with(licenses=[name])) for name in ("MIT", "CC0-1.0"))
    with pytest.raises(ReleaseError, match="no licence is accepted by both"):
        one.combine(other)
