from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import set_model_preprocess_cfg
from torch import nn

from glideslope.clip.model import Clip
from glideslope.clip.towers import embed_captions, embed_images, logit_scale
from glideslope.errors import RequestError

pytestmark = pytest.mark.processors

CAPTIONS = ["a red square", "a blue bar"]


class Silent(nn.Module):
    """Says nothing of its pixels."""


@pytest.fixture(scope="module")
def judge() -> Clip:
    """An open_clip model of 32x32 images with fresh weights, no download."""
    torch.manual_seed(0)
    model = open_clip.model.CLIP(
        embed_dim=16, vision_cfg=open_clip.model.CLIPVisionCfg(layers=2, width=32, head_width=16, patch_size=8, image_size=32),
        text_cfg=open_clip.model.CLIPTextCfg(context_length=77, vocab_size=49408, width=16, heads=2, layers=1))
    set_model_preprocess_cfg(model, {"size": 32, "mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD})
    return Clip.of(model, open_clip.get_tokenizer("ViT-B-32"))


def test_a_model_of_open_clip_tells_its_size_and_pixel_statistics(judge: Clip) -> None:
    assert judge.image_size == 32
    assert judge.pixel_mean == open_clip.OPENAI_DATASET_MEAN
    assert judge.pixel_std == open_clip.OPENAI_DATASET_STD
    assert not judge.model.training
    assert abs(logit_scale(judge) - 1 / 0.07) < 1e-3


def test_a_model_that_does_not_say_how_its_pixels_are_normalised_is_refused() -> None:
    with pytest.raises(RequestError, match="clip: Silent does not say how its pixels are normalised"):
        Clip.of(Silent(), lambda captions: torch.zeros(len(captions), 1))


def test_images_are_normalised_as_open_clip_does_and_embeddings_have_length_one(judge: Clip) -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (judge.pixel_mean, judge.pixel_std))
    model: Any = judge.model
    expected = model.encode_image(((x + 1) / 2 - mean) / std, normalize=True)
    torch.testing.assert_close(embed_images(judge, x), expected)
    torch.testing.assert_close(embed_captions(judge, CAPTIONS).norm(dim=-1), torch.ones(2))


def test_captions_are_embedded_as_they_are_compared_unless_the_clip_reads_none(judge: Clip) -> None:
    torch.testing.assert_close(embed_captions(judge, CAPTIONS), torch.from_numpy(judge.encode_text(CAPTIONS)))
    with pytest.raises(RequestError, match="clip: this CLIP reads no captions; give one with a trained text tower"):
        embed_captions(replace(judge, tokenize=None), CAPTIONS)
