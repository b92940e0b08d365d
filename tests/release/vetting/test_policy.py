from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from glideslope.errors import ReleaseError
from glideslope.release.evidence.contents import Release
from glideslope.release.vetting.check import gates_of
from glideslope.release.vetting.policy import (
    ALWAYS_RUN,
    SKIPPABLE,
    Policy,
    check_policy,
    effective_policy,
    load_policy,
    parse_policy,
    policy_of,
)

REASON = "the reference machine was sold last year"


def policy_with(**changes: Any) -> dict[str, Any]:
    return load_policy(None).model_dump(mode="json") | changes


def text_of(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False).encode()


def test_the_built_in_policy_names_a_category_and_leaves_nothing_out() -> None:
    policy = load_policy(None)
    assert "person" in policy.categories
    assert policy.unsafe_skip == {}
    assert parse_policy(policy.text.encode(), where="again") == policy


def test_every_gate_is_either_skippable_or_always_run() -> None:
    assert {gate.name for gate in gates_of(load_policy(None))} == {*ALWAYS_RUN, *SKIPPABLE}
    assert not set(ALWAYS_RUN) & set(SKIPPABLE)


@pytest.mark.parametrize(("data", "message"), [
    (b"", "expected a mapping, got nothing; an empty policy would check nothing"),
    (b"# nothing\n", "an empty policy would check nothing"),
    (b"- a list", "expected a mapping, got list"),
    (b"{", "not readable as YAML"),
    (b"\xff", "not readable as YAML"),
    (b"a: 1\na: 2", "the key 'a' stands twice"),
    (b"format: glideslope.policy/1", "categories: required key is missing"),
    (b" " * 100_001, "more than 100000 bytes"),
    (text_of(policy_with(categories={})), "categories: "),
    (text_of(policy_with(categories=None)), "categories: "),
    (text_of(policy_with(gates=[])), r"gates: unknown key; docs/policy\.md lists the keys of a policy$"),
    (text_of(policy_with(format="glideslope.policy/0")), "format: "),
    (text_of(policy_with(licenses=[])), "licenses: "),
    (text_of(policy_with(max_size_mb="many")), "max_size_mb: "),
    (text_of(policy_with(categories={"person": {"min_recal": 0.9}})), r"categories\.person\.min_recal: unknown key"),
    (text_of(policy_with(categories={"person": {"min_recall": 1.5}})), r"categories\.person\.min_recall: "),
    (text_of(policy_with(categories={"Person": {}})), "categories"),
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
    (text_of(policy_with(publish={"require_rehearsal": False, "require_signature": True})),
     r"signers names no key, so a signature by anybody would do; write signers: \{keys: \[<key id>\], threshold: 1\}"),
    (text_of(policy_with(signers={"keys": [], "threshold": 1})), "keys"),
    (text_of(policy_with(signers={"keys": ["58" + "00" * 31]})), "threshold: required key is missing"),
    (text_of(policy_with(signers={"keys": ["58" + "00" * 31] * 2, "threshold": 2})), "the threshold is 2, but 1 different keys are named"),
    (text_of(policy_with(signers={"keys": ["01" + "00" * 31], "threshold": 1})), "point of small order"),
    (text_of(policy_with(signers={"keys": ["58"], "threshold": 1})), "keys"),
    (text_of(policy_with(unsafe_skip={"reload": ""})), r"unsafe_skip\.reload: the reason '' is too short"),
    (text_of(policy_with(unsafe_skip={"reload": "because"})), r"unsafe_skip\.reload: the reason 'because' is too short"),
    (text_of(policy_with(unsafe_skip={"reload": "x x x x x x x x x x x x"})), "is too short"),
    (text_of(policy_with(unsafe_skip={"reloading": REASON})), "unsafe_skip names 'reloading'; expected one of filter evidence"),
    (text_of(policy_with(unsafe_skip={"card complete": REASON})), r"unsafe_skip names 'card complete'.*\(this gate always runs\)"),
])
def test_a_policy_that_would_check_less_than_it_seems_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ReleaseError, match=f"mine: .*{message}" if not message.startswith("unsafe_skip names") else message):
        parse_policy(data, where="mine")


def test_a_reason_may_be_in_any_script_of_words() -> None:
    policy = parse_policy(text_of(policy_with(unsafe_skip={"reload": "опорная машина была продана в прошлом году"})), where="mine")
    assert list(policy.unsafe_skip) == ["reload"]


def test_a_policy_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="No such file"):
        load_policy(tmp_path / "policy.yaml")


SIGNERS = {"keys": ["58" + "00" * 31, "59" + "00" * 31], "threshold": 2}
CHANCES = st.none() | st.floats(0, 1)
POLICIES = st.builds(
    lambda categories, audits, size, licenses, companions, tolerance, exact, publish, skipped: Policy.model_validate(policy_with(
        categories=categories, require_audits=audits, max_size_mb=size, licenses=["MIT", *licenses], allow_companions=companions,
        golden={"min_pictures": 1 + size % 3, "exact_on_same_machine": exact, "max_mean_difference": {"cpu": tolerance}},
        publish={"require_rehearsal": publish, "require_signature": exact}, signers=SIGNERS if exact or audits else None,
        unsafe_skip=dict.fromkeys(skipped, REASON))),
    st.dictionaries(st.sampled_from(["person", "violence", "gore"]),
                    st.fixed_dictionaries({"min_recall": CHANCES, "max_leak_rate": CHANCES}), min_size=1),
    st.booleans(), st.integers(1, 100), st.sets(st.sampled_from(["Apache-2.0", "CC0-1.0"])), st.booleans(), st.floats(0, 10), st.booleans(),
    st.booleans(), st.sets(st.sampled_from(SKIPPABLE)))


def is_at_least_as_strict(one: Policy, other: Policy) -> bool:
    def least(limit: float | None) -> float:
        return -1.0 if limit is None else limit

    def most(limit: float | None) -> float:
        return 2.0 if limit is None else limit

    return (set(one.categories) >= set(other.categories)
            and all(least(one.categories[name].min_recall) >= least(limits.min_recall)
                    and most(one.categories[name].max_leak_rate) <= most(limits.max_leak_rate) for name, limits in other.categories.items())
            and one.require_audits >= other.require_audits and one.max_size_mb <= other.max_size_mb
            and set(one.licenses) <= set(other.licenses) and one.allow_companions <= other.allow_companions
            and one.golden.min_pictures >= other.golden.min_pictures
            and one.golden.exact_on_same_machine >= other.golden.exact_on_same_machine
            and one.golden.max_mean_difference["cpu"] <= other.golden.max_mean_difference["cpu"]
            and one.publish.require_rehearsal >= other.publish.require_rehearsal
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


def test_signers_are_written_back_as_they_were_given_and_a_policy_without_them_keeps_its_text() -> None:
    named = Policy.model_validate(policy_with(signers=SIGNERS))
    assert yaml.safe_load(named.text)["signers"] == SIGNERS
    assert parse_policy(named.text.encode(), where="mine") == named
    other = Policy.model_validate(policy_with(signers=SIGNERS | {"threshold": 1}))
    both = named.combine(other)
    assert parse_policy(both.text.encode(), where="mine") == both
    assert [rule.threshold for rule in both.signer_rules] == [2, 1]
    assert "signers" not in load_policy(None).text


def test_policies_without_a_common_licence_are_refused() -> None:
    one, other = (Policy.model_validate(policy_with(licenses=[name])) for name in ("MIT", "CC0-1.0"))
    with pytest.raises(ReleaseError, match="no licence is accepted by both"):
        one.combine(other)


def test_the_packed_policy_is_read_back_and_a_missing_or_edited_one_is_refused(tamper: Any) -> None:
    release = Release(tamper.directory)
    assert policy_of(release) == load_policy(None)
    assert check_policy(release) == []
    path = tamper.directory / "evidence/policy.yaml"
    for content, message in ((path.read_bytes() + b"# more\n", "is not in the form that pack writes"), (b"", "an empty policy"),
                             (b"{}", "categories: required key is missing")):
        path.write_bytes(content)
        with pytest.raises(ReleaseError, match=message):
            policy_of(Release(tamper.directory))
    path.unlink()
    with pytest.raises(ReleaseError, match=r"evidence/policy\.yaml: file is missing"):
        effective_policy(Release(tamper.directory), None)


def test_a_given_policy_can_ask_for_more_but_lift_nothing(packed_run: Path, tmp_path: Path) -> None:
    release = Release(packed_run / "release")
    (tmp_path / "mine.yaml").write_bytes(text_of(policy_with(max_size_mb=7, allow_companions=True, min_captions_share_lower_bound=0.0)))
    applied = effective_policy(release, tmp_path / "mine.yaml")
    assert applied.max_size_mb == 7
    assert not applied.allow_companions
    assert applied.min_captions_share_lower_bound == 0.5
    (tmp_path / "mine.yaml").write_bytes(text_of(policy_with(unsafe_skip={"reload": REASON})))
    with pytest.raises(ReleaseError, match="leaves out reload, which the policy in the release does not; a bypass counts only when"):
        effective_policy(release, tmp_path / "mine.yaml")
