"""rehearsal.json: what was made to go wrong while a release was published to a hub of our own, and how it ended.

It is bound to one manifest by digest, holds a digest of itself, and has one form; it holds no time, port or path, so that
the same release rehearsed twice gives the same bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import VerificationError
from ...store.digests import readable_json, sha256_json
from ...store.strict_json import parse_object
from ...trust.release_manifest import REHEARSAL_NAME, ReleaseManifest
from ..evidence.contents import Release
from .scenes import TRANSFERS, Scene, Transfer, scenes_of

REHEARSAL_FORMAT = "glideslope.rehearsal/1"
MAX_REHEARSAL_BYTES = 16_000_000


@dataclass(frozen=True)
class Played:
    """How a scene ended.

    Attributes:
        scene: what was to happen.
        transfer: how large files went.
        happened: whether the failure really befell a request.
        first: how the first publication ended: "published", "refused" or "killed".
        done: the steps that it did; empty when it was killed or refused.
        error: class of the refusal.
        shown: what main showed then.
        second: how the second publication ended, with nothing going wrong.
        last: what main showed then.
        is_tidy: whether, then, the tag is where main is and no staging branch is left.
        message: what the refused publication said, for whoever watches; the transcript keeps only its class.
    """

    scene: Scene
    transfer: Transfer
    happened: bool
    first: str
    done: tuple[str, ...]
    error: str
    shown: str
    second: str
    last: str
    is_tidy: bool
    message: str = ""

    @property
    def problems(self) -> list[str]:
        """One sentence for each thing that did not end as it must."""
        scene, where = self.scene, f"{self.transfer}: {self.scene.name}"
        problems = [] if self.happened else [f"{where}: the failure did not happen, so nothing was shown by it"]
        ends = (("the first publication ended", self.first, scene.first), ("main then showed", self.shown, scene.shown),
                ("the second publication ended", self.second, "published" if scene.last == "release" else "refused"),
                ("main at last showed", self.last, scene.last))
        problems += [f"{where}: {what} {found!r}, expected {expected!r}" for what, found, expected in ends if found != expected]
        if self.is_tidy != (scene.last == "release"):
            problems.append(f"{where}: tag and staging branch are not as they must be at last")
        return [f"{problem} ({self.message})" if self.message else problem for problem in problems]

    def to_json(self) -> dict[str, Any]:
        """The scene and its end as plain data."""
        return {**self.scene.to_json(), "transfer": self.transfer, "happened": self.happened,
                "first": {"ended": self.first, "steps": list(self.done), "refusal": self.error, "main_shows": self.shown},
                "second": {"ended": self.second, "main_shows": self.last, "tag_set_and_staging_removed": self.is_tidy}}


@dataclass(frozen=True)
class Rehearsal:
    """A whole rehearsal.

    Attributes:
        manifest: of the release that was published.
        versions: package -> version, of what publishes and transfers.
        played: the scenes and their ends.
        left_out: transfer that could not be rehearsed -> why.
        reloads: way of loading -> whether a fresh process loaded the published release and drew the same picture.
    """

    manifest: ReleaseManifest
    versions: Mapping[str, str]
    played: tuple[Played, ...]
    left_out: Mapping[str, str]
    reloads: Mapping[str, bool]

    @property
    def problems(self) -> list[str]:
        """One sentence for each thing that did not end as it must; empty when the rehearsal passed."""
        problems = [problem for played in self.played for problem in played.problems]
        return problems + [f"{way}: did not load, or drew another picture" for way, is_same in self.reloads.items() if not is_same]

    def to_json(self) -> dict[str, Any]:
        """The rehearsal as plain data, with its digest."""
        value = {"format": REHEARSAL_FORMAT, "manifest_sha256": self.manifest.digest, "root": self.manifest.root,
                 "tensors_root": self.manifest.tensors_root, "versions": dict(self.versions), "left_out": dict(self.left_out),
                 "scenes": [played.to_json() for played in self.played], "reloads": dict(self.reloads), "passed": not self.problems}
        return value | {"digest": sha256_json(value)}

    def to_bytes(self) -> bytes:
        """The one form of rehearsal.json."""
        return readable_json(self.to_json())


def check_rehearsal(release_dir: Path) -> list[str]:
    """One sentence for everything that keeps a release's rehearsal from standing for it; empty when it passed.

    The transcript says what its writer says; who that was is for the signature to tell, whose subject it is.
    """
    release = Release(release_dir)
    return _check_guards(release) if REHEARSAL_NAME in release.guards else [
        f"{REHEARSAL_NAME}: file is missing; run `glideslope rehearse {release_dir}`"]


def check_transcript(release: Release) -> list[str]:
    """The rehearsal of a release, where it holds one: of this release, as it was written, and passed."""
    return _check_guards(release) if REHEARSAL_NAME in release.guards else []


def _check_guards(release: Release) -> list[str]:
    """See `check_rehearsal`; the release holds a rehearsal."""
    release_dir, data = release.directory, release.guards[REHEARSAL_NAME]
    again = f"run `glideslope rehearse {release_dir}` again"
    try:
        value = parse_object(data, where=REHEARSAL_NAME, max_bytes=MAX_REHEARSAL_BYTES)
        manifest = release.manifest
    except VerificationError as error:
        return list(error.problems)
    content = {key: item for key, item in value.items() if key != "digest"}
    if value.get("format") != REHEARSAL_FORMAT or value.get("digest") != sha256_json(content) or readable_json(value) != data:
        return [f"{REHEARSAL_NAME}: is not as it was written (format, digest or form); {again}"]
    stated = (value.get("manifest_sha256"), value.get("root"), value.get("tensors_root"))
    if stated != (manifest.digest, manifest.root, manifest.tensors_root):
        return [f"{REHEARSAL_NAME}: is of another release; {again}"]
    return [f"{REHEARSAL_NAME}: {problem}; {again}" for problem in _find_gaps(value)]


def _find_gaps(value: Mapping[str, Any]) -> list[str]:
    """Which scenes were not played, and what did not pass."""
    scenes, left_out = value.get("scenes"), value.get("left_out")
    if not isinstance(scenes, list) or not all(isinstance(scene, dict) for scene in scenes) or not isinstance(left_out, dict):
        return ["malformed"]
    expected = {(transfer, json.dumps(scene.to_json())) for transfer in TRANSFERS if transfer == "lfs" or transfer not in left_out
                for scene in scenes_of(transfer)}
    played = {(scene.get("transfer"), json.dumps({"name": scene.get("name"), "injected": _in_order(scene.get("injected"))}))
              for scene in scenes}
    missing = sorted(f"{transfer}: {json.loads(scene)['name']}" for transfer, scene in expected - played)
    problems = [f"was not rehearsed: {', '.join(missing)}"] if missing else []
    if value.get("passed") is not True or value.get("reloads") != {"downloaded": True, "offline": True}:
        problems.append("did not pass")
    return problems


def _in_order(injected: Any) -> Any:
    """Failures with their keys in the order in which scenes write them; files have them sorted."""
    if not isinstance(injected, list) or not all(isinstance(item, dict) for item in injected):
        return injected
    return [{key: item[key] for key in ("kind", "method", "path", "nth", "times") if key in item} for item in injected]
