import shutil
import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from glideslope.cli.main import main
from glideslope.errors import CheckpointError, RequestError, StorageError
from glideslope.models.diffusion.process import NoiseSchedule
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.networks.noised_clip import ImageEncoder, NoisedClip, NoisedClipConfig, TextEncoder
from glideslope.models.networks.presets import NOISED_CLIP_PRESETS, UNET_PRESETS
from glideslope.models.networks.unet import TextConditionedUNet
from glideslope.models.published import importing
from glideslope.models.published.importing import IMPORT_NAME, ImportOptions, import_published, published_architectures
from glideslope.recipe.components import PUBLISHED
from glideslope.recipe.strict_model import StrictModel
from glideslope.store.whole_files import read_json

from ..archives import save_as_published
from ..closed_form import with_closed_form_weights

PROMPT = "An oil painting of a corgi's “hat”"


def tiny_architectures() -> dict[str, StrictModel]:
    """The published layout at small sizes, with the published vocabularies."""
    base = UNET_PRESETS["glide-micro-16"].model_copy(update={"n_vocab": 50_257, "xf_width": 8})
    upsampler = base.model_copy(update={"image_size": 32, "super_res": True})
    return {"base": base, "upsampler": upsampler, "base_inpaint": base.model_copy(update={"inpaint": True}),
            "upsampler_inpaint": upsampler.model_copy(update={"inpaint": True}),
            "noised_clip": NOISED_CLIP_PRESETS["noised-clip-micro-16"].model_copy(
                update={"n_vocab": 65_536, "n_head_text": 1, "n_head_state_text": 8, "max_text_len": 20})}


TINY = tiny_architectures()


@pytest.fixture(scope="module")
def networks() -> dict[str, dict[str, Tensor]]:
    """File name without ending -> state of the small network in it."""
    clip = TINY["noised_clip"]
    assert isinstance(clip, NoisedClipConfig)
    models = {PUBLISHED[name].files[""]: TextConditionedUNet(TINY[name]) for name in TINY if name != "noised_clip"}
    models |= {"clip_image_enc": ImageEncoder(clip), "clip_text_enc": TextEncoder(clip)}
    return {stem: with_closed_form_weights(model).state_dict() for stem, model in models.items()}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, networks: dict[str, dict[str, Tensor]]) -> Path:
    directory = tmp_path_factory.mktemp("published")
    for stem, state in networks.items():
        save_as_published(directory / f"{stem}.pt", state)
    return directory


@pytest.fixture(scope="module")
def imported(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    release = tmp_path_factory.mktemp("imported") / "release"
    import_published(published, release, ImportOptions(architectures=TINY))
    return release


@pytest.fixture
def files(published: Path, tmp_path: Path) -> Path:
    """A copy of the published files, to be damaged."""
    return Path(shutil.copytree(published, tmp_path / "published"))


def base_only() -> ImportOptions:
    return ImportOptions(["base"], architectures=TINY)


def refusal(files: Path, options: ImportOptions | None = None) -> str:
    """Why an import is refused; it leaves nothing behind."""
    target = files.parent / "target" / "release"
    target.parent.mkdir(exist_ok=True)
    with pytest.raises(CheckpointError) as caught:
        import_published(files, target, options or ImportOptions(architectures=TINY))
    assert list(target.parent.iterdir()) == []
    return str(caught.value)


def test_the_six_files_become_a_release_that_draws(imported: Path) -> None:
    pipe = GlidePipeline.from_pretrained(imported, device="cpu", verify="required")
    assert pipe.networks.schedule == NoiseSchedule("squaredcos_cap_v2")
    assert pipe.networks.upsampler_schedule == NoiseSchedule("linear")
    assert set(pipe.networks.companions) == {"upsampler", "base_inpaint", "upsampler_inpaint"}
    assert (pipe.networks.tokenizer.kind, pipe.networks.clip_tokenizer.kind) == ("gpt2", "clip")
    first, second, other = (pipe(text, num_steps=3, clip_guidance_scale=1.0, upsample=False).images[0]
                            for text in (PROMPT, PROMPT, "a red apple"))
    assert first.size == (16, 16)
    assert pipe(PROMPT, num_steps=1).images[0].size == (32, 32)
    assert np.array_equal(np.asarray(first), np.asarray(second))
    assert not np.array_equal(np.asarray(first), np.asarray(other))
    assert pipe.upsample([first], PROMPT).images[0].size == (32, 32)
    assert len(pipe.rank([first, other], PROMPT)) == 2


def test_every_weight_is_that_of_its_file(imported: Path, networks: dict[str, dict[str, Tensor]]) -> None:
    pipe = GlidePipeline.from_pretrained(imported, device="cpu")
    assert isinstance(pipe.networks.noised_clip, NoisedClip)
    found = {"base": pipe.networks.base, **{PUBLISHED[name].files[""]: network for name, network in pipe.networks.companions.items()},
             "clip_image_enc": pipe.networks.noised_clip.image_encoder, "clip_text_enc": pipe.networks.noised_clip.text_encoder}
    assert found.keys() == networks.keys()
    for stem, network in found.items():
        state = network.state_dict()
        assert list(state) == list(networks[stem])
        assert all(torch.equal(tensor, networks[stem][name]) for name, tensor in state.items())


def test_the_release_says_where_it_comes_from_and_claims_nothing_else(imported: Path, published: Path) -> None:
    report = read_json(imported / IMPORT_NAME)
    assert report["sources"] == {path.name: {"component": next(c for c, one in PUBLISHED.items() if path.stem in one.files.values()),
                                             "size_bytes": path.stat().st_size, "sha256": sha256(path.read_bytes()).hexdigest()}
                                 for path in published.iterdir()}
    assert set(report["components"]) == set(TINY)
    assert report["components"]["base"]["dtypes"] == ["F32"]
    card = (imported / "README.md").read_text(encoding="utf-8")
    assert "did not curate the data behind them and did not train them" in card
    assert "Where the weights come from is not shown" in card and "# Shaped like GLIDE" in card
    assert "These weights are OpenAI's" not in card
    for entry in report["sources"].values():
        assert entry["sha256"] in card
    assert sorted(path.relative_to(imported).as_posix() for path in (imported / "evidence").rglob("*")) == [IMPORT_NAME]


def test_importing_twice_gives_equal_bytes(published: Path, imported: Path, tmp_path: Path) -> None:
    import_published(published, tmp_path / "again", ImportOptions(architectures=TINY))
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (imported / "manifest.json").read_bytes()


def test_half_precision_stays_as_it_is_stored(files: Path, networks: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    mixed = {name: tensor if "embedding" in name else tensor.half() for name, tensor in networks["base"].items()}
    save_as_published(files / "base.pt", mixed)
    report = import_published(files, tmp_path / "release", base_only())
    assert report["components"]["base"]["dtypes"] == ["F16", "F32"]
    state = GlidePipeline.from_pretrained(tmp_path / "release", device="cpu").networks.base.state_dict()
    assert all(torch.equal(tensor, mixed[name]) and tensor.dtype == mixed[name].dtype for name, tensor in state.items())
    assert GlidePipeline.from_pretrained(tmp_path / "release", device="cpu", dtype=torch.float32)(PROMPT, num_steps=1).images


def test_files_may_be_named_with_hyphens_but_not_both_ways(files: Path, tmp_path: Path) -> None:
    (files / "base_inpaint.pt").rename(files / "base-inpaint.pt")
    report = import_published(files, tmp_path / "release", ImportOptions(["base", "base_inpaint"], architectures=TINY))
    assert set(report["sources"]) == {"base.pt", "base-inpaint.pt"}
    shutil.copy(files / "base-inpaint.pt", files / "base_inpaint.pt")
    assert "holds both base_inpaint.pt and base-inpaint.pt; remove the wrong one" in refusal(files)


def test_missing_files_are_all_named_and_a_part_is_imported_only_when_asked_for(files: Path, tmp_path: Path) -> None:
    for name in ("upsample.pt", "clip_text_enc.pt"):
        (files / name).unlink()
    assert "clip_text_enc.pt, upsample.pt is missing; put it there, or import only what is there with --components" in refusal(files)
    import_published(files, tmp_path / "release", ImportOptions(["base_inpaint", "base"], architectures=TINY))
    assert set(GlidePipeline.from_pretrained(tmp_path / "release", device="cpu").networks.companions) == {"base_inpaint"}
    assert not (tmp_path / "release" / "upsampler_scheduler").exists()
    assert not (tmp_path / "release" / "clip_tokenizer").exists()


def test_impossible_choices_of_components_are_refused() -> None:
    with pytest.raises(RequestError, match="components: 'clip' is unknown; choose base, and from noised_clip, upsampler, "):
        ImportOptions(["base", "clip"])
    for chosen in ([], ["upsampler"]):
        with pytest.raises(RequestError, match="base is missing, and nothing draws without it"):
            ImportOptions(chosen)


@pytest.mark.parametrize(("name", "other", "told"), [
    ("base", "upsample", "not the published base, but upsample.pt under another name: "),
    ("base", "base_inpaint", "not the published base, but base_inpaint.pt under another name: tensor input_blocks.0.0.weight has shape"),
    ("upsample", "base", "not the published upsampler, but base.pt under another name: "),
    ("clip_image_enc", "clip_text_enc", "not the published noised_clip: tensor image_encoder.blocks.input.w_t is missing")])
def test_another_models_file_under_this_name_is_recognised(name: str, other: str, told: str, files: Path) -> None:
    shutil.copy(files / f"{other}.pt", files / f"{name}.pt")
    assert told in refusal(files)


def test_missing_unknown_and_misshapen_tensors_are_refused(files: Path, networks: dict[str, dict[str, Tensor]]) -> None:
    state = networks["base"]
    changes: list[tuple[dict[str, Tensor], str]] = [
        ({name: tensor for name, tensor in state.items() if name != "out.2.bias"}, "tensor out.2.bias is missing"),
        (state | {"extra": torch.zeros(1)}, "tensor extra is not in the architecture"),
        (state | {"out.2.bias": torch.zeros(7)}, "tensor out.2.bias has shape [7], expected [6]"),
        (state | {"out.2.bias": torch.zeros(6, dtype=torch.float64)}, "tensor out.2.bias holds F64, expected one of F32, BF16, F16"),
        (state | {"out.2.bias": torch.full((6,), float("nan"))}, "tensor out.2.bias holds 6 values that are infinite or not numbers")]
    for changed, told in changes:
        save_as_published(files / "base.pt", changed)
        message = refusal(files, base_only())
        assert told in message
        assert str(files / "base.pt") in message


def test_a_damaged_file_is_refused_before_any_other_is_converted(files: Path) -> None:
    data = bytearray((files / "clip_text_enc.pt").read_bytes())
    (files / "clip_text_enc.pt").write_bytes(data[:-1000])
    assert "clip_text_enc.pt: the zip archive has no end; the file is cut off, download it again" in refusal(files)
    data[len(data) // 2] ^= 1
    (files / "clip_text_enc.pt").write_bytes(data)
    assert "the file is damaged, download it again" in refusal(files)


def test_a_wrong_vocabulary_is_refused(files: Path, tmp_path: Path) -> None:
    assert "not a vocabulary of a published model" in refusal(files, ImportOptions(["base"], gpt2_source=str(tmp_path), architectures=TINY))
    (files / "encoder.json").write_text('{"a": 0}')
    (files / "vocab.bpe").write_text("#version\n")
    assert "GPT-2 vocabulary of 1 tokens and 0 merges is not the published one" in refusal(files)


def test_a_release_that_exists_is_not_overwritten(files: Path, tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    with pytest.raises(RequestError, match="release: exists already"):
        import_published(files, tmp_path / "release", base_only())


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such directory; give the one that holds the published \.pt files"):
        import_published(tmp_path / "nowhere", tmp_path / "release")


def test_a_release_that_cannot_be_written_is_one_clear_error(published: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        import_published(published, tmp_path / "file" / "release", base_only())


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
        published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 10**6))
    with pytest.raises(StorageError, match="5 MB are free, the release needs"):
        import_published(published, tmp_path / "release", base_only())
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_the_whole(published: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    import_published(published, tmp_path / "release", base_only(), progress=lambda *state: told.append(state))
    assert told[-1][0] == told[-1][1] > 0
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert list(dict.fromkeys(text for _, _, text in told)) == ["checking base", "writing base", "comparing base"]


def test_the_architectures_are_those_of_the_published_presets() -> None:
    found = published_architectures()
    assert found.keys() == PUBLISHED.keys()
    assert all(found[name] == {**UNET_PRESETS, **NOISED_CLIP_PRESETS}[one.preset] for name, one in PUBLISHED.items())


def test_the_command_imports_and_prints_the_digests(
        published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importing, "published_architectures", tiny_architectures)  # the real ones need 7 GB of files
    command = ["release", "import-openai", str(published), "--out", str(tmp_path / "release"), "--components", "base"]
    monkeypatch.setattr(sys, "argv", ["glideslope", *command])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert f"base.pt: sha256 {sha256((published / 'base.pt').read_bytes()).hexdigest()}" in capsys.readouterr().out
    assert GlidePipeline.from_pretrained(tmp_path / "release", device="cpu", verify="required").networks.noised_clip is None


def test_the_command_refuses_a_small_file_under_a_published_name_with_one_line(
        published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["glideslope", "release", "import-openai", str(published), "--out", str(tmp_path / "release")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert "not the published base: tensor" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_files_are_held_against_the_digests_that_are_given(published: Path, tmp_path: Path) -> None:
    lines = {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(published.iterdir()) if path.suffix == ".pt"}
    (tmp_path / "digests").write_text("".join(f"{digest}  {name}\n" for name, digest in lines.items()))
    digests = importing.read_digests(tmp_path / "digests")
    assert digests == lines
    import_published(published, tmp_path / "release", ImportOptions(architectures=TINY, digests=digests))
    assert "Each file has the digest that whoever imported it gave" in (tmp_path / "release/README.md").read_text()
    for wrong, told in ((lines | {"base.pt": "0" * 64}, f"base.pt: sha256 is {lines['base.pt']}, expected 000"), ({}, "no digest is given")):
        with pytest.raises(CheckpointError, match=told):
            import_published(published, tmp_path / "other", ImportOptions(architectures=TINY, digests=wrong))
        assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("text", ["x  base.pt", "0" * 64 + " base.pt", "0" * 64 + "  ../base.pt", ("0" * 64 + "  base.pt\n") * 2, "\n"])
def test_digests_in_another_form_are_refused_with_their_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "digests").write_text(text)
    with pytest.raises(CheckpointError, match=r"digests: line [12]: "):
        importing.read_digests(tmp_path / "digests")
