"""Loading from a hub as a stranger does: the real client, each time in a process of its own with its own environment.

Importing torch takes seconds, so one process imports what loading needs, but for the Hub's client, and every load is a
fork of it: the client reads its environment when it is first imported.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glideslope.store.digests import sha256_file
from glideslope.store.whole_files import write_bytes
from glideslope.trust.envelopes import sign_statement
from glideslope.trust.hashed_files import build_manifest
from glideslope.trust.keys import read_private_key
from glideslope.trust.release_manifest import ReleaseManifest
from glideslope.trust.signatures import Vouched, release_statement
from glideslope.trust.status import STATUS_NAME, ReleaseStatus, Status, times_from, with_current, with_withdrawn

from ..hub.loopback import LoopbackHub
from ..hub.state import MAIN, Account, Commit, StoredFile

REPO = "tester/model"
READER = Account("reader", "hf_reader", can_write=False)
Load = Callable[..., dict[str, Any]]

PROGRAM = """
import hashlib, json, logging, os, sys
import torch
from glideslope.errors import GlideslopeError
from glideslope.models.drawing.pipeline import GlidePipeline

torch.set_num_threads(1)
GlidePipeline.from_pretrained(sys.argv[1], device="cpu")  # what torch imports when a network is first built
assert "huggingface_hub" not in sys.modules

def load(call):
    told = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logging.getLogger("glideslope.loading").addHandler(handler)
    logging.getLogger("glideslope.loading").setLevel(logging.INFO)
    if "local_dir" in call:
        from huggingface_hub import snapshot_download
        return {"path": snapshot_download(**call)}
    if "upload" in call:
        from huggingface_hub import CommitOperationAdd, HfApi
        operations = [CommitOperationAdd(path, file) for path, file in call["upload"].items()]
        return {"sha": HfApi(token=call["token"]).create_commit(call["repo_id"], operations, commit_message="add").oid}
    if "dtype" in call:
        call["dtype"] = getattr(torch, call["dtype"])
    try:
        pipe = GlidePipeline.from_pretrained(call.pop("pretrained"), device="cpu", **call)
    except GlideslopeError as error:
        return {"error": type(error).__name__, "message": str(error), "told": told}
    state = pipe.networks.base.state_dict()
    digest = hashlib.sha256(b"".join(state[name].float().numpy().tobytes() for name in sorted(state))).hexdigest()
    return {"base": digest, "dtype": str(pipe.networks.dtype), "clip": pipe.networks.noised_clip is not None, "told": told,
            "companions": sorted(pipe.networks.companions)}

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ.update(asked["env"])
        sys.stdout.write(json.dumps(load(asked["call"])) + "\\n")
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        print(json.dumps({"error": "crash", "message": "see the output"}), flush=True)
"""


class Strangers:
    """Processes that load from hubs."""

    def __init__(self, home: Path, release: Path) -> None:
        """Start the process that the others are forks of; it loads a release from its directory."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        self.env = kept | {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1",
                           "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "5"}
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(release)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=self.env, cwd=home)

    def ask(self, endpoint: str, call: dict[str, Any], **env: str) -> dict[str, Any]:
        """Carry out one call in a fork; keyword arguments are its environment."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"env": {"HF_ENDPOINT": endpoint, **env}, "call": call}, default=str) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def put(hub: LoopbackHub, name: str, release: Path, *, extra: dict[str, bytes] | None = None, branch: str = MAIN) -> Commit:
    """Put exactly the files of a directory, and others, into a new commit of a repository, as somebody who may write can."""
    repository = hub.repositories.get(name) or hub.create_repository(name)
    files = {".gitattributes": repository.find(MAIN).files[".gitattributes"]}
    for path in (path for path in release.rglob("*") if path.is_file()):
        relative = path.relative_to(release).as_posix()
        if path.suffix == ".safetensors":
            sha256 = sha256_file(path)
            hub.objects.path(sha256).write_bytes(path.read_bytes())
            files[relative] = StoredFile.of_pointer(sha256, path.stat().st_size)
        else:
            files[relative] = StoredFile.of_content(path.read_bytes())
    files |= {path: StoredFile.of_content(data) for path, data in (extra or {}).items()}
    return repository.add_commit(branch, files, "put")


def sign(release: Path, *keys: Path) -> None:
    """Sign what lies in a directory."""
    statement = release_statement((release / "manifest.json").read_bytes(), Vouched("small", ("reload",), "0" * 64, {}))
    (release / "manifest.dsse.json").write_bytes(sign_statement(statement, *map(read_private_key, keys)))


def stated(*roots: str, key: Path | None = None, number: int = 1, withdrawn: str | None = None, repository: str = REPO, days: int = 30,
           issued: datetime | None = None) -> dict[str, bytes]:
    """A status: of these roots the last is current; another one may be withdrawn. Tags are v1, v2, ..."""
    releases: tuple[ReleaseStatus, ...] = ()
    for place, root in enumerate(roots, start=1):
        releases = with_current(releases, root, f"v{place}")
    if withdrawn is not None:
        releases = with_withdrawn(releases, withdrawn, "v1", "it draws people")
    times = times_from(issued or datetime.now(UTC), None if key is None else days)
    return {STATUS_NAME: Status(repository, number, *times, releases).to_bytes(None if key is None else read_private_key(key))}


def variation(release: Path, text: str) -> Path:
    """Another release with the same weights."""
    (release / "README.md").write_text(text)
    write_bytes(release / "manifest.json", build_manifest(release).to_bytes())
    return release


def root_of(release: Path) -> str:
    """The root of its manifest."""
    return ReleaseManifest.read(release / "manifest.json").root
