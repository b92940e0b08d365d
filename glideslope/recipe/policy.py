"""The policy: how good a release must be. The recipe says how it is made; nothing else says how good.

A policy is a YAML file beside the recipe, and it is packed with the release. It demands figures, or leaves the demand of a gate
out openly: under `unsafe_skip`, with a reason that the card and the signature repeat. Two policies are combined by taking the
stricter of each demand, so that whoever checks a release can add demands and never lift one.
"""

import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from ..errors import ReleaseError
from ..store.digests import DIGEST_PATTERN, sha256_bytes
from ..store.strict_yaml import load_yaml
from ..text.one_line import one_line
from ..trust.signers import SignerRule
from .strict_model import StrictModel, describe_problem

POLICY_NAME = "policy.yaml"
POLICY_FORMAT: Final = "glideslope.policy/2"
BUILT_IN = ("glideslope.recipes.policies", "default.yaml")
MAX_POLICY_BYTES = 100_000
MIN_REASON_LENGTH, MIN_REASON_WORDS = 20, 4
MAX_TOLERANCE = 10.0  # of 255: weights off by 1 % or cast to bfloat16 come out nearer than that; more would compare nothing
MAX_SIGNERS = 64
BLANK_LETTERS = str.maketrans(dict.fromkeys("\u115f\u1160\u3164\uffa0"))  # letters by Unicode that show nothing
STRICTER: Mapping[str, Callable[..., Any]] = {"at_least": max, "bound": max, "at_most": min, "at_most_mb": min}

Chance = Annotated[float, Field(ge=0, le=1)]
Device = Literal["cpu", "cuda", "mps"]
KeyId = Annotated[str, Field(pattern=rf"^{DIGEST_PATTERN.pattern}$")]


def reaches(figure: float | None, at_least: float) -> bool:
    """Whether a figure is as large as it must be; one that nobody measured never is."""
    return figure is not None and figure >= at_least


def stays_within(figure: float | None, at_most: float) -> bool:
    """Whether a figure is as small as it must be; one that nobody measured never is."""
    return figure is not None and figure <= at_most


class Demand(StrictModel):
    """Numbers that a figure must reach or stay within; the name of each says which."""

    def combine(self, other: Self) -> Self:
        """The stricter number of each."""
        return type(self)(**{name: STRICTER[name](getattr(self, name), getattr(other, name)) for name in type(self).model_fields})


class RecallDemand(Demand):
    """How many images of a category the filter must find, of the labelled ones that tested it."""

    at_least: Chance = Field(description="smallest share of its test images that is found")
    bound: Chance = Field(description="smallest one-sided 95 % lower bound of that share")


class KeptShareDemand(Demand):
    """How many other images the filter must leave, of the labelled ones that tested it."""

    at_least: Chance = Field(description="smallest share of the other test images that stays")


class LeakDemand(Demand):
    """How much of a category may be left in what was kept, as every audit of it must show with all its labels."""

    at_most: Chance = Field(description="largest 95 % upper bound of its share among the kept images; 1: any, but an audit must be there")


class CategoryDemands(StrictModel):
    """What the filter of one category must show."""

    recall: RecallDemand
    kept_share: KeptShareDemand
    leak: LeakDemand | None = Field(None, description="what `glideslope audit` must show; none: no audit is asked for")

    def combine(self, other: "CategoryDemands") -> "CategoryDemands":
        """The stricter of each."""
        leak = self.leak.combine(other.leak) if self.leak and other.leak else self.leak or other.leak
        return CategoryDemands(recall=self.recall.combine(other.recall), kept_share=self.kept_share.combine(other.kept_share), leak=leak)


class CaptionsDemand(Demand):
    """How often a picture must fit its own caption better than the middle one of others."""

    bound: Chance = Field(description="smallest 95 % lower bound of the share of pictures that do; 0.5 is chance")


class SizeDemand(Demand):
    """How large a release may be."""

    at_most_mb: Annotated[int, Field(ge=1)] = Field(description="most megabytes (10^6 bytes)")


class GoldenDemands(StrictModel):
    """How golden samples are compared with what is drawn again."""

    min_pictures: Annotated[int, Field(ge=1, le=64)] = Field(1, description="smallest number of golden pictures")
    exact_on_same_machine: bool = Field(True, description="on a machine of the same class, pictures must be the same to the byte")
    max_mean_difference: dict[Device, Annotated[float, Field(ge=0, le=MAX_TOLERANCE)]] = Field(
        description="kind of device -> largest mean absolute difference of pixel values (of 255); other devices refuse")

    def combine(self, other: "GoldenDemands") -> "GoldenDemands":
        """The stricter of each; a device has to be in both."""
        both = {device: min(limit, other.max_mean_difference[device]) for device, limit in self.max_mean_difference.items()
                if device in other.max_mean_difference}
        return GoldenDemands(min_pictures=max(self.min_pictures, other.min_pictures), max_mean_difference=both,
                             exact_on_same_machine=self.exact_on_same_machine or other.exact_on_same_machine)


class SignersDemand(StrictModel):
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


class PublishDemands(StrictModel):
    """What publishing to a Hub asks for beside the gates."""

    require_signature: bool = Field(description="signatures as `signers` asks; refused without `signers`, as any key would do then")


class Policy(StrictModel):
    """What a release must fulfil."""

    format: Literal["glideslope.policy/2"] = Field(description="which keys there are, and what they mean")
    categories: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], CategoryDemands], Field(min_length=1)] = Field(
        description="categories that must be filtered, and what each filter must show; a category that is not named is refused")
    captions: CaptionsDemand
    licenses: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = Field(description="accepted licences, SPDX identifiers")
    companions: Literal["refuse", "allow"] = Field(description="networks that come without evidence of their data")
    size: SizeDemand
    golden: GoldenDemands
    publish: PublishDemands
    signers: tuple[SignersDemand, ...] = Field((), description="who must have signed: one rule, or a list of rules that all count")
    unsafe_skip: dict[str, str] = Field({}, description="gate whose demand is left out -> why")

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
            words = re.findall(r"[^\W_]+", reason.translate(BLANK_LETTERS))  # what shows nothing is no word
            if len(" ".join(words)) < MIN_REASON_LENGTH or len(set(words)) < MIN_REASON_WORDS:
                raise ValueError(f"unsafe_skip.{gate}: the reason {reason!r:.60} is too short; say in a sentence (at least {MIN_REASON_LENGTH} "
                                 f"characters, {MIN_REASON_WORDS} words) why this release may do without the gate")
        return self

    def combine(self, other: "Policy") -> "Policy":
        """What fulfils this and another policy; a gate is left out only where both leave it out, with both reasons."""
        names = sorted({*self.categories, *other.categories})
        licenses = tuple(name for name in self.licenses if name.casefold() in {one.casefold() for one in other.licenses})
        if not licenses:
            raise ReleaseError(f"policies: no licence is accepted by both ({', '.join(self.licenses)}; {', '.join(other.licenses)})")
        reasons = {gate: (reason, other.unsafe_skip[gate]) for gate, reason in self.unsafe_skip.items() if gate in other.unsafe_skip}
        return Policy(
            format=POLICY_FORMAT, licenses=licenses, golden=self.golden.combine(other.golden), size=self.size.combine(other.size),
            captions=self.captions.combine(other.captions), categories={name: self._combine_category(name, other) for name in names},
            companions="allow" if self.companions == other.companions == "allow" else "refuse",
            publish=PublishDemands(require_signature=self.publish.require_signature or other.publish.require_signature),
            signers=tuple(dict.fromkeys((*self.signers, *other.signers))),
            unsafe_skip={gate: first if first == second else f"{first} / {second}" for gate, (first, second) in reasons.items()})

    def _combine_category(self, name: str, other: "Policy") -> CategoryDemands:
        """What either policy demands of a category, or the stricter where both do."""
        demands = [policy.categories[name] for policy in (self, other) if name in policy.categories]
        return demands[0] if len(demands) == 1 else demands[0].combine(demands[1])

    def find_unnamed(self, categories: list[str]) -> list[str]:
        """One sentence for each category that is filtered and that the policy demands nothing of."""
        return [f"filter {name}: the policy demands nothing of this category; name it under `categories` in the policy, with the recall and "
                "the kept share that this release must show" for name in categories if name not in self.categories]

    @property
    def text(self) -> str:
        """The one form in which a policy is packed: YAML, every key written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)

    @property
    def signer_rules(self) -> tuple[SignerRule, ...]:
        """Who must have signed; each rule has to be met."""
        return tuple(signers.rule for signers in self.signers)

    @property
    def sha256(self) -> str:
        """Hex digest of that text."""
        return sha256_bytes(self.text.encode())


def built_in_text() -> str:
    """The text of the built-in policy, with its comments."""
    package, name = BUILT_IN
    return (resources.files(package) / name).read_text(encoding="utf-8")


def load_policy(path: Path | str | None) -> Policy:
    """Read a policy file; none gives the built-in policy.

    Raises:
        ReleaseError: the file is missing, is not YAML, or holds an unknown key, a wrong type or an impossible value;
            an empty policy or one that names no category is such a file.
    """
    if path is None:
        return parse_policy(built_in_text().encode(), where="built-in policy")
    try:
        with Path(path).open("rb") as file:
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
        raise ReleaseError(f"{where}: not readable as YAML: {one_line(error, None)}") from error
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
