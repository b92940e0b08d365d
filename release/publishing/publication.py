"""What a publication would change, worked out before anything is done, from the release and from what the target shows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ...errors import ReleaseError, VerificationError
from ...store.digests import sha256_bytes
from ...store.file_lists import MANIFEST_NAME
from ...store.protected_places import refuse_in_release
from ...trust.release_manifest import UNLISTED, ReleaseManifest
from ...trust.status import SignedStatus
from ...trust.unlisted_files import KEPT_FILES
from .directory_target import DirectoryTarget
from .hub_target import HubTarget
from .patience import Patience, PatientTarget
from .statuses import read_status
from .targets import Gated, LocalFile, LocalRelease, Target, TargetFile, TargetState

TAG_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
REPOSITORY_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Options:
    """How to publish.

    Attributes:
        tag: name of the published state; none: `root-` and the first 16 digits of the release's root.
        gated: who may download: "auto" (who shares their contact), "manual" (who is let in), "no" (everybody); none leaves it.
        is_private: whether only members see the repository; none leaves it, and a new repository stays private.
        replace_foreign: also replace or remove files of main that no release put there, or that were edited since.
    """

    tag: str | None = None
    gated: Gated | None = None
    is_private: bool | None = None
    replace_foreign: bool = False


@dataclass(frozen=True)
class Changes:
    """How a target's shown files change: relative POSIX path -> size in bytes, of the new file or of the one removed."""

    added: Mapping[str, int]
    changed: Mapping[str, int]
    removed: Mapping[str, int]
    unchanged: Mapping[str, int]

    @classmethod
    def between(cls, shown: Mapping[str, TargetFile], wanted: Mapping[str, LocalFile]) -> "Changes":
        """What turns the files that are shown into those that are wanted; what a target keeps beside stays."""
        old = {path: file for path, file in shown.items() if path not in KEPT_FILES}
        same = {path for path in old.keys() & wanted.keys() if old[path].holds(wanted[path])}
        return cls(added={path: file.size_bytes for path, file in wanted.items() if path not in old},
                   changed={path: file.size_bytes for path, file in wanted.items() if path in old and path not in same},
                   removed={path: file.size_bytes for path, file in old.items() if path not in wanted},
                   unchanged={path: file.size_bytes for path, file in wanted.items() if path in same})

    def to_json(self) -> dict[str, dict[str, int]]:
        """The changes as plain data."""
        return {"added": dict(self.added), "changed": dict(self.changed), "removed": dict(self.removed), "unchanged": dict(self.unchanged)}


@dataclass(frozen=True)
class Plan:
    """A publication, worked out but not begun.

    Attributes:
        identity: who publishes where: account, endpoint and target, as far as the target has them.
        release: what is published.
        options: how.
        tag: its name on the target.
        state: what the target showed when this was worked out.
        changes: how the shown files change.
        foreign: files of main that no release put there, or that were edited since, and that would be lost.
        has_access: whether the target says who may see and download.
    """

    identity: Mapping[str, str]
    release: LocalRelease
    options: Options
    tag: str
    state: TargetState
    changes: Changes
    foreign: tuple[str, ...]
    has_access: bool = True

    @property
    def branch(self) -> str:
        """Where the new state is put together."""
        return f"staging/{self.release.root[:16]}"

    @property
    def is_promoted(self) -> bool:
        """Whether the target showed this very release already."""
        return self.release.is_shown_by(self.state.files)

    @property
    def access(self) -> dict[str, str]:
        """What changes about who may see and download: "from -> to" by name; nothing where the target does not say it."""
        if not self.has_access:
            return {}
        now = "private" if self.state.is_private else "public"
        changes = {}
        if not self.state.exists and self.state.is_private is None:
            now = "new"
        if self.options.is_private is not None and self.options.is_private != self.state.is_private:
            changes["visibility"] = f"{now} -> {'private' if self.options.is_private else 'public'}"
        elif now == "new":
            changes["visibility"] = "new -> private"
        if self.options.gated is not None and self.options.gated != (self.state.gated or "no"):
            changes["gated"] = f"{self.state.gated or 'no'} -> {self.options.gated}"
        return changes

    def to_json(self) -> dict[str, object]:
        """The plan as plain data."""
        return {**self.identity, "release": str(self.release.directory), "root": self.release.root, "tag": self.tag,
                "is_published": self.is_promoted and self.tag in self.state.tags, "access": self.access, "foreign": list(self.foreign),
                "changes": self.changes.to_json()}


def path_of_url(url: str) -> Path:
    """The path that a `file://` address names, with its `%20` and the like read.

    Raises:
        ReleaseError: it names another machine, or no path from the root.
    """
    split = urlsplit(url, allow_fragments=False)
    if split.netloc not in ("", "localhost") or not split.path.startswith("/") or split.query:
        raise ReleaseError(f"{url!r}: expected an address of this machine, such as file:///mnt/usb or file:///mnt/my%20disk; or give the path "
                           "itself, such as ./published")
    return Path(url2pathname(split.path))


def open_target(name: str, *, endpoint: str | None = None, token: str | None = None) -> Target:
    """The target that a name means: `org/name` on the Hub, or a directory (`file://…`, or a path that starts with `/`, `.` or `~`).

    Raises:
        ReleaseError: neither of these, or an address that a token must not be sent to.
    """
    if name.startswith("file://"):
        return DirectoryTarget(path_of_url(name))
    if name.startswith(("/", ".", "~")):
        return DirectoryTarget(Path(name).expanduser())
    if REPOSITORY_PATTERN.fullmatch(name):
        return HubTarget(name, endpoint=endpoint, token=token)
    raise ReleaseError(f"{name!r} is no target; expected a repository such as org/name, or a directory such as ./published or file:///mnt/usb")


def plan_publication(release_dir: Path, target: Target, options: Options, *, patience: Patience | None = None) -> Plan:
    """Work out what publishing a release would do; nothing is changed.

    Args:
        release_dir: the release.
        target: where to.
        options: how.
        patience: how often to ask again.

    Returns:
        The plan, to be shown and then carried out.

    Raises:
        ReleaseError: the account may not, the tag names another release, the release was withdrawn there, main holds files that
            no release put there, or the target is a directory in a release.
        VerificationError: the release's manifest is missing or malformed, or the target's status is.
    """
    release = LocalRelease.read(release_dir)
    release.opened.refuse_download()
    check_files(release)
    tag = options.tag or f"root-{release.root[:16]}"
    if not TAG_PATTERN.fullmatch(tag):
        raise ReleaseError(f"{tag!r} cannot be a tag; expected letters, digits, dots, dashes and underscores, for example v1.0.0")
    if not target.has_access and (options.gated is not None or options.is_private is not None):
        raise ReleaseError(f"{target.name}: a directory is neither private nor gated; leave these options out")
    if isinstance(target, DirectoryTarget):
        refuse_in_release(target.directory, release_dir)
    target = PatientTarget(target, patience or Patience())
    identity = target.identify()
    state = target.read_state()
    status = read_status(target, state)
    refuse_withdrawn(target, status, release.root)
    if tag in state.tags and not release.is_shown_by(target.list_files(state.tags[tag])):
        raise ReleaseError(f"{target.name}: the tag {tag} names another release already, and tags are never moved; choose another one "
                           "with --tag")
    foreign = refuse_foreign(target, state, release, replace_foreign=options.replace_foreign)
    return Plan(identity, release, options, tag, state, Changes.between(state.files, release.files), foreign, target.has_access)


def check_files(release: LocalRelease) -> None:
    """Refuse a directory whose files are not exactly those of its manifest, hash by hash.

    Raises:
        VerificationError: a file is changed, missing or not listed.
    """
    problems = release.opened.differences()
    if problems:
        raise VerificationError(f"release {release.directory}", problems)


def refuse_withdrawn(target: Target, status: SignedStatus | None, root: str) -> None:
    """Refuse to show a release that was taken back.

    Raises:
        ReleaseError: the target's status says so.
    """
    release = None if status is None else status.status.find(root)
    if release is not None and release.state == "withdrawn":
        raise ReleaseError(f"{target.name}: the release of root {root[:16]}… was withdrawn ({release.reason}); publish another one")


def refuse_foreign(target: Target, state: TargetState, release: LocalRelease, *, replace_foreign: bool) -> tuple[str, ...]:
    """The files of main that no release put there, or that were edited since, and that showing a release would lose.

    Raises:
        ReleaseError: there are such files, and they may not be replaced.
    """
    foreign = () if release.is_shown_by(state.files) else tuple(find_foreign(target, state, release.files))
    if foreign and not replace_foreign:
        raise ReleaseError(f"{target.name}: main holds files that no release put there or that were edited since, and that would be lost: "
                           f"{', '.join(foreign)}; keep what you need of them, then add --replace-foreign")
    return foreign


def find_foreign(target: Target, state: TargetState, wanted: Mapping[str, LocalFile]) -> list[str]:
    """Files that are shown, are not the wanted ones, and are not as an earlier release put them there."""
    if state.main is None:
        return []
    data = target.read_file(state.main, MANIFEST_NAME) if MANIFEST_NAME in state.files else None
    try:
        listed = {} if data is None else {entry.path: entry for entry in ReleaseManifest.from_bytes(data).files}
    except VerificationError:
        data, listed = None, {}
    own = UNLISTED if data is not None else frozenset()
    foreign = []
    for path, file in sorted(state.files.items()):
        if path in KEPT_FILES or path in own or (path in wanted and file.holds(wanted[path])):
            continue
        entry = listed.get(path)
        if entry is None or not is_as_listed(target, state.main, path, file, LocalFile(Path(path), entry.size_bytes, entry.sha256)):
            foreign.append(path)
    return foreign


def is_as_listed(target: Target, revision: str, path: str, file: TargetFile, listed: LocalFile) -> bool:
    """Whether a shown file is as an earlier manifest lists it; a small one whose SHA-256 is not known is read."""
    if file.sha256 is not None or file.size_bytes != listed.size_bytes:
        return file.sha256 == listed.sha256 and file.size_bytes == listed.size_bytes
    data = target.read_file(revision, path)
    return data is not None and sha256_bytes(data) == listed.sha256
