"""A start for the text transformer of a base model: it learns to tell the images apart before the network learns to draw them.

A small set has nearly as many captions as images, and a short training shows each a few times: too few to find out, through a denoiser,
which words make which image. The run's CLIP has seen the images. So the transformer first learns, by contrast, to lead from a
caption to the CLIP's embedding of its image (locked-image tuning, arXiv 2111.07991), in seconds.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...errors import TrainingError
from ...learning.contrastive import contrastive_loss
from ...learning.cosine_decay import half_cosine
from ...text.one_line import one_line
from ..networks.unet import TextConditionedUNet, UNetConfig
from ..tokenizer import CaptionTokenizer
from .data import CuratedSplit, batch_indices, caption_draws

BATCH_SIZE = 128
MAX_PAIRS = 20_000  # of a larger set so many are taken, evenly spread, so that memory stays flat
LEARNING_RATE = 1e-3
WARMUP_SHARE = 0.1
NUM_TIMED = 1024  # dimensions of an embedding, about
LOGIT_SCALE = 20.0  # of cosines; a fixed one, for what leads to the embeddings is thrown away


@dataclass(frozen=True)
class TextPairs:
    """Images as a CLIP sees them, with their captions.

    Attributes:
        embeddings: float32 (N, D), centred by their mean, rows of length 1.
        tokens: int64 (T, L), the captions of each image one after the other.
        mask: bool (T, L), false where a caption has ended.
        starts: int64 (N + 1,), where the captions of each image begin, and T.
    """

    embeddings: Tensor
    tokens: Tensor
    mask: Tensor
    starts: NDArray[np.int64]


def read_pairs(index: Path, data: CuratedSplit, tokenizer: CaptionTokenizer, text_ctx: int) -> TextPairs:
    """The embeddings of a split's images, at most MAX_PAIRS of them, from the run's index.

    Args:
        index: its directory.
        data: the split.
        tokenizer: of the captions.
        text_ctx: tokens L of each.

    Raises:
        TrainingError: the index cannot be read, or lacks an image.
    """
    chosen = np.unique(np.linspace(0, len(data) - 1, min(len(data), MAX_PAIRS)).round().astype(int))
    rows = [data.rows[int(number)] for number in chosen]
    places = {row.key: place for place, row in enumerate(rows)}
    found: dict[int, NDArray[np.float32]] = {}
    for path in sorted(index.glob("shard-*.parquet")):
        try:
            table = pq.read_table(path, columns=["key", "embedding"])
        except (OSError, pa.ArrowException) as error:
            raise TrainingError(f"{path}: cannot be read ({one_line(error)}); run `index` again") from error
        wanted = [number for number, key in enumerate(table["key"].to_pylist()) if key in places]
        for entry in table.take(wanted).to_pylist() if wanted else ():
            if entry["embedding"] is not None:
                found.setdefault(places[entry["key"]], np.asarray(entry["embedding"], dtype=np.float32))
    if missing := [key for key, place in places.items() if place not in found]:
        raise TrainingError(f"{index}: has no embedding of {len(missing)} of {len(places)} curated images (the first: {missing[0]!r}); "
                            "run `index`, then `curate` again")
    embeddings = functional.normalize(torch.from_numpy(np.stack([found[place] for place in range(len(places))])), dim=-1)
    captions = [row.captions for row in rows]
    tokens, mask = tokenizer.encode_padded([text for several in captions for text in several], text_ctx)
    return TextPairs(functional.normalize(embeddings - embeddings.mean(dim=0), dim=-1), tokens, mask, np.cumsum([0, *map(len, captions)]))


def start_text(model: TextConditionedUNet, pairs: TextPairs, *, num_images: int, seed: int) -> float:
    """Teach a network's text transformer to lead from captions to embeddings of their images; all else of it stays as it is.

    Args:
        model: the network; its transformer and what belongs to it is trained in place.
        pairs: what it learns from.
        num_images: how many are shown, repeats counted.
        seed: of what leads from the transformer to the embeddings, and of the order.

    Returns:
        The share of images that were told from the others of their batch by their captions, over the last visit of all.
    """
    device, total = next(model.parameters()).device, len(pairs.embeddings)
    batch_size = min(BATCH_SIZE, total)
    num_steps = -(-num_images // batch_size)
    torch.manual_seed(seed)
    head = nn.Linear(model.config.xf_width, pairs.embeddings.shape[1]).to(device)
    parts = (model.transformer, model.final_ln, model.token_embedding, head)
    parameters = [*(p for part in parts for p in part.parameters()), model.positional_embedding, model.padding_embedding]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    partners, won = torch.arange(batch_size, device=device), []
    for step in range(num_steps):
        indices = batch_indices(total, step, batch_size, seed)
        first, draws = pairs.starts[indices], caption_draws(batch_size, step, seed)
        drawn = first + (draws * (pairs.starts[indices + 1] - first)).astype(np.int64)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / (WARMUP_SHARE * num_steps)) * half_cosine(step, num_steps)
        read = model.read_text(pairs.tokens[drawn].to(device), pairs.mask[drawn].to(device))[:, -1]
        logits = LOGIT_SCALE * functional.normalize(head(read), dim=-1) @ pairs.embeddings[indices].to(device).T
        torch.autograd.backward(contrastive_loss(logits.float()))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        won.append((logits.argmax(dim=0) == partners).float().mean().item())
    last = won[-max(1, total // batch_size):]
    return sum(last) / len(last)


def time_text_start(architecture: UNetConfig) -> float:
    """Seconds that an image takes of the start, on random numbers; measured on the second batch, for the first makes the kernels."""
    model, size = TextConditionedUNet(architecture), (BATCH_SIZE, architecture.text_ctx)
    pairs = TextPairs(torch.randn(BATCH_SIZE, NUM_TIMED), torch.zeros(size, dtype=torch.int64), torch.ones(size, dtype=torch.bool),
                      np.arange(BATCH_SIZE + 1))
    start_text(model, pairs, num_images=BATCH_SIZE, seed=0)
    started = time.perf_counter()
    start_text(model, pairs, num_images=BATCH_SIZE, seed=0)
    return (time.perf_counter() - started) / BATCH_SIZE
