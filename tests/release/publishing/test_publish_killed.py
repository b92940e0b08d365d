"""A publisher killed (SIGKILL) at every single request: main and tags show the old release or the new one, never anything else."""

import copy
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from glideslope.store.file_lists import MANIFEST_NAME
from glideslope.trust.release_manifest import ReleaseManifest
from glideslope.trust.status import STATUS_NAME, SignedStatus
from glideslope.trust.unlisted_files import KEPT_FILES

from ...hub.child import Order, Publisher
from ...hub.loopback import OWNER, LoopbackHub
from ...hub.rehearse import Killer
from ...hub.scenes import Kill
from ...hub.state import Repository
from ..small_releases import REPO, content, make_release, shown

READS = ("GET", "HEAD")


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    with Publisher("lfs", tmp_path_factory.mktemp("home")) as running:
        yield running


class World:
    """A hub directory with the old release published, and both releases."""

    def __init__(self, directory: Path, publisher: Publisher) -> None:
        self.publisher, self.directory = publisher, directory
        self.old = make_release(directory / "old", "the old one", extra="evidence/gone.json")
        self.new = make_release(directory / "new", "the new release", extra="evidence/come.json")
        with LoopbackHub(directory / "published") as hub:
            assert publisher.publish(self.order(hub, self.old, "v1")).ended == "published"
            self.repository = hub.repositories[REPO]
        self.kills = self.list_requests()

    def order(self, hub: LoopbackHub, release: Path, tag: str) -> Order:
        return Order(str(release), REPO, hub.endpoint, OWNER.token, tag, False, str(self.directory / "outcome.json"))

    def hub(self, name: str, killer: Killer) -> LoopbackHub:
        """A hub that shows the old release."""
        shutil.copytree(self.directory / "published", self.directory / name)
        hub = LoopbackHub(self.directory / name, watcher=killer.watch)
        hub.repositories[REPO] = copy.deepcopy(self.repository)
        return hub

    def list_requests(self) -> list[Kill]:
        """Every request of an undisturbed publication that is no mere reading, by its number among its like; and every twentieth that is."""
        with self.hub("undisturbed", Killer(None)) as hub:
            assert self.publisher.publish(self.order(hub, self.new, "v2")).ended == "published"
            assert shown(hub) == content(self.new)
            log = list(hub.log)
        seen: Counter[tuple[str, str]] = Counter()
        found = []
        for number, served in enumerate(log):
            like = re.sub(r"[0-9a-f]{40}", "[0-9a-f]{40}", re.escape(served.path))  # a status holds the time, so commits have other ids
            seen[served.method, like] += 1
            if served.method not in READS or number % 20 == 0:
                found.append(Kill("before", served.method, f"^{like}$", seen[served.method, like]))
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, publisher: Publisher) -> World:
    return World(tmp_path_factory.mktemp("world"), publisher)


def check_shown(hub: LoopbackHub, world: World, where: str) -> None:
    """Main is the old release or the new one, and each tag what its name says."""
    repository: Repository = hub.repositories[REPO]
    assert shown(hub) in (content(world.old), content(world.new)), where
    assert shown(hub, "v1") == content(world.old), where
    assert "v2" not in repository.tags or shown(hub, "v2") == content(world.new), where
    states = [set(commit.files) - KEPT_FILES for commit in repository.history("main")]
    assert all(state in (set(), set(content(world.old)), set(content(world.new))) for state in states), where
    for commit in (commit for commit in repository.history("main") if MANIFEST_NAME in commit.files):
        current = SignedStatus.from_bytes(hub.read_file(REPO, STATUS_NAME, commit.oid)).status.current
        assert current is not None, where
        assert current.root == ReleaseManifest.from_bytes(hub.read_file(REPO, MANIFEST_NAME, commit.oid)).root, where


@pytest.mark.parametrize("phase", ["before", "after"])
def test_killed_at_every_request_it_shows_the_old_or_the_new_release_and_the_same_command_finishes(world: World, phase: str) -> None:
    steps = ("/branch/", "/_lfs/", "/commit/staging", "/commit/main", "/tag/", "DELETE")
    assert all(any(step in f"{kill.method} {kill.path}" for kill in world.kills) for step in steps)
    for number, kill in enumerate(world.kills):
        where = f"{phase} request {number}: {kill.method} {kill.path}"
        killer = Killer(Kill(phase, kill.method, kill.path, kill.nth))  # type: ignore[arg-type] - a phase by name
        with world.hub(f"{phase}-{number}", killer) as hub:
            first = world.publisher.publish(world.order(hub, world.new, "v2"), killer.arm)
            assert killer.has_killed, where
            assert first.ended in ("killed", "published"), where
            check_shown(hub, world, where)
            killer.disarm()
            again = world.publisher.publish(world.order(hub, world.new, "v2"))
            assert again.ended == "published", f"{where}: {again.message}"
            check_shown(hub, world, where)
            assert shown(hub) == content(world.new) == shown(hub, "v2"), where
            assert set(hub.repositories[REPO].branches) == {"main"}, where
