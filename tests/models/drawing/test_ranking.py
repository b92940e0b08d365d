import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms

from glideslope.clip.model import Clip
from glideslope.errors import CheckpointError, RequestError
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.loading.loaded_networks import Networks

from ..conftest import COLOURS

pytestmark = pytest.mark.processors

PROMPT = "a red square"


@pytest.fixture(scope="module")
def pipe(whole_release: Path) -> GlidePipeline:
    return GlidePipeline.from_pretrained(whole_release, device="cpu")


@pytest.fixture(scope="module")
def open_clip_model() -> Any:
    """A small open_clip model with random weights."""
    torch.manual_seed(0)
    vision = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
    text = {"context_length": 16, "vocab_size": 49_408, "width": 32, "heads": 2, "layers": 1}
    return open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).eval()


class Redness:
    """Judges by the share of red alone."""

    def score(self, images: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> NDArray[np.float32]:
        assert list(captions) == [PROMPT] * len(images)
        return np.array([image[..., 0].mean() - image[..., 1:].mean() for image in images], dtype=np.float32)


def coloured() -> list[Image.Image]:
    return [Image.new("RGB", (40, 20), colour) for colour in COLOURS.values()]


def test_any_scorer_ranks(pipe: GlidePipeline) -> None:
    bare = GlidePipeline(Networks(pipe.networks.base, pipe.networks.tokenizer))  # has no CLIP of its own
    ranked = bare.rank(coloured(), PROMPT, clip=Redness())
    assert ranked[0][0] == list(COLOURS).index("red")
    assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)


def test_an_open_clip_model_ranks_by_the_cosines_that_it_gives_itself(pipe: GlidePipeline, open_clip_model: Any) -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=16)
    images = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)) for i in range(3)]
    clip = Clip("small", open_clip_model, 32, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD, tokenizer)
    ranked = pipe.rank(images, PROMPT, clip=clip)
    preprocess = transforms.Compose([transforms.ToTensor(), transforms.Normalize(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)])
    with torch.no_grad():
        of_images = open_clip_model.encode_image(torch.stack([preprocess(image) for image in images]), normalize=True)
        expected = of_images @ open_clip_model.encode_text(tokenizer([PROMPT]), normalize=True)[0]
    assert [position for position, _ in ranked] == expected.argsort(descending=True).tolist()
    for position, score in ranked:
        assert abs(score - float(expected[position])) < 1e-5


def test_transparency_is_white_for_the_noised_clip_too(pipe: GlidePipeline) -> None:
    clear, white, black = Image.new("RGBA", (16, 16), (0, 0, 0, 0)), Image.new("RGB", (16, 16), "white"), Image.new("RGB", (16, 16))
    scores = dict(pipe.rank([clear, white, black], PROMPT))
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)  # sums round otherwise in another place of a batch
    assert abs(scores[0] - scores[2]) > 1e-3


def test_what_cannot_be_ranked_is_refused(pipe: GlidePipeline, open_clip_model: Any) -> None:
    image = Image.new("RGB", (16, 16))
    with pytest.raises(RequestError, match="rank: 2 prompts were given; rank for one prompt at a time"):
        pipe.rank([image], [PROMPT, PROMPT])  # type: ignore[arg-type]  # wrong values are the point
    with pytest.raises(RequestError, match=r"image: expected a PIL\.Image\.Image, got str"):
        pipe.rank(["photo.png"], PROMPT)  # type: ignore[list-item]
    deaf = Clip("deaf", open_clip_model, 32, (0.5,) * 3, (0.5,) * 3, None)
    with pytest.raises(CheckpointError, match="deaf: no text tower"):
        pipe.rank([image], PROMPT, clip=deaf)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_clip_in_half_precision_ranks_nearly_as_in_full(pipe: GlidePipeline, open_clip_model: Any, dtype: torch.dtype) -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=16)
    scores = []
    for model in (open_clip_model, copy.deepcopy(open_clip_model).to(dtype)):
        clip = Clip("small", model, 32, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD, tokenizer)
        scores.append(dict(pipe.rank(coloured(), PROMPT, clip=clip)))
    assert all(abs(scores[0][i] - scores[1][i]) < 0.03 for i in scores[0])


def test_one_image_is_ranked_too(pipe: GlidePipeline) -> None:
    image = Image.new("RGB", (16, 16), "red")
    assert pipe.rank(image, PROMPT) == pipe.rank([image], PROMPT)
    assert [position for position, _ in pipe.rank(image, PROMPT)] == [0]


def test_a_prompt_longer_than_the_noised_clip_reads_is_refused_or_cut_if_that_is_wanted(pipe: GlidePipeline) -> None:
    long = "a red square and a blue bar " * 9
    with pytest.raises(RequestError, match=r"tokens long, this model reads 16; shorten it, or allow it to be cut"):
        pipe.rank(coloured(), long)
    assert pipe.rank(coloured(), long, cut_long_prompts=True) == pipe.rank(coloured(), long + "and a corner", cut_long_prompts=True)


def test_a_clip_that_scores_nothing_is_refused_with_what_makes_a_scorer_of_it(pipe: GlidePipeline, open_clip_model: Any) -> None:
    with pytest.raises(RequestError, match=r"rank: clip is a CLIP, which scores nothing; .*Clip\.of makes one of a model of open_clip"):
        pipe.rank(coloured(), PROMPT, clip=open_clip_model)
