import math

import pytest
import torch
from torch.nn import functional

from glideslope.learning.contrastive import contrastive_loss


def test_the_loss_is_zero_for_perfect_and_log_n_for_blind_embeddings() -> None:
    assert contrastive_loss(100.0 * torch.eye(8)).item() == pytest.approx(0, abs=1e-6)
    assert contrastive_loss(torch.full((8, 8), 100.0)).item() == pytest.approx(math.log(8), abs=1e-5)


def test_images_and_captions_count_alike() -> None:
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    assert contrastive_loss(logits) == contrastive_loss(logits.T)
    rows, columns = (-functional.log_softmax(logits, dim=dim).diagonal().mean() for dim in (1, 0))
    torch.testing.assert_close(contrastive_loss(logits), (rows + columns) / 2)
