"""Opening a release: who signed it, whether it was withdrawn, whether it is the one that is pinned, whether each file is as listed.

The order is the point. First the manifest's bytes are read, once, and parsed strictly; signature, lock file and withdrawals are
about these bytes. Then the file list is closed: what is not listed does not belong here. Then come the digests of everything that
will be read, and only then are configurations parsed and weights loaded, from bytes that are hashed again as they are read.

What this guards: every byte that is parsed or computed with is one that the manifest lists, even when files are exchanged
between the check and the loading. What it does not guard: a manifest that somebody else wrote and nobody signed (pin it with a
lock file, or ask for a signer), programs on this machine that write into this one's memory, and the model's behaviour.
"""

import contextlib
import importlib.util
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from ...errors import DownloadError, RequestError, VerificationError
from ...recipe.components import COMPONENTS, INDEX_NAME, NETWORKS, OPTIONAL_NETWORKS, components_of
from ...store.digests import sha256_bytes
from ...store.file_lists import MANIFEST_NAME, FileEntry, compare_files, describe_unlisted, measure_files
from ...store.stage_manifest import Manifest
from ...store.strict_json import parse_object, read_bounded
from ...store.weight_files import VARIANTS, index_name, parse_weights_name
from ...trust.currency import STALE, Asked, refuse_by_status
from ...trust.hub import HubOptions, Snapshot, resolve
from ...trust.lock import ReleaseLock
from ...trust.release_manifest import RELEASE_FORMAT, SIGNATURE_NAME, UNLISTED, ReleaseManifest
from ...trust.signatures import GUARDS, Signers, verify_guards
from ...trust.signers import Keys, SignerRule
from ...trust.status import MAX_STATUS_BYTES, STATUS_NAME, SignedStatus
from ...trust.unlisted_files import find_misuse, list_release, may_lie_beside
from .components import MAX_CONFIG_BYTES, read_index
from .weights import Digests

FIRST_FILES = {**GUARDS, STATUS_NAME: MAX_STATUS_BYTES, INDEX_NAME: MAX_CONFIG_BYTES}
MAX_SHOWN = 20
VERIFY = ("auto", "required", "off")

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
    """

    verify: Literal["auto", "required", "off"] = "auto"
    signer: Keys | None = None
    lock: str | Path | None = None
    allow_withdrawn: bool = False
    unsafe_stale_status: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.verify not in VERIFY:
            raise RequestError(f"verify is {self.verify!r}; expected 'auto', 'required' or 'off'")
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
    """A release whose manifest, signature, lock and index were checked; see `open_release`.

    Attributes:
        snapshot: where it lies.
        trust: what was asked of it.
        manifest: its manifest; none when there is none, or when nobody looks at it.
        manifest_sha256: hex digest of manifest.json, likewise.
        signers: who signed; none when nobody did, or when the signature could not be checked and nobody asked for it.
        parts: the components that its index names.
        status: what its repository says of its releases; none when it says nothing.
    """

    snapshot: Snapshot
    trust: Trust
    manifest: ReleaseManifest | Manifest | None = None
    manifest_sha256: str | None = None
    signers: Signers | None = None
    parts: frozenset[str] = field(default=frozenset())
    status: SignedStatus | None = None

    @property
    def root(self) -> str | None:
        """The manifest's root, which stands for every file, or none without a manifest."""
        return None if self.manifest is None else self.manifest.root

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The keys that signed, as far as that was checked."""
        return () if self.signers is None else self.signers.key_ids

    @property
    def held_models(self) -> list[str]:
        """The optional models that it has, by its index."""
        return [name for name in OPTIONAL_NETWORKS if name in self.parts]

    @property
    def digests(self) -> Digests | None:
        """What the manifest says of each file, by path on this machine; none without a manifest."""
        return None if self.manifest is None else {self.snapshot.path / entry.path: entry for entry in self._entries.values()}

    def describe(self) -> str:
        """One line for people: what was opened, its root, its signer."""
        if self.root is None:
            return f"{self.snapshot.name}: not verified"
        signed = "not signed" if self.signers is None else f"signed by {self.signers}"
        if self.signers is None and (self.snapshot.path / SIGNATURE_NAME).exists():
            signed = "its signature was not checked, as the extra `sign` is not installed"
        return f"{self.snapshot.name}: manifest root {self.root}, {signed}"

    def needed_files(self, parts: Collection[str], variant: str | None = None) -> list[str]:
        """Relative paths of what loading reads.

        Args:
            parts: which of the components that are there.
            variant: of the weights.

        Raises:
            RequestError: an unknown variant, or one that a component does not have.
        """
        if variant is not None and variant not in VARIANTS:
            raise RequestError(f"variant is {variant!r:.80}; expected none or one of {', '.join(VARIANTS)}")
        networks = [name for name in NETWORKS if name in parts]
        paths = [INDEX_NAME, *(f"{name}/{COMPONENTS[name].file}" for name in components_of(networks, self.parts))]
        return paths + [path for network in networks for path in self._weight_paths(network, variant)]

    def prepare(self, parts: Collection[str], variant: str | None = None) -> Digests | None:
        """Fetch what loading reads, and verify it; what else of the release lies here is verified with it.

        Returns:
            The digests that the loader must hold every byte against, or none when nothing is verified.

        Raises:
            RequestError: a variant that is not there.
            DownloadError: files that the Hub does not give.
            VerificationError: files that are missing, changed, or not listed.
            StorageError: the lock file cannot be written.
        """
        needed = self.needed_files(parts, variant)
        self._check_listing(needed)
        self.snapshot.fetch(needed)
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
    def _entries(self) -> Mapping[str, FileEntry]:
        return {} if self.manifest is None else {entry.path: entry for entry in self.manifest.files}

    def _names(self) -> list[str]:
        """Every file of the release, as far as anybody says."""
        if self.manifest is not None:
            return list(self._entries)
        if self.snapshot.listing is not None:
            return list(self.snapshot.listing)
        return list_release(self.snapshot.path)

    def _weight_paths(self, model: str, variant: str | None) -> list[str]:
        names = [path.removeprefix(f"{model}/") for path in self._names() if path.startswith(f"{model}/")]
        parsed = {name: found for name in names if (found := parse_weights_name(name)) is not None}
        chosen = [name for name, found in parsed.items() if found[0] == variant]
        if not chosen and variant is not None:
            held = sorted({found[0] for found in parsed.values() if found[0] is not None})
            raise RequestError(f"variant: {self.snapshot.name} has no {variant} weights of {model}, only as trained"
                               f"{''.join(f' and {name}' for name in held)}; leave variant out, and give dtype to cast them")
        index = [index_name(variant)] if index_name(variant) in names else []
        return [f"{model}/{name}" for name in (*chosen, *index)]

    def _check_listing(self, needed: Collection[str]) -> None:
        """Refuse, before anything large is fetched, a commit that does not hold exactly what the manifest lists."""
        listing = self.snapshot.listing
        if listing is None or self.manifest is None:
            return
        listed = {path: file for path, file in listing.items() if path in self._entries or not _may_lie_there(path)}
        problems = compare_files(self._entries.values(), listed)
        problems += [f"{path}: file is missing" for path in needed if path not in self._entries]
        self._refuse(problems)

    def _find_problems(self, needed: Collection[str]) -> list[str]:
        """Look at every file that lies here: those listed must be whole, others may not be there."""
        root = self.snapshot.path
        present = set(list_release(root))
        strangers = sorted(path for path in present if path not in self._entries and not _may_lie_there(path))
        problems = [describe_unlisted(path) for path in strangers]
        problems += self.snapshot.find_misplaced(sorted(present)) + find_misuse(root, sorted(present - set(self._entries)))
        problems += [f"{path}: file is missing" for path in needed if path not in self._entries]
        looked_at = {path for path in (*present, *needed) if path in self._entries}
        problems += compare_files([self._entries[path] for path in sorted(looked_at)],
                                  measure_files(root, sorted(looked_at & present)))
        return [problem + remedy_for(self.snapshot, problem.split(":", maxsplit=1)[0], self._entries) for problem in problems]

    def _refuse(self, problems: list[str]) -> None:
        if problems:
            more = [f"and {len(problems) - MAX_SHOWN} more"] if len(problems) > MAX_SHOWN else []
            raise VerificationError(self.snapshot.name, [*problems[:MAX_SHOWN], *more])


def open_release(snapshot: Snapshot, trust: Trust) -> OpenRelease:
    """Fetch and check what says which release this is; nothing of the model is read yet.

    Args:
        snapshot: where it lies, from `hub.resolve`.
        trust: what it must show.

    Raises:
        VerificationError: there is no manifest where one is needed; manifest, signature or lock file are malformed, or contradict
            what was asked for or one another; or the release was withdrawn.
        CheckpointError: it has no index, or one that cannot be read.
        DownloadError: the Hub does not give these files.
        ReleaseError: a signature must be checked and `cryptography` is not installed, or `signer` is no key.
    """
    lock = None if trust.lock is None else ReleaseLock.read(Path(trust.lock))
    if lock is not None and trust.lock is not None:
        lock.check_place(snapshot.repo, snapshot.sha, Path(trust.lock))
    _check_first_sizes(snapshot)
    snapshot.fetch(FIRST_FILES)
    data = None if trust.verify == "off" else _read(snapshot, MANIFEST_NAME)
    if data is None and trust.needs_manifest:
        raise VerificationError(snapshot.name, [f"{MANIFEST_NAME} is missing, and verification is required"])
    opened = OpenRelease(snapshot, trust)
    if data is not None:
        with _with_remedy(snapshot, MANIFEST_NAME):
            opened = replace(opened, manifest=parse_manifest(data), manifest_sha256=sha256_bytes(data))
        opened = replace(opened, signers=_check_signature(snapshot, data, trust))
        if lock is not None and trust.lock is not None:
            lock.check_content(str(opened.root), opened.key_ids, Path(trust.lock))
    elif trust.verify == "auto":
        logger.warning("%s: has no %s, so nothing of it is verified", snapshot.name, MANIFEST_NAME)
    opened = replace(opened, status=_check_status(opened, lock))
    with _with_remedy(snapshot, INDEX_NAME):
        return replace(opened, parts=read_index(snapshot.path / INDEX_NAME, opened.digests))


def find_release(pretrained: str | Path, revision: str | None = None, *, trust: Trust | None = None,
                 options: HubOptions | None = None) -> OpenRelease:
    """Find a directory or a commit on the Hub, and open it; see `hub.resolve` and `open_release`.

    With a lock file and without a revision, the commit that it pins is taken and no branch is looked up.
    """
    trust = trust or Trust()
    if revision is None and trust.lock is not None and not Path(pretrained).expanduser().is_dir():
        lock = ReleaseLock.read(Path(trust.lock))
        revision = lock.sha if lock is not None and lock.repo == pretrained else None
    return open_release(resolve(pretrained, revision, options), trust)


def parse_manifest(data: bytes) -> ReleaseManifest | Manifest:
    """Parse manifest.json, of a release or of imported checkpoints.

    Raises:
        VerificationError: too long, no strict JSON, another format, or not well formed.
    """
    value = parse_object(data, where=MANIFEST_NAME, max_bytes=GUARDS[MANIFEST_NAME], max_depth=6)
    return ReleaseManifest.from_bytes(data) if value.get("format") == RELEASE_FORMAT else Manifest.from_json(value)


def remedy_for(snapshot: Snapshot, path: str, entries: Collection[str]) -> str:
    """What to do about a damaged file of the cache, which the client itself never fetches again; nothing for other files."""
    file = snapshot.path / path
    if snapshot.repo is None or path not in entries or not file.exists():
        return ""
    return f" (a damaged download? remove {file.resolve()} and {file}, then load again)"


@contextlib.contextmanager
def _with_remedy(snapshot: Snapshot, path: str) -> Iterator[None]:
    """Add what to do to the refusal of a file that came from the Hub."""
    try:
        yield
    except VerificationError as error:
        remedy = remedy_for(snapshot, path, (path,))
        raise (VerificationError(snapshot.name, [f"{path}: {'; '.join(error.problems)}{remedy}"]) if remedy else error) from error


def _check_first_sizes(snapshot: Snapshot) -> None:
    for path, max_bytes in FIRST_FILES.items():
        listed = None if snapshot.listing is None else snapshot.listing.get(path)
        if listed is not None and (listed.size_bytes or 0) > max_bytes:
            raise VerificationError(snapshot.name, [f"{path}: {listed.size_bytes} bytes, at most {max_bytes} are read; it was not fetched"])


def _read(snapshot: Snapshot, path: str) -> bytes | None:
    """One of the first files, or none when it is not there."""
    file = snapshot.path / path
    return read_bounded(file, FIRST_FILES[path]) if file.exists() or file.is_symlink() else None


def _check_signature(snapshot: Snapshot, manifest: bytes, trust: Trust) -> Signers | None:
    guards = {name: data for name in GUARDS if (data := _read(snapshot, name)) is not None} | {MANIFEST_NAME: manifest}
    if SIGNATURE_NAME in guards and trust.rule is None and trust.lock is None and importlib.util.find_spec("cryptography") is None:
        logger.warning("%s: its signature cannot be checked without the extra `sign`; whoever can change a release can remove its "
                       "signature too, so give signer= or lock= to rely on it", snapshot.name)
        return None
    return verify_guards(guards, trust.rule, name=snapshot.name)


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
    root = opened.root if opened.root is not None or found is None else _root_of(snapshot)
    refuse_by_status(found, Asked(
        snapshot.name, root, snapshot.repo, snapshot.revision, is_pinned=is_offline or not snapshot.is_newest, keys=keys, lowest=lowest,
        seen=[digest for number, digest in known if number == lowest], needs_status=trust.rule is not None and snapshot.repo is not None,
        now=datetime.now(UTC), allow_withdrawn=trust.allow_withdrawn, unsafe_stale_status=trust.unsafe_stale_status))
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


def _root_of(snapshot: Snapshot) -> str | None:
    """The root that a manifest states when nobody verifies it."""
    data = _read(snapshot, MANIFEST_NAME)
    return None if data is None else parse_manifest(data).root


def _may_lie_there(path: str) -> bool:
    """Whether a file that no manifest lists may lie beside a release: what guards it, and what the Hub and its client add."""
    return path in UNLISTED or may_lie_beside(path)
