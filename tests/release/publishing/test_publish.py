"""Publishing to the loopback hub with the real client: what is shown, what is refused, and what faults leave behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from glideslope.errors import GlideslopeError, ReleaseError, VerificationError
from glideslope.release.publishing.publish import publish, rollback
from glideslope.trust.opening import OpenRelease
from glideslope.trust.unlisted_files import KEPT_FILES

from ...hub.faults import Fault, FaultKind
from ...hub.loopback import OWNER, LoopbackHub
from ...hub.state import Account, StoredFile
from ..small_releases import HURRIED, REPO, WEIGHTS, content, hub_target, make_plan, make_release, seal, send, shown, trust

pytestmark = pytest.mark.usefixtures("quiet_lfs_client")


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return make_release(tmp_path / "old", "the old one", extra="evidence/gone.json")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return make_release(tmp_path / "new", "the new release", extra="evidence/come.json")


def test_a_new_repository_is_private_and_shows_exactly_the_release_under_its_tag(hub: LoopbackHub, old: Path) -> None:
    published = send(old, hub_target(hub), tag="v1")
    repository = hub.repositories[REPO]
    assert shown(hub) == content(old) == shown(hub, "v1")
    assert repository.tags["v1"] == repository.branches["main"] == published.revision
    assert set(repository.branches) == {"main"}
    assert repository.is_private


def test_the_next_release_replaces_and_removes_in_one_commit_and_the_tags_stay(hub: LoopbackHub, old: Path, new: Path) -> None:
    first = send(old, hub_target(hub), tag="v1")
    second = send(new, hub_target(hub), tag="v2")
    assert shown(hub) == content(new)
    assert shown(hub, "v1") == content(old)
    assert hub.repositories[REPO].commits[second.revision].parent == first.revision


def test_main_never_showed_anything_but_nothing_and_the_releases(hub: LoopbackHub, old: Path, new: Path) -> None:
    send(old, hub_target(hub), tag="v1")
    send(new, hub_target(hub), tag="v2")
    states = [set(commit.files) - KEPT_FILES for commit in hub.repositories[REPO].history("main")]
    assert states == [set(content(new)), set(content(old)), set()]


def test_publishing_again_does_nothing(hub: LoopbackHub, old: Path) -> None:
    first = send(old, hub_target(hub), tag="v1")
    num_commits = len(hub.repositories[REPO].commits)
    second = send(old, hub_target(hub), tag="v1")
    assert (second.revision, second.done) == (first.revision, ())
    assert len(hub.repositories[REPO].commits) == num_commits


def test_large_files_are_uploaded_once_and_promoted_by_reference(hub: LoopbackHub, old: Path) -> None:
    send(old, hub_target(hub))
    assert sum(served.path.startswith("/_lfs/") for served in hub.log) == 1


def test_the_plan_says_who_where_and_what_changes_and_changes_nothing(hub: LoopbackHub, old: Path, new: Path) -> None:
    send(old, hub_target(hub), tag="v1")
    before, num_served = dict(hub.repositories[REPO].branches), len(hub.log)
    plan = make_plan(new, hub_target(hub), tag="v2", gated="manual", is_private=False)
    assert plan.identity == {"account": "tester", "endpoint": hub.endpoint, "target": REPO}
    assert set(plan.changes.added) == {"evidence/come.json"}
    assert set(plan.changes.removed) == {"evidence/gone.json"}
    assert set(plan.changes.unchanged) == {"LICENSE"}
    assert plan.changes.changed[WEIGHTS] == (new / WEIGHTS).stat().st_size
    assert plan.access == {"visibility": "private -> public", "gated": "no -> manual"}
    assert hub.repositories[REPO].branches == before
    assert {served.method for served in hub.log[num_served:]} == {"GET"}


def test_a_gate_is_closed_before_anything_is_uploaded_and_a_repository_is_opened_after_all_is_done(hub: LoopbackHub, old: Path) -> None:
    send(old, hub_target(hub), gated="auto", is_private=False)
    repository, calls = hub.repositories[REPO], [(served.method, served.path.rsplit("/", 1)[-1]) for served in hub.log]
    assert (repository.gated, repository.is_private) == ("auto", False)
    settings = [number for number, call in enumerate(calls) if call == ("PUT", "settings")]
    assert settings[0] < calls.index(("POST", "batch")) < settings[-1]
    assert settings[-1] > max(number for number, (method, _) in enumerate(calls) if method in ("POST", "DELETE"))


def test_a_tag_that_names_another_release_is_never_moved(hub: LoopbackHub, old: Path, new: Path) -> None:
    send(old, hub_target(hub), tag="v1")
    with pytest.raises(ReleaseError, match="names another release"):
        send(new, hub_target(hub), tag="v1")
    assert shown(hub) == content(old)


def test_files_that_no_release_put_there_are_not_overwritten_unless_asked(hub: LoopbackHub, old: Path, new: Path) -> None:
    send(old, hub_target(hub), tag="v1")
    repository = hub.repositories[REPO]
    edited = {**repository.find("main").files, "NOTES.md": StoredFile.of_content(b"mine"), "README.md": StoredFile.of_content(b"x" * 50)}
    repository.add_commit("main", edited, "by hand")
    with pytest.raises(ReleaseError, match=r"NOTES\.md, README\.md"):
        send(new, hub_target(hub), tag="v2")
    assert hub.read_file(REPO, "NOTES.md") == b"mine"
    send(new, hub_target(hub), tag="v2", replace_foreign=True)
    assert shown(hub) == content(new)


def test_an_edit_of_the_same_size_is_noticed(hub: LoopbackHub, old: Path, new: Path) -> None:
    send(old, hub_target(hub), tag="v1")
    repository = hub.repositories[REPO]
    card = (old / "README.md").read_bytes().replace(b"This", b"That")
    repository.add_commit("main", {**repository.find("main").files, "README.md": StoredFile.of_content(card)}, "by hand")
    with pytest.raises(ReleaseError, match=r"README\.md"):
        send(new, hub_target(hub))


def test_a_commit_by_somebody_else_in_between_is_never_overwritten(hub: LoopbackHub, old: Path, new: Path) -> None:
    send(old, hub_target(hub), tag="v1")
    hub.inject(Fault("moved", "POST", "/commit/main"))
    with pytest.raises(ReleaseError, match="somebody else changed main"):
        send(new, hub_target(hub), tag="v2")
    assert set(shown(hub)) == set(content(old)) | {"NOTES.md"}
    assert "v2" not in hub.repositories[REPO].tags


def test_a_commit_by_somebody_else_after_the_plan_is_never_overwritten(hub: LoopbackHub, old: Path, new: Path) -> None:
    send(old, hub_target(hub), tag="v1")
    plan = make_plan(new, hub_target(hub), tag="v2")
    repository = hub.repositories[REPO]
    repository.add_commit("main", {**repository.find("main").files, "NOTES.md": StoredFile.of_content(b"mine")}, "by hand")
    with pytest.raises(ReleaseError, match="since the plan was made"):
        publish(plan, hub_target(hub), check=trust, patience=HURRIED)
    assert hub.read_file(REPO, "NOTES.md") == b"mine"


TRANSIENT: list[tuple[FaultKind, str, str]] = [
    *((kind, method, path) for kind in ("lost_response", "applied_500", "503") for method, path in (
        ("POST", "/repos/create"), ("POST", "/branch/staging/"), ("POST", "/commit/staging/"), ("POST", "/commit/main"), ("POST", "/tag/"),
        ("DELETE", "/branch/staging/"), ("PUT", "/settings"), ("GET", "/refs"), ("GET", "whoami"), ("GET", "/tree/"))),
    ("half_upload", "PUT", "/_lfs/"), ("500", "POST", "/preupload/"), ("503", "POST", "/objects/batch"), ("503", "POST", "/validate-yaml"),
    ("cut", "GET", "/resolve/.*safetensors"), ("corrupt", "GET", "/resolve/.*safetensors"), ("corrupt", "GET", r"/resolve/.*README\.md"),
    ("corrupt", "GET", r"/resolve/.*manifest\.json"), ("slow", "POST", "/commit/"), ("412", "POST", "/commit/staging/")]


@pytest.mark.parametrize(("kind", "method", "path"), TRANSIENT)
def test_faults_that_pass_are_survived_without_a_second_command(
        hub: LoopbackHub, old: Path, kind: FaultKind, method: str, path: str) -> None:
    hub.inject(Fault(kind, method, path, delay_s=0.01))
    if kind == "412":
        with pytest.raises(ReleaseError, match="run the same command again"):
            send(old, hub_target(hub), tag="v1", is_private=False)
    published = send(old, hub_target(hub), tag="v1", is_private=False)
    assert [fault.kind for fault in hub.met] == [kind]
    assert shown(hub) == content(old)
    assert hub.repositories[REPO].tags == {"v1": published.revision}
    assert len(hub.repositories[REPO].history("main")) == 2


@pytest.mark.parametrize(("kind", "method", "path"), [
    ("500", "POST", "/commit/main"), ("expired_token", "POST", "/commit/main"), ("expired_token", "POST", "/commit/staging/"),
    ("expired_token", "GET", "whoami"), ("corrupt", "GET", "/resolve/.*safetensors"), ("412", "POST", "/commit/main")])
def test_faults_that_stay_are_refused_show_nothing_and_the_same_command_finishes_later(
        hub: LoopbackHub, old: Path, kind: FaultKind, method: str, path: str) -> None:
    hub.inject(Fault(kind, method, path, times=None))
    with pytest.raises(GlideslopeError):
        send(old, hub_target(hub), tag="v1")
    assert hub.met
    assert REPO not in hub.repositories or (shown(hub) == {} and hub.repositories[REPO].tags == {})
    hub.clear_faults()
    send(old, hub_target(hub), tag="v1")
    assert shown(hub) == content(old) == shown(hub, "v1")


def test_storage_that_gives_back_other_bytes_is_never_shown(hub: LoopbackHub, old: Path) -> None:
    hub.inject(Fault("corrupt", "GET", "/resolve/.*safetensors", times=None))
    with pytest.raises(VerificationError, match=WEIGHTS):
        send(old, hub_target(hub), tag="v1")
    assert shown(hub) == {}


def test_a_check_that_refuses_keeps_the_release_from_being_shown(hub: LoopbackHub, old: Path) -> None:
    def refuse(release: OpenRelease) -> None:
        assert {path: (release.directory / path).read_bytes() for path in release.paths} == content(old)
        raise VerificationError("release", ["no"])

    with pytest.raises(VerificationError):
        send(old, hub_target(hub), check=refuse)
    assert shown(hub) == {}


def test_an_unknown_token_a_reading_token_and_a_strange_namespace_are_refused_before_anything_is_made(old: Path) -> None:
    reader = Account("reader", "hf_loopback_reader", can_write=False, organizations=("tester",))
    with LoopbackHub(accounts=(OWNER, reader, Account("other", "hf_loopback_other"))) as hub:
        for token, message in (("hf_nobody", "does not accept the token"), ("hf_loopback_reader", "may only read"),
                               ("hf_loopback_other", "does not belong to 'tester'")):
            with pytest.raises(ReleaseError, match=message):
                send(old, hub_target(hub, token))
        assert {served.path for served in hub.log} == {"/api/whoami-v2"}


def test_a_release_that_was_changed_after_packing_is_refused_before_the_hub_is_asked(hub: LoopbackHub, old: Path) -> None:
    (old / "LICENSE").write_bytes(b"another in this release!!\n")
    with pytest.raises(VerificationError, match="LICENSE"):
        make_plan(old, hub_target(hub))
    assert hub.log == []


def test_rolling_back_shows_the_earlier_release_again_and_only_that(hub: LoopbackHub, old: Path, new: Path) -> None:
    send(old, hub_target(hub), tag="v1")
    send(new, hub_target(hub), tag="v2")
    published = rollback(hub_target(hub), "v1", check=trust, patience=HURRIED)
    assert shown(hub) == content(old)
    assert shown(hub, "v2") == content(new)
    assert hub.repositories[REPO].branches["main"] == published.revision
    assert rollback(hub_target(hub), "v1", check=trust, patience=HURRIED).revision == published.revision


def test_rolling_back_to_what_is_damaged_or_absent_is_refused(hub: LoopbackHub, old: Path, new: Path) -> None:
    send(old, hub_target(hub), tag="v1")
    send(new, hub_target(hub), tag="v2")
    with pytest.raises(ReleaseError, match="there is no tag v3; the tags are v1, v2"):
        rollback(hub_target(hub), "v3", check=trust, patience=HURRIED)
    hub.inject(Fault("corrupt", "GET", "/resolve/.*safetensors", times=None))
    with pytest.raises(VerificationError, match=WEIGHTS):
        rollback(hub_target(hub), "v1", check=trust, patience=HURRIED)
    assert shown(hub) == content(new)


def test_an_attributes_file_that_says_more_is_refused(hub: LoopbackHub, old: Path) -> None:
    repository = hub.create_repository(REPO)
    repository.add_commit("main", {".gitattributes": StoredFile.of_content(b"*.py filter=evil\n")}, "by hand")
    with pytest.raises(VerificationError, match="gitattributes"):
        send(old, hub_target(hub))


def test_a_release_may_not_bring_a_file_that_the_target_keeps(hub: LoopbackHub, old: Path) -> None:
    (old / ".gitattributes").write_bytes(b"*.bin filter=lfs diff=lfs merge=lfs -text\n")
    with pytest.raises(ReleaseError, match="gitattributes"):
        make_plan(seal(old), hub_target(hub))
