"""Rehearsals: of a real small release in full, and what makes a transcript count for nothing."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glideslope.errors import ReleaseError, VerificationError
from glideslope.release.loopback.faults import Fault
from glideslope.release.rehearsal.child import Publisher
from glideslope.release.rehearsal.rehearse import find_versions, look_at, play, rehearse
from glideslope.release.rehearsal.scenes import SCENES, TRANSFERS, Scene, Transfer, scenes_of
from glideslope.release.rehearsal.transcript import Played, Rehearsal, check_rehearsal
from glideslope.release.verify import verify
from glideslope.store.digests import readable_json, sha256_json
from glideslope.store.whole_files import write_bytes
from glideslope.trust.release_manifest import REHEARSAL_NAME, ReleaseManifest

from ..small_releases import make_release

REAL = ("the answer to the promotion is lost", "the promotion is refused with 412", "somebody else commits to main meanwhile",
        "the connection drops half-way through an upload", "one byte of a download is another", "killed when the repository is made",
        "killed before the promotion", "killed after the promotion")


def as_expected(scene: Scene, transfer: Transfer) -> Played:
    """A scene that ended as it must."""
    return Played(scene, transfer, True, scene.first, (), "", scene.shown, "published" if scene.last == "release" else "refused", scene.last,
                  scene.last == "release")


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small release with the transcript of a rehearsal in which every scene ended as it must."""
    release = make_release(tmp_path_factory.mktemp("rehearsed") / "release", "small")
    played = tuple(as_expected(scene, transfer) for transfer in TRANSFERS for scene in scenes_of(transfer))
    rehearsal = Rehearsal(ReleaseManifest.read(release / "manifest.json"), find_versions(), played, {}, {"downloaded": True, "offline": True})
    assert rehearsal.problems == []
    write_bytes(release / REHEARSAL_NAME, rehearsal.to_bytes())
    return release


@pytest.fixture
def release(rehearsed: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(rehearsed, tmp_path / "release"))


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    with Publisher("lfs", tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(scope="module")
def xet_publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    with Publisher("xet", tmp_path_factory.mktemp("xet-home")) as running:
        yield running


def edit(release: Path, change: Callable[[dict[str, Any]], Any], *, seal: bool = True) -> list[str]:
    """Change the transcript, with its own digest made to fit, and check it."""
    value = json.loads((release / REHEARSAL_NAME).read_bytes())
    change(value)
    if seal:
        value["digest"] = sha256_json({key: item for key, item in value.items() if key != "digest"})
    write_bytes(release / REHEARSAL_NAME, readable_json(value))
    return check_rehearsal(release)


@pytest.mark.parametrize("scene", [scene for scene in SCENES if scene.name in REAL], ids=lambda scene: scene.name)
def test_scenes_pass_over_lfs(scene: Scene, publisher: Publisher, tmp_path: Path) -> None:
    played = play(scene, "lfs", look_at(make_release(tmp_path / "r", "small"), tmp_path / "view"), publisher, tmp_path / "scene")
    assert played.problems == []
    assert played.to_json() == as_expected(scene, "lfs").to_json() | {"first": played.to_json()["first"]}


@pytest.mark.parametrize("scene", [scene for scene in scenes_of("xet") if scene.transfer == "xet"] + [SCENES[3]], ids=lambda scene: scene.name)
def test_scenes_pass_over_xet(scene: Scene, xet_publisher: Publisher, tmp_path: Path) -> None:
    played = play(scene, "xet", look_at(make_release(tmp_path / "r", "small"), tmp_path / "view"), xet_publisher, tmp_path / "scene")
    assert played.problems == []


def test_a_real_release_is_verified_in_the_rehearsal_and_loads_again_without_a_network(release_dir: Path) -> None:
    rehearsal = rehearse(release_dir, choose=lambda transfer: SCENES[:1] if transfer == "lfs" else ())
    assert rehearsal.problems == []
    assert rehearsal.reloads == {"downloaded": True, "offline": True}
    assert (release_dir / REHEARSAL_NAME).read_bytes() == rehearsal.to_bytes()
    assert "was not rehearsed: " in check_rehearsal(release_dir)[0]
    with pytest.raises(VerificationError, match="was not rehearsed"):
        verify(release_dir)


def test_a_scene_played_twice_gives_the_same_bytes_which_name_no_time_port_or_place(publisher: Publisher, tmp_path: Path) -> None:
    looked_at = look_at(make_release(tmp_path / "r", "small"), tmp_path / "view")
    first, second = (json.dumps(play(SCENES[3], "lfs", looked_at, publisher, tmp_path / name).to_json()) for name in ("first", "second"))
    assert first == second
    assert not any(word in first for word in ("127.0.0.1", "http:", str(tmp_path), "seconds"))


def test_a_rehearsal_that_ended_as_it_must_counts(release: Path) -> None:
    assert check_rehearsal(release) == []


def test_a_release_without_a_transcript_is_told_to_rehearse(release: Path) -> None:
    (release / REHEARSAL_NAME).unlink()
    assert "run `glideslope rehearse" in check_rehearsal(release)[0]


@pytest.mark.parametrize("change", [
    lambda value: value.update(root="0" * 64), lambda value: value.update(manifest_sha256="0" * 64), lambda value: value.update(passed=False),
    lambda value: value["scenes"].pop(), lambda value: value["scenes"][3]["injected"].clear(), lambda value: value.update(scenes=[]),
    lambda value: value.update(format="glideslope.rehearsal/0"), lambda value: value.update(reloads={"downloaded": True, "offline": False}),
    lambda value: value.update(scenes=None), lambda value: value["scenes"][0].update(injected=7), lambda value: value.pop("left_out")])
def test_a_transcript_that_says_something_else_does_not_count(release: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    assert edit(release, lambda value: None) == []
    assert len(edit(release, change)) == 1


def test_a_flipped_byte_anywhere_in_the_transcript_is_found(release: Path) -> None:
    data = (release / REHEARSAL_NAME).read_bytes()
    for position in range(0, len(data), max(1, len(data) // 200)):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1:]
        (release / REHEARSAL_NAME).write_bytes(changed)
        assert check_rehearsal(release), position


def test_a_transcript_of_another_release_does_not_count(release: Path, tmp_path: Path) -> None:
    other = make_release(tmp_path / "other", "another")
    shutil.copy(release / REHEARSAL_NAME, other)
    assert "is of another release" in check_rehearsal(other)[0]


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
            rehearse(tmp_path / name)


def test_a_release_that_publishing_refuses_is_refused_with_that_reason_before_a_scene_is_played(tmp_path: Path) -> None:
    download = make_release(tmp_path / "download", "a download")
    (download / ".cache/huggingface").mkdir(parents=True)
    (download / ".cache/huggingface/.gitignore").write_bytes(b"*")
    (download / ".gitattributes").write_bytes(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    with pytest.raises(ReleaseError, match=r"\.cache/huggingface belongs to the target.*give the directory that `glideslope pack` wrote"):
        rehearse(download)
    extra = make_release(tmp_path / "extra", "one file more")
    (extra / "notes.txt").write_bytes(b"mine")
    with pytest.raises(VerificationError, match=r"extra: 1 problem.*notes\.txt"):
        rehearse(extra)


def test_a_refusal_in_a_scene_is_told_where_no_repository_came_of_it(publisher: Publisher, tmp_path: Path) -> None:
    release = look_at(make_release(tmp_path / "r", "small"), tmp_path / "view")
    (release.directory / "notes.txt").write_bytes(b"mine")
    played = play(SCENES[0], "lfs", release, publisher, tmp_path / "scene")
    assert (played.first, played.second, played.is_tidy) == ("refused", "refused", False)
    assert any("notes.txt" in problem for problem in played.problems)
