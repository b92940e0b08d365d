"""Withdrawals on the loopback hub: what is written, what is refused, and that loaders see it from every tag."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from glideslope.envelopes import sign_statement
from glideslope.errors import ReleaseError, VerificationError
from glideslope.manifest import ReleaseManifest
from glideslope.release.loopback.faults import Fault
from glideslope.release.loopback.hub import LoopbackHub
from glideslope.release.loopback.state import StoredFile
from glideslope.release.publishing.publish import rollback
from glideslope.release.publishing.withdraw import withdraw
from glideslope.signatures import verify_withdrawal, withdrawal_statement
from glideslope.signers import SignerRule
from glideslope.signing_keys import key_id_of
from glideslope.withdrawal import WITHDRAWN_NAME, WITHDRAWN_SIGNATURE_NAME, Withdrawal, Withdrawals

from ..small_releases import HURRIED, REPO, content, hub_target, make_release, send, shown, trust

pytestmark = pytest.mark.usefixtures("quiet_lfs_client")


KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHERS = Withdrawal("0" * 64, "v0", "another one")


def signing(key: Ed25519PrivateKey) -> Callable[[Withdrawals], bytes]:
    """Signs lists as the command does."""
    return lambda withdrawals: sign_statement(withdrawal_statement(withdrawals.to_bytes()), key)


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


def test_a_signed_list_is_only_changed_with_the_key_that_signed_it(hub: LoopbackHub) -> None:
    withdraw(hub_target(hub), "draws people", sign=signing(KEY), patience=HURRIED)
    before = shown(hub)
    assert verify_withdrawal(before[WITHDRAWN_SIGNATURE_NAME], before[WITHDRAWN_NAME], SignerRule.of(key_id_of(KEY)))
    with pytest.raises(ReleaseError, match=f"is signed by the key {key_id_of(KEY)}; sign the new one too, with --key"):
        withdraw(hub_target(hub), "draws weapons too", tag="v1", patience=HURRIED)
    with pytest.raises(ReleaseError, match=f"{key_id_of(KEY)}, and --key is {key_id_of(OTHER)}: only the key that signed"):
        withdraw(hub_target(hub), "nothing to see here", sign=signing(OTHER), patience=HURRIED)
    assert shown(hub) == before
    withdraw(hub_target(hub), "draws weapons too", tag="v1", sign=signing(KEY), patience=HURRIED)
    assert len(list_of(hub).withdrawn) == 2
    assert verify_withdrawal(hub.read_file(REPO, WITHDRAWN_SIGNATURE_NAME), hub.read_file(REPO, WITHDRAWN_NAME), SignerRule.of(key_id_of(KEY)))


def test_an_unsigned_list_may_be_signed_later(hub: LoopbackHub) -> None:
    withdraw(hub_target(hub), "draws people", patience=HURRIED)
    withdraw(hub_target(hub), "draws people", sign=signing(KEY), patience=HURRIED)
    assert verify_withdrawal(hub.read_file(REPO, WITHDRAWN_SIGNATURE_NAME), hub.read_file(REPO, WITHDRAWN_NAME), SignerRule.of(key_id_of(KEY)))


def test_a_signature_that_does_not_fit_the_new_list_is_never_written(hub: LoopbackHub) -> None:
    with pytest.raises(VerificationError, match="about something else"):
        withdraw(hub_target(hub), "draws people", sign=lambda withdrawals: signing(KEY)(Withdrawals().add(OTHERS)), patience=HURRIED)
    assert WITHDRAWN_NAME not in shown(hub)


@pytest.mark.parametrize("damage", [
    {WITHDRAWN_SIGNATURE_NAME: b"{}\n"}, {WITHDRAWN_SIGNATURE_NAME: b"\x80 garbage"}, {WITHDRAWN_NAME: Withdrawals().add(OTHERS).to_bytes()},
    {WITHDRAWN_NAME: None}], ids=["another form", "garbage", "another list", "no list"])
def test_a_list_that_is_not_as_it_was_signed_is_neither_changed_nor_published_beside(
        hub: LoopbackHub, new: Path, tmp_path: Path, damage: dict[str, bytes | None]) -> None:
    withdraw(hub_target(hub), "draws people", tag="v1", sign=signing(KEY), patience=HURRIED)
    repository = hub.repositories[REPO]
    files = {path: file for path, file in repository.find("main").files.items() if path not in damage}
    changed = {path: StoredFile.of_content(data) for path, data in damage.items() if data is not None}
    repository.add_commit("main", {**files, **changed}, "by hand")
    before = shown(hub)
    for sign in (None, signing(KEY), signing(OTHER)):
        with pytest.raises(VerificationError, match=r"WITHDRAWN\.json of .* put these back; or remove both"):
            withdraw(hub_target(hub), "draws weapons", sign=sign, patience=HURRIED)
    with pytest.raises(VerificationError, match="put these back"):
        send(make_release(tmp_path / "third", "another"), hub_target(hub), tag="v3")
    with pytest.raises(VerificationError, match="put these back"):
        rollback(hub_target(hub), "v1", check=trust, patience=HURRIED)
    assert shown(hub) == before


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
