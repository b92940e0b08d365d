"""Take a published release back: say so where every reader looks, and leave its files and tags as they are."""

from collections.abc import Callable, Mapping

from ...errors import ReleaseError
from ...manifest import MANIFEST_NAME, ReleaseManifest
from ...signatures import Signers, verify_withdrawal
from ...withdrawal import MAX_REASON_LENGTH, WITHDRAWN_NAME, WITHDRAWN_SIGNATURE_NAME, Withdrawal, Withdrawals
from .patience import Patience, PatientTarget
from .publication import read_signed_withdrawals
from .publish import clear_refusals
from .snapshot import KEPT_FILES
from .targets import Target, TargetFile, TargetState

Sign = Callable[[Withdrawals], bytes]


def withdraw(target: Target, reason: str, *, tag: str | None = None, sign: Sign | None = None, patience: Patience | None = None) -> Withdrawal:
    """Say on main that a release is taken back; loaders of any tag look there and refuse it with the reason.

    Args:
        target: where.
        reason: why, for whoever wants to load it.
        tag: the release's tag; none: the release that main shows.
        sign: makes the content of the signature's file for the whole list; none writes no signature.
        patience: how often to try again.

    Returns:
        What was written.

    Raises:
        ReleaseError: there is no such release, no reason, or the list there is signed and this one would not be, or by another key.
        VerificationError: the list there is malformed, or is not as it was signed.
    """
    if not reason.strip() or len(reason) > MAX_REASON_LENGTH:
        raise ReleaseError(f"the reason must be a text of at most {MAX_REASON_LENGTH} characters; say what a reader should know")
    patient = PatientTarget(target, patience or Patience())
    with clear_refusals(target):
        patient.identify()
        state = patient.read_state()
        main, revision = state.main, state.main if tag is None else state.tags.get(tag)
        data = patient.read_file(revision, MANIFEST_NAME) if revision else None
        if main is None or data is None:
            raise ReleaseError(f"{target.name}: {'main' if tag is None else f'the tag {tag}'} shows no release; the tags are "
                               f"{', '.join(sorted(state.tags)) or 'none'}")
        withdrawal = Withdrawal(ReleaseManifest.from_bytes(data).root, tag or _tag_of(patient, state), reason)
        earlier, signer = read_signed_withdrawals(patient, state)
        files = _write_list(target, earlier.add(withdrawal), signer, sign)
        patient.patience.ensure(lambda: _shows(patient, files), lambda: target.write(main, files))
    return withdrawal


def _write_list(target: Target, withdrawals: Withdrawals, signer: Signers | None, sign: Sign | None) -> dict[str, bytes]:
    """The list and its signature, which is of the key that signed the earlier list, where that was signed."""
    data = withdrawals.to_bytes()
    signed = f"{target.name}: its {WITHDRAWN_NAME} is signed by the key {signer.key_ids[0] if signer else ''}"
    if sign is None:
        if signer is not None:
            raise ReleaseError(f"{signed}; sign the new one too, with --key and that key")
        return {WITHDRAWN_NAME: data}
    envelope = sign(withdrawals)
    key_id = verify_withdrawal(envelope, data).key_ids[0]
    if signer is not None and signer.key_ids[0] != key_id:
        raise ReleaseError(f"{signed}, and --key is {key_id}: only the key that signed a list may change it. Give that key; if it is lost, "
                           f"remove {WITHDRAWN_NAME} and {WITHDRAWN_SIGNATURE_NAME} by hand and withdraw every release again with the new one")
    return {WITHDRAWN_NAME: data, WITHDRAWN_SIGNATURE_NAME: envelope}


def _tag_of(target: PatientTarget, state: TargetState) -> str:
    """A tag of the release that main shows, or an empty text; main may have been written to since it was tagged."""
    def published(files: Mapping[str, TargetFile]) -> dict[str, TargetFile]:
        return {path: file for path, file in files.items() if path not in KEPT_FILES}

    shown = published(state.files)
    return next((tag for tag, revision in sorted(state.tags.items()) if published(target.list_files(revision)) == shown), "")


def _shows(target: PatientTarget, files: Mapping[str, bytes]) -> bool:
    state = target.read_state()
    return state.main is not None and all(target.read_file(state.main, path) == data for path, data in files.items())
