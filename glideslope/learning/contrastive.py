"""The loss of both CLIPs that are trained here."""

import torch
from torch import Tensor
from torch.nn import functional


def contrastive_loss(logits: Tensor) -> Tensor:
    """Mean of the two cross-entropies of finding one's partner in the batch (arXiv 2103.00020, figure 3).

    Args:
        logits: float32 (N, N), scaled cosines of images and captions; partners on the diagonal.
    """
    partners = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, partners) + functional.cross_entropy(logits.T, partners)) / 2
