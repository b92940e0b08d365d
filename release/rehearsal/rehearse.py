"""Rehearse a publication: the real code and the real client against a hub of our own, with everything going wrong in turn.

Every scene has a hub to itself. A first publication meets the failure, a second one meets none; after each, main must show
what was there before or the whole release. At the end fresh processes load what was published, with and without the hub.
"""

import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ...errors import ReleaseError
from ...store.file_lists import MANIFEST_NAME
from ...store.whole_files import write_bytes
from ...trust.release_manifest import REHEARSAL_NAME, SIGNATURE_NAME
from ...trust.unlisted_files import list_release
from ..loopback.hub import OWNER, LoopbackHub
from ..loopback.state import Repository, StoredFile
from ..publishing.publication import check_files
from ..publishing.snapshot import KEPT_FILES, link_release, refuse_download, release_in
from ..publishing.targets import LocalRelease, TargetFile
from ..verify import verify_view
from .child import Order, Publisher, client_environment
from .scenes import Kill, Scene, Shown, Transfer, scenes_of
from .transcript import Played, Rehearsal

REPOSITORY, TAG_NAME, EARLIER_TAG = f"{OWNER.name}/rehearsal", "v1.0.0", "earlier"
EARLIER = {"README.md": b"---\nlicense: mit\n---\nSomething earlier.\n", "earlier.txt": b"this must go\n"}
PACKAGES = ("glideslope", "huggingface_hub", "hf-xet")
START_TIMEOUT_S, RELOAD_TIMEOUT_S = 60.0, 600.0
RELOAD_CODE = """
import hashlib, sys
from glideslope import GlidePipeline
pipe = GlidePipeline.from_pretrained(sys.argv[1], revision=sys.argv[2], device="cpu", verify="required")
image = pipe("a red circle", num_images=1, num_steps=2, seed=0).images[0]
print(hashlib.sha256(image.tobytes()).hexdigest())
"""

logger = logging.getLogger(__name__)
ReportScene = Callable[[Played], None]
Choose = Callable[[Transfer], Sequence[Scene]]


def rehearse(release_dir: Path, *, report: ReportScene = lambda played: None, choose: Choose = scenes_of) -> Rehearsal:
    """Publish a release to a hub of our own under every failure, and write `rehearsal.json` into it.

    Signature and earlier rehearsal of the release are left out, as both come after.

    Args:
        release_dir: the release.
        report: gets every scene when it has ended.
        choose: which scenes to play for a way of transfer; a transcript without all of them does not count.

    Returns:
        What happened. When its `problems` are not empty, nothing is written.

    Raises:
        ReleaseError: there is no such release, or it holds files that a target keeps for itself.
        VerificationError: its files are not those of its manifest, or it does not verify.
        StageError: the publishing process broke down.
    """
    if not hasattr(os, "fork"):
        raise ReleaseError("a rehearsal kills publishing processes, which needs a system that forks them (Linux, macOS); this one does not: "
                           "rehearse there, or publish without a rehearsal where the policy allows it")
    with tempfile.TemporaryDirectory(prefix="glideslope-rehearsal-") as temporary:
        release = look_at(release_dir, Path(temporary) / "release")
        check_files(LocalRelease.read(release_dir))
        verify_view(release.directory)
        left_out = {} if find_spec("hf_xet") else {"xet": "hf_xet is not installed"}
        with Publisher("lfs", Path(temporary) / "lfs") as publisher:
            played = play_all(choose("lfs"), "lfs", release, publisher, report)
            reloads = reload(release, publisher, Path(temporary) / "reload")
        if "xet" not in left_out and choose("xet"):
            with Publisher("xet", Path(temporary) / "xet") as publisher:
                played += play_all(choose("xet"), "xet", release, publisher, report)
        rehearsal = Rehearsal(release.manifest, find_versions(), tuple(played), left_out, reloads)
    if not rehearsal.problems:
        write_bytes(release_dir / REHEARSAL_NAME, rehearsal.to_bytes())
    return rehearsal


def play_all(scenes: Iterable[Scene], transfer: Transfer, release: LocalRelease, publisher: Publisher, report: ReportScene) -> list[Played]:
    """Play scenes one after another, each on a hub of its own whose files are removed when it has ended."""
    played = []
    for scene in scenes:
        with tempfile.TemporaryDirectory(prefix="glideslope-scene-") as directory:
            played.append(play(scene, transfer, release, publisher, Path(directory)))
        report(played[-1])
    return played


def find_versions() -> dict[str, str]:
    """Versions of what publishes and transfers, as far as it is installed."""
    return {name: metadata.version(name) for name in PACKAGES if name != "hf-xet" or find_spec("hf_xet")}


def look_at(release_dir: Path, view: Path) -> LocalRelease:
    """A release as links to its files, without what comes after a rehearsal."""
    if not (release_dir / MANIFEST_NAME).is_file():
        raise ReleaseError(f"{release_dir}: no release lies there; give the directory that `glideslope pack` wrote")
    refuse_download(release_dir)
    with release_in(release_dir) as directory:
        link_release(directory, [path for path in list_release(directory) if path not in (REHEARSAL_NAME, SIGNATURE_NAME)], view)
    return LocalRelease.read(view)


def play(scene: Scene, transfer: Transfer, release: LocalRelease, publisher: Publisher, directory: Path) -> Played:
    """Play one scene on a hub of its own."""
    killer = Killer(scene.kill)
    directory.mkdir(parents=True, exist_ok=True)
    with LoopbackHub(directory / "hub", has_xet=transfer == "xet", watcher=killer.watch) as hub:
        before = {} if scene.is_new else set_up_earlier(hub)
        order = Order(str(release.directory), REPOSITORY, hub.endpoint, OWNER.token, TAG_NAME, scene.is_verified,
                      str(directory / "outcome.json"))
        hub.inject(*scene.faults)
        first = publisher.publish(order, killer.arm)
        shown = what_main_shows(hub, before, release)
        happened = killer.has_killed if scene.kill else set(hub.met) == set(scene.faults)
        hub.clear_faults()
        killer.disarm()
        second = publisher.publish(order)
        return Played(scene, transfer, happened, first.ended, first.done, first.error, shown, second.ended,
                      what_main_shows(hub, before, release), is_tidy(hub),
                      first.message or second.message)


def set_up_earlier(hub: LoopbackHub) -> Mapping[str, StoredFile]:
    """Make a repository that shows something earlier, with a tag; its files are returned."""
    repository = hub.create_repository(REPOSITORY)
    files = {path: StoredFile.of_content(data) for path, data in EARLIER.items()}
    commit = repository.add_commit("main", {**repository.find("main").files, **files}, "something earlier")
    repository.tags[EARLIER_TAG] = commit.oid
    return files


def what_main_shows(hub: LoopbackHub, before: Mapping[str, StoredFile], release: LocalRelease) -> Shown | Literal["something else"]:
    """Whether main shows what was there before, the whole release, or something else; and that the earlier tag has stayed."""
    repository: Repository | None = hub.repositories.get(REPOSITORY)
    if repository is None:
        return "before"
    if before and repository.tags.get(EARLIER_TAG) is None:
        return "something else"
    files = {path: file for path, file in repository.find("main").files.items() if path not in KEPT_FILES}
    if files == dict(before):
        return "before"
    if release.is_shown_by({path: TargetFile(f.size_bytes, f.sha256, None if f.sha256 else f.oid) for path, f in files.items()}):
        return "release"
    return "somebody else's" if {path: file for path, file in files.items() if path != "NOTES.md"} == dict(before) else "something else"


def is_tidy(hub: LoopbackHub) -> bool:
    """Whether the tag is where main is, and nothing is left beside; false where no repository was made."""
    repository = hub.repositories.get(REPOSITORY)
    return repository is not None and repository.tags.get(TAG_NAME) == repository.branches["main"] and set(repository.branches) == {"main"}


class Killer:
    """Kills the publishing process at a request.

    Attributes:
        has_killed: whether it did.
    """

    def __init__(self, kill: Kill | None) -> None:
        """Know when; none never kills."""
        self.kill, self.has_killed = kill, False
        self._num_seen, self._pid = 0, 0
        self._armed, self._lock = threading.Event(), threading.Lock()

    def arm(self, pid: int) -> None:
        """Know whom."""
        self._pid = pid
        self._armed.set()

    def disarm(self) -> None:
        """Kill nobody any more."""
        self.kill = None

    def watch(self, phase: Literal["before", "after"], method: str, path: str) -> bool:
        """Look at a request, and kill if it is the one; from then on nothing that the dead still had under way is carried out."""
        with self._lock:
            kill = self.kill
            if kill is None or self.has_killed:
                return self.has_killed and kill is not None
            if phase == kill.phase and method == kill.method and re.search(kill.path, path):
                self._num_seen += 1
                if self._num_seen == kill.nth and self._armed.wait(START_TIMEOUT_S):
                    self.has_killed = True
                    os.kill(self._pid, signal.SIGKILL)
            return self.has_killed


def reload(release: LocalRelease, publisher: Publisher, directory: Path) -> dict[str, bool]:
    """Publish once more and load it from the hub in a fresh process, then again without the hub; both must draw the same picture."""
    environment = client_environment(directory / "home") | {"HF_HUB_DISABLE_XET": "1"}
    with LoopbackHub(directory / "hub") as hub:
        order = Order(str(release.directory), REPOSITORY, hub.endpoint, OWNER.token, TAG_NAME, False, str(directory / "outcome.json"))
        outcome = publisher.publish(order)
        if outcome.ended != "published":
            raise ReleaseError(f"the release was not published to be loaded again: {outcome.message}")
        environment |= {"HF_ENDPOINT": hub.endpoint}
        downloaded = draw(REPOSITORY, environment | {"HF_TOKEN": OWNER.token, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"})
    offline = draw(REPOSITORY, environment | {"HF_HUB_OFFLINE": "1"})
    return {"downloaded": downloaded is not None, "offline": offline is not None and offline == downloaded}


def draw(name: str, environment: Mapping[str, str]) -> str | None:
    """Load a release in a fresh process and draw a picture: its digest, or none when it does not load."""
    command = [sys.executable, "-P", "-c", RELOAD_CODE, name, TAG_NAME]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=RELOAD_TIMEOUT_S, check=False,
                          stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        logger.warning("%s did not load in a fresh process: %s", name, (done.stderr.strip() or "no message").splitlines()[-1])
        return None
    return done.stdout.strip()
