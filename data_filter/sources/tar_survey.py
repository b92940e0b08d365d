"""What lies in the first tars of a data set, before anything is embedded: names, suffixes, and where the captions may stand.

A look takes the names in the first 8 tars (4,096 members of each at most) and the content of 32 samples in each, however many tars there are.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

from ...errors import SourceError
from ...text.text_files import decode_text
from ...text.text_tables import read_json_text
from .files import MAX_TEXT_BYTES, plain_text
from .source import FIELD_PREFIX, fields_with_text
from .tars import Member, Sample, TarContents, list_members

MOST_TARS, MOST_MEMBERS, MOST_SAMPLES = 8, 4096, 32
MOST_COMPARED, COMPARED_BYTES = 32, 1 << 12
NUMBERED = re.compile(r"[\d._-]+")
TOO_MANY = 0.5  # from this share of bad samples on, a setting is wrong and not the samples
TOO_MANY_REPEATED = 0.1  # names mostly start again in all tars or in none


class TarSettings(Protocol):
    """The settings that a look may find wrong."""

    @property
    def path(self) -> str:
        """The tars."""

    @property
    def image_member(self) -> str | None:
        """Suffix of the image member, if one is named."""

    @property
    def name_until(self) -> str:
        """Where a sample's name ends."""


class TarSource(Protocol):
    """Tars as the settings of a recipe read them."""

    @property
    def config(self) -> TarSettings:
        """The settings."""

    @property
    def root(self) -> Path:
        """The folder that the tars' paths count from."""

    @property
    def files(self) -> Sequence[str]:
        """The tars, relative to that folder."""

    @property
    def caption_member(self) -> str:
        """The suffix of the captions' member, in small letters."""

    @property
    def caption_place(self) -> str:
        """That suffix, or `json:` and the field."""

    def group(self, contents: TarContents, tar: str) -> tuple[list[Sample], str | None]:
        """The samples of a tar, and the key of one that a cut took with it."""

    def is_image(self, handle: int, suffix: str, member: Member) -> bool:
        """Whether a member is an image."""

    def names_image(self, sample: Sample) -> bool:
        """Whether a sample has a member that is called as images are."""

    def hint_crowded(self) -> str:
        """What to do where a sample has several images."""


@dataclass
class TarSurvey:
    """What was found in the first tars.

    Attributes:
        num_tars: how many there are.
        num_names: samples whose names were looked at.
        num_samples: samples of them that were looked into.
        suffixes: suffix -> samples that have such a member; `images` are those of them that are images.
        fields: field of JSON members -> samples that have text there.
        captioned: suffix, or `json:` and a field -> samples with an image that have it, so that it may be their caption.
        crowded: one sample with several images, as its tar, key and members' names; None: there is none.
        num_crowded, num_without_image: samples with several images, and with none.
        dotted: a name that goes on behind its first dot, "" for none; `num_dotted` samples have such.
        repeated: a name that another tar has for another picture, "" for none; `num_repeated` names that an earlier tar has.
    """

    num_tars: int = 0
    num_names: int = 0
    num_samples: int = 0
    suffixes: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    captioned: Counter[str] = field(default_factory=Counter)
    crowded: tuple[str, str, list[str]] | None = None
    num_crowded: int = 0
    num_without_image: int = 0
    dotted: str = ""
    num_dotted: int = 0
    repeated: str = ""
    num_repeated: int = 0

    def describe_members(self) -> str:
        """The members that the samples have, most frequent first: `png (30 of 30), json (30 of 30)`."""
        told = ", ".join(f"{plain_text(suffix) or 'no suffix'} ({count} of {self.num_samples})" for suffix,
                         count in self.suffixes.most_common(8))
        fields = ", ".join(plain_text(name) for name, _ in self.fields.most_common(12))
        return (told or "nothing") + (f"; the JSON has text in {fields}" if fields else "")


def survey_tars(source: TarSource) -> TarSurvey:
    """Look at the first tars of a source, with its settings.

    Raises:
        SourceError: there is no tar, or one cannot be read.
    """
    survey = TarSurvey(num_tars=len(source.files))
    seen: dict[str, tuple[Path, Member]] = {}
    for name in source.files[:MOST_TARS]:
        path = source.root / name
        try:
            with path.open("rb") as file:
                contents = list_members(file, os.fstat(file.fileno()).st_size, most=MOST_MEMBERS)
                samples, _ = source.group(contents, plain_text(name))
                if len(contents.members) == MOST_MEMBERS:
                    samples.pop()  # it may go on behind what was looked at
                look_for_repeated(survey, [sample for sample in samples if source.names_image(sample)], path, seen)
                for sample in islice(samples, MOST_SAMPLES):
                    look_into(survey, sample, file, source, plain_text(name))
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    return survey


def look_for_repeated(survey: TarSurvey, samples: list[Sample], path: Path, seen: dict[str, tuple[Path, Member]]) -> None:
    """Count the names that an earlier tar has too, unless all that were compared mean the same; `seen`: name -> its largest member there."""
    survey.num_names += len(samples)
    repeated, num_compared = 0, 0
    for sample in samples:
        largest = max((member for _, member in sample.members), key=lambda member: member.size)
        earlier = seen.setdefault(sample.key, (path, largest))
        if earlier == (path, largest):
            continue
        repeated += 1
        if not survey.repeated and num_compared < MOST_COMPARED:
            num_compared += 1
            if earlier[1].size != largest.size or read_start(*earlier) != read_start(path, largest):
                survey.repeated = sample.key
    if survey.repeated:
        survey.num_repeated += repeated


def read_start(path: Path, member: Member) -> bytes:
    """The first bytes of a member."""
    with path.open("rb") as file:
        return os.pread(file.fileno(), min(member.size, COMPARED_BYTES), member.offset)


def look_into(survey: TarSurvey, sample: Sample, file: BinaryIO, source: TarSource, tar: str) -> None:
    """Count what one sample holds."""
    members, handle = dict(sample.members), file.fileno()
    survey.num_samples += 1
    survey.suffixes.update(members.keys())
    images = [suffix for suffix, member in members.items() if source.is_image(handle, suffix, member)]
    survey.images.update(images)
    if len(images) > 1:
        survey.num_crowded += 1
        survey.crowded = survey.crowded or (tar, sample.key, [plain_text(members[suffix].name) for suffix in images])
    elif not images:
        survey.num_without_image += 1
    dotted = next((suffix for suffix in images if goes_on(suffix, members)), None)
    if dotted is not None:
        survey.num_dotted += 1
        survey.dotted = survey.dotted or plain_text(members[dotted].name)
    fields = read_fields(handle, members["json"]) if "json" in members else {}
    with_text = fields_with_text(fields)
    survey.fields.update(with_text)
    if images:
        survey.captioned.update([*(suffix for suffix in members if suffix not in images), *(f"{FIELD_PREFIX}{name}" for name in with_text)])


def goes_on(suffix: str, members: dict[str, Member]) -> bool:
    """Whether a name seems to go on behind its first dot: with figures (`05.png`), or with what another member of the sample has too."""
    name, _, _ = suffix.rpartition(".")
    return bool(name) and (NUMBERED.fullmatch(name) is not None
                           or any(other != suffix and other.rpartition(".")[0] == name for other in members))


def read_fields(handle: int, member: Member) -> dict[str, object]:
    """The fields of a JSON member; none where it holds no object or cannot be read: the index says what is wrong with it."""
    if member.problem or member.size > MAX_TEXT_BYTES:
        return {}
    try:
        value = read_json_text(decode_text(os.pread(handle, member.size, member.offset)))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def refuse_tars(source: TarSource, *, needs_captions: bool) -> None:
    """Refuse tars of which, by a look at the first of them, most samples or all captions would be lost with these settings.

    Raises:
        SourceError: names start again in every tar, run together at their dots, or no sample has an image, or a caption where that is needed.
    """
    survey, config = survey_tars(source), source.config
    where = f"{config.path}: of the first {survey.num_samples} samples"
    if not survey.num_samples:
        return
    if survey.num_repeated > TOO_MANY_REPEATED * survey.num_names:
        raise SourceError(f"{config.path}: names start again in every tar ({survey.repeated} is in several, with other pictures), so that "
                          f"all but "
                          "the first would be lost as duplicate keys. Set source.keys to tar/member")
    if config.image_member is None and config.name_until == "first_dot" and survey.num_dotted > TOO_MANY * survey.num_samples:
        raise SourceError(f"{where}, {survey.num_dotted} have names with dots in them ({survey.dotted}). A name ends at its first dot, so "
                          f"that they "
                          "would run together or lose their captions. Set source.name_until to last_dot")
    if survey.crowded is not None and survey.num_crowded > TOO_MANY * survey.num_samples:
        tar, key, names = survey.crowded
        raise SourceError(f"{where}, {survey.num_crowded} have several images ({key} of {tar} has {', '.join(names[:8])}). "
                          f"{source.hint_crowded()}")
    if survey.num_without_image == survey.num_samples:
        wanted = "has an image" if config.image_member is None else f"has a member {config.image_member} as source.image_member says"
        raise SourceError(f"{where}, none {wanted} (there are {survey.describe_members()})")
    if needs_captions and not survey.captioned[source.caption_place]:
        if source.caption_member in survey.suffixes:
            raise SourceError(f"{where}, none has both an image and a caption: {survey.num_without_image} have no image. The members of a "
                              f"sample "
                              "have to lie in one tar and to be called the same")
        raise SourceError(f"{where}, none has a caption in {describe_place(source.caption_place)} (there are {survey.describe_members()}). "
                          "Set source.caption_member to the suffix of the captions' member, or to json:<field>; or, to filter images without "
                          "captions, set curate.captions to optional")


def describe_place(caption_place: str) -> str:
    """Where the settings look for captions."""
    return f"the JSON field {caption_place[len(FIELD_PREFIX):]}" if caption_place.startswith(FIELD_PREFIX) else f"a member {caption_place}"
