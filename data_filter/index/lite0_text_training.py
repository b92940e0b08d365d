"""Train lite0's text tower on the run's own captions with the image tower locked (locked-image tuning, arXiv 2111.07991)."""

import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from ...clip import lite0
from ...clip.model import normalise
from ...errors import StageError
from ...learning.contrastive import contrastive_loss
from ...learning.cosine_decay import half_cosine
from ...progress import Progress
from ...recipe.filters import ClipConfig
from ...store.records import Record, read_record, run_stage
from ...store.vocabulary import Cause
from ...store.whole_files import write_bytes, write_json
from ..sources.source import all_captions, hash_share
from .read import embedding_matrix, read_index

MAX_LOGIT_SCALE = math.log(100)
WARMUP_SHARE = 0.1
WEIGHT_DECAY = 0.1
MAX_PAIRS = 20_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pairs:
    """The pairs to train on: embeddings float32 (N, D), centred, each row of length 1, and the captions of each, one or several."""

    embeddings: NDArray[np.float32]
    captions: Sequence[tuple[str, ...]]
    image_mean: NDArray[np.float32]


def train_text_tower(clip_config: ClipConfig, index_dir: Path, directory: Path, *, seed: int, progress: Progress | None = None) -> Record:
    """Run the stage `clip`: train tokenizer and text tower on the index's embeddings and captions.

    Args:
        clip_config: epochs, batch size and learning rate; the model must be `lite0`.
        index_dir: the finished index.
        directory: the stage's directory.
        seed: of initial weights and the order of the pairs.
        progress: told how many steps are done.

    Raises:
        StageError: fewer than two pairs, or another model than lite0.
        StorageError: `directory` cannot be written.
    """
    if clip_config.model != "lite0":
        raise StageError(f"clip: {clip_config.model} brings its own text tower; only lite0 is trained on the run's captions")
    config = {"clip": clip_config.model_dump(mode="json", include={"text_epochs", "text_batch_size", "text_learning_rate"}), "seed": seed}

    def work(partial: Path) -> dict[str, Any]:
        return write_text_tower(read_pairs(index_dir), clip_config, partial, seed, progress)

    return run_stage(directory, stage="clip", config=config, inputs={"index": read_record(index_dir).digest}, work=work)


def read_pairs(index_dir: Path, *, max_pairs: int = MAX_PAIRS) -> Pairs:
    """The sound images of an index that have a caption, their embeddings centred by the mean of all of them.

    Pooled features of a ReLU network all point roughly the same way; without their mean the cosines tell little apart.

    Args:
        index_dir: the finished index.
        max_pairs: of a larger index about so many pairs are taken, chosen by hash of the key, so that memory stays flat.
    """
    captions: list[tuple[str, ...]] = []
    embeddings: list[NDArray[np.float32]] = []
    share = max_pairs / max(1, read_record(index_dir).summary["num_inputs"])
    for name, table in read_index(index_dir, columns=["key", "reason", "caption", "captions", "embedding"]):
        sound = table.filter(pc.and_(pc.equal(table["reason"], Cause.NOTHING), pc.is_valid(table["embedding"])))
        if share < 1:
            sound = sound.filter(pa.array([hash_share("text tower", key) < share for key in sound["key"].to_pylist()], type=pa.bool_()))
        captions += map(all_captions, sound["caption"].to_pylist(), sound["captions"].to_pylist())
        if len(sound):
            embeddings.append(embedding_matrix(sound["embedding"], where=name)[:, :lite0.TEXT_DIM].astype(np.float32))
    if len(captions) < 2:
        raise StageError(f"{index_dir}: {len(captions)} images with a caption; lite0's text tower is trained on the run's captions and "
                         "needs at least 2. Add captions; or, to filter images without captions, set curate.captions to optional in the recipe")
    x = normalise(np.concatenate(embeddings))
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    return Pairs(normalise(x - mean), captions, mean)


def write_text_tower(pairs: Pairs, config: ClipConfig, directory: Path, seed: int, progress: Progress | None) -> dict[str, Any]:
    """Train and write; returns the summary."""
    captions = [caption for several in pairs.captions for caption in several]
    starts = torch.tensor([0, *accumulate(map(len, pairs.captions))])
    tokenizer = lite0.train_tokenizer([caption.lower() for caption in captions], lite0.TEXT_CONFIG["vocab_size"])
    text_config = {**lite0.TEXT_CONFIG, "vocab_size": tokenizer.get_vocab_size(), "context_length": lite0.fit_context(tokenizer, captions)}
    num_cut = sum(lite0.find_cut(tokenizer, captions, text_config["context_length"]))
    if num_cut:
        log.warning("clip: %d of %d captions have more than %d tokens, and the text tower learns from their beginnings", num_cut, len(captions),
                    text_config["context_length"] - 1)
    tokens = lite0.encode_captions(tokenizer, captions, text_config["context_length"])
    images = torch.from_numpy(pairs.embeddings)
    tower, metrics = fit_text_tower(images, tokens, text_config, config, seed, progress, starts=starts)
    tensors = {name: value.detach().contiguous() for name, value in tower.state_dict().items()}
    tensors["image_mean"] = torch.from_numpy(pairs.image_mean)
    write_bytes(directory / "text.safetensors", save(tensors, metadata={"format": lite0.TEXT_FORMAT}))
    write_json(directory / "config.json", lite0.dump_text_config(text_config))
    write_bytes(directory / "tokenizer.json", tokenizer.to_str(pretty=False).encode())
    write_bytes(directory / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in metrics).encode())
    return {"num_pairs": len(pairs.captions), "num_steps": len(metrics), "vocab_size": text_config["vocab_size"],
            "final_loss": metrics[-1]["loss"] if metrics else None,
            "retrieval_on_training_pairs": measure_retrieval(tower, images, tokens[starts[:-1]])}


def fit_text_tower(images: Tensor, tokens: Tensor, text_config: dict[str, int], config: ClipConfig, seed: int,
                   progress: Progress | None, *, starts: Tensor | None = None) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Contrastive training of the text tower (CLIP's symmetric loss, arXiv 2103.00020, figure 3).

    Args:
        images: float32 (N, D), rows of length 1.
        tokens: int64 (T, L), the captions of each image one after the other.
        text_config: sizes of the tower.
        config: epochs, batch size, peak learning rate.
        seed: of initial weights and the order of the pairs.
        progress: told how many steps are done.
        starts: int64 (N + 1,), where the captions of each image begin in `tokens`, and T; None: each image has one. Of several one is
            drawn for each visit.

    Returns:
        The tower in evaluation mode, and one row of metrics per step.
    """
    # initial weights: open_clip draws them from the global generator
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = lite0.build_text_tower(text_config)
    log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    decayed = [p for p in tower.parameters() if p.ndim >= 2]
    others = [p for p in tower.parameters() if p.ndim < 2] + [log_scale]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
                                  lr=config.text_learning_rate, betas=(0.9, 0.98))
    batch_size = min(config.text_batch_size, len(images))
    num_steps = config.text_epochs * (len(images) // batch_size)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)  # of captions: its own, so that images with one caption train as ever
    starts = torch.arange(len(images) + 1) if starts is None else starts
    counts = starts.diff()
    metrics: list[dict[str, Any]] = []
    tower.train()
    for _ in range(config.text_epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images) - batch_size + 1, batch_size):
            chosen = order[start:start + batch_size]
            started = time.monotonic()
            learning_rate = config.text_learning_rate * schedule(len(metrics), num_steps)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            drawn = starts[chosen] + (torch.rand(batch_size, generator=draws) * counts[chosen]).long()
            loss = contrastive_loss(log_scale.exp() * images[chosen] @ functional.normalize(tower(tokens[drawn]), dim=-1).T)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                log_scale.clamp_(max=MAX_LOGIT_SCALE)
            metrics.append({"step": len(metrics) + 1, "loss": round(loss.item(), 6), "learning_rate": learning_rate})
            if progress is not None:
                rate = batch_size / (time.monotonic() - started)
                progress(len(metrics), num_steps, f"text tower: loss {loss.item():.3f}, {rate:.0f} pairs/s")
    return tower.eval(), metrics


def schedule(step: int, num_steps: int) -> float:
    """Linear warm-up, then half a cosine down to zero: factor of the peak learning rate."""
    num_warmup = max(1, round(WARMUP_SHARE * num_steps))
    if step < num_warmup:
        return (step + 1) / num_warmup
    return half_cosine(step - num_warmup, max(1, num_steps - num_warmup))


@torch.inference_mode()
def measure_retrieval(tower: nn.Module, images: Tensor, tokens: Tensor) -> dict[str, float]:
    """How often a caption finds its own picture among all: at rank 1 and among the first 10."""
    texts = torch.cat([functional.normalize(tower(tokens[start:start + 256]), dim=-1) for start in range(0, len(tokens), 256)])
    ranks = []
    for start in range(0, len(texts), 256):
        similar = texts[start:start + 256] @ images.T
        own = similar.gather(1, torch.arange(start, start + len(similar))[:, None])
        ranks.append((similar > own).sum(1))
    rank = torch.cat(ranks)
    return {f"recall_at_{k}": round((rank < k).float().mean().item(), 4) for k in (1, 10)}
