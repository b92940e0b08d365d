"""The policy: what a release must fulfil, as data that is packed with it.

A policy can only ask for more than the recipe does, or leave a gate out openly: under `unsafe_skip`, with a reason that
the card and the signature repeat. Two policies are combined by taking the stricter of each, so that whoever checks a
release can add demands and never lift one.
"""

import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from ...errors import ReleaseError
from ...recipe.strict_model import StrictModel, describe_problem
from ...store.digests import sha256_bytes
from ...store.strict_yaml import load_yaml
from ...trust.keys import KEY_ID_PATTERN
from ...trust.signers import SignerRule
from ..evidence.contents import Release

POLICY_PATH = "evidence/policy.yaml"
POLICY_FORMAT: Final = "glideslope.policy/1"
DEFAULT_POLICY = "default.yaml"
MAX_POLICY_BYTES = 100_000
MIN_REASON_LENGTH, MIN_REASON_WORDS = 20, 4
MAX_TOLERANCE = 10.0  # of 255: weights off by 1 % or cast to bfloat16 come out nearer than that; more would compare nothing
MAX_SIGNERS = 64
BLANK_LETTERS = str.maketrans(dict.fromkeys("\u115f\u1160\u3164\uffa0"))  # letters by Unicode that show nothing
# What makes a bypass visible, and what keeps harmful files out, is never bypassed.
ALWAYS_RUN = ("intact", "allowed files", "card complete")
SKIPPABLE = ("filter evidence", "audits", "labels not reused", "provenance chain", "verified", "size", "licence", "secrets", "companions",
             "captions count", "reload", "golden samples")

Chance = Annotated[float, Field(ge=0, le=1)]
Device = Literal["cpu", "cuda", "mps"]
KeyId = Annotated[str, Field(pattern=rf"^{KEY_ID_PATTERN.pattern}$")]


class CategoryPolicy(StrictModel):
    """What the filter of one category must show on audit labels; none leaves a limit to the recipe."""

    min_recall: Chance | None = Field(None, description="smallest share of positives that are caught")
    min_recall_lower_bound: Chance | None = Field(None, description="smallest 95 % lower bound of that share")
    min_kept_share: Chance | None = Field(None, description="smallest share of negatives that are kept")
    max_leak_rate: Chance | None = Field(None, description="largest 95 % upper bound of the positives among what was kept; needs an audit")

    def combine(self, other: "CategoryPolicy") -> "CategoryPolicy":
        """The stricter limit of each."""
        least = {name: _stricter(getattr(self, name), getattr(other, name), max)
                 for name in ("min_recall", "min_recall_lower_bound", "min_kept_share")}
        return CategoryPolicy(**least, max_leak_rate=_stricter(self.max_leak_rate, other.max_leak_rate, min))


class GoldenPolicy(StrictModel):
    """How golden samples are compared with what is drawn again."""

    min_pictures: Annotated[int, Field(ge=1, le=64)] = Field(1, description="smallest number of golden pictures")
    exact_on_same_machine: bool = Field(True, description="on a machine of the same class, pictures must be the same to the byte")
    max_mean_difference: dict[Device, Annotated[float, Field(ge=0, le=MAX_TOLERANCE)]] = Field(
        description="kind of device -> largest mean absolute difference of pixel values (of 255); other devices refuse")

    def combine(self, other: "GoldenPolicy") -> "GoldenPolicy":
        """The stricter of each; a device has to be in both."""
        both = {device: min(limit, other.max_mean_difference[device]) for device, limit in self.max_mean_difference.items()
                if device in other.max_mean_difference}
        return GoldenPolicy(min_pictures=max(self.min_pictures, other.min_pictures), max_mean_difference=both,
                            exact_on_same_machine=self.exact_on_same_machine or other.exact_on_same_machine)


class SignersPolicy(StrictModel):
    """Who must have signed: keys by their whole id, and how many of them."""

    keys: Annotated[tuple[KeyId, ...], Field(min_length=1, max_length=MAX_SIGNERS, strict=False)] = Field(
        description="ids of public keys; a repeated key counts once")
    threshold: Annotated[int, Field(ge=1)] = Field(description="how many of these keys must have signed")

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        try:
            _ = self.rule
        except ReleaseError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def rule(self) -> SignerRule:
        """The rule that the loader and `verify` apply too."""
        return SignerRule.of(self.keys, self.threshold)


class PublishPolicy(StrictModel):
    """What publishing to a Hub asks for beside the gates."""

    require_rehearsal: bool = Field(description="a rehearsal of this very release, passed")
    require_signature: bool = Field(description="signatures as `signers` asks; refused without `signers`, as any key would do then")


class Policy(StrictModel):
    """What a release must fulfil."""

    format: Literal["glideslope.policy/1"]
    categories: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], CategoryPolicy], Field(min_length=1)] = Field(
        description="categories that must have filter evidence, with their limits")
    require_audits: bool = Field(description="every category needs an audit of what was kept, with all its labels")
    min_captions_share_lower_bound: Chance = Field(description="smallest 95 % lower bound of the share of pictures whose own caption wins")
    max_size_mb: Annotated[int, Field(ge=1)] = Field(description="largest size of the release in megabytes (10^6 bytes)")
    allow_companions: bool = Field(description="whether networks may be packed that come without evidence of their data")
    licenses: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = Field(description="accepted licences, SPDX identifiers")
    golden: GoldenPolicy
    publish: PublishPolicy
    signers: tuple[SignersPolicy, ...] = Field((), description="who must have signed: one rule, or a list of rules that all count")
    unsafe_skip: dict[str, str] = Field({}, description="gate that is left out -> why")

    @field_validator("signers", mode="before")
    @classmethod
    def _one_rule_is_a_list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list | tuple) else () if value is None else (value,)

    @model_validator(mode="after")
    def _signatures_are_of_named_keys(self) -> Self:
        if self.publish.require_signature and not self.signers:
            raise ValueError("publish.require_signature is true, but signers names no key, so a signature by anybody would do; write "
                             "signers: {keys: [<key id>], threshold: 1} with the id that `glideslope keygen` printed")
        return self

    @model_validator(mode="after")
    def _bypasses_are_explained(self) -> Self:
        for gate, reason in self.unsafe_skip.items():
            if gate not in SKIPPABLE:
                raise ValueError(f"unsafe_skip names {gate!r}; expected one of {', '.join(SKIPPABLE)}"
                                 + (" (this gate always runs)" if gate in ALWAYS_RUN else ""))
            words = re.findall(r"[^\W_]+", reason.translate(BLANK_LETTERS))  # what shows nothing is no word
            if len(" ".join(words)) < MIN_REASON_LENGTH or len(set(words)) < MIN_REASON_WORDS:
                raise ValueError(f"unsafe_skip.{gate}: the reason {reason!r:.60} is too short; say in a sentence (at least {MIN_REASON_LENGTH} "
                                 f"characters, {MIN_REASON_WORDS} words) why this release may do without the gate")
        return self

    def combine(self, other: "Policy") -> "Policy":
        """What fulfils this and another policy; a gate is left out only where both leave it out, with both reasons."""
        names = {*self.categories, *other.categories}
        licenses = tuple(name for name in self.licenses if name.casefold() in {one.casefold() for one in other.licenses})
        if not licenses:
            raise ReleaseError(f"policies: no licence is accepted by both ({', '.join(self.licenses)}; {', '.join(other.licenses)})")
        reasons = {gate: (reason, other.unsafe_skip[gate]) for gate, reason in self.unsafe_skip.items() if gate in other.unsafe_skip}
        return Policy(
            format=POLICY_FORMAT, licenses=licenses, golden=self.golden.combine(other.golden),
            categories={name: self.categories.get(name, CategoryPolicy()).combine(other.categories.get(name, CategoryPolicy()))
                        for name in sorted(names)},
            require_audits=self.require_audits or other.require_audits, max_size_mb=min(self.max_size_mb, other.max_size_mb),
            min_captions_share_lower_bound=max(self.min_captions_share_lower_bound, other.min_captions_share_lower_bound),
            allow_companions=self.allow_companions and other.allow_companions,
            publish=PublishPolicy(require_rehearsal=self.publish.require_rehearsal or other.publish.require_rehearsal,
                                  require_signature=self.publish.require_signature or other.publish.require_signature),
            signers=tuple(dict.fromkeys((*self.signers, *other.signers))),
            unsafe_skip={gate: first if first == second else f"{first} / {second}" for gate, (first, second) in reasons.items()})

    @property
    def text(self) -> str:
        """The one form in which a policy is packed: YAML, every key written out."""
        value = self.model_dump(mode="json")
        if len(self.signers) < 2:  # one rule is written as one; no rule is not written, so that older policies keep their text
            value |= {"signers": value["signers"][0]} if self.signers else {}
            value = value if self.signers else {key: item for key, item in value.items() if key != "signers"}
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)

    @property
    def signer_rules(self) -> tuple[SignerRule, ...]:
        """Who must have signed; each rule has to be met."""
        return tuple(signers.rule for signers in self.signers)

    @property
    def sha256(self) -> str:
        """Hex digest of that text."""
        return sha256_bytes(self.text.encode())


def load_policy(path: Path | None) -> Policy:
    """Read a policy file; none gives the built-in policy.

    Raises:
        ReleaseError: the file is missing, is not YAML, or holds an unknown key, a wrong type or an impossible value;
            an empty policy or one that names no category is such a file.
    """
    if path is None:
        return parse_policy((resources.files(__package__) / "policies" / DEFAULT_POLICY).read_bytes(), where="built-in policy")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise ReleaseError(f"policy {path}: {error.strerror}") from error
    return parse_policy(data, where=f"policy {path}")


def parse_policy(data: bytes, *, where: str) -> Policy:
    """Check the text of a policy; see `load_policy`."""
    if len(data) > MAX_POLICY_BYTES:
        raise ReleaseError(f"{where}: more than {MAX_POLICY_BYTES} bytes; no policy is that long")
    try:
        value = load_yaml(data, max_bytes=MAX_POLICY_BYTES)
    except yaml.YAMLError as error:
        raise ReleaseError(f"{where}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ReleaseError(f"{where}: expected a mapping, got {'nothing' if value is None else type(value).__name__}; an empty policy would "
                           "check nothing, see docs/policy.md for the keys there are")
    try:
        return Policy.model_validate(value)
    except ValidationError as error:
        raise ReleaseError(f"{where}: " + "; ".join(map(_describe, error.errors()))) from error


def _describe(problem: Any) -> str:
    """One validation problem; an unknown key is told where the keys of a policy stand, as they are not those of a recipe."""
    told = describe_problem(problem)
    return f"{told.split(':')[0]}: unknown key; docs/policy.md lists the keys of a policy" if problem["type"] == "extra_forbidden" else told


def policy_of(release: Release) -> Policy:
    """The policy that was packed with a release.

    Raises:
        ReleaseError: it is missing, malformed, or not in the form that pack writes.
    """
    data = release.read(POLICY_PATH, bytes)
    policy = parse_policy(data, where=POLICY_PATH)
    if policy.text.encode() != data:
        raise ReleaseError(f"{POLICY_PATH}: is not in the form that pack writes; pack the release again")
    return policy


def check_policy(release: Release) -> list[str]:
    """The packed policy is there, sound and in its one form; otherwise `policy_of` raises."""
    policy_of(release)
    return []


def effective_policy(release: Release, path: Path | None) -> Policy:
    """The policy that a check applies: the packed one, and a given one on top of it.

    Raises:
        ReleaseError: either cannot be read, or the given one leaves a gate out that the packed one does not: a bypass counts
            only when it was packed, as only then card and signature can show it.
    """
    packed = policy_of(release)
    if path is None:
        return packed
    given = load_policy(path)
    hidden = sorted(set(given.unsafe_skip) - set(packed.unsafe_skip))
    if hidden:
        raise ReleaseError(f"policy {path}: leaves out {', '.join(hidden)}, which the policy in the release does not; a bypass counts only "
                           "when it was packed and stands on the card: name the file as release.policy in the recipe and pack again")
    return packed.combine(given)


def _stricter(one: float | None, other: float | None, choose: Callable[..., float]) -> float | None:
    limits = [limit for limit in (one, other) if limit is not None]
    return choose(limits) if limits else None
