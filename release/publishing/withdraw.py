"""Take a published release back: say so where every reader looks, and leave its files and tags as they are."""

from ...errors import ReleaseError
from ...store.file_lists import MANIFEST_NAME
from ...trust.release_manifest import ReleaseManifest
from ...trust.status import MAX_REASON_LENGTH, ReleaseStatus, with_withdrawn
from .patience import Patience, PatientTarget, clear_refusals
from .statuses import StatusWriter, known_releases, read_status, tag_of, write_status
from .targets import Target


def withdraw(target: Target, reason: str, *, tag: str | None = None, writer: StatusWriter | None = None,
             patience: Patience | None = None) -> ReleaseStatus:
    """Say on main that a release is taken back; loaders of any tag look there and refuse it with the reason.

    Args:
        target: where.
        reason: why, for whoever wants to load it.
        tag: the release's tag; none: the release that main shows.
        writer: writes the next status; none writes an unsigned one.
        patience: how often to try again.

    Returns:
        What is said of the release now.

    Raises:
        ReleaseError: there is no such release, no reason, or the status there is signed and this one would not be, or by another key.
        VerificationError: the status there is malformed, or is not as it was signed.
    """
    if not reason.strip() or len(reason) > MAX_REASON_LENGTH:
        raise ReleaseError(f"the reason must be a text of at most {MAX_REASON_LENGTH} characters; say what a reader should know")
    patient, writer = PatientTarget(target, patience or Patience()), writer or StatusWriter()
    with clear_refusals(target):
        patient.identify()
        state = patient.read_state()
        revision = state.main if tag is None else state.tags.get(tag)
        data = patient.read_file(revision, MANIFEST_NAME) if revision else None
        if state.main is None or data is None:
            raise ReleaseError(f"{target.name}: {'main' if tag is None else f'the tag {tag}'} shows no release; the tags are "
                               f"{', '.join(sorted(state.tags)) or 'none'}")
        root, earlier = ReleaseManifest.from_bytes(data).root, read_status(patient, state)
        writer.check(earlier, target)
        releases = with_withdrawn(known_releases(patient, state, earlier), root, tag or tag_of(patient, state), reason)
        is_signed = earlier is not None and (writer.key is None or bool(earlier.key_ids))
        if earlier is None or releases != earlier.status.releases or not is_signed:
            write_status(patient, target, state.main, writer.write(earlier, patient, releases))
    return next(release for release in releases if release.root == root)
