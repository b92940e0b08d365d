"""Publications under every failure: main shows what was there before or the whole release, and the same command finishes."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glideslope.errors import ReleaseError, VerificationError

from ..release.small_releases import make_release
from .child import Publisher
from .faults import Fault
from .rehearse import look_at, play, rehearse
from .scenes import SCENES, Scene, scenes_of


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    with Publisher("lfs", tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(scope="module")
def xet_publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    with Publisher("xet", tmp_path_factory.mktemp("xet-home")) as running:
        yield running


@pytest.mark.parametrize("scene", [scene for scene in scenes_of("lfs") if not scene.is_verified], ids=lambda scene: scene.name)
def test_scenes_pass_over_lfs(scene: Scene, publisher: Publisher, tmp_path: Path) -> None:
    played = play(scene, "lfs", look_at(make_release(tmp_path / "r", "small"), tmp_path / "view"), publisher, tmp_path / "scene")
    assert played.problems == []


@pytest.mark.parametrize("scene", [scene for scene in scenes_of("xet") if scene.transfer == "xet"] + [SCENES[3]], ids=lambda scene: scene.name)
def test_scenes_pass_over_xet(scene: Scene, xet_publisher: Publisher, tmp_path: Path) -> None:
    played = play(scene, "xet", look_at(make_release(tmp_path / "r", "small"), tmp_path / "view"), xet_publisher, tmp_path / "scene")
    assert played.problems == []


def test_a_real_release_is_verified_in_the_rehearsal_and_loads_again_without_a_network(release_dir: Path) -> None:
    rehearsal = rehearse(release_dir, SCENES[:1], "lfs")
    assert rehearsal.problems == []
    assert rehearsal.reloads == {"downloaded": True, "offline": True}
    assert dataclasses.replace(rehearsal, reloads={"downloaded": False}).problems == ["downloaded: did not load, or drew another picture"]


def test_a_failure_that_never_happened_is_a_failed_rehearsal(publisher: Publisher, tmp_path: Path) -> None:
    scene = Scene("never", "published", (Fault("500", "POST", "/no/such/route"),), shown="release")
    played = play(scene, "lfs", look_at(make_release(tmp_path / "r", "small"), tmp_path / "view"), publisher, tmp_path / "scene")
    assert not played.happened
    assert "did not happen" in played.problems[0]


def test_every_way_to_end_otherwise_is_a_problem(publisher: Publisher, tmp_path: Path) -> None:
    played = play(SCENES[1], "lfs", look_at(make_release(tmp_path / "r", "small"), tmp_path / "view"), publisher, tmp_path / "scene")
    assert played.problems == []
    changes: list[dict[str, Any]] = [{"first": "refused"}, {"shown": "something else"}, {"second": "refused"}, {"last": "before"},
                                     {"is_tidy": False}, {"happened": False}]
    for change in changes:
        assert len(dataclasses.replace(played, **change).problems) == 1, change


def test_a_directory_that_is_no_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        with pytest.raises(ReleaseError, match="no release lies there"):
            rehearse(tmp_path / name, SCENES, "lfs")


def test_a_release_that_publishing_refuses_is_refused_with_that_reason_before_a_scene_is_played(tmp_path: Path) -> None:
    download = make_release(tmp_path / "download", "a download")
    (download / ".cache/huggingface").mkdir(parents=True)
    (download / ".cache/huggingface/.gitignore").write_bytes(b"*")
    (download / ".gitattributes").write_bytes(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    with pytest.raises(ReleaseError, match=r"\.cache/huggingface belongs to the target.*give the directory that `glideslope pack` wrote"):
        rehearse(download, SCENES, "lfs")
    extra = make_release(tmp_path / "extra", "one file more")
    (extra / "notes.txt").write_bytes(b"mine")
    with pytest.raises(VerificationError, match=r"extra: 1 problem.*notes\.txt"):
        rehearse(extra, SCENES, "lfs")


def test_a_refusal_in_a_scene_is_told_where_no_repository_came_of_it(publisher: Publisher, tmp_path: Path) -> None:
    release = look_at(make_release(tmp_path / "r", "small"), tmp_path / "view")
    (release.directory / "notes.txt").write_bytes(b"mine")
    played = play(SCENES[0], "lfs", release, publisher, tmp_path / "scene")
    assert (played.first, played.second, played.is_tidy) == ("refused", "refused", False)
    assert any("notes.txt" in problem for problem in played.problems)
