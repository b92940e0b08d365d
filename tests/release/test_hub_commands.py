"""The commands publish, rollback and withdraw, as the shell runs them; on a real small release."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glideslope.cli import main as cli
from glideslope.trust.release_manifest import ReleaseManifest
from glideslope.trust.status import STATUS_NAME, SignedStatus

from ..hub.child import client_environment
from ..hub.loopback import OWNER, LoopbackHub
from .small_releases import REPO, content, make_release, shown

LOAD = """
import sys
from glideslope import GlidePipeline
from glideslope.errors import GlideslopeError
try:
    GlidePipeline.from_pretrained(sys.argv[1], revision=sys.argv[2], token=True, signer=sys.argv[3])
    print("loaded")
except GlideslopeError as error:
    print(error)
"""


pytestmark = pytest.mark.usefixtures("quiet_lfs_client")


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", OWNER.token)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


@pytest.fixture
def glideslope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs the command line as the shell would, in an empty directory; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["glideslope", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code: Any = 0
        except SystemExit as stopped:
            code = stopped.code
        captured = capsys.readouterr()
        return int(code or 0), captured.out, captured.err

    return call


def test_a_release_is_planned_published_withdrawn_and_then_refused_by_the_loader(
        glideslope: Any, hub: LoopbackHub, packed_run: Path, tmp_path: Path) -> None:
    release = Path(shutil.copytree(packed_run / "release", tmp_path / "release"))
    key_id = json.loads(glideslope("keygen", "keys/ours", "--json")[1])["key id"]
    code, _, err = glideslope("sign", release, "--key", "keys/ours")
    assert code == 0, err
    code, _, err = glideslope("publish", release, REPO, "--endpoint", hub.endpoint, "--tag", "v1.0.0", "--dry-run")
    assert (code, "so its STATUS.json must be signed too" in " ".join(err.split())) == (1, True)
    there = (REPO, "--endpoint", hub.endpoint)
    code, out, _ = glideslope("publish", release, *there, "--tag", "v1.0.0", "--key", "keys/ours", "--dry-run")
    assert code == 0
    assert f"signed by: {key_id}" in out
    assert "account: tester" in out
    assert f"endpoint: {hub.endpoint}" in out
    assert "gates: passed" in out
    assert out.index("account: tester") < out.index("gates: passed")
    assert REPO not in hub.repositories
    code, out, err = glideslope("publish", release, REPO, "--endpoint", hub.endpoint, "--tag", "v1.0.0", "--key", "keys/ours")
    assert (code, REPO in hub.repositories) == (1, False)
    assert "add --yes" in err
    code, out, err = glideslope("publish", release, REPO, "--endpoint", hub.endpoint, "--tag", "v1.0.0", "--public", "--gated",
                                "manual", "--key", "keys/ours", "--yes", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["published"] is True
    assert told["tag"] == "v1.0.0"
    assert shown(hub) == content(release)
    assert (hub.repositories[REPO].gated, hub.repositories[REPO].is_private) == ("manual", False)
    environment = client_environment(tmp_path / "home") | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": OWNER.token}

    def load() -> str:
        program = [sys.executable, "-P", "-c", LOAD, REPO, "v1.0.0", key_id]
        return subprocess.run(program, env=environment, capture_output=True, text=True, check=True).stdout

    assert load() == "loaded\n"
    code, out, _ = glideslope("release", "withdraw", *there, "--reason", "draws people", "--key", "keys/ours", "--yes")
    assert code == 0
    root = ReleaseManifest.read(release / "manifest.json").root
    said = SignedStatus.from_bytes(hub.read_file(REPO, STATUS_NAME)).status
    assert [(one.root, one.state, one.reason) for one in said.releases] == [(root, "withdrawn", "draws people")]
    code, out, _ = glideslope("release", "status", REPO, "--endpoint", hub.endpoint)
    assert (code, "number: 2" in out, f"{root[:16]}… v1.0.0: withdrawn: draws people" in out) == (0, True, True)
    assert f"draws people (status 2, signed by {key_id})" in load()


def test_a_release_that_a_gate_refuses_is_not_published_anywhere(glideslope: Any, hub: LoopbackHub, tmp_path: Path) -> None:
    release = make_release(tmp_path / "release", "no evidence")
    for target in (REPO, "./published"):
        code, _, err = glideslope("publish", release, target, "--endpoint", hub.endpoint, "--yes")
        assert code == 1
        assert "evidence/policy.yaml" in err
    assert REPO not in hub.repositories
    assert not (tmp_path / "published").exists()


def test_a_directory_is_published_to_and_gone_back_in(glideslope: Any, packed_run: Path, tmp_path: Path) -> None:
    release = Path(shutil.copytree(packed_run / "release", tmp_path / "release"))
    code, out, err = glideslope("publish", release, "./published", "--tag", "v1", "--yes")
    assert code == 0, err
    assert (tmp_path / "published/current" / STATUS_NAME).exists()
    assert content(tmp_path / "published/current") == content(release)
    code, out, err = glideslope("release", "rollback", "./published", "--tag", "v1", "--yes")
    assert code == 0, err
    assert "tag: v1" in out
    assert glideslope("release", "rollback", "./published", "--tag", "v9", "--yes")[0] == 1


def test_no_token_goes_to_another_machine_over_plain_http(glideslope: Any, packed_run: Path) -> None:
    code, _, err = glideslope("publish", packed_run / "release", REPO, "--endpoint", "http://hub.example", "--yes")
    assert code == 1
    assert "use https" in err


def test_no_command_writes_into_a_release(glideslope: Any, packed_run: Path, tmp_path: Path) -> None:
    release = Path(shutil.copytree(packed_run / "release", tmp_path / "rel"))
    before = content(release)
    for command in (("publish", release, "./rel/inside", "--yes"), ("release", "export-diffusers", release, "--out", "rel/x"),
                    ("release", "card", release, "--out", "rel/card.html")):
        code, _, err = glideslope(*command)
        assert (code, "OUT lies inside the release" in err) == (1, True), (command, err)
    code, _, err = glideslope("keygen", "rel/k")
    assert (code, "the private key would lie inside" in " ".join(err.split())) == (1, True), err
    code, _, err = glideslope("keygen", "rel/keys/k", "--for-bundles")
    assert code == 1
    assert content(release) == before


def test_a_directory_is_not_called_private(glideslope: Any, packed_run: Path) -> None:
    code, out, err = glideslope("publish", packed_run / "release", "./published", "--tag", "v1", "--yes")
    assert code == 0, err
    assert not any(word in out + err for word in ("visibility", "private", "members"))


def test_a_status_is_signed_renewed_and_continued_with_its_key_alone(glideslope: Any, packed_run: Path) -> None:
    ids = [json.loads(glideslope("keygen", f"keys/{name}", "--json")[1])["key id"] for name in ("ours", "theirs")]
    published = glideslope("publish", packed_run / "release", "./published", "--tag", "v1", "--key", "keys/ours", "--yes")
    assert published[0] == 0, published[2]
    code, out, err = glideslope("release", "status", "./published", "--renew", "--key", "keys/ours", "--valid-days", "60", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["number"], told["signed_by"], [one["state"] for one in told["releases"]]) == (2, [ids[0]], ["current"])
    for command in (("release", "status", "./published", "--renew"), ("release", "withdraw", "./published", "--reason", "all is well", "--yes"),
                    ("release", "rollback", "./published", "--tag", "v1", "--yes")):
        for extra in (("--key", "keys/theirs"), ()):
            code, _, err = glideslope(*command, *extra)
            assert (code, "give --key" in err or ids[0] in err.replace("\n", "")) == (1, True), (command, err)
    code, _, err = glideslope("release", "withdraw", "./published", "--reason", "draws people", "--key", "keys/theirs", "--replace-key",
                              "--yes")
    assert code == 0, err
    told = json.loads(glideslope("release", "status", "./published", "--json")[1])
    assert (told["number"], told["signed_by"], told["releases"][0]["state"]) == (3, [ids[1]], "withdrawn")
