"""Publish a release so that nobody ever sees a state that was not checked, and go back to an earlier one.

A new state is put together on a staging branch in one commit, downloaded again by its id, and checked; only then is it
shown on main, in one commit that is refused when main has moved. Nothing is remembered on this machine: every step first
asks the target whether it is done, so that a publication that was killed is finished by the same command.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import ReleaseError, VerificationError
from ...store.file_lists import FileEntry, compare_files
from ...trust.keys import key_id_of
from ...trust.opening import OpenRelease
from ...trust.release_manifest import SIGNATURE_NAME
from ...trust.status import STATUS_NAME, with_current
from ...trust.unlisted_files import KEPT_FILES
from ..evidence.contents import Release
from ..verify import verify_release
from .patience import Patience, PatientTarget, clear_refusals
from .publication import Changes, Plan, refuse_foreign, refuse_withdrawn
from .statuses import StatusWriter, known_releases, read_status, write_status
from .targets import Edit, LocalRelease, Moved, Target, TargetState

NUM_DOWNLOADS = 2

Check = Callable[[OpenRelease], None]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Publication:
    """What a target shows after a publication or a rollback.

    Attributes:
        revision: the revision of main: for the Hub the commit id, which readers pin.
        tag: its name.
        root: the release's Merkle root.
        done: the steps that had to be done, in order; none when the target showed it all already.
    """

    revision: str
    tag: str
    root: str
    done: tuple[str, ...]


def verify_whole(release: OpenRelease) -> None:
    """Recompute everything about a downloaded release, see `verify_release`."""
    verify_release(Release(release))


def ignore(line: str) -> None:
    """Report nothing."""


def publish(plan: Plan, target: Target, *, writer: StatusWriter | None = None, check: Check = verify_whole, patience: Patience | None = None,
            report: Report = ignore) -> Publication:
    """Carry out a plan; a second call finishes what a first one left.

    Args:
        plan: from `plan_publication`.
        target: the same target.
        writer: writes the status that names the release as the current one; none writes an unsigned one.
        check: looks at the downloaded release and raises when something is wrong; its files were compared with the manifest before.
        patience: how often to try again.
        report: gets one line for each step that is done.

    Returns:
        What the target shows now.

    Raises:
        ReleaseError: the target refuses, cannot be reached, or somebody else changed it meanwhile. Main shows what it showed
            before, or the checked release.
        VerificationError: what the target gives back is not what was sent; it is not shown.
    """
    steps, writer = Steps(target, patience, report), writer or StatusWriter()
    with clear_refusals(target), tempfile.TemporaryDirectory(prefix="glideslope-publish-") as temporary:
        refuse_unsigned_status(plan.release, target, writer)
        writer.check(read_status(steps.target, steps.target.read_state()), target)
        created = "created the target, seen by members only" if target.has_access else "created the directory"
        steps.ensure(created, lambda state: state.exists, target.create)
        if plan.options.gated not in (None, "no"):
            steps.ensure(f"gated: {plan.options.gated}", lambda state: state.gated == plan.options.gated,
                         lambda: target.set_access(is_private=None, gated=plan.options.gated))
        if plan.options.is_private:
            _set_private(plan, steps)
        state = steps.target.read_state()
        if not plan.release.is_shown_by(state.files):
            _refuse_moved(plan, state)
            staged = _stage(plan, steps)
            snapshot = fetch_checked(steps, staged, Path(temporary), check, expected=plan.release)
            status = _next_status(steps, writer, snapshot, plan.tag)
            promote(snapshot, staged, state, steps, f"Publish {plan.tag} (root {plan.release.root[:16]})", status)
        _announce(steps, writer, plan.release, plan.tag)
        _tag(plan, steps)
        steps.ensure(f"removed {plan.branch}", lambda state: plan.branch not in state.branches, lambda: target.end_branch(plan.branch))
        if plan.options.is_private is False:
            _set_private(plan, steps)
        if plan.options.gated == "no":
            steps.ensure("gated: no", lambda state: state.gated == "no", lambda: target.set_access(is_private=None, gated="no"))
        return Publication(str(steps.target.read_state().main), plan.tag, plan.release.root, tuple(steps.done))


def rollback(target: Target, tag: str, *, writer: StatusWriter | None = None, replace_foreign: bool = False, check: Check = verify_whole,
             patience: Patience | None = None, report: Report = ignore) -> Publication:
    """Show an earlier, tagged release again: it is downloaded, checked and promoted as a new one is.

    Args:
        target: where.
        tag: the earlier release's tag.
        writer: writes the status that names the release as the current one; none writes an unsigned one.
        replace_foreign: also replace or remove files of main that no release put there.
        check: looks at the downloaded release and raises when something is wrong.
        patience: how often to try again.
        report: gets one line for each step that is done.

    Returns:
        What the target shows now.

    Raises:
        ReleaseError: no such tag, a withdrawn release, foreign files on main, or the target refuses.
        VerificationError: what the tag holds is not a whole release.
    """
    steps, writer = Steps(target, patience, report), writer or StatusWriter()
    with clear_refusals(target), tempfile.TemporaryDirectory(prefix="glideslope-rollback-") as temporary:
        steps.target.identify()
        state = steps.target.read_state()
        if tag not in state.tags:
            raise ReleaseError(f"{target.name}: there is no tag {tag}; the tags are {', '.join(sorted(state.tags)) or 'none'}")
        status = read_status(steps.target, state)
        writer.check(status, target)
        release = fetch_checked(steps, state.tags[tag], Path(temporary), check, expected=None)
        refuse_withdrawn(steps.target, status, release.root)
        refuse_unsigned_status(release, target, writer)
        refuse_foreign(steps.target, state, release, replace_foreign=replace_foreign)
        if not release.is_shown_by(state.files):
            next_status = _next_status(steps, writer, release, tag)
            promote(release, state.tags[tag], state, steps, f"Go back to {tag} (root {release.root[:16]})", next_status)
        _announce(steps, writer, release, tag)
        return Publication(str(steps.target.read_state().main), tag, release.root, tuple(steps.done))


class Steps:
    """Does each step once, and remembers which had to be done.

    Attributes:
        target: the target, patient when it is read.
        done: the steps that had to be done, in order.
    """

    def __init__(self, target: Target, patience: Patience | None, report: Report) -> None:
        """Begin with nothing done."""
        self.target, self.report = PatientTarget(target, patience or Patience()), report
        self.done: list[str] = []

    def ensure(self, name: str, is_done: Callable[[TargetState], bool], act: Callable[[], None]) -> None:
        """Do a step unless the target shows that it is done."""
        if self.target.patience.ensure(lambda: is_done(self.target.read_state()), act):
            self.note(name)

    def note(self, name: str) -> None:
        """Remember a step that was done."""
        self.done.append(name)
        self.report(name)


def fetch_checked(steps: Steps, revision: str, directory: Path, check: Check, *, expected: LocalRelease | None) -> LocalRelease:
    """Download a revision into an empty directory and check it; a download that is not whole is tried once more.

    Args:
        steps: where.
        revision: what to download.
        directory: an empty directory; the release lies below it afterwards.
        check: looks at the release.
        expected: the release that it must be, digest by digest; none: whatever its own manifest says.

    Returns:
        The downloaded release.

    Raises:
        VerificationError: it is not what it must be, twice.
        ReleaseError: the check refuses it, or it cannot be downloaded.
    """
    for number in range(NUM_DOWNLOADS):
        folder = directory / f"download-{number}"
        try:
            release = LocalRelease.read(_fetch(steps, revision, folder))
            _compare(release, expected)
            break
        except VerificationError as error:
            if number + 1 == NUM_DOWNLOADS:
                raise VerificationError(f"what {steps.target.name} gives back", [*error.problems, "it was not published"]) from error
            steps.report(f"the download is not what was sent ({error.problems[0]}); downloading again")
    check(release.opened)
    steps.note("downloaded again and checked")
    return release


def promote(release: LocalRelease, revision: str, state: TargetState, steps: Steps, title: str, status: bytes) -> None:
    # one parameter for each thing that the commit holds
    """Show a checked revision on main in one commit, unless main has moved; and see that main shows just that.

    Args:
        release: the files of the revision, downloaded and checked.
        revision: the revision at the target.
        state: what the target showed when it was decided to do this.
        steps: where.
        title: one line for the history.
        status: the content of the status that is shown with it, in the same commit.

    Raises:
        ReleaseError: somebody else changed main, or main does not become what it must.
    """
    changes = Changes.between(state.files, release.files)
    edit = Edit(release.directory, [*changes.added, *changes.changed], list(changes.removed), title, {STATUS_NAME: status})

    def act() -> None:
        if steps.target.read_state().main != state.main:
            raise Moved("main has moved")
        steps.target.promote(revision, state.main, edit)

    try:
        steps.ensure("promoted to main", lambda now: release.is_shown_by(now.files), act)
    except Moved as error:
        raise ReleaseError(f"{steps.target.name}: somebody else changed main meanwhile, nothing was overwritten; "
                           "look at what they did, then run the same command again") from error


def refuse_unsigned_status(release: LocalRelease, target: Target, writer: StatusWriter) -> None:
    """Refuse to show a signed release with an unsigned status: readers who name its signer would refuse it.

    Raises:
        ReleaseError: the release is signed, and the writer has no key or one that did not sign it.
    """
    if SIGNATURE_NAME not in release.files:
        return
    if writer.key is None:
        raise ReleaseError(f"{target.name}: the release is signed, so its {STATUS_NAME} must be signed too, or readers who name the signer "
                           "refuse the release; give --key with one of the keys that signed it")
    signers = release.opened.signers
    if signers is not None and key_id_of(writer.key) not in signers.key_ids and not writer.replace_key:
        raise ReleaseError(f"{target.name}: --key is {key_id_of(writer.key)}, but the release is signed by {signers}: readers who name the "
                           "signer would refuse such a status; give one of the keys that signed the release")


def _next_status(steps: Steps, writer: StatusWriter, release: LocalRelease, tag: str) -> bytes:
    """The status that names a release as the current one, and those before as superseded by it."""
    state = steps.target.read_state()
    earlier = read_status(steps.target, state)
    return writer.write(earlier, steps.target, with_current(known_releases(steps.target, state, earlier), release.root, tag))


def _announce(steps: Steps, writer: StatusWriter, release: LocalRelease, tag: str) -> None:
    """See that the status names the shown release as the current one, signed where the writer has a key."""
    state = steps.target.read_state()
    earlier = read_status(steps.target, state)
    current = None if earlier is None else earlier.status.current
    is_signed = earlier is not None and (writer.key is None or bool(earlier.key_ids))
    if state.main is None or (current is not None and current.root == release.root and is_signed):
        return
    write_status(steps.target, steps.target, state.main, _next_status(steps, writer, release, tag))
    steps.note(f"wrote {STATUS_NAME}")


def _stage(plan: Plan, steps: Steps) -> str:
    """Put the release on the staging branch, whatever lies there, and return its revision."""
    release, branch = plan.release, plan.branch
    steps.ensure(f"began {branch}", lambda state: branch in state.branches, lambda: steps.target.begin_branch(branch))

    def files_of(state: TargetState) -> Changes:
        there = steps.target.list_files(state.branches[branch]) if branch in state.branches else {}
        return Changes.between(there, release.files)

    def is_done(state: TargetState) -> bool:
        changes = files_of(state)
        return not (changes.added or changes.changed or changes.removed)

    def act() -> None:
        state = steps.target.read_state()
        changes = files_of(state)
        title = f"Stage {plan.tag} (root {release.root[:16]})"
        edit = Edit(release.directory, [*changes.added, *changes.changed], list(changes.removed), title)
        steps.target.stage(branch, state.branches[branch], edit)

    steps.ensure(f"uploaded to {branch} in one commit", is_done, act)
    return steps.target.read_state().branches[branch]


def _fetch(steps: Steps, revision: str, folder: Path) -> Path:
    """Download, each try into a folder of its own, so that no half of one helps another."""
    tries = iter(range(steps.target.patience.num_tries))

    def call() -> Path:
        attempt = folder / f"cache-{next(tries)}"
        attempt.mkdir(parents=True)
        return steps.target.fetch(revision, attempt)

    return steps.target.patience.read(call)


def _compare(release: LocalRelease, expected: LocalRelease | None) -> None:
    """Refuse files that are not those of the manifest, or a manifest that is not the expected one."""
    if expected is not None:
        sent = [FileEntry(path, file.size_bytes, file.sha256) for path, file in expected.files.items()]
        problems = compare_files(sent, release.files)
        if problems:
            raise VerificationError("snapshot", problems)
    problems = release.opened.differences()
    if problems:
        raise VerificationError("snapshot", problems)


def _refuse_moved(plan: Plan, state: TargetState) -> None:
    """Refuse when main is not what it was when the plan was made."""
    is_new = not plan.state.exists and not set(state.files) - KEPT_FILES
    if state.main != plan.state.main and not is_new:
        raise ReleaseError(f"{plan.identity.get('target')}: somebody else changed main since the plan was made; nothing was overwritten; "
                           "look at what they did, then run the same command again")


def _tag(plan: Plan, steps: Steps) -> None:
    """Give the shown revision its tag; a tag of that name must show this very release."""
    def is_done(state: TargetState) -> bool:
        return plan.tag in state.tags and plan.release.is_shown_by(steps.target.list_files(state.tags[plan.tag]))

    def act() -> None:
        state = steps.target.read_state()
        if not plan.release.is_shown_by(state.files):
            raise Moved("main has moved")
        steps.target.add_tag(plan.tag, str(state.main))

    steps.ensure(f"tagged {plan.tag}", is_done, act)


def _set_private(plan: Plan, steps: Steps) -> None:
    is_private = plan.options.is_private
    steps.ensure("private" if is_private else "public", lambda state: state.is_private == is_private,
                 lambda: steps.target.set_access(is_private=is_private, gated=None))
