"""Every way to open a release treats a place alike: copies, the client's folders and cache, clones, and what strays into them."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants, snapshot_download

from glideslope import GlidePipeline
from glideslope.errors import GlideslopeError, ReleaseError, VerificationError
from glideslope.release.documents.card_view import card_page, check_card, render_again
from glideslope.release.exports.diffusers import export_diffusers
from glideslope.release.publishing.directory_target import DirectoryTarget
from glideslope.release.publishing.publication import Options, plan_publication
from glideslope.release.publishing.targets import LocalRelease
from glideslope.release.verify import verify
from glideslope.release.vetting.check import run_policy
from glideslope.store.digests import sha256_file
from glideslope.store.whole_files import write_bytes

from ..hub.loopback import OWNER, LoopbackHub

ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
WEIGHTS = "base/diffusion_pytorch_model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
REPO = "tester/model"


def check(place: Path) -> None:
    """The gates; the run of the tests is too small for some of them, those that look at files must not be among these."""
    try:
        run_policy(place)
    except ReleaseError as error:
        told = str(error)
        assert "gates refuse" in told, told
        files = ("intact", "allowed files", "secrets", "size", "reload", "golden samples")
        assert not [name for name in files if f"gate {name}:" in told], told


def export(place: Path) -> None:
    """Export to a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as temporary:
        export_diffusers(place, Path(temporary) / "export")
        assert not (Path(temporary) / "export/.git").exists()


def publish(place: Path) -> None:
    """What publishing does with a download before anybody is shown it."""
    problems = LocalRelease.read(place).opened.differences()
    if problems:
        raise VerificationError(str(place), problems)


DOORS: dict[str, Callable[[Path], object]] = {
    "load": lambda place: GlidePipeline.from_pretrained(place, device="cpu", verify="required"),
    "load unverified": lambda place: GlidePipeline.from_pretrained(place, device="cpu", verify="off"),
    "verify": verify, "check": check, "card": render_again, "card --check": check_card, "card --html": card_page,
    "export": export, "publish": publish}


def refusals(place: Path, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """How the doors refuse a place; those that let it in are left out."""
    told = {}
    for name, door in DOORS.items():
        if name not in without:
            try:
                door(place)
            except GlideslopeError as error:
                told[name] = str(error)
    return told


@pytest.fixture
def place(packed_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed_run / "release", tmp_path / "release"))


def clone(place: Path) -> Path:
    """Make a folder look like a clone."""
    (place / ".gitattributes").write_text(ATTRIBUTES)
    for name, text in ((".git/HEAD", "ref: refs/heads/main\n"), (".git/config", "[core]\n\tfsmonitor = x\n"), (".git/hooks/x", "#!/bin/sh\n")):
        write_bytes(place / name, text.encode())
    (place / ".git/link").symlink_to("nowhere")
    return place


@pytest.fixture(scope="module")
def xet_snapshot(packed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot in the cache of the real client, whose large files came over Xet."""
    root = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch, LoopbackHub(root / "hub", has_xet=True) as hub:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", False)
        patch.setattr(constants, "HF_XET_CACHE", str(root / "xet"))
        patch.setenv("NO_PROXY", "127.0.0.1")
        hub.create_repository(REPO)
        files = [path for path in (packed_run / "release").rglob("*") if path.is_file()]
        added = [CommitOperationAdd(path.relative_to(packed_run / "release").as_posix(), path) for path in files]
        HfApi(endpoint=hub.endpoint, token=OWNER.token).create_commit(REPO, added, commit_message="release")
        return Path(snapshot_download(REPO, cache_dir=root / "cache", endpoint=hub.endpoint, token=OWNER.token))


def cached(place: Path) -> Path:
    """A snapshot in a cache that keeps every file among the blobs of its repository."""
    repository = place.with_name("models--me--mine")
    snapshot = repository / "snapshots" / ("a" * 40)
    for path in [path for path in place.rglob("*") if path.is_file()]:
        blob = repository / "blobs" / sha256_file(path)
        write_bytes(blob, path.read_bytes())
        link = snapshot / path.relative_to(place)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def local_dir(place: Path) -> Path:
    """A folder that the Hub's client was given."""
    write_bytes(place / ".gitattributes", ATTRIBUTES.encode())
    write_bytes(place / ".cache/huggingface/.gitignore", b"*")
    return place


# How a release lies here: the way of having it -> what makes it of a plain copy. The cache with Xet blobs comes from the real client.
WAYS: dict[str, Callable[[Path], Path]] = {"plain copy": lambda place: place, "local-dir": local_dir, "git clone": clone, "cache": cached}


@pytest.mark.parametrize("way", WAYS)
def test_a_release_is_let_in_at_every_door_however_it_came_here(place: Path, way: str) -> None:
    assert refusals(WAYS[way](place)) == {}


def test_a_snapshot_whose_large_files_came_over_xet_is_let_in_at_every_door(xet_snapshot: Path) -> None:
    blob = (xet_snapshot / WEIGHTS).resolve()
    cache = xet_snapshot.parents[2]
    assert blob.parents[1] == cache / "blobs" and blob.parent.name == blob.name[:2]  # the cache's own blobs, else this shows nothing
    assert refusals(xet_snapshot) == {}


@pytest.mark.parametrize("way", WAYS)
def test_a_changed_file_is_refused_however_it_came_here(place: Path, way: str) -> None:
    (place / "LICENSE").write_bytes((place / "LICENSE").read_bytes() + b"\n")
    told = refusals(WAYS[way](place), without=("load unverified", "card", "card --check", "card --html", "check"))
    assert told.keys() == {"load", "verify", "export", "publish"}
    assert all("LICENSE: size is" in text for text in told.values())


@pytest.mark.parametrize("target", ["blobs/secret", "blobs/aa/secret", "blobs/aa/bb" + "0" * 62, "models--tester--other/blobs/x", "outside"])
def test_a_link_to_anything_else_in_the_cache_is_refused_at_every_door(xet_snapshot: Path, tmp_path: Path, target: str) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(xet_snapshot.parents[2], cache, symlinks=True)
    snapshot = cache / xet_snapshot.relative_to(xet_snapshot.parents[2])
    write_bytes(cache / target, (snapshot / WEIGHTS).read_bytes())
    (snapshot / WEIGHTS).unlink()
    (snapshot / WEIGHTS).symlink_to(cache / target)
    told = refusals(snapshot)
    assert told.keys() == DOORS.keys()
    assert all(f"{WEIGHTS}: a link that leads out of the release" in text for text in told.values())


def test_a_real_clone_of_a_clone_is_let_in(place: Path, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "release"],
                    ["clone", "-q", str(place), str(tmp_path / "clone")]):
        subprocess.run(["git", *command], cwd=place, check=True, env=environment)
    assert verify(tmp_path / "clone").manifest_root == verify(place).manifest_root
    assert GlidePipeline.from_pretrained(tmp_path / "clone", device="cpu", verify="required").networks.base is not None


@pytest.mark.parametrize("is_clone", [True, False])
def test_weights_that_are_still_pointers_are_refused_at_every_door_with_the_command_that_fetches_them(place: Path, is_clone: bool) -> None:
    if is_clone:
        clone(place)
    (place / WEIGHTS).write_bytes(POINTER)
    told = refusals(place)
    assert told.keys() == DOORS.keys()
    mend = f"run `git lfs pull` in {place}" if is_clone else "download the release again, with the Hub's client"
    assert all(f"{WEIGHTS}: a Git LFS pointer, the file itself was not fetched; {mend}" in text for text in told.values())


@pytest.mark.parametrize(("path", "system"), [
    (".DS_Store", "macOS"), ("base/.DS_Store", "macOS"), ("__MACOSX/x", "macOS"), ("base/._config.json", "macOS"), ("Thumbs.db", "Windows"),
    ("evidence/desktop.ini", "Windows"), ("README.md~", "a file manager, editor or network drive")])
def test_what_an_operating_system_leaves_in_folders_is_named_and_is_to_be_removed(place: Path, path: str, system: str) -> None:
    write_bytes(place / path, b"\0")
    told = refusals(place, without=("load unverified", "check", "card", "card --check", "card --html"))
    assert told.keys() == {"load", "verify", "export", "publish"}
    sentence = f"{path}: file is not in the manifest; {system} puts such files into folders, remove it"
    assert all(sentence in text for text in told.values())


def test_who_publishes_a_clone_or_a_pointer_is_told_what_to_give(place: Path, tmp_path: Path) -> None:
    target = DirectoryTarget(tmp_path / "published")
    (place / ".git").mkdir()
    with pytest.raises(ReleaseError, match=r"\.git belongs to the target.*this is a download; give the directory that"):
        plan_publication(place, target, Options())
    (place / ".git").rmdir()
    (place / WEIGHTS).write_bytes(POINTER)
    with pytest.raises(GlideslopeError, match="a Git LFS pointer"):
        plan_publication(place, target, Options())
