"""An export is held against what this version makes of the release: code, data and the list of files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from glideslope import __version__
from glideslope.cli.main import app
from glideslope.errors import ReleaseError
from glideslope.release.exports.diffusers import export_diffusers, listing_text
from glideslope.release.exports.export_check import check_export
from glideslope.store.stage_manifest import Manifest
from glideslope.trust.release_manifest import ReleaseManifest

WEIGHTS = "base/diffusion_pytorch_model.safetensors"
# What a list of forbidden words lets through; each would run as soon as diffusers imports the module.
HIDDEN = ["import json\nx = json.codecs.builtins.eval('1')\n", "import typing\nx = typing.sys.modules['os']\n",
          "import pathlib\nx = pathlib.os.getcwd()\n", "import torch\nx = getattr(torch, 'lo' + 'ad')\n", "# a comment\n", "\n"]


@pytest.fixture(scope="module")
def exported(packed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export; tests copy it."""
    directory = tmp_path_factory.mktemp("exported") / "export"
    export_diffusers(packed_run / "release", directory)
    return directory


@pytest.fixture
def export(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "export"))


@pytest.fixture(params=["with the release", "alone"])
def check(request: pytest.FixtureRequest, packed_run: Path) -> Callable[[Path], list[str]]:
    """Both ways to check: with the release at hand, and without."""
    return lambda export: check_export(export, packed_run / "release" if request.param == "with the release" else None)


def seal(export: Path, **changes: Any) -> None:
    """List what lies there now, as somebody who owns the export would."""
    stated = json.loads((export / "export.json").read_text())
    text = listing_text(Manifest.of_directory(export, exclude=("export.json",)), stated["release_root"], stated["release_tensors_root"])
    (export / "export.json").write_bytes(text)
    if changes:
        (export / "export.json").write_text(json.dumps(json.loads(text) | changes))


def test_what_was_just_written_passes(export: Path, check: Any) -> None:
    assert check(export) == []


@pytest.mark.parametrize("code", HIDDEN)
@pytest.mark.parametrize("path", ["pipeline.py", "base/modeling_glide.py", "tokenizer/tokenizer_glide.py"])
def test_code_that_is_not_the_generated_code_is_refused_whatever_it_says(export: Path, check: Any, path: str, code: str) -> None:
    text = (export / path).read_text()
    for changed in (text + code, code + text):
        (export / path).write_text(changed)
        seal(export)
        assert check(export) == [f"{path}: is not what glideslope {__version__} writes into this export"]


@pytest.mark.parametrize("path", ["extra.py", "base/helper.py", "setup.py", "upsampler/modeling_glide.py", "evil/x.json", "base/__init__.py",
                                  "base/pytorch_model.bin", ".github/x.yml", "tokenizer/special_tokens_map.json", "base/config.json.py"])
def test_every_file_is_accounted_for(export: Path, check: Any, path: str) -> None:
    (export / path).parent.mkdir(exist_ok=True)
    (export / path).write_text("{}")
    seal(export)
    assert any(path in problem for problem in check(export))


@pytest.mark.parametrize("path", ["pipeline.py", "model_index.json", "base/config.json", "scheduler/scheduler_config.json",
                                  "tokenizer/tokenizer.json", "README.md", "LICENSE"])
def test_a_changed_file_that_was_not_listed_again_is_noticed(export: Path, check: Any, path: str) -> None:
    with (export / path).open("a") as file:
        file.write("\n")
    assert check(export) != []


def test_an_index_that_names_other_code_is_refused(export: Path, check: Any) -> None:
    index = json.loads((export / "model_index.json").read_text())
    (export / "model_index.json").write_text(json.dumps(index | {"base": ["modeling_evil", "GlideUNet"]}))
    seal(export)
    assert check(export) == [f"model_index.json: is not what glideslope {__version__} writes into this export"]


def test_a_hostile_tokenizer_in_an_export_is_refused(export: Path, check: Any) -> None:
    value = json.loads((export / "tokenizer/tokenizer.json").read_text())
    value["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    (export / "tokenizer/tokenizer.json").write_text(json.dumps(value))
    seal(export)
    assert any("tokenizer.json" in problem for problem in check(export))


def test_weights_of_another_release_are_noticed_with_the_release_and_with_the_root_of_its_tensors(export: Path, packed_run: Path) -> None:
    root = ReleaseManifest.read(packed_run / "release/manifest.json").tensors_root
    assert check_export(export, tensors_root=root) == []
    tensors = load_file(export / WEIGHTS)
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name] + 1}, export / WEIGHTS)
    seal(export)
    assert check_export(export, packed_run / "release") == [f"{WEIGHTS}: is not what glideslope {__version__} writes into this export"]
    problem, = check_export(export, tensors_root=root)
    assert problem.startswith("weights: the root of their tensors is ")


def test_an_export_by_another_version_is_refused_and_names_it(export: Path, check: Any) -> None:
    seal(export, glideslope="0.0.7")
    problem, = check(export)
    assert "made by glideslope '0.0.7' for diffusers" in problem and f"this is glideslope {__version__}" in problem
    seal(export, format="glideslope.diffusers-export/9")
    assert "glideslope.diffusers-export/9" in check(export)[0]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"glideslope": "0.1.0", "glideslope": "0.1.0"}', b"\xff", b"[" * 5000])
def test_a_list_that_cannot_be_read_is_one_sentence(export: Path, check: Any, content: bytes) -> None:
    (export / "export.json").write_bytes(content)
    assert len(check(export)) == 1


def test_a_missing_component_and_a_link_that_leads_out_are_refused(export: Path, check: Any, tmp_path: Path) -> None:
    shutil.rmtree(export / "scheduler")
    seal(export)
    assert any("scheduler" in problem for problem in check(export))
    (tmp_path / "outside").write_text("x")
    (export / "LICENSE").unlink()
    (export / "LICENSE").symlink_to(tmp_path / "outside")
    assert any("LICENSE: a link that leads out" in problem for problem in check(export))


def test_a_release_that_was_changed_says_nothing_about_an_export(export: Path, release_dir: Path) -> None:
    with (release_dir / "README.md").open("a") as file:
        file.write(" ")
    with pytest.raises(ReleaseError, match="is not what its manifest says"):
        check_export(export, release_dir)


def test_the_command_compares_and_exits_with_1_where_something_differs(export: Path, packed_run: Path) -> None:
    command = ["release", "export-diffusers", str(packed_run / "release"), "--out", str(export), "--check"]
    assert CliRunner().invoke(app, command).exit_code == 0
    (export / "pipeline.py").write_text("import os\n")
    result = CliRunner().invoke(app, command)
    assert result.exit_code != 0 and "pipeline.py: is not what" in str(result.exception)


@pytest.mark.parametrize("change", [{"quantization_config": {"quant_method": "x"}}, {"auto_map": {"AutoModel": "x.Y"}},
                                    {"_class_name": "NoisedClip"}, {"num_res_blocks": 10**9}])
def test_a_configuration_holds_what_an_architecture_has_and_nothing_else(export: Path, check: Any, change: dict[str, Any]) -> None:
    path = export / "base/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    seal(export)
    assert any(problem.startswith(("base/config.json", str(path))) or "base/config.json" in problem for problem in check(export))
