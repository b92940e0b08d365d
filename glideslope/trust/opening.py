"""The one door to a release: loading, verifying, checking, printing a card, exporting and publishing open it here.

The order is the point. First the manifest's bytes are read, once, and parsed strictly; signature, lock file and status are about
these bytes. Then the list of files is closed: what is not listed does not belong here, wherever the release came from: a plain copy,
the Hub's cache with its links to blobs, a folder that its client was given, a git clone. Then come the digests of everything that
will be read, and only then are configurations parsed and weights loaded, from bytes that are hashed again as they are read.

What this guards: every byte that is parsed or computed with is one that the manifest lists, even when files are exchanged
between the check and the loading. What it does not guard: a manifest that somebody else wrote and nobody signed (pin it with a
lock file, or ask for a signer), programs on this machine that write into this one's memory, and the model's behaviour.
"""

import contextlib
import importlib.util
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from ..errors import DownloadError, ReleaseError, RequestError, VerificationError
from ..recipe.components import INDEX_NAME
from ..store.digests import sha256_bytes
from ..store.file_lists import MANIFEST_NAME, FileEntry, compare_files, find_differences
from ..store.strict_json import read_bounded
from .checked_bytes import MAX_CONFIG_BYTES, Digests
from .currency import STALE, Asked, refuse_by_status
from .hashed_files import Hashed, hash_files
from .hub import HubOptions, Snapshot, resolve
from .lock import ReleaseLock
from .release_manifest import SIGNATURE_NAME, UNLISTED, ReleaseManifest
from .signatures import GUARDS, Signers, is_of_signature, verify_guards
from .signers import Keys, SignerRule
from .status import MAX_STATUS_BYTES, STATUS_NAME, SignedStatus
from .unlisted_files import BESIDE, find_misplaced, find_misuse, list_release, may_lie_beside

FIRST_FILES = {**GUARDS, STATUS_NAME: MAX_STATUS_BYTES, INDEX_NAME: MAX_CONFIG_BYTES}  # fetched at once, and each at most so large
MAX_SHOWN = 20
VERIFY = ("auto", "required", "off")
STATUS = ("current", "of any age", "ignored")

logger = logging.getLogger("glideslope.loading")


@dataclass(frozen=True)
class Trust:
    """What a release must show before it is loaded.

    Attributes:
        verify: `auto` checks everything against the manifest if there is one; `required` refuses a release without; `off` does not look.
        signer: who must have signed: key id or path of a public key, several of them (all must have signed then), or a `SignerRule`;
            none asks for nobody.
        lock: a lock file: written when it is not there, else enforced.
        allow_withdrawn: load what its publisher has taken back.
        unsafe_stale_status: load though no status of the repository counts: it is missing, has expired, cannot be looked up, or is
            malformed or by another key. Nothing then shows that the release was not withdrawn or replaced.
        status: which status lets a release in. `current`: one that has not expired. `of any age`: for who reads evidence, which is as
            true as before. `ignored`: for who publishes, and writes the next status.
        ignores_signature: look at the release as if nobody had signed it yet; for who signs it.
    """

    verify: Literal["auto", "required", "off"] = "auto"
    signer: Keys | None = None
    lock: str | Path | None = None
    allow_withdrawn: bool = False
    unsafe_stale_status: bool = False
    status: Literal["current", "of any age", "ignored"] = "current"
    ignores_signature: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.verify not in VERIFY:
            raise RequestError(f"verify is {self.verify!r}; expected 'auto', 'required' or 'off'")
        if self.status not in STATUS:
            raise RequestError(f"status is {self.status!r}; expected {', '.join(map(repr, STATUS))}")
        asked = [name for name, value in (("signer", self.signer), ("lock", self.lock)) if value is not None]
        if self.verify == "off" and asked:
            raise RequestError(f"verify is 'off', but {asked[0]} asks for verification; give one of the two")

    @cached_property
    def rule(self) -> SignerRule | None:
        """Who must have signed, as one rule.

        Raises:
            ReleaseError: `signer` is no key.
        """
        return None if self.signer is None else SignerRule.of(self.signer)

    @property
    def needs_manifest(self) -> bool:
        """Whether a release without a manifest is refused."""
        return self.verify == "required" or self.signer is not None or self.lock is not None


@dataclass(frozen=True)
class OpenRelease:
    """A release whose manifest, signature, lock file and status were checked; see `open_release`.

    Attributes:
        snapshot: where it lies.
        trust: what was asked of it.
        guards: the content of manifest and signature, of those that are there; each is read once.
        manifest: its manifest; `None` when there is none, or when nobody looks at it.
        signers: who signed that manifest; `None` when nobody did, or when the signature could not be checked and nobody asked for it.
        status: what its repository says of its releases; `None` when it says nothing.
    """

    snapshot: Snapshot
    trust: Trust
    guards: Mapping[str, bytes] = field(default_factory=dict)
    manifest: ReleaseManifest | None = None
    signers: Signers | None = None
    status: SignedStatus | None = None

    @property
    def directory(self) -> Path:
        """The folder that holds its files, and what a hub, its client or git put beside them."""
        return self.snapshot.path

    @property
    def root(self) -> str | None:
        """The manifest's root, which stands for every file, or none without a manifest."""
        return None if self.manifest is None else self.manifest.root

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The keys that signed, as far as that was checked."""
        return () if self.signers is None else self.signers.key_ids

    @property
    def manifest_sha256(self) -> str | None:
        """Hex digest of manifest.json; `None` without one, or when nobody looks at it."""
        return None if self.manifest is None else sha256_bytes(self.guards[MANIFEST_NAME])

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Relative POSIX paths of the release's own files, sorted: of all that lie in its folder but those that may lie beside it.

        Raises:
            VerificationError: something there is no plain file, a link that leads out, or a Git LFS pointer; or a file beside the
                release holds something else than its writer puts into it.
        """
        present = self._list_present()
        self._refuse(self._find_odd(present))
        return tuple(path for path in present if not may_lie_beside(path))

    @property
    def beside(self) -> list[str]:
        """What a hub, its client, git or a publisher put beside the release: names in its folder."""
        return [name for name in BESIDE if os.path.lexists(self.directory / name)]

    def refuse_download(self) -> None:
        """Refuse a folder that came from a hub where the one that was packed is needed, as everything in it is given on.

        Raises:
            ReleaseError: something lies beside the release.
        """
        if self.beside:
            raise ReleaseError(f"release {self.directory}: {', '.join(self.beside)} belongs to the target, not to a release: this is a "
                               "download; give the directory that `glideslope pack` wrote")

    @cached_property
    def hashed(self) -> dict[str, Hashed]:
        """Relative path -> digests, of each of the release's own files; each is read once."""
        return hash_files(self.directory, self.paths)

    def differences(self) -> list[str]:
        """Hash the release's own files and compare them with its manifest: one sentence for each that is changed, missing or not listed."""
        return find_differences(self.listed.values(), self.directory, [path for path in self.paths if path not in UNLISTED])

    @property
    def digests(self) -> Digests | None:
        """What the manifest says of each file, by path on this machine; none without a manifest."""
        return None if self.manifest is None else {self.directory / entry.path: entry for entry in self.listed.values()}

    def describe(self) -> str:
        """One line for people: what was opened, its root, its signer."""
        if self.root is None:
            return f"{self.snapshot.name}: not verified"
        signed = "not signed" if self.signers is None else f"signed by {self.signers}"
        if self.signers is None and SIGNATURE_NAME in self.guards:
            signed = "its signature was not checked, as the extra `sign` is not installed"
        return f"{self.snapshot.name}: manifest root {self.root}, {signed}"

    @property
    def index(self) -> Path:
        """Where the list of components lies, which is fetched with the manifest; whoever reads it holds it against `digests`."""
        return self.directory / INDEX_NAME

    def prepare(self, needed: Collection[str]) -> Digests | None:
        """Fetch what loading reads, and verify it; what else of the release lies here is verified with it.

        Args:
            needed: relative paths of what loading reads.

        Returns:
            The digests that the loader must hold every byte against, or none when nothing is verified.

        Raises:
            DownloadError: files that the Hub does not give.
            VerificationError: files that are missing, changed, or not listed.
            StorageError: the lock file cannot be written.
        """
        self._check_listing(needed)
        _fetch(self.snapshot, needed)
        if self.manifest is not None:
            self._refuse(self._find_problems(needed))
            self._lock()
        logger.info("%s", self.describe())
        return self.digests

    def _lock(self) -> None:
        if self.trust.lock is None or self.root is None:
            return
        number, digest = (None, None) if self.status is None else (self.status.status.number, self.status.status.sha256)
        ReleaseLock(self.snapshot.repo, self.snapshot.sha, self.root, self.key_ids, number, digest).settle(Path(self.trust.lock))

    @cached_property
    def listed(self) -> Mapping[str, FileEntry]:
        """What the manifest says of each file, by relative path; nothing without a manifest."""
        return {} if self.manifest is None else {entry.path: entry for entry in self.manifest.files}

    @property
    def names(self) -> list[str]:
        """Every file of the release, as far as anybody says."""
        if self.manifest is not None:
            return list(self.listed)
        if self.snapshot.listing is not None:
            return list(self.snapshot.listing)
        return list_release(self.directory)

    def _check_listing(self, needed: Collection[str]) -> None:
        """Refuse, before anything large is fetched, a commit that does not hold exactly what the manifest lists."""
        listing = self.snapshot.listing
        if listing is None or self.manifest is None:
            return
        listed = {path: file for path, file in listing.items() if path in self.listed or not _may_lie_there(path)}
        problems = compare_files(self.listed.values(), listed)
        problems += [f"{path}: file is missing" for path in needed if path not in self.listed]
        self._refuse(problems)

    def _find_problems(self, needed: Collection[str]) -> list[str]:
        """Look at every file that lies here: those listed must be whole, others may not be there."""
        present = set(self._list_present())
        looked_at = [entry for path, entry in self.listed.items() if path in present or path in needed]
        problems = self._find_odd(present) + [f"{path}: file is missing" for path in needed if path not in self.listed]
        problems += find_differences(looked_at, self.directory, [path for path in present if path in self.listed or not _may_lie_there(path)])
        return [problem + remedy_for(self.snapshot, problem.split(":", maxsplit=1)[0], self.listed) for problem in problems]

    def _list_present(self) -> list[str]:
        """Everything that lies here but git's own and, where the signature is ignored, what belongs to one."""
        paths = list_release(self.directory)
        return [path for path in paths if not is_of_signature(path)] if self.trust.ignores_signature else paths

    def _find_odd(self, present: Collection[str]) -> list[str]:
        """What no manifest needs to be asked of: links that lead out, pointers, and files beside the release that are not what they may be."""
        return find_misplaced(self.directory, sorted(present)) + find_misuse(self.directory, sorted(set(present) - set(self.listed)))

    def _refuse(self, problems: list[str]) -> None:
        if problems:
            more = [f"and {len(problems) - MAX_SHOWN} more"] if len(problems) > MAX_SHOWN else []
            raise VerificationError(self.snapshot.name, [*problems[:MAX_SHOWN], *more])


def open_release(place: str | Path | Snapshot, trust: Trust | None = None, *, revision: str | None = None,
                 options: HubOptions | None = None) -> OpenRelease:
    """Find a release, fetch and check what says which one it is; nothing of the model is read yet.

    Args:
        place: a directory, or `org/name` on the Hub, or what `hub.resolve` found.
        trust: what it must show; `None` asks what `Trust()` asks.
        revision: branch, tag or commit on the Hub. With a lock file and without a revision, the commit that it pins is taken and no
            branch is looked up.
        options: how the Hub is asked.

    Raises:
        VerificationError: there is no manifest where one is needed; manifest, signature, lock file or status are malformed, or contradict
            what was asked for or one another; the release was withdrawn; or its directory holds what no release may.
        CheckpointError: there is no such directory.
        DownloadError: the Hub does not give these files.
        ReleaseError: a signature must be checked and `cryptography` is not installed, or `signer` is no key.
    """
    trust = trust or Trust()
    lock = None if trust.lock is None else ReleaseLock.read(Path(trust.lock))
    if revision is None and lock is not None and isinstance(place, str) and place == lock.repo and not Path(place).expanduser().is_dir():
        revision = lock.sha
    snapshot = place if isinstance(place, Snapshot) else resolve(place, revision, options)
    if lock is not None and trust.lock is not None:
        lock.check_place(snapshot.repo, snapshot.sha, Path(trust.lock))
    _refuse_large(snapshot, FIRST_FILES)
    _fetch(snapshot, FIRST_FILES)
    opened = OpenRelease(snapshot, trust, _read_guards(snapshot, trust))
    if snapshot.repo is None and trust.verify != "off":
        _ = opened.paths  # closes the list of files before anything is parsed
    if MANIFEST_NAME in opened.guards and trust.verify != "off":
        with named(snapshot, MANIFEST_NAME):
            opened = replace(opened, manifest=ReleaseManifest.from_bytes(opened.guards[MANIFEST_NAME]))
        opened = replace(opened, signers=_check_signature(opened))
        if lock is not None and trust.lock is not None:
            lock.check_content(str(opened.root), opened.key_ids, Path(trust.lock))
    elif trust.needs_manifest:
        raise VerificationError(snapshot.name, [f"{MANIFEST_NAME} is missing, and verification is required"])
    elif trust.verify == "auto":
        logger.warning("%s: has no %s, so nothing of it is verified", snapshot.name, MANIFEST_NAME)
    return opened if trust.status == "ignored" else replace(opened, status=_check_status(opened, lock))


def remedy_for(snapshot: Snapshot, path: str, entries: Collection[str]) -> str:
    """What to do about a damaged file of the cache, which the client itself never fetches again; nothing for other files."""
    file = snapshot.path / path
    if snapshot.repo is None or path not in entries or not file.exists():
        return ""
    return f" (a damaged download? remove {file.resolve()} and {file}, then load again)"


@contextlib.contextmanager
def named(snapshot: Snapshot, path: str) -> Iterator[None]:
    """Let the refusal of a file name the release and the file, and say what to do about a damaged download."""
    try:
        yield
    except VerificationError as error:
        raise VerificationError(snapshot.name, [f"{path}: {'; '.join(error.problems)}{remedy_for(snapshot, path, (path,))}"]) from error


def _fetch(snapshot: Snapshot, paths: Collection[str]) -> None:
    """Bring files here, as far as the release has them, and refuse those that lie elsewhere."""
    fetched = snapshot.fetch(paths)
    problems = find_misplaced(snapshot.path, [path for path in fetched if os.path.lexists(snapshot.path / path)])
    if problems:
        raise VerificationError(snapshot.name, problems)


def _refuse_large(snapshot: Snapshot, limits: Mapping[str, int]) -> None:
    """Refuse a file that is larger than it may be before it is fetched."""
    for path, max_bytes in limits.items():
        listed = None if snapshot.listing is None else snapshot.listing.get(path)
        if listed is not None and (listed.size_bytes or 0) > max_bytes:
            raise VerificationError(snapshot.name, [f"{path}: {listed.size_bytes} bytes, at most {max_bytes} are read; it was not fetched"])


def _read_guards(snapshot: Snapshot, trust: Trust) -> dict[str, bytes]:
    """What guards the release, of those that are there, each read once; without the signature where that is ignored."""
    guards = {}
    for name, max_bytes in GUARDS.items():
        if os.path.lexists(snapshot.path / name) and not (trust.ignores_signature and name == SIGNATURE_NAME):
            guards[name] = read_bounded(snapshot.path / name, max_bytes)
    return guards


def _check_signature(opened: OpenRelease) -> Signers | None:
    """Who signed the very bytes that the manifest was parsed from; required where a signer, a lock file or verification is."""
    trust, name = opened.trust, opened.snapshot.name
    is_needed = trust.needs_manifest
    if SIGNATURE_NAME in opened.guards and not is_needed and importlib.util.find_spec("cryptography") is None:
        logger.warning("%s: its signature cannot be checked without the extra `sign`; whoever can change a release can remove its "
                       "signature too, so give signer= or lock= to rely on it", name)
        return None
    return verify_guards(opened.guards, trust.rule, name=name)


def _check_status(opened: OpenRelease, lock: ReleaseLock | None) -> SignedStatus | None:
    """Hold a release against its repository's status; see `refuse_by_status`."""
    snapshot, trust = opened.snapshot, opened.trust
    keys = trust.rule.keys if trust.rule is not None else lock.signers if lock is not None and lock.signers else opened.key_ids
    seen = _seen_statuses(snapshot, keys)
    is_offline = snapshot.is_offline or (lock is not None and lock.offline and snapshot.sha == lock.sha)
    last = max(seen, key=lambda one: one.status.number, default=None)
    found = last if is_offline else _newest_status(snapshot, trust, last)
    known = [(one.status.number, one.status.sha256) for one in seen]
    known += [] if lock is None or lock.status is None else [(lock.status, str(lock.status_sha256))]
    lowest = max((number for number, _ in known), default=None)
    root = opened.root if opened.root is not None or found is None else _root_of(opened)
    refuse_by_status(found, Asked(
        snapshot.name, root, snapshot.repo, snapshot.revision, is_pinned=is_offline or not snapshot.is_newest, keys=keys, lowest=lowest,
        seen=[digest for number, digest in known if number == lowest], needs_status=trust.rule is not None and snapshot.repo is not None,
        now=found.status.issued if found is not None and trust.status == "of any age" else datetime.now(UTC),
        allow_withdrawn=trust.allow_withdrawn, unsafe_stale_status=trust.unsafe_stale_status))
    return found


def _newest_status(snapshot: Snapshot, trust: Trust, last: SignedStatus | None) -> SignedStatus | None:
    """The status on the default branch as it is now; none when there is none; `last` where a stale one will do."""
    try:
        if snapshot.listing is None:
            raise DownloadError(f"{snapshot.repo}: the Hub was not reached")
        data = snapshot.fetch_from_default_branch(STATUS_NAME, MAX_STATUS_BYTES)
        return None if data is None else SignedStatus.from_bytes(data, where=f"{STATUS_NAME} of {snapshot.repo}")
    except (DownloadError, VerificationError) as error:
        if trust.unsafe_stale_status:
            logger.warning("%s: has no status that counts (%s); loaded all the same, as unsafe_stale_status asks", snapshot.name, error)
            return last
        if isinstance(error, VerificationError):
            raise VerificationError(f"{STATUS_NAME} of {snapshot.repo}", [*error.problems[:-1], f"{error.problems[-1]}; {STALE}"]) from error
        raise DownloadError(f"{snapshot.repo}: could not be asked whether this release was withdrawn or replaced ({error}); connect and load "
                            "again, or choose to go without: HF_HUB_OFFLINE=1 or local_files_only=True take what is in the cache") from error


def _seen_statuses(snapshot: Snapshot, keys: Collection[str]) -> list[SignedStatus]:
    """Every status in the cache, or in a directory; where keys are named, those that one of them signed."""
    found = []
    for data in snapshot.find_cached(STATUS_NAME, MAX_STATUS_BYTES):
        try:
            found.append(SignedStatus.from_bytes(data, where=f"{STATUS_NAME} in {snapshot.path}"))
        except VerificationError:
            if snapshot.repo is None:  # the one that there is
                raise
    if snapshot.repo is None:
        return found
    ours = [one for one in found if (one.status.repository or "").casefold() == snapshot.repo.casefold()]
    return [one for one in ours if not keys or set(one.key_ids) & set(keys)]


def _root_of(opened: OpenRelease) -> str | None:
    """The root that a manifest states when nobody verifies it."""
    return ReleaseManifest.from_bytes(opened.guards[MANIFEST_NAME]).root if MANIFEST_NAME in opened.guards else None


def _may_lie_there(path: str) -> bool:
    """Whether a file that no manifest lists may lie beside a release: what guards it, and what the Hub and its client add."""
    return path in UNLISTED or may_lie_beside(path)
