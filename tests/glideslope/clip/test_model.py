from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor, nn

from glideslope.clip.model import Clip, find_longer, load_clip, normalise
from glideslope.errors import CheckpointError, RecipeError, StageError
from glideslope.recipe.filters import ClipConfig

pytestmark = pytest.mark.processors

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class CountingModel(nn.Module):
    """Counts the crops it sees; embeds a crop as its mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.num_crops = 0
        self.seen: list[Tensor] = []

    def encode_image(self, x: Tensor) -> Tensor:
        self.num_crops += len(x)
        self.seen.append(x)
        return x.mean((2, 3)) + 2


def make_clip(**settings: Any) -> Clip:
    return Clip("counting", CountingModel(), 8, MEAN, STD, None, **settings)


def random_image(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_a_square_image_costs_one_forward_pass_and_a_wide_one_three() -> None:
    clip = make_clip()
    clip.embed_images([random_image(8, 8)])
    assert clip.model.num_crops == 1
    clip.embed_images([random_image(16, 16), random_image(8, 30)])
    assert clip.model.num_crops == 1 + 1 + 3


def test_an_embedding_is_the_normalised_mean_of_the_normalised_crops() -> None:
    image = random_image(8, 30)
    crops = [image[:, start:start + 8] for start in (0, 11, 22)]
    expected = [normalise((crop.reshape(-1, 3).mean(0) / 255 - 0.5)[None].astype(np.float32) / 0.5 + 2) for crop in crops]
    mean = normalise(np.mean(expected, axis=0))
    np.testing.assert_allclose(make_clip().embed_images([image]), mean, atol=1e-5)


def test_embeddings_have_length_one_and_do_not_depend_on_batching() -> None:
    images = [random_image(8, 8), random_image(8, 20), random_image(20, 8)]
    together = make_clip(batch_size=2).embed_images(images)
    alone = np.concatenate([make_clip().embed_images([image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert together.dtype == np.float32


def test_pixels_are_normalised_as_the_model_says() -> None:
    clip = make_clip()
    clip.embed_images([np.full((8, 8, 3), 255, dtype=np.uint8)])
    torch.testing.assert_close(clip.model.seen[0], torch.ones(1, 3, 8, 8))


def test_scoring_needs_a_caption_per_image_and_a_text_tower() -> None:
    with pytest.raises(ValueError, match="1 images with 2 captions"):
        make_clip().score([random_image(8, 8)], ["a", "b"])
    with pytest.raises(CheckpointError, match="no text tower; train it first"):
        make_clip().encode_text(["a"])


def test_an_open_clip_model_without_weights_is_refused_rather_than_random() -> None:
    with pytest.raises(RecipeError, match="its weights would be random"):
        load_clip(ClipConfig(model="ViT-B-32"))


def test_an_unknown_model_is_one_clear_error() -> None:
    with pytest.raises(RecipeError, match=r"clip.model: no-such-model .* cannot be loaded by open_clip"):
        load_clip(ClipConfig(model="no-such-model", pretrained="nowhere"))
    with pytest.raises(RecipeError, match="lite0 brings its own weights"):
        load_clip(ClipConfig(pretrained="laion"))


def test_any_open_clip_model_loads_from_a_local_directory(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    settings = {"embed_dim": 16, "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
                "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}
    torch.manual_seed(0)
    model = open_clip.CLIP(**settings)
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    preprocess = {"mean": list(MEAN), "std": list(STD)}
    (tmp_path / "open_clip_config.json").write_text(__import__("json").dumps({"model_cfg": settings, "preprocess_cfg": preprocess}))
    clip = load_clip(ClipConfig(model=f"local-dir:{tmp_path}"))
    assert (clip.image_size, clip.pixel_mean) == (32, MEAN)
    images = [random_image(32, 32), random_image(40, 90)]
    scores = clip.score(images, ["a red apple", "a house"])
    expected = clip.embed_images(images) * clip.encode_text(["a red apple", "a house"])
    np.testing.assert_allclose(scores, expected.sum(1), atol=1e-6)
    x = torch.from_numpy(images[0]).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        np.testing.assert_allclose(clip.embed_images(images[:1]), normalise(model.eval().encode_image(x).numpy()), atol=1e-4)


class SmallMemory(CountingModel):
    """Runs out of memory, as a GPU does, on more crops at once than it has room for."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def encode_image(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().encode_image(x)


def test_running_out_of_memory_halves_the_batch_for_good_and_loses_no_row() -> None:
    images = [random_image(8, 8 + 6 * (number % 3)) for number in range(21)]
    clip = Clip("small", SmallMemory(room=5), 8, MEAN, STD, None, batch_size=32)
    np.testing.assert_allclose(clip.embed_images(images), make_clip().embed_images(images), atol=1e-6)
    assert clip.batch_size == 4
    assert clip.model.num_crops == sum(1 + 2 * (number % 3 > 0) for number in range(21))


def test_an_image_that_does_not_fit_alone_is_one_clear_error() -> None:
    clip = Clip("small", SmallMemory(room=0), 8, MEAN, STD, None, batch_size=4)
    with pytest.raises(StageError, match=r"a single image of 8 pixels does not fit into the memory of cpu"):
        clip.embed_images([random_image(8, 8)])


@pytest.mark.parametrize(("room", "expected"), [(1, 1), (5, 4), (64, 64), (10**9, 512)])
def test_the_batch_size_that_fits_is_found(room: int, expected: int) -> None:
    assert Clip("small", SmallMemory(room), 8, MEAN, STD, None).find_batch_size() == expected


def test_the_captions_that_an_open_clip_tokenizer_cuts_are_found_to_the_token() -> None:
    tokenizer = open_clip.SimpleTokenizer(context_length=8)
    captions = ["", "red", "red " * 6, "red " * 7, "red " * 50]
    assert find_longer(tokenizer, captions) == [False, False, False, True, True]
    assert find_longer(tokenizer, []) == []


@pytest.mark.parametrize(("end", "padding"), [(1, 0), (1, 1), (2, 7)])
def test_cut_captions_are_found_whatever_ends_and_fills_them(end: int, padding: int) -> None:
    def tokenizer(texts: list[str], context_length: int = 5) -> Tensor:
        rows = [[*(9 for _ in text.split()[:context_length - 1]), end] for text in texts]
        return torch.tensor([row + [padding] * (context_length - len(row)) for row in rows])

    assert find_longer(tokenizer, ["", "a", "a b c d", "a b c d e", "a b c d e f g"]) == [False, False, False, True, True]
