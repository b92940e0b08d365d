"""What somebody who wants harm may do around packing and publishing, and that it is refused.

Each test is named for its row of the project's table of attacks; those on loading are in tests/models/test_attacks.py.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from PIL import Image

from glideslope.errors import ReleaseError, RequestError, VerificationError
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.evidence.layout import find_strangers
from glideslope.release.publishing.publication import open_target
from glideslope.release.publishing.publish import rollback
from glideslope.release.verify import verify
from glideslope.release.vetting.secret_files import find_secrets
from glideslope.store.file_lists import list_files
from glideslope.store.whole_files import write_bytes

from ..hub.loopback import LoopbackHub
from ..hub.state import Repository, StoredFile
from .conftest import Tamperer
from .small_releases import HURRIED, REPO, WEIGHTS, hub_target, make_release, send, shown, trust

TOKEN = "hf_" + "q7Zt2LmXw9RbKc4VnPy8Df3Gh6Js1A"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    disable_progress_bars()
    with LoopbackHub() as running:
        yield running
    enable_progress_bars()


def replace(hub: LoopbackHub, path: str, content: bytes) -> Repository:
    """Somebody else's commit on main, such as a pull request that was merged."""
    repository = hub.repositories[REPO]
    repository.add_commit("main", {**repository.find("main").files, path: StoredFile.of_content(content)}, "Converted by a helpful robot")
    return repository


def test_5_1_and_5_14_pickles_and_files_that_nobody_vouches_for_are_no_part_of_a_release(tamper: Tamperer) -> None:
    torch.save({"a": torch.zeros(2)}, tamper.directory / "base" / "diffusion_pytorch_model.bin")
    write_bytes(tamper.directory / "figures" / "run.png", b"#!/bin/sh\n")
    write_bytes(tamper.directory / ".github" / "workflow.yml", b"on: push\n")
    tamper.seal()
    told = "; ".join(find_strangers(tamper.directory, list_files(tamper.directory)))
    assert "base/diffusion_pytorch_model.bin: the file is a zip archive, such as a PyTorch pickle" in told
    assert "figures/run.png: the file is a script" in told
    assert ".github" in told
    with pytest.raises(VerificationError, match=r"diffusion_pytorch_model\.bin"):
        verify(tamper.directory)


def test_5_12_weights_that_somebody_replaced_are_neither_kept_nor_promoted(hub: LoopbackHub, tmp_path: Path) -> None:
    old, new = (make_release(tmp_path / name, name) for name in ("old", "the new"))
    target = hub_target(hub)
    send(old, target, tag="v1")
    before = replace(hub, WEIGHTS, b"other weights").branches["main"]
    with pytest.raises(ReleaseError, match=r"diffusion_pytorch_model\.safetensors"):
        send(new, target, tag="v2")
    assert hub.repositories[REPO].branches["main"] == before
    with pytest.raises(ReleaseError):
        rollback(target, "v1", check=trust, patience=HURRIED)
    rollback(target, "v1", replace_foreign=True, check=trust, patience=HURRIED)
    assert shown(hub)[WEIGHTS] == (old / WEIGHTS).read_bytes()
    moved = hub.repositories[REPO]
    moved.tags["v1"] = before  # a tag that was moved to the robot's commit
    with pytest.raises(VerificationError, match=r"sha256 is|size is"):
        rollback(target, "v1", replace_foreign=True, check=trust, patience=HURRIED)
    assert shown(hub)[WEIGHTS] == (old / WEIGHTS).read_bytes()


def test_5_13_secrets_in_a_bundle_are_found_wherever_they_hide(release_dir: Path) -> None:
    (release_dir / "LICENSE").write_text(f"token {TOKEN}\nmade by jane.doe@corp-internal.io in /home/jane/run-7/secret\n")
    picture = next(iter(sorted((release_dir / "figures").glob("*.png"))))
    image = Image.open(picture)
    exif = image.getexif()
    exif[0x010E] = "taken by Jane in /home/jane"
    image.save(picture, exif=exif)
    told = "\n".join(find_secrets(open_evidence(release_dir)))
    for kind in ("a Hugging Face token", "a mail address"):
        assert f"LICENSE: holds {kind}" in told
    assert f"{picture.name}: " in told
    assert TOKEN not in told and "jane.doe" not in told


@pytest.mark.parametrize("endpoint", ["http://hub.example.org", "http://127.0.0.1.example.org", "http://user:word@127.0.0.1", "ftp://127.0.0.1"])
def test_5_16_a_token_is_not_sent_where_others_can_read_it(endpoint: str) -> None:
    with pytest.raises(RequestError):
        open_target("org/name", endpoint=endpoint, token=TOKEN)


def test_5_16_the_command_refuses_such_an_address_and_does_not_show_the_token(release_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from glideslope.cli.main import main; main()", "publish", str(release_dir), "org/name", "--yes"]
    env = {"HF_ENDPOINT": "http://hub.example.org", "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 1
    assert "use https" in ended.stderr
    assert TOKEN not in ended.stdout + ended.stderr


def test_5_17_evidence_that_was_touched_up_and_sealed_again_is_refused(packed_run: Path, tmp_path: Path) -> None:
    changes = {"evidence/evaluation/evaluation.json": lambda t, p: t.json(p, lambda value: value.update(format="better")),
               "evidence/claims.json": lambda t, p: t.json(p, lambda value: value.update(dict.fromkeys(list(value)[:3], 0))),
               "evidence/filters/person/filter.json": lambda t, p: t.json(p, lambda value: value.update(threshold=9.0)),
               "README.md": lambda t, p: (t.directory / p).write_text((t.directory / p).read_text().replace("%", " %", 1))}
    for number, (path, change) in enumerate(changes.items()):
        tamper = Tamperer(Path(shutil.copytree(packed_run / "release", tmp_path / str(number))))
        change(tamper, path)
        tamper.seal()
        with pytest.raises(VerificationError):
            verify(tamper.directory)
