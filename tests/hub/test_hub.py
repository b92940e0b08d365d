"""The loopback hub as the real client sees it: routes, rights, and everything that can go wrong."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .faults import Fault
from .loopback import OWNER, LoopbackHub
from .state import Account

READER = Account("reader", "hf_loopback_reader", can_write=False)
COLLEAGUE = Account("colleague", "hf_loopback_colleague", organizations=("tester",))
REPO = "tester/model"
CARD = b"---\nlicense: mit\n---\nA card.\n"

# What huggingface_hub 2.4.0 sends to publish over LFS, captured from the wire.
CAPTURED = [
    "GET /api/whoami-v2", "POST /api/repos/create", "POST /api/models/<repo>/branch/staging/1", "POST /api/validate-yaml",
    "POST /api/models/<repo>/preupload/staging/1", "POST /<repo>.git/info/lfs/objects/batch", "PUT /_part/<sha256>/1",
    "PUT /_part/<sha256>/2", "POST /_complete/<sha256>", "PUT /_lfs/<sha256>", "POST /_verify/<sha256>",
    "POST /api/models/<repo>/commit/staging/1", "GET /api/models/<repo>/tree/<oid>", "HEAD /<repo>/resolve/<oid>/README.md",
    "GET /<repo>/resolve/<oid>/README.md",
    "POST /api/models/<repo>/paths-info/main", "POST /api/models/<repo>/paths-info/<oid>", "POST /api/models/<repo>/commit/main",
    "GET /api/models/<repo>/refs", "POST /api/models/<repo>/tag/<oid>", "DELETE /api/models/<repo>/branch/staging/1",
    "PUT /api/models/<repo>/settings", "GET /api/models/<repo>"]


pytestmark = pytest.mark.usefixtures("quiet_lfs_client")


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub(accounts=(OWNER, READER, COLLEAGUE), part_bytes=4096) as running:
        running.create_repository(REPO)
        yield running


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=OWNER.token)


def additions() -> list[CommitOperationAdd]:
    return [CommitOperationAdd("README.md", CARD), CommitOperationAdd("base/large.safetensors", bytes(range(256)) * 20),
            CommitOperationAdd("figures/small.png", b"a picture")]


def download(hub: LoopbackHub, cache: Path, revision: str, token: str | bool = OWNER.token) -> Path:
    return Path(snapshot_download(REPO, revision=revision, cache_dir=cache, endpoint=hub.endpoint, token=token))


def normalise(method: str, path: str) -> str:
    path = re.sub(r"\b[0-9a-f]{64}\b", "<sha256>", path.replace(REPO, "<repo>"))
    return f"{method} {re.sub(r'[0-9a-f]{40}', '<oid>', path)}"


def test_a_whole_publication_by_the_real_client_uses_the_captured_routes_and_no_other(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    assert api.whoami()["name"] == "tester"
    api.create_repo(REPO, exist_ok=True)
    api.create_branch(REPO, branch="staging/1")
    staged = api.create_commit(REPO, additions(), commit_message="stage", revision="staging/1").oid
    snapshot = download(hub, tmp_path, staged)
    assert (snapshot / "README.md").read_bytes() == CARD
    assert (snapshot / "base/large.safetensors").read_bytes() == bytes(range(256)) * 20
    copies = [CommitOperationCopy(op.path_in_repo, op.path_in_repo, src_revision=staged) for op in additions()]
    promoted = api.create_commit(REPO, copies, commit_message="promote", parent_commit=api.model_info(REPO).sha).oid
    assert hub.repositories[REPO].commits[staged].files == hub.repositories[REPO].commits[promoted].files
    assert {ref.name for ref in api.list_repo_refs(REPO).branches} == {"main", "staging/1"}
    api.create_tag(REPO, tag="v1", revision=promoted)
    api.delete_branch(REPO, branch="staging/1")
    api.update_repo_settings(REPO, gated="manual")
    seen = {normalise(served.method, served.path) for served in hub.log}
    assert set(CAPTURED) <= seen
    assert {route for route in seen - set(CAPTURED) if "/resolve/" not in route} == set()
    assert hub.repositories[REPO].tags == {"v1": promoted}
    assert all(served.status in (200, 409) for served in hub.log)


def test_a_commit_on_a_branch_that_has_moved_is_refused_and_changes_nothing(hub: LoopbackHub, api: HfApi) -> None:
    before = hub.repositories[REPO].branches["main"]
    api.create_commit(REPO, [CommitOperationAdd("a.txt", b"a")], commit_message="a", parent_commit=before)
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(REPO, [CommitOperationAdd("b.txt", b"b")], commit_message="b", parent_commit=before)
    assert set(hub.repositories[REPO].find("main").files) == {".gitattributes", "a.txt"}


def test_files_can_be_deleted_and_listed_with_their_history(hub: LoopbackHub, api: HfApi) -> None:
    api.create_commit(REPO, additions(), commit_message="three files")
    api.create_commit(REPO, [CommitOperationDelete("figures/", is_folder=True), CommitOperationDelete("README.md")], commit_message="one left")
    assert api.list_repo_files(REPO) == [".gitattributes", "base/large.safetensors"]
    assert [commit.title for commit in api.list_repo_commits(REPO)] == ["one left", "three files", "initial commit"]


def test_a_private_repository_does_not_exist_for_strangers(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    api.update_repo_settings(REPO, visibility="private")
    for token in (READER.token, False):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(endpoint=hub.endpoint, token=token).model_info(REPO)
    assert HfApi(endpoint=hub.endpoint, token=COLLEAGUE.token).model_info(REPO).private


def test_a_gated_repository_is_seen_by_all_and_downloaded_by_those_who_were_granted(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    oid = api.create_commit(REPO, additions(), commit_message="files").oid
    api.update_repo_settings(REPO, gated="manual")
    assert HfApi(endpoint=hub.endpoint, token=False).model_info(REPO).gated == "manual"
    for number, token in enumerate((READER.token, False)):
        with pytest.raises(GatedRepoError):
            download(hub, tmp_path / str(number), oid, token)
    hub.repositories[REPO].granted.add("reader")
    assert (download(hub, tmp_path / "granted", oid, READER.token) / "README.md").read_bytes() == CARD


def test_only_members_with_a_writing_token_change_a_repository(hub: LoopbackHub) -> None:
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi(endpoint=hub.endpoint, token=READER.token).create_branch(REPO, branch="mine")
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(endpoint=hub.endpoint, token=False).create_branch(REPO, branch="mine")
    HfApi(endpoint=hub.endpoint, token=COLLEAGUE.token).create_branch(REPO, branch="ours")
    assert "ours" in hub.repositories[REPO].branches


def test_unknown_and_expired_tokens_are_refused_everywhere(hub: LoopbackHub) -> None:
    hub.accounts.append(Account("late", "hf_loopback_late", is_expired=True))
    for token in ("hf_nobody", "hf_loopback_late"):
        with pytest.raises(HfHubHTTPError, match="401"):
            HfApi(endpoint=hub.endpoint, token=token).model_info(REPO)


def test_a_pointer_to_an_object_that_was_never_uploaded_is_refused(hub: LoopbackHub, api: HfApi) -> None:
    large = CommitOperationAdd("base/large.safetensors", b"x" * 100)
    api.preupload_lfs_files(REPO, [large])
    hub.objects.path(large.upload_info.sha256.hex()).unlink()
    with pytest.raises(HfHubHTTPError, match="never uploaded"):
        api.create_commit(REPO, [large], commit_message="pointer")
    assert len(hub.repositories[REPO].commits) == 1


def test_unknown_revisions_and_repeated_tags_are_refused(hub: LoopbackHub, api: HfApi) -> None:
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="v9")
    api.create_tag(REPO, tag="v1")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(REPO, tag="v1")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.delete_branch(REPO, branch="main")


def test_a_card_with_broken_metadata_is_refused_before_anything_is_uploaded(hub: LoopbackHub, api: HfApi) -> None:
    with pytest.raises(ValueError, match="metadata"):
        api.create_commit(REPO, [CommitOperationAdd("README.md", b"---\n- a list\n---\n")], commit_message="card")
    assert len(hub.repositories[REPO].commits) == 1


def test_a_lost_response_leaves_the_commit_applied(hub: LoopbackHub, api: HfApi) -> None:
    for number, kind in enumerate(("lost_response", "applied_500")):
        hub.inject(Fault(kind, "POST", "/commit/main"))  # type: ignore[arg-type] - the two are fault kinds
        with pytest.raises(Exception, match=r"500|disconnected"):
            api.create_commit(REPO, [CommitOperationAdd(f"{number}.txt", b"text")], commit_message="note")
        assert f"{number}.txt" in hub.repositories[REPO].find("main").files
    assert [fault.kind for fault in hub.met] == ["lost_response", "applied_500"]


def test_refusals_by_fault_change_nothing_and_last_as_long_as_they_say(hub: LoopbackHub, api: HfApi) -> None:
    for kind in ("412", "500", "503", "expired_token"):
        hub.inject(Fault(kind, "POST", "/commit/main"))  # type: ignore[arg-type] - all are fault kinds
        with pytest.raises(HfHubHTTPError, match="401" if kind == "expired_token" else kind):
            api.create_commit(REPO, [CommitOperationAdd("note.txt", b"text")], commit_message="note")
        assert len(hub.repositories[REPO].commits) == 1
    api.create_commit(REPO, [CommitOperationAdd("note.txt", b"text")], commit_message="note")
    assert len(hub.repositories[REPO].commits) == 2


def test_a_corrupt_download_of_the_same_size_passes_the_client_unseen(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    oid = api.create_commit(REPO, additions(), commit_message="files").oid
    hub.inject(Fault("corrupt", "GET", r"large\.safetensors"))
    found = (download(hub, tmp_path, oid) / "base/large.safetensors").read_bytes()
    original = bytes(range(256)) * 20
    assert len(found) == len(original)
    assert sum(a != b for a, b in zip(found, original, strict=True)) == 1


def test_a_cut_download_is_taken_up_again_by_the_client(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    oid = api.create_commit(REPO, additions(), commit_message="files").oid
    hub.inject(Fault("cut", "GET", r"large\.safetensors"))
    assert (download(hub, tmp_path, oid) / "base/large.safetensors").read_bytes() == bytes(range(256)) * 20
    assert [fault.kind for fault in hub.met] == ["cut"]


def test_half_an_upload_stores_nothing_and_the_client_sends_it_again(hub: LoopbackHub, api: HfApi) -> None:
    hub.inject(Fault("half_upload", "PUT", "/_lfs/"), Fault("half_upload", "PUT", "/_part/", nth=2))
    api.create_commit(REPO, additions(), commit_message="files")
    assert {fault.path for fault in hub.met} == {"/_lfs/", "/_part/"}
    assert hub.read_file(REPO, "base/large.safetensors") == bytes(range(256)) * 20
    assert hub.read_file(REPO, "figures/small.png") == b"a picture"


def test_somebody_elses_commit_in_between_moves_the_branch(hub: LoopbackHub, api: HfApi) -> None:
    before = hub.repositories[REPO].branches["main"]
    hub.inject(Fault("moved", "POST", "/commit/main"))
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(REPO, [CommitOperationAdd("note.txt", b"text")], commit_message="note", parent_commit=before)
    assert set(hub.repositories[REPO].find("main").files) == {".gitattributes", "NOTES.md"}


def test_slow_answers_arrive(hub: LoopbackHub, api: HfApi) -> None:
    hub.inject(Fault("slow", "GET", "whoami", delay_s=0.01))
    assert api.whoami()["name"] == "tester"
    assert [fault.kind for fault in hub.met] == ["slow"]


def test_the_hub_listens_on_the_loopback_address_alone(hub: LoopbackHub) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", hub.endpoint)


def test_large_files_make_the_round_trip_through_xet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with LoopbackHub(has_xet=True) as hub:
        hub.create_repository(REPO)
        api = HfApi(endpoint=hub.endpoint, token=OWNER.token)
        oid = api.create_commit(REPO, additions(), commit_message="files").oid
        assert (download(hub, tmp_path / "good", oid) / "base/large.safetensors").read_bytes() == bytes(range(256)) * 20
        seen = {normalise(served.method, served.path) for served in hub.log}
        assert "GET /api/models/<repo>/xet-write-token/main" in seen
        assert "GET /api/models/<repo>/xet-read-token/<oid>" in seen
        assert not any("lfs" in route for route in seen)
