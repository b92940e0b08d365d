"""Rehearse a publication: the real code and the real client against a hub of our own, with everything going wrong in turn.

Every scene has a hub to itself. A first publication meets the failure, a second one meets none; after each, main must show
what was there before or the whole release. At the end fresh processes load what was published, with and without the hub.
"""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from glideslope.errors import ReleaseError
from glideslope.release.publishing.publication import check_files
from glideslope.release.publishing.targets import LocalRelease, TargetFile
from glideslope.release.verify import verify
from glideslope.store.file_lists import MANIFEST_NAME
from glideslope.trust.opening import Trust, open_release
from glideslope.trust.unlisted_files import KEPT_FILES

from .child import Order, Publisher, client_environment
from .loopback import OWNER, LoopbackHub
from .played import Played, Rehearsal
from .scenes import Kill, Scene, Shown, Transfer
from .state import Repository, StoredFile

REPOSITORY, TAG_NAME, EARLIER_TAG = f"{OWNER.name}/rehearsal", "v1.0.0", "earlier"
EARLIER = {"README.md": b"---\nlicense: mit\n---\nSomething earlier.\n", "earlier.txt": b"this must go\n"}
START_TIMEOUT_S, RELOAD_TIMEOUT_S = 60.0, 600.0
RELOAD_CODE = """
import hashlib, sys
from glideslope import GlidePipeline
pipe = GlidePipeline.from_pretrained(sys.argv[1], revision=sys.argv[2], device="cpu", verify="required")
image = pipe("a red circle", num_images=1, num_steps=2, seed=0).images[0]
print(hashlib.sha256(image.tobytes()).hexdigest())
"""

logger = logging.getLogger(__name__)


def rehearse(release_dir: Path, scenes: Sequence[Scene], transfer: Transfer) -> Rehearsal:
    """Publish a release to a hub of our own under every failure, and load it again in fresh processes.

    Args:
        release_dir: the release.
        scenes: what goes wrong, in turn.
        transfer: how large files go.

    Raises:
        ReleaseError: there is no such release, or it holds files that a target keeps for itself.
        VerificationError: its files are not those of its manifest, or it does not verify.
        StageError: the publishing process broke down.
    """
    with tempfile.TemporaryDirectory(prefix="glideslope-rehearsal-") as temporary:
        release = look_at(release_dir, Path(temporary) / "release")
        check_files(LocalRelease.read(release_dir))
        verify(release.directory)
        with Publisher(transfer, Path(temporary) / "client") as publisher:
            played = [play(scene, transfer, release, publisher, Path(temporary) / f"scene-{number}") for number, scene in enumerate(scenes)]
            return Rehearsal(tuple(played), reload(release, publisher, Path(temporary) / "reload"))


def look_at(release_dir: Path, view: Path) -> LocalRelease:
    """A copy of a release without its signature."""
    if not (release_dir / MANIFEST_NAME).is_file():
        raise ReleaseError(f"{release_dir}: no release lies there; give the directory that `glideslope pack` wrote")
    opened = open_release(release_dir, Trust("required", status="ignored", ignores_signature=True))
    opened.refuse_download()
    for path in opened.paths:
        (view / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(release_dir / path, view / path)
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
