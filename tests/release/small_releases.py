"""Small releases to publish: real manifests and weights, nothing else that a reader needs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from glideslope.release.publishing.hub_target import HubTarget
from glideslope.release.publishing.patience import Patience
from glideslope.release.publishing.publication import Options, Plan, plan_publication
from glideslope.release.publishing.publish import Publication, publish
from glideslope.release.publishing.statuses import StatusWriter
from glideslope.release.publishing.targets import Target
from glideslope.store.file_lists import MANIFEST_NAME
from glideslope.store.whole_files import write_bytes
from glideslope.trust.hashed_files import build_manifest
from glideslope.trust.opening import OpenRelease
from glideslope.trust.status import STATUS_NAME
from glideslope.trust.unlisted_files import KEPT_FILES

from ..hub.loopback import OWNER, LoopbackHub

REPO = "tester/model"
WEIGHTS = "base/diffusion_pytorch_model.safetensors"
HURRIED = Patience(num_tries=4, first_wait_s=0.0)


def make_release(directory: Path, name: str, *, extra: str | None = None) -> Path:
    """Write a small release; another name gives another card and other weights."""
    weights = np.arange(600, dtype=np.float32) + len(name)
    write_bytes(directory / "README.md", f"---\nlicense: mit\n---\nThis is {name}.\n".encode())
    write_bytes(directory / WEIGHTS, save({"weight": weights}, metadata={"format": "pt"}))
    write_bytes(directory / "evidence/claims.json", b'{"name": "' + name.encode() + b'"}\n')
    write_bytes(directory / "LICENSE", b"the same in every release\n")
    if extra is not None:
        write_bytes(directory / extra, b"only here\n")
    return seal(directory)


def seal(directory: Path) -> Path:
    """Write the manifest of what lies in a directory."""
    write_bytes(directory / MANIFEST_NAME, build_manifest(directory).to_bytes())
    return directory


def trust(release: OpenRelease) -> None:
    """Check nothing beyond the manifest, which publishing itself compares."""


def hub_target(hub: LoopbackHub, token: str = OWNER.token) -> HubTarget:
    """The repository on a loopback hub."""
    return HubTarget(REPO, endpoint=hub.endpoint, token=token)


def send(release: Path, target: Target, *, check: Callable[[OpenRelease], None] = trust, writer: StatusWriter | None = None,
         **options: object) -> Publication:
    """Plan and publish, as the command does."""
    return publish(make_plan(release, target, **options), target, writer=writer, check=check, patience=HURRIED)


def make_plan(release: Path, target: Target, **options: object) -> Plan:
    """Plan a publication with the named options."""
    return plan_publication(release, target, Options(**options), patience=HURRIED)  # type: ignore[arg-type] - options by name


def shown(hub: LoopbackHub, revision: str = "main") -> dict[str, bytes]:
    """What a revision of the repository holds of a release, byte for byte."""
    files = hub.repositories[REPO].find(revision).files
    return {path: hub.read_file(REPO, path, revision) for path in files if path not in KEPT_FILES}


def content(release: Path) -> dict[str, bytes]:
    """What a directory holds of a release, byte for byte; a published one has a status beside it."""
    return {path.relative_to(release).as_posix(): path.read_bytes() for path in release.rglob("*")
            if path.is_file() and path.name != STATUS_NAME}
