"""Statuses on the loopback hub: what publishing, going back, taking back and renewing write, and what is refused."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from glideslope.errors import ReleaseError, VerificationError
from glideslope.release.publishing.publish import rollback
from glideslope.release.publishing.statuses import StatusWriter, renew
from glideslope.release.publishing.withdraw import withdraw
from glideslope.trust.envelopes import sign_statement
from glideslope.trust.keys import key_id_of
from glideslope.trust.release_manifest import ReleaseManifest
from glideslope.trust.signatures import Vouched, release_statement
from glideslope.trust.status import STATUS_NAME, SignedStatus, Status, times_from, with_current

from ...hub.faults import Fault
from ...hub.loopback import LoopbackHub
from ...hub.state import StoredFile
from ..small_releases import HURRIED, REPO, content, hub_target, make_release, send, shown, trust

pytestmark = pytest.mark.usefixtures("quiet_lfs_client")

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
OURS, THEIRS = StatusWriter(KEY, now=lambda: NOW), StatusWriter(OTHER)


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


def said_by(hub: LoopbackHub, revision: str = "main") -> SignedStatus:
    return SignedStatus.from_bytes(hub.read_file(REPO, STATUS_NAME, revision))


def states(hub: LoopbackHub) -> dict[str, str]:
    return {release.tag: release.state for release in said_by(hub).status.releases}


def root_of(release: Path) -> str:
    return ReleaseManifest.read(release / "manifest.json").root


def put_by_hand(hub: LoopbackHub, data: bytes | None) -> None:
    repository = hub.repositories[REPO]
    files = {path: file for path, file in repository.find("main").files.items() if path != STATUS_NAME}
    repository.add_commit("main", files if data is None else {**files, STATUS_NAME: StoredFile.of_content(data)}, "by hand")


def test_each_publication_writes_the_next_status_in_the_commit_that_shows_the_release(hub: LoopbackHub, old: Path, new: Path) -> None:
    first, second = said_by(hub, "v1"), said_by(hub, "v2")
    assert (first.status.number, second.status.number, second.status.repository) == (1, 2, REPO)
    assert [(one.root, one.tag, one.state, one.successor) for one in second.status.releases] == [
        (root_of(old), "v1", "superseded", root_of(new)), (root_of(new), "v2", "current", None)]
    for commit in hub.repositories[REPO].history("main"):  # main never showed a release beside a status of another one
        if "manifest.json" in commit.files:
            current = said_by(hub, commit.oid).status.current
            assert current is not None
            assert current.root == ReleaseManifest.from_bytes(hub.read_file(REPO, "manifest.json", commit.oid)).root


def test_going_back_makes_the_earlier_release_the_current_one_again(hub: LoopbackHub) -> None:
    rollback(hub_target(hub), "v1", check=trust, patience=HURRIED)
    assert states(hub) == {"v1": "current", "v2": "superseded"}
    assert said_by(hub).status.number == 3
    rollback(hub_target(hub), "v1", check=trust, patience=HURRIED)
    assert said_by(hub).status.number == 3


def test_the_shown_release_is_withdrawn_by_its_root_in_one_commit_and_its_files_stay(hub: LoopbackHub, new: Path) -> None:
    num_commits = len(hub.repositories[REPO].commits)
    withdrawn = withdraw(hub_target(hub), "draws people", patience=HURRIED)
    assert (withdrawn.root, withdrawn.tag, withdrawn.state) == (root_of(new), "v2", "withdrawn")
    assert said_by(hub).status.find(withdrawn.root) == withdrawn
    assert len(hub.repositories[REPO].commits) == num_commits + 1
    assert shown(hub) == content(new) == shown(hub, "v2")


def test_an_earlier_release_is_withdrawn_by_its_tag_and_main_is_otherwise_as_it_was(hub: LoopbackHub) -> None:
    withdraw(hub_target(hub), "draws people", tag="v1", patience=HURRIED)
    assert states(hub) == {"v1": "withdrawn", "v2": "current"}


def test_a_lost_answer_is_survived_and_a_repeated_withdrawal_writes_nothing(hub: LoopbackHub) -> None:
    hub.inject(Fault("lost_response", "POST", "/commit/main"))
    withdraw(hub_target(hub), "draws people", patience=HURRIED)
    num_commits = len(hub.repositories[REPO].commits)
    withdraw(hub_target(hub), "draws people", patience=HURRIED)
    assert len(hub.repositories[REPO].commits) == num_commits
    assert hub.met


def test_what_was_withdrawn_is_not_published_and_not_gone_back_to(hub: LoopbackHub, old: Path) -> None:
    withdraw(hub_target(hub), "draws people", tag="v1", patience=HURRIED)
    with pytest.raises(ReleaseError, match=r"withdrawn \(draws people\)"):
        rollback(hub_target(hub), "v1", check=trust, patience=HURRIED)
    with pytest.raises(ReleaseError, match=r"withdrawn \(draws people\)"):
        send(old, hub_target(hub), tag="v3")


def test_a_withdrawal_stays_when_the_next_release_is_published(hub: LoopbackHub, tmp_path: Path) -> None:
    withdraw(hub_target(hub), "draws people", patience=HURRIED)
    send(make_release(tmp_path / "third", "without people"), hub_target(hub), tag="v3")
    assert states(hub) == {"v1": "superseded", "v2": "withdrawn", "v3": "current"}


def test_a_signed_status_is_only_continued_with_the_key_that_signed_it(hub: LoopbackHub, tmp_path: Path) -> None:
    withdraw(hub_target(hub), "draws people", writer=OURS, patience=HURRIED)  # an unsigned one may be signed later
    before, third = said_by(hub), make_release(tmp_path / "third", "another")
    assert (before.key_ids, before.status.expires) == ((key_id_of(KEY),), NOW + timedelta(days=180))
    for writer, message in ((None, f"is signed by the key {key_id_of(KEY)}; sign the next one too, with --key"),
                            (THEIRS, f"{key_id_of(KEY)}, and --key is {key_id_of(OTHER)}. Give that key")):
        with pytest.raises(ReleaseError, match=message):
            withdraw(hub_target(hub), "nothing to see here", tag="v1", writer=writer, patience=HURRIED)
        with pytest.raises(ReleaseError, match=message):
            send(third, hub_target(hub), tag="v3", writer=writer)
        with pytest.raises(ReleaseError, match=message):
            rollback(hub_target(hub), "v1", writer=writer, check=trust, patience=HURRIED)
    assert said_by(hub) == before
    send(third, hub_target(hub), tag="v3", writer=OURS)
    withdraw(hub_target(hub), "draws weapons", tag="v1", writer=StatusWriter(OTHER, replace_key=True), patience=HURRIED)
    assert (said_by(hub).key_ids, said_by(hub).status.number) == ((key_id_of(OTHER),), before.status.number + 2)


def test_a_status_is_renewed_and_says_the_same(hub: LoopbackHub) -> None:
    before = said_by(hub).status
    renewed = renew(hub_target(hub), StatusWriter(KEY, valid_days=10, now=lambda: NOW), patience=HURRIED)
    assert said_by(hub) == renewed
    assert renewed.status == Status(REPO, before.number + 1, *times_from(NOW, 10), before.releases)
    with pytest.raises(ReleaseError, match="an unsigned status does not expire"):
        renew(hub_target(hub), StatusWriter(), patience=HURRIED)


def test_a_signed_release_is_not_shown_with_an_unsigned_status_or_one_by_somebody_else(hub: LoopbackHub, tmp_path: Path) -> None:
    third = make_release(tmp_path / "third", "another")
    statement = release_statement((third / "manifest.json").read_bytes(), Vouched("x", ("reload",), "0" * 64, {}))
    (third / "manifest.dsse.json").write_bytes(sign_statement(statement, KEY))
    before = said_by(hub)
    for writer, message in ((None, "the release is signed, so its STATUS.json must be signed too"), (THEIRS, "but the release is signed by")):
        with pytest.raises(ReleaseError, match=message):
            send(third, hub_target(hub), tag="v3", writer=writer)
    assert said_by(hub) == before
    send(third, hub_target(hub), tag="v3", writer=OURS)
    assert said_by(hub).key_ids == (key_id_of(KEY),)


def test_a_release_that_is_shown_without_a_status_gets_one_by_the_same_command(hub: LoopbackHub, new: Path) -> None:
    put_by_hand(hub, None)
    assert send(new, hub_target(hub), tag="v2").done == ("wrote STATUS.json",)
    assert said_by(hub).status.current is not None
    assert send(new, hub_target(hub), tag="v2").done == ()


@pytest.mark.parametrize("damage", [b"{}\n", b"\x80 garbage", "another repository", "edited"])
def test_a_status_that_is_not_as_it_was_written_is_neither_continued_nor_published_beside(
        hub: LoopbackHub, tmp_path: Path, damage: bytes | str) -> None:
    withdraw(hub_target(hub), "draws people", tag="v1", writer=OURS, patience=HURRIED)
    data = hub.read_file(REPO, STATUS_NAME)
    if damage == "another repository":
        damage = Status("tester/other", 9, *times_from(NOW, 10), with_current((), "0" * 64, "v1")).to_bytes(KEY)
    elif damage == "edited":
        damage = data.replace(b"draws people", b"is harmless ")
        assert damage != data
    assert isinstance(damage, bytes)
    put_by_hand(hub, damage)
    before = hub.repositories[REPO].branches["main"]
    for act in (lambda: withdraw(hub_target(hub), "draws weapons", writer=OURS, patience=HURRIED),
                lambda: send(make_release(tmp_path / "third", "another"), hub_target(hub), tag="v3", writer=OURS),
                lambda: rollback(hub_target(hub), "v1", writer=OURS, check=trust, patience=HURRIED),
                lambda: renew(hub_target(hub), OURS, patience=HURRIED)):
        with pytest.raises(VerificationError, match=r"STATUS\.json of .*put it back"):
            act()
    assert hub.repositories[REPO].branches["main"] == before


def test_a_commit_by_somebody_else_in_between_is_not_overwritten(hub: LoopbackHub) -> None:
    before = said_by(hub)
    hub.inject(Fault("moved", "POST", "/commit/main"))
    with pytest.raises(ReleaseError, match="changed while it was worked on"):
        withdraw(hub_target(hub), "draws people", patience=HURRIED)
    assert said_by(hub) == before


@pytest.mark.parametrize(("reason", "tag", "message"), [("  ", None, "reason"), ("x" * 2001, None, "reason"), ("why", "v9", "tags are v1, v2")])
def test_no_reason_and_no_release_are_refused(hub: LoopbackHub, reason: str, tag: str | None, message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        withdraw(hub_target(hub), reason, tag=tag, patience=HURRIED)
