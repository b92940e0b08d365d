"""The status of a target's releases: read, and replaced by one with the next number."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ReleaseError, VerificationError
from ...store.file_lists import MANIFEST_NAME
from ...trust.keys import key_id_of, read_private_key
from ...trust.release_manifest import ReleaseManifest
from ...trust.status import DEFAULT_VALID_DAYS, STATUS_NAME, ReleaseStatus, SignedStatus, Status, times_from, with_current
from ...trust.unlisted_files import KEPT_FILES
from .patience import Patience, PatientTarget
from .targets import Target, TargetFile, TargetState

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Releases = tuple[ReleaseStatus, ...]
RESTORE = f"look through the history of the repository for the {STATUS_NAME} that you wrote last, and put it back"


@dataclass(frozen=True)
class StatusWriter:
    """Who writes a status.

    Attributes:
        key: signs it; none writes an unsigned one, where the earlier one is unsigned too.
        valid_days: for how long a signed one counts.
        replace_key: continue a status that another key signed. Readers who named that key refuse the new one until they learn of it.
        now: tells the time.
    """

    key: "Ed25519PrivateKey | None" = None
    valid_days: int = DEFAULT_VALID_DAYS
    replace_key: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    @classmethod
    def of(cls, key: Path | None, *, passphrase: str | None = None, valid_days: int = DEFAULT_VALID_DAYS, replace_key: bool = False,
           ) -> "StatusWriter":
        """A writer with the key in a file.

        Raises:
            ReleaseError: the key cannot be used.
        """
        return cls(None if key is None else read_private_key(key, passphrase=passphrase), valid_days, replace_key)

    def check(self, earlier: SignedStatus | None, target: Target) -> None:
        """Refuse to continue a status that somebody else signed.

        Raises:
            ReleaseError: the earlier one is signed, and this one would not be, or by another key.
        """
        if earlier is None or not earlier.key_ids:
            return
        signed = f"{target.name}: its {STATUS_NAME} is signed by the key {', '.join(earlier.key_ids)}"
        if self.key is None:
            raise ReleaseError(f"{signed}; sign the next one too, with --key and that key")
        if key_id_of(self.key) not in earlier.key_ids and not self.replace_key:
            raise ReleaseError(f"{signed}, and --key is {key_id_of(self.key)}. Give that key; if it is lost, add --replace-key: readers who "
                               "named the old key refuse the releases until they are told of the new one")

    def write(self, earlier: SignedStatus | None, target: Target, releases: Releases) -> bytes:
        """The content of the next STATUS.json; see `check`."""
        self.check(earlier, target)
        issued, expires = times_from(self.now(), None if self.key is None else self.valid_days)
        number = 1 if earlier is None else earlier.status.number + 1
        return Status(target.repository, number, issued, expires, releases).to_bytes(self.key)


def read_status(target: Target, state: TargetState) -> SignedStatus | None:
    """The status that a target's main shows; none when it has none.

    Raises:
        VerificationError: it is malformed, is not as it was signed, or is another repository's.
        ReleaseError: it is signed, and `cryptography` is not installed.
    """
    data = target.read_file(state.main, STATUS_NAME) if state.main and STATUS_NAME in state.files else None
    if data is None:
        return None
    where = f"{STATUS_NAME} of {target.name}"
    try:
        found = SignedStatus.from_bytes(data, where=where, must_check=True)
    except VerificationError as error:
        raise VerificationError(where, [f"is not as it was written ({'; '.join(error.problems)}): somebody changed it; {RESTORE}"]) from error
    if (found.status.repository or "").casefold() != (target.repository or "").casefold():
        theirs, ours = (name or "a directory" for name in (found.status.repository, target.repository))
        raise VerificationError(where, [f"is that of {theirs}, expected {ours}; {RESTORE}"])
    return found


def known_releases(target: Target, state: TargetState, earlier: SignedStatus | None) -> Releases:
    """What the earlier status says; without one, that the release that main shows is current, if it shows one."""
    if earlier is not None:
        return earlier.status.releases
    data = target.read_file(state.main, MANIFEST_NAME) if state.main and MANIFEST_NAME in state.files else None
    if data is None:
        return ()
    try:
        root = ReleaseManifest.from_bytes(data).root
    except VerificationError:  # what lies there is no release of ours, so nothing is said of it
        return ()
    return with_current((), root, tag_of(target, state))


def tag_of(target: Target, state: TargetState) -> str:
    """A tag of the release that main shows, or an empty text; main may have been written to since it was tagged."""
    def published(files: "dict[str, TargetFile]") -> dict[str, TargetFile]:
        return {path: file for path, file in files.items() if path not in KEPT_FILES}

    shown = published(dict(state.files))
    return next((tag for tag, revision in sorted(state.tags.items()) if published(dict(target.list_files(revision))) == shown), "")


def renew(target: Target, writer: StatusWriter, *, patience: Patience | None = None) -> SignedStatus:
    """Write the next status, which says the same and counts from now on.

    Args:
        target: where.
        writer: signs it.
        patience: how often to try again.

    Returns:
        The new status.

    Raises:
        ReleaseError: no key is given, the earlier status is by another key, or the target shows no release.
        VerificationError: the earlier status is malformed.
    """
    if writer.key is None:
        raise ReleaseError(f"{target.name}: an unsigned status does not expire; give --key to write a signed one")
    patient = PatientTarget(target, patience or Patience())
    patient.identify()
    state = patient.read_state()
    earlier = read_status(patient, state)
    releases = known_releases(patient, state, earlier)
    if state.main is None or not releases:
        raise ReleaseError(f"{target.name}: main shows no release; publish one first")
    data = writer.write(earlier, patient, releases)
    write_status(patient, target, state.main, data)
    return SignedStatus.from_bytes(data)


def write_status(patient: PatientTarget, target: Target, main: str, data: bytes) -> None:
    """Put a status on main, if main is where it was."""
    def is_done() -> bool:
        state = patient.read_state()
        return state.main is not None and patient.read_file(state.main, STATUS_NAME) == data

    patient.patience.ensure(is_done, lambda: target.write(main, {STATUS_NAME: data}))
