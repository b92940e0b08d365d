"""A directory as a target: the same plan, check and promotion, with links instead of commits."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from glideslope.errors import ReleaseError, VerificationError
from glideslope.release.publishing.directory_target import DirectoryTarget
from glideslope.release.publishing.publish import publish, rollback
from glideslope.release.publishing.targets import Edit
from glideslope.release.publishing.withdraw import withdraw
from glideslope.trust.opening import OpenRelease
from glideslope.trust.status import STATUS_NAME, SignedStatus, Status

from ..small_releases import HURRIED, WEIGHTS, content, make_plan, make_release, send, trust


@pytest.fixture
def target(tmp_path: Path) -> DirectoryTarget:
    return DirectoryTarget(tmp_path / "published")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return make_release(tmp_path / "old", "the old one", extra="evidence/gone.json")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return make_release(tmp_path / "new", "the new release")


def test_current_and_tags_lead_to_the_releases(target: DirectoryTarget, old: Path, new: Path) -> None:
    send(old, target, tag="v1")
    assert content(target.directory / "current") == content(old)
    send(new, target, tag="v2")
    assert content(target.directory / "current") == content(new) == content(target.directory / "tags/v2")
    assert content(target.directory / "tags/v1") == content(old)
    assert list((target.directory / "staging").iterdir()) == []


def test_publishing_again_does_nothing(target: DirectoryTarget, old: Path) -> None:
    send(old, target, tag="v1")
    assert send(old, target, tag="v1").done == ()


def test_a_check_that_refuses_leaves_the_link_alone_and_the_next_try_goes_on(target: DirectoryTarget, old: Path, new: Path) -> None:
    def refuse(release: OpenRelease) -> None:
        raise VerificationError("release", ["no"])

    send(old, target, tag="v1")
    with pytest.raises(VerificationError):
        send(new, target, check=refuse)
    assert content(target.directory / "current") == content(old)
    send(new, target)
    assert content(target.directory / "current") == content(new)


def test_bytes_that_rot_while_they_are_staged_are_found(target: DirectoryTarget, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = DirectoryTarget.fetch

    def rot(self: DirectoryTarget, revision: str, directory: Path) -> Path:
        place = fetch(self, revision, directory)
        data = bytearray((place / WEIGHTS).read_bytes())
        data[-1] = (data[-1] + 1) % 256
        (place / WEIGHTS).write_bytes(data)
        return place

    monkeypatch.setattr(DirectoryTarget, "fetch", rot)
    with pytest.raises(VerificationError, match=WEIGHTS):
        send(old, target)
    assert not (target.directory / "current").exists()


def test_a_crash_between_version_and_link_is_finished_by_the_same_command(target: DirectoryTarget, old: Path, new: Path) -> None:
    send(old, target, tag="v1")
    plan = make_plan(new, target)
    target.begin_branch(plan.branch)
    target.stage(plan.branch, plan.branch, Edit(new, list(content(new)), [], "stage"))
    (target.directory / plan.branch).rename(target.directory / "versions" / plan.release.root[:16])
    assert content(target.directory / "current") == content(old)
    send(new, target, tag="v2")
    assert content(target.directory / "current") == content(new) == content(target.directory / "tags/v2")


def test_a_version_that_somebody_changed_is_never_linked(target: DirectoryTarget, old: Path, new: Path) -> None:
    send(old, target, tag="v1")
    version = (target.directory / "current").resolve()
    send(new, target, tag="v2")
    (version / "README.md").write_bytes(b"changed afterwards\n")
    with pytest.raises(VerificationError, match=r"README\.md"):
        rollback(target, "v1", check=trust, patience=HURRIED)
    with pytest.raises(ReleaseError, match="somebody changed it"):
        send(old, target, tag="v3")
    assert content(target.directory / "current") == content(new)


def test_rolling_back_moves_the_link_alone(target: DirectoryTarget, old: Path, new: Path) -> None:
    send(old, target, tag="v1")
    send(new, target, tag="v2")
    rollback(target, "v1", check=trust, patience=HURRIED)
    assert content(target.directory / "current") == content(old)
    assert content(target.directory / "tags/v2") == content(new)


def status_in(place: Path) -> Status:
    return SignedStatus.from_bytes((place / STATUS_NAME).read_bytes()).status


def test_a_withdrawal_lies_in_every_version_and_stays_when_another_is_published(target: DirectoryTarget, old: Path, new: Path) -> None:
    send(old, target, tag="v1")
    send(new, target, tag="v2")
    withdrawal = withdraw(target, "draws people", tag="v1", patience=HURRIED)
    for place in ("current", "tags/v1", "tags/v2"):
        assert status_in(target.directory / place).find(withdrawal.root) == withdrawal
    third = make_release(target.directory.parent / "third", "yet another one")
    send(third, target, tag="v3")
    for place in ("current", "tags/v1", "tags/v2"):
        said = status_in(target.directory / place)
        assert said.current is not None
        assert (said.number, said.repository, said.current.tag) == (4, None, "v3")
        assert said.find(withdrawal.root) == replace(withdrawal, successor=said.current.root)
    with pytest.raises(ReleaseError, match="draws people"):
        rollback(target, "v1", check=trust, patience=HURRIED)


def test_a_directory_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ReleaseError, match="something else"):
        DirectoryTarget(tmp_path)
    with pytest.raises(ReleaseError, match="something else"):
        DirectoryTarget(tmp_path / "thesis.txt")


def test_access_is_for_the_file_system_to_say(target: DirectoryTarget, old: Path) -> None:
    for options in ({"gated": "manual"}, {"is_private": True}):
        with pytest.raises(ReleaseError, match="neither private nor gated"):
            make_plan(old, target, **options)


def test_nothing_is_said_of_privacy_that_a_directory_does_not_have(target: DirectoryTarget, old: Path) -> None:
    assert make_plan(old, target).access == {}
    done = send(old, target).done
    assert done[0] == "created the directory"
    assert not any("member" in step or "private" in step for step in done)
    assert make_plan(old, target).access == {}


@pytest.mark.parametrize("place", [".", "inside", "evidence/deep/inside"])
def test_nothing_is_published_into_a_release(old: Path, new: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "link").symlink_to(old)
    before = content(old)
    for folder, release in ((old, old), (old, new), (tmp_path / "link", old)):
        with pytest.raises(ReleaseError, match=r"lies inside the release|holds something else"):
            make_plan(release, DirectoryTarget(folder / place))
    assert content(old) == before


def kill_while_copying(directory: Path, release: Path) -> None:
    """Begin to publish in a process that is killed while it copies the second file."""
    code = f"""
import os, shutil, signal
from pathlib import Path
from glideslope.release.publishing.directory_target import DirectoryTarget
from glideslope.release.publishing.publication import Options, plan_publication
from glideslope.release.publishing.publish import publish
real, calls = shutil.copyfileobj, []
def copy(read, written, size):
    calls.append(1)
    if len(calls) == 2:
        written.write(b"half"); written.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    real(read, written, size)
shutil.copyfileobj = copy
target = DirectoryTarget(Path({str(directory)!r}))
publish(plan_publication(Path({str(release)!r}), target, Options(tag="v1")), target, check=lambda release: None)
"""
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == -signal.SIGKILL


def test_what_a_killed_publisher_left_is_removed_by_the_next_one_and_nothing_else(target: DirectoryTarget, old: Path) -> None:
    kill_while_copying(target.directory, old)
    assert len(list(target.directory.glob(".*.tmp"))) == 1
    (target.directory / ".0123456789abcdef.tmp").symlink_to("versions/gone")
    others = [".mine.tmp", ".0123456789ABCDEF.tmp", ".0123456789abcdef.tmp2", "0123456789abcdef.tmp"]
    for name in others:
        (target.directory / name).write_bytes(b"somebody else's")
    (target.directory / ".fedcba9876543210.tmp").mkdir()
    send(old, target, tag="v1")
    assert content(target.directory / "current") == content(old)
    kept = {path.name for path in target.directory.iterdir() if path.name.endswith(("tmp", "tmp2"))}
    assert kept == {*others, ".fedcba9876543210.tmp"}


def test_a_link_that_was_moved_since_the_plan_is_not_moved_again(target: DirectoryTarget, old: Path, new: Path) -> None:
    send(old, target, tag="v1")
    plan = make_plan(make_release(target.directory.parent / "third", "yet another one"), target)
    send(new, target, tag="v2")
    with pytest.raises(ReleaseError, match="since the plan was made"):
        publish(plan, target, check=trust, patience=HURRIED)
    assert content(target.directory / "current") == content(new)
