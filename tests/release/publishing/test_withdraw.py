"""Withdrawals on the loopback hub: what is written, what is refused, and that loaders see it from every tag."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from glideslope.errors import ReleaseError, VerificationError
from glideslope.manifest import ReleaseManifest
from glideslope.release.loopback.faults import Fault
from glideslope.release.loopback.hub import LoopbackHub
from glideslope.release.loopback.state import StoredFile
from glideslope.release.publishing.publish import rollback
from glideslope.release.publishing.withdraw import withdraw
from glideslope.withdrawal import WITHDRAWN_NAME, WITHDRAWN_SIGNATURE_NAME, Withdrawals

from ..small_releases import HURRIED, REPO, content, hub_target, make_release, send, shown, trust

pytestmark = pytest.mark.usefixtures("quiet_lfs_client")


@pytest.fixture
def hub(old: Path, new: Path) -> Iterator[LoopbackHub]:
    """A hub that shows the new release, with both tagged."""
    with LoopbackHub() as running:
        send(old, hub_target(running), tag="v1")
        send(new, hub_target(running), tag="v2")
        yield running


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return make_release(tmp_path / "old", "the old one")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return make_release(tmp_path / "new", "the new release")


def list_of(hub: LoopbackHub) -> Withdrawals:
    return Withdrawals.from_bytes(hub.read_file(REPO, WITHDRAWN_NAME))


def test_the_shown_release_is_withdrawn_by_its_root_in_one_commit_and_its_files_stay(hub: LoopbackHub, new: Path) -> None:
    num_commits = len(hub.repositories[REPO].commits)
    withdrawal = withdraw(hub_target(hub), "draws people", patience=HURRIED)
    assert (withdrawal.root, withdrawal.tag) == (ReleaseManifest.read(new / "manifest.json").root, "v2")
    assert list_of(hub).withdrawn == (withdrawal,)
    assert len(hub.repositories[REPO].commits) == num_commits + 1
    assert {path: data for path, data in shown(hub).items() if path != WITHDRAWN_NAME} == content(new) == shown(hub, "v2")


def test_an_earlier_release_is_withdrawn_by_its_tag_and_main_is_otherwise_as_it_was(hub: LoopbackHub, old: Path, new: Path) -> None:
    withdraw(hub_target(hub), "draws people", tag="v1", patience=HURRIED)
    assert list_of(hub).find(ReleaseManifest.read(old / "manifest.json").root)
    assert list_of(hub).find(ReleaseManifest.read(new / "manifest.json").root) is None


def test_a_lost_answer_is_survived_and_a_repeated_withdrawal_writes_nothing(hub: LoopbackHub) -> None:
    hub.inject(Fault("lost_response", "POST", "/commit/main"))
    withdraw(hub_target(hub), "draws people", patience=HURRIED)
    num_commits = len(hub.repositories[REPO].commits)
    withdraw(hub_target(hub), "draws people", patience=HURRIED)
    assert len(hub.repositories[REPO].commits) == num_commits
    assert hub.met


def test_what_was_withdrawn_is_not_published_and_not_gone_back_to(hub: LoopbackHub, old: Path, new: Path) -> None:
    withdraw(hub_target(hub), "draws people", tag="v1", patience=HURRIED)
    with pytest.raises(ReleaseError, match=r"withdrawn \(draws people\)"):
        rollback(hub_target(hub), "v1", check=trust, patience=HURRIED)
    with pytest.raises(ReleaseError, match=r"withdrawn \(draws people\)"):
        send(old, hub_target(hub), tag="v3")


def test_the_list_stays_when_the_next_release_is_published(hub: LoopbackHub, tmp_path: Path) -> None:
    withdrawal = withdraw(hub_target(hub), "draws people", patience=HURRIED)
    send(make_release(tmp_path / "third", "without people"), hub_target(hub), tag="v3")
    assert list_of(hub).withdrawn == (withdrawal,)


def test_a_signed_list_is_only_followed_by_a_signed_one(hub: LoopbackHub) -> None:
    withdraw(hub_target(hub), "draws people", sign=lambda withdrawals: b"{}\n", patience=HURRIED)
    assert hub.read_file(REPO, WITHDRAWN_SIGNATURE_NAME) == b"{}\n"
    with pytest.raises(ReleaseError, match="sign the new one too"):
        withdraw(hub_target(hub), "draws weapons too", tag="v1", patience=HURRIED)


def test_a_commit_by_somebody_else_in_between_is_not_overwritten(hub: LoopbackHub) -> None:
    hub.inject(Fault("moved", "POST", "/commit/main"))
    with pytest.raises(ReleaseError, match="changed while it was worked on"):
        withdraw(hub_target(hub), "draws people", patience=HURRIED)
    assert WITHDRAWN_NAME not in shown(hub)


def test_a_list_that_somebody_edited_is_refused(hub: LoopbackHub) -> None:
    repository = hub.repositories[REPO]
    repository.add_commit("main", {**repository.find("main").files, WITHDRAWN_NAME: StoredFile.of_content(b"{}\n")}, "by hand")
    with pytest.raises(VerificationError, match=WITHDRAWN_NAME):
        withdraw(hub_target(hub), "draws people", patience=HURRIED)


@pytest.mark.parametrize(("reason", "tag", "message"), [("  ", None, "reason"), ("x" * 2001, None, "reason"), ("why", "v9", "tags are v1, v2")])
def test_no_reason_and_no_release_are_refused(hub: LoopbackHub, reason: str, tag: str | None, message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        withdraw(hub_target(hub), reason, tag=tag, patience=HURRIED)
