"""WebDataset tars: members whose names are equal up to the first dot (or the last, as the recipe says) are one sample, wherever they lie.

The tar itself is read, without unpacking; bytes of images, captions and JSON come out as they went in. What cannot be
used is a row that names it: a sample with no image or several, a link, a name that occurs twice, the rest of a tar that
was cut. Names that start with a dot, and what systems leave behind, are not looked at.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from ...errors import SourceError
from ...store.digests import sha256_json
from ...text.one_line import one_line
from ...text.text_files import NotTextError, decode_text
from ...text.text_tables import read_json_text
from .files import (
    IMAGE_SUFFIXES,
    MAX_IMAGE_BYTES,
    MAX_TEXT_BYTES,
    digest_file,
    digest_files,
    is_left_out,
    list_files,
    list_visible,
    plain_text,
    split_path,
)
from .kind import CAPTION_SUFFIXES, Found, Place, SourceKind
from .source import (
    CAPTION,
    FIELD_PREFIX,
    Captions,
    Shard,
    SourceItem,
    SourceLabel,
    check_captions,
    decode_captions,
    digest_shards,
    refuse_changed,
    shard_name,
)
from .survey import choose, count
from .tables import CAPTION_COLUMNS
from .tar_survey import TarSurvey, refuse_tars, survey_tars
from .tars import Member, Sample, TarContents, list_members, refuse_start

COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
JSON_SUFFIX = "json"
HEAD_BYTES = 16
MOST_NAMED = 8
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")


class WebDatasetSource(SourceKind):
    """Tar files whose members pair up by name: `000123.jpg`, `000123.txt`, `000123.json`."""

    kind: Literal["webdataset"] = "webdataset"
    PLACES = frozenset({"path"})
    path: str = Field(description="a directory of .tar files, one file, a glob, or a brace range like `part-{0000..0099}.tar`")
    caption_member: Annotated[str, Field(min_length=1)] = Field(
        "txt", description="suffix of the caption member, or `json:<field>` to take a field of the JSON member")
    image_member: str | None = Field(None, description="suffix of the image member, `jpg` say; none: the only member that is an image")
    name_until: Literal["first_dot", "last_dot"] = Field(
        "first_dot", description="where a member's name ends and its suffix begins; last_dot: names have dots in them, as in `22.05.png`")
    keys: Literal["member", "tar/member"] = Field(
        "member", description="key of a sample: its own name, or with the tar's before it where names start again in every tar")

    @classmethod
    def look_at(cls, place: Place) -> Found | None:
        """Tars; compressed ones are refused."""
        is_compressed = place.text.lower().endswith(COMPRESSED_SUFFIXES)
        return look_at_tars(place.text) if place.holds(".tar") or (is_compressed and not place.path.is_dir()) else None

    def open(self, *, shard_size: int) -> "WebDataset":
        """Open the tars; a tar is a shard, whatever `shard_size` says."""
        return WebDataset(self)

    def describe_keys(self) -> str:
        """What to do where many samples have the same key."""
        return "Set source.keys to tar/member" if self.keys == "member" else super().describe_keys()


class BadSample(Exception):
    """A sample that cannot be used; caught row by row.

    Attributes:
        reason: `missing`, `too large` or `unreadable`.
    """

    def __init__(self, reason: str, error: str) -> None:
        """Keep both."""
        super().__init__(error)
        self.reason = reason


class WebDataset:
    """Tars as a source; a tar is a shard, keys are the samples' own names, or those of tar and sample."""

    def __init__(self, config: WebDatasetSource) -> None:
        """Nothing is opened before the shards are listed or read."""
        self.config = config
        self.path, self.caption_member = config.path, config.caption_member.lower()
        self.caption_field = config.caption_member[len(FIELD_PREFIX):] if self.caption_member.startswith(FIELD_PREFIX) else None
        self.image_member = None if config.image_member is None else config.image_member.lower()
        self.root, self.pattern = split_path(config.path)

    @cached_property
    def files(self) -> Sequence[str]:
        """The tars, relative to the source's folder, in the order in which they are read.

        Raises:
            SourceError: no tar, one that is missing, or a compressed one.
        """
        compressed = [self.pattern] if self.pattern.lower().endswith(COMPRESSED_SUFFIXES) else []
        if not self.pattern:
            compressed = [name for name in list_visible(self.root) if name.lower().endswith(COMPRESSED_SUFFIXES)]
        if compressed:
            raise SourceError(f"{self.root / compressed[0]}: a compressed tar; images hardly shrink, and a plain tar can be read at any place: "
                              f"unpack it to .tar, with gunzip for example ({len(compressed)} such file(s))")
        return list_files(self.path, suffix=".tar")

    @cached_property
    def _shards(self) -> list[Shard]:
        self.refuse_if_none_is_a_tar()
        return [Shard(shard_name(number), self._fingerprint(file, digest), number, number + 1, None, file)
                for number, (file, digest) in enumerate(zip(self.files, digest_files(self.root, self.files), strict=True))]

    def refuse_if_none_is_a_tar(self) -> None:
        """Look at the first header of each file until one is a tar's; a few that are none become rows when they are read."""
        problem = ""
        for name in self.files:
            with (self.root / name).open("rb") as file:
                found = refuse_start(file)
            if not found:
                return
            problem = problem or f"{name} {found}"
        raise SourceError(f"{self.path}: no file can be read as a tar; {problem}")

    def _fingerprint(self, file: str, sha256: str) -> str:
        settings = {name: value for name, value in (("name_until", self.config.name_until), ("keys", self.config.keys))
                    if value != WebDatasetSource.model_fields[name].default}  # indexes of versions without them stay as they are
        return sha256_json({"source": "webdataset", "file": plain_text(file), "size_bytes": (self.root / file).stat().st_size, "sha256": sha256,
                            "caption_member": self.caption_member, "image_member": self.image_member, **settings})

    def fingerprint(self) -> str:
        """Digest of every tar's path below the source's folder, size and content, and of which members count."""
        return digest_shards(self._shards)

    def shards(self) -> Sequence[Shard]:
        """A shard per tar, in the order of their paths (or of the braces).

        Raises:
            SourceError: no tar, one that is missing or cannot be read, or a compressed one.
        """
        return self._shards

    def read(self, shard: Shard, *, keys: Collection[str] | None = None) -> Iterator[SourceItem]:
        """Read the samples of a tar, each at the place of its first member; what follows a cut is one row at the end."""
        path = self.root / shard.file
        name = plain_text(shard.file)
        try:
            with path.open("rb") as file:
                contents = list_members(file, os.fstat(file.fileno()).st_size)
                samples, lost = self.group(contents, name)
                for sample in samples:
                    if keys is None or sample.key in keys:
                        yield from self._read_sample(file.fileno(), sample, name)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
        key = f"{name}#truncated"
        if contents.damage and (keys is None or key in keys):
            which = f"sample {lost} and whatever followed it" if lost else "whatever followed"
            yield SourceItem(key, key, None, None, "unreadable", f"tar {name} {plain_text(contents.damage)}; {which} is lost")
        if keys is None:
            refuse_changed(shard, self._fingerprint(shard.file, digest_file(path)))

    def look_ahead(self, *, needs_captions: bool) -> None:
        """Look at the names in the first tars, and into their first samples; see `refuse_tars`."""
        self.refuse_if_none_is_a_tar()
        refuse_tars(self, needs_captions=needs_captions)

    def group(self, contents: TarContents, tar: str) -> tuple[list[Sample], str | None]:
        """The samples of a tar in the order of their first members, and the key of one that a cut took with it."""
        at_last, prefix = self.config.name_until == "last_dot", f"{tar}/" if self.config.keys == "tar/member" else ""
        return group_members(contents, at_last=at_last, prefix=prefix)

    def notes(self) -> list[str]:
        """Nothing: what a tar holds is a sample, or an input that says what is wrong."""
        return []

    def labels(self, categories: Collection[str]) -> list[SourceLabel]:
        """None: tars bring no labels."""
        return []

    def _read_sample(self, handle: int, sample: Sample, tar: str) -> Iterator[SourceItem]:
        """One item, or as many as a member's name occurs: none of those can be trusted."""
        members = dict(sample.members)
        if len(members) < len(sample.members):
            suffix, count = Counter(suffix for suffix, _ in sample.members).most_common(1)[0]
            twice = next(plain_text(member.name) for name, member in sample.members if name == suffix)
            error = f"sample {sample.key} of {tar} has {count} members named {twice}"
            yield from [SourceItem(sample.key, sample.key, None, None, "unreadable", error)] * count
            return
        captions, metadata = Captions(None), None
        try:
            check_members(members, tar)
            metadata, fields = read_json_member(handle, members.get(JSON_SUFFIX), tar)
            captions = self._read_captions(handle, members, fields, sample.key)
            image = read_member(handle, self._choose_image(handle, members, sample.key, tar), MAX_IMAGE_BYTES, tar)
        except BadSample as problem:
            yield SourceItem(sample.key, sample.key, None, captions.first, problem.reason, str(problem), metadata, captions.several)
            return
        reason = CAPTION if captions.error else ""
        yield SourceItem(sample.key, sample.key, image, captions.first, reason, captions.error, metadata, captions.several)

    def _read_captions(self, handle: int, members: Mapping[str, Member], fields: Any, key: str) -> Captions:
        """The captions as they stand: a member holds one, a field of the JSON member one or a list."""
        if self.caption_field is not None:
            return check_captions(fields.get(self.caption_field) if isinstance(fields, dict) else None, key)
        member = members.get(self.caption_member)
        if member is not None and member.size > MAX_TEXT_BYTES:
            return Captions(None, (), f"caption of {key} is too large: {member.size} bytes, at most {MAX_TEXT_BYTES} are read")
        return decode_captions(None if member is None else os.pread(handle, member.size, member.offset), key)

    def _choose_image(self, handle: int, members: Mapping[str, Member], key: str, tar: str) -> Member:
        """The member that is the image: the one the recipe names, or the only one that is called or looks like one.

        Raises:
            BadSample: there is none, or more than one.
        """
        found = [member for suffix, member in members.items() if self.is_image(handle, suffix, member)]
        if len(found) == 1:
            return found[0]
        if found:
            raise BadSample("unreadable", f"sample {key} of {tar} has {len(found)} images ({name_members(found)}). {self.hint_crowded()}")
        raise BadSample("missing", f"sample {key} of {tar} has no image (found {name_members(list(members.values()))})")

    def is_image(self, handle: int, suffix: str, member: Member) -> bool:
        """Whether a member is the image that the recipe names or, where it names none, is called or looks like an image."""
        if self.image_member is not None:
            return suffix == self.image_member
        if suffix in (JSON_SUFFIX, self.caption_member):
            return False
        return f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES or looks_like_image(os.pread(handle, min(member.size, HEAD_BYTES),
                                                                                              member.offset))

    @property
    def caption_place(self) -> str:
        """The suffix of the captions' member, in small letters, or `json:` and the field."""
        return self.caption_member if self.caption_field is None else f"{FIELD_PREFIX}{self.caption_field}"

    def names_image(self, sample: Sample) -> bool:
        """Whether a sample has a member that is called as images are; no content is looked at."""
        suffixes = [suffix for suffix, _ in sample.members]
        return self.image_member in suffixes or any(f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES for suffix in suffixes)

    def hint_crowded(self) -> str:
        """What to do where a sample has several images."""
        if self.config.name_until == "last_dot":
            return "Name one with source.image_member"
        return ("The name of a sample ends at its first dot: if these are samples of their own, set source.name_until to last_dot; "
                "if they are images of one sample, name one with source.image_member")


def group_members(contents: TarContents, *, at_last: bool = False, prefix: str = "") -> tuple[list[Sample], str | None]:
    """The samples of a tar in the order of their first members, and the key of one that a cut took with it.

    Args:
        contents: the members.
        at_last: whether names end at their last dot.
        prefix: what stands before each name in its key.
    """
    groups: dict[str, list[tuple[str, Member]]] = {}
    for member in contents.members:
        if not is_hidden(member.name):
            stem, suffix = split_name(member.name, at_last=at_last)
            groups.setdefault(stem, []).append((suffix, member))
    lost = None
    if contents.cut is not None and not is_hidden(contents.cut.name):
        lost = split_name(contents.cut.name, at_last=at_last)[0]
        groups.pop(lost, None)
    samples = [Sample(prefix + plain_text(stem), members) for stem, members in groups.items()]
    usual = len(samples[-2].members) if len(samples) > 1 else 2  # of the sample before the last; an image and a caption at least
    if contents.cut is None and not contents.has_end_mark and samples and len(samples[-1].members) < usual:
        return samples[:-1], samples[-1].key  # the cut lies between its members
    return samples, None if lost is None else prefix + plain_text(lost)


def split_name(name: str, *, at_last: bool = False) -> tuple[str, str]:
    """`a/b.seg.PNG` as `a/b` and `seg.png`, or at its last dot as `a/b.seg` and `png`."""
    folder, slash, base = name.rpartition("/")
    if at_last and "." in base:
        stem, _, suffix = base.rpartition(".")
    else:
        stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()


def name_members(members: Sequence[Member]) -> str:
    """The names of some members, for a message."""
    return ", ".join(plain_text(member.name) for member in members[:MOST_NAMED]) + (", ..." if len(members) > MOST_NAMED else "")


def is_hidden(name: str) -> bool:
    """Whether a part of a path is none of the data: it starts with a dot, as companion files do, or some system has left it behind."""
    return any(is_left_out(part) and part != ".." for part in name.split("/"))


def check_members(members: Mapping[str, Member], tar: str) -> None:
    """Refuse a sample with a member that is no plain file of the archive.

    Raises:
        BadSample: there is one.
    """
    for member in members.values():
        if member.problem:
            raise BadSample("unreadable", f"member {plain_text(member.name)} of {tar} {member.problem}")


def read_member(handle: int, member: Member, max_bytes: int, tar: str) -> bytes:
    """The content of a member.

    Raises:
        BadSample: it is too large or ends early.
    """
    name = plain_text(member.name)
    if member.size > max_bytes:
        raise BadSample("too large", f"member {name} of {tar} is too large: {member.size} bytes, at most {max_bytes} are read")
    data = os.pread(handle, member.size, member.offset)
    if len(data) != member.size:
        raise BadSample("unreadable", f"member {name} of {tar} ends after {len(data)} of {member.size} bytes")
    return data


def read_json_member(handle: int, member: Member | None, tar: str) -> tuple[str | None, Any]:
    """The text of a JSON member as it stands, and its value.

    Raises:
        BadSample: it is too large or not JSON.
    """
    if member is None:
        return None, None
    data = read_member(handle, member, MAX_TEXT_BYTES, tar)
    try:
        text = decode_text(data)
        return text, read_json_text(text)
    except NotTextError as error:
        raise BadSample("unreadable", f"member {plain_text(member.name)} of {tar} {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadSample("unreadable", f"member {plain_text(member.name)} of {tar} is not JSON: {one_line(error)}") from error


def looks_like_image(head: bytes) -> bool:
    """Whether the first 16 bytes are those of a JPEG, PNG, GIF, WebP, TIFF, BMP, JPEG 2000 or AVIF file."""
    return (head.startswith(MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or (head[:2] == b"BM" and head[6:10] == bytes(4))
            or head[4:12] in (b"ftypavif", b"ftypavis", b"ftypmif1"))


def look_at_tars(images: str) -> Found:
    """Tars: where names start again in every tar, have dots in them, or captions stand elsewhere, the settings say so."""
    source = WebDatasetSource(path=images)
    opened = WebDataset(source)
    opened.refuse_if_none_is_a_tar()
    survey = survey_tars(opened)
    dotted = survey.dotted
    if survey.num_dotted * 2 > survey.num_samples:
        source = source.model_copy(update={"name_until": "last_dot"})
        survey = survey_tars(WebDataset(source))
    if survey.repeated:
        source = source.model_copy(update={"keys": "tar/member"})
    member = choose_member(survey)
    source = source.model_copy(update={} if member is None else {"caption_member": member})
    if survey.num_crowded * 2 > survey.num_samples:
        source = source.model_copy(update={"image_member": survey.images.most_common(1)[0][0]})
    told = [f"{images}: {count(survey.num_tars, 'tar')}; of the first {survey.num_samples} samples "
            f"{survey.num_samples - survey.num_without_image} have an image"]
    if member is None:
        told.append(f"and none has a caption that is known by its name (there are {survey.describe_members()})")
    else:
        told.append(f"and {number_of_captions(survey, member)} have a caption ({member})")
    notes = [(source.name_until == "last_dot", f"names have dots in them, so that they end at the last ({dotted})"),
             (source.keys == "tar/member", f"names start again in every tar ({survey.repeated.rpartition('/')[2]}), so that keys name the "
                                           f"tar too"),
             (source.image_member is not None, f"samples have several images ({', '.join(sorted(survey.images))}), of which "
                                               f"{source.image_member} is taken")]
    return Found(source, member is not None, "; ".join([" ".join(told), *(note for holds, note in notes if holds)]))


def choose_member(survey: TarSurvey) -> str | None:
    """Where most of the samples have their captions; None: nothing is called as captions are."""
    members = [name for name in CAPTION_SUFFIXES if survey.captioned[name]]
    name = choose([place.removeprefix(FIELD_PREFIX) for place in survey.captioned if place.startswith(FIELD_PREFIX)], CAPTION_COLUMNS)
    fields = [] if name is None else [f"{FIELD_PREFIX}{name}"]
    return max([*members, *fields], key=lambda member: number_of_captions(survey, member), default=None)


def number_of_captions(survey: TarSurvey, member: str) -> int:
    """How many of the samples that were looked into have such a member, or such a field."""
    return survey.captioned[member]
