import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glideslope.errors import ReleaseError
from glideslope.recipe.policy import GoldenDemands, load_policy
from glideslope.recipe.recipe import Recipe
from glideslope.release import pack
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.evidence.golden import check_golden, draw_golden, find_drift, self_test

pytestmark = pytest.mark.processors

GOLDEN = "evidence/golden/golden.json"
STRICT = load_policy(None).golden
ELSEWHERE = GoldenDemands(min_pictures=1, exact_on_same_machine=True, max_mean_difference={"cpu": 1.0})


def change_weights(directory: Path, model: str) -> None:
    """Swap a model's weights for others of the same shapes, and seal nothing."""
    from safetensors.torch import load_file, save_file

    path = directory / model / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor * 1.5 for name, tensor in sorted(tensors.items())}, path, metadata={"format": "pt"})


def test_golden_pictures_are_drawn_once_and_come_out_again(packed_run: Path, recipe: Recipe) -> None:
    compared = self_test(open_evidence(packed_run / "release"))
    assert [one.file for one in compared] == ["picture_00.png", "picture_01.png"]
    assert all(one.is_exact and one.is_same_machine and one.mean_difference == 0 and one.device == "cpu" for one in compared)
    assert find_drift(open_evidence(packed_run / "release"), STRICT) == []
    golden = json.loads((packed_run / "release" / GOLDEN).read_text())
    assert [one["clip_guidance_scale"] > 0 for one in golden["pictures"]] == [False, True]
    assert golden["pictures"][0]["prompt"] in {row for row in (packed_run / "release/evidence/evaluation/pairs.jsonl").read_text().split('"')}
    first = draw_golden(packed_run, recipe)
    assert first is not None
    assert first.inputs.keys() == {"training/base", "training/noised_clip", "evaluation"}


@pytest.mark.parametrize("model", ["base", "noised_clip"])
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_swapped_weights_are_refused_though_every_digest_was_made_to_fit(tamper: Any, model: str, is_elsewhere: bool) -> None:
    change_weights(tamper.directory, model)
    if is_elsewhere:
        tamper.json(GOLDEN, lambda golden: golden["machine"].update(processor="another"))
    tamper.seal()
    problems = find_drift(open_evidence(tamper.directory), ELSEWHERE)
    expected = {"base": ["picture_00.png", "picture_01.png"], "noised_clip": ["picture_01.png"]}[model]  # the first has no CLIP guidance
    assert [problem.split()[2] for problem in problems] == expected
    said = "the policy allows 1 on cpu" if is_elsewhere else "on a machine of the class that drew it, where it must be the same"
    assert all(said in problem and "these are not the weights or not the code that was released" in problem for problem in problems)


def test_on_another_machine_pictures_may_lie_within_the_tolerance(tamper: Any) -> None:
    with Image.open(tamper.directory / "evidence/golden/picture_00.png") as opened:
        pixels = np.asarray(opened).astype(np.int16)
    nudged = np.clip(pixels + np.where(np.arange(pixels.size).reshape(pixels.shape) % 2, 1, 0), 0, 255).astype(np.uint8)
    Image.fromarray(nudged).save(tamper.directory / "evidence/golden/picture_00.png")

    def describe(golden: dict[str, Any]) -> None:
        from glideslope.store.digests import sha256_bytes

        golden["pictures"][0]["sha256"] = sha256_bytes(nudged.tobytes())
        golden["machine"]["processor"] = "another"

    tamper.json(GOLDEN, describe)
    tamper.seal()
    assert find_drift(open_evidence(tamper.directory), ELSEWHERE) == []
    tight = ELSEWHERE.model_copy(update={"max_mean_difference": {"cpu": 0.1}})
    assert "the policy allows 0.1 on cpu" in find_drift(open_evidence(tamper.directory), tight)[0]


def test_an_edited_picture_does_not_fit_its_description(tamper: Any) -> None:
    Image.new("RGB", (16, 16), "red").save(tamper.directory / "evidence/golden/picture_01.png")
    with pytest.raises(ReleaseError, match=r"picture_01\.png: is not the picture that evidence/golden/golden\.json describes"):
        check_golden(open_evidence(tamper.directory))


def png_of(header: bytes, chunks: bytes = b"", *, crc: int = 0) -> bytes:
    """A PNG with a header and other chunks, which promises what it likes."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) ^ crc)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("data", "message"), [
    (b"", "is no PNG"), (b"\xff\xd8\xff", "is no PNG"), (b"\x89PNG\r\n\x1a\n", "a PNG without its header"),
    (png_of(struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), "image is too large: 60000 x 60000 pixels"),
    (png_of(struct.pack(">IIBBBBB", 5, 5, 8, 2, 0, 0, 0), crc=1), "has another checksum than it states"),
    (png_of(struct.pack(">IIBBBBB", 4, 4, 3, 7, 0, 0, 0)), "truncated or damaged"),
    (png_of(struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0)), "expected an RGB picture of at most 1024 pixels a side"),
    (png_of(struct.pack(">IIBBBBB", 2000, 2, 8, 2, 0, 0, 0)), "image is truncated or damaged")])
def test_what_is_no_golden_picture_is_refused_in_one_sentence(tamper: Any, data: bytes, message: str) -> None:
    (tamper.directory / "evidence/golden/picture_00.png").write_bytes(data)
    with pytest.raises(ReleaseError, match=message):
        check_golden(open_evidence(tamper.directory))


@pytest.mark.parametrize(("change", "message"), [
    (lambda golden: golden.update(format="other"), "format is 'other'"),
    (lambda golden: golden.update(more=1), "format is 'glideslope.golden/1'"),
    (lambda golden: golden.update(pictures={}), "pictures are malformed"),
    (lambda golden: golden["pictures"][0].update(file="../../README.md"), "pictures are malformed"),
    (lambda golden: golden["pictures"][0].update(seed="0"), "pictures are malformed"),
    (lambda golden: golden["pictures"][0].pop("sampler"), "pictures are malformed"),
])
def test_a_malformed_description_is_refused(tamper: Any, change: Any, message: str) -> None:
    tamper.json(GOLDEN, change)
    with pytest.raises(ReleaseError, match=message):
        check_golden(open_evidence(tamper.directory))


def test_fewer_pictures_than_recipe_or_policy_ask_for_are_refused(tamper: Any) -> None:
    tamper.json(GOLDEN, lambda golden: golden["pictures"].pop())
    tamper.seal()
    release = open_evidence(tamper.directory)
    assert check_golden(release) == [f"{GOLDEN}: holds 1 pictures, the recipe says 2; pack again"]
    wanting = STRICT.model_copy(update={"min_pictures": 2})
    assert "1 pictures, the policy asks for at least 2" in "; ".join(find_drift(release, wanting))


def test_a_recipe_can_do_without_golden_pictures_but_then_the_gate_must_be_left_out_openly(run_dir: Path, recipe: Recipe) -> None:
    without = recipe.model_copy(update={"release": recipe.release.model_copy(update={"golden_prompts": 0})})
    pack(run_dir, without, run_dir / "release")
    release = open_evidence(run_dir / "release")
    assert not (run_dir / "release" / GOLDEN).exists()
    assert check_golden(release) == []
    assert find_drift(release, STRICT) == ["golden samples: there are none, the policy asks for 1; set release.golden_prompts in the recipe "
                                           "and pack again, or leave the gate out openly (unsafe_skip in the policy, with the reason)"]


def test_a_device_that_the_policy_does_not_name_is_refused(packed_run: Path) -> None:
    other = GoldenDemands(min_pictures=1, exact_on_same_machine=False, max_mean_difference={"cuda": 1.0})
    problems = find_drift(open_evidence(packed_run / "release"), other)
    assert problems == ["golden samples: the policy states no tolerance for cpu; add golden.max_mean_difference.cpu"] * 2


def test_a_release_that_does_not_load_is_refused(tamper: Any) -> None:
    tamper.json("base/config.json", lambda config: config.update(model_channels=64))
    tamper.seal()
    assert "golden samples: the release cannot be drawn from" in find_drift(open_evidence(tamper.directory), STRICT)[0]


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "abacus", ""])
def test_a_device_that_is_not_there_is_refused(packed_run: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ReleaseError, match=rf"device '{device}': not there; this machine has cpu"):
        find_drift(open_evidence(packed_run / "release"), STRICT, device=device)


@pytest.mark.parametrize("change", [
    lambda one: one.update(num_steps=1000), lambda one: one.update(num_steps=0), lambda one: one.update(sampler="ddpm"),
    lambda one: one.update(prompt="a " * 10_000)])
def test_golden_samples_that_would_cost_more_than_pack_draws_are_refused_before_anything_is_drawn(tamper: Any, change: Any) -> None:
    tamper.json(GOLDEN, lambda golden: change(golden["pictures"][0]))
    tamper.seal()
    for refuse in (lambda place: self_test(open_evidence(place)), lambda place: check_golden(open_evidence(place)),
                   lambda place: find_drift(open_evidence(place), STRICT)):
        with pytest.raises(ReleaseError, match="expected at most 64 pictures, each drawn with 12 steps of ddim"):
            refuse(tamper.directory)


def test_more_golden_samples_than_a_recipe_may_ask_for_are_refused(tamper: Any) -> None:
    tamper.json(GOLDEN, lambda golden: golden.update(pictures=[golden["pictures"][0] | {"file": f"picture_{n:02d}.png"} for n in range(65)]))
    tamper.seal()
    with pytest.raises(ReleaseError, match="at most 64 pictures"):
        self_test(open_evidence(tamper.directory))


def test_a_picture_that_takes_too_long_is_given_up(packed_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glideslope.release.evidence.golden.MAX_SECONDS_OF_PICTURE", -1)
    with pytest.raises(ReleaseError, match=r"picture_00\.png is not drawn after -1 s, in step 1; use a faster machine"):
        self_test(open_evidence(packed_run / "release"))
