"""What the steps of a training read: images decoded ahead by threads, in an order that follows from the seed and the step alone."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...device.processes import ALONE, Processes
from ...errors import TrainingError
from ...pictures.decode import decode_image
from ...pictures.refusals import Refusal
from ...recipe.training import TrainingConfig
from ..drawing.pixels import fit_square
from .rows import MappedRows, Row, find_rows, open_rows, read_batches

CAPTION_STREAM = 1  # keeps the draw of captions apart from other draws of a step
MAX_PIXELS = 1_000_000_000  # curated images passed the index's own limit
KEPT_BYTES = 256 << 20  # of decoded images; the others are decoded on every visit
STEPS_AHEAD = 3
IMAGES_OF_TASK = 8
MAX_THREADS = 16

Encode = Callable[[Sequence[str]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Batch:
    """What one step is trained on: B images.

    Attributes:
        pixels: uint8 (B, 3, S, S).
        texts: the caption that each is shown with.
        tokens: those captions as numbers, int64 (B, L), and what belongs to them: a mask (B, L), or lengths (B,).
        weights: float32 (B,), factor of each image's loss.
        keys: their names in the source.
    """

    pixels: Tensor
    texts: tuple[str, ...]
    tokens: tuple[Tensor, Tensor]
    weights: Tensor
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Share:
    """One of several equal parts of a step's batch.

    Attributes:
        number: which, from 0.
        of: how many there are.
    """

    number: int = 0
    of: int = 1

    def rows(self, batch_size: int) -> slice:
        """Its places in the batch."""
        size = batch_size // self.of
        return slice(self.number * size, (self.number + 1) * size)


WHOLE = Share()


def shares_of(config: TrainingConfig, processes: Processes) -> tuple[Share, ...]:
    """The parts of each step that a process computes, one after the other."""
    number = config.num_parts
    return tuple(Share(processes.rank * number + part, processes.number * number) for part in range(number))


class CuratedSplit:
    """One split: its rows in a mapped file, its images as squares of the model's size, decoded when they are asked for."""

    def __init__(self, rows: MappedRows, image_size: int, *, kept_bytes: int = KEPT_BYTES) -> None:
        """Nothing is decoded before it is asked for.

        Args:
            rows: of the split.
            image_size: side S of the squares in pixels.
            kept_bytes: room for squares that stay decoded, those of the first rows.
        """
        self.rows, self.image_size = rows, image_size
        num_kept = min(len(rows), kept_bytes // (3 * image_size**2))
        self._kept = np.empty((num_kept, 3, image_size, image_size), np.uint8)  # takes memory only where it is written to
        self._is_kept = np.zeros(num_kept, bool)

    def __len__(self) -> int:
        """How many images."""
        return len(self.rows)

    @property
    def texts(self) -> Iterator[str]:
        """Every caption, those of an image one after the other."""
        return self.rows.captions

    @property
    def consumed_sha256(self) -> str:
        """Digest of the sorted digests of all images: says exactly what was trained on."""
        return self.rows.consumed_sha256

    def square(self, number: int, row: Row) -> NDArray[np.uint8]:
        """The image of a row as uint8 (3, S, S).

        Raises:
            TrainingError: it cannot be decoded any more, or is not what was curated.
        """
        if number < len(self._kept) and self._is_kept[number]:
            return np.asarray(self._kept[number])
        square = np.ascontiguousarray(decode_row(row, self.image_size).transpose(2, 0, 1))  # one layout, so that sums are rounded alike
        if number < len(self._kept):
            self._kept[number] = square
            self._is_kept[number] = True  # last: another thread may be looking
        return square


def open_split(curated: Path, split: str, image_size: int, directory: Path, *, processes: Processes = ALONE) -> CuratedSplit:
    """Open a split for a training.

    Args:
        curated: directory of the curated set.
        split: `train` or `validation`.
        image_size: side S of the squares in pixels.
        directory: where the rows are copied to, for as long as the training lasts; a folder that all processes see.
        processes: that train together; the first copies.

    Raises:
        TrainingError: the split holds no image, one without a caption, or one that is not what was curated.
        StorageError: the directory cannot be written, or the disk is full.
    """
    rows = open_rows(curated, split, directory) if processes.is_first else None
    processes.wait()
    return CuratedSplit(find_rows(split, directory) if rows is None else rows, image_size)


def has_split(curated: Path, split: str) -> bool:
    """Whether a curated set holds an image of a split; raises as `open_split` does for files that cannot be read."""
    return any(len(batch) for batch in read_batches(curated, split, ["key"]))


def decode_row(row: Row, image_size: int) -> NDArray[np.uint8]:
    """The image of a row as uint8 (S, S, 3).

    Raises:
        TrainingError: it cannot be decoded any more, or is not what was curated.
    """
    try:
        return fit_square(decode_image(row.read_image(), max_pixels=MAX_PIXELS), image_size)
    except Refusal as error:
        raise TrainingError(f"curated image {row.key!r}: {error}; it could be read when it was indexed, and its bytes are the same: go back to "
                            "the versions of Pillow and of glideslope that indexed it, or run `index` and `curate` again") from error


class BatchReader:
    """Reads the batches of steps, the next ones ahead in threads; the same step is the same batch whenever it is read.

    Attributes:
        data: what is read.
        seconds_waited: how long steps have waited for their batches.
    """

    def __init__(self, config: TrainingConfig, data: CuratedSplit, encode: Encode, seed: int, *, processes: Processes = ALONE) -> None:
        """Nothing is read before the first step asks.

        Args:
            config: how many images a step and a training take.
            data: what is read.
            encode: captions to tokens and their mask or lengths.
            seed: of the order and of the captions drawn.
            processes: that train together; only this one's parts of a step are read.
        """
        self.config, self.data, self.encode, self.seed = config, data, encode, seed
        self.shares = shares_of(config, processes)
        self.seconds_waited = 0.0
        self._pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="decode")  # ends with the reader
        self._ahead: dict[tuple[int, Share], list[Future[Batch]]] = {}

    def read(self, step: int, share: Share = WHOLE) -> Batch:
        """A share of a step's batch; those that come after it are begun.

        Raises:
            TrainingError: an image cannot be decoded any more, or is not what was curated.
        """
        last = min(step + STEPS_AHEAD, self.config.num_steps - 1)
        here = [(step, other) for other in self.shares if other.number > share.number]
        coming = [(step, share), *here, *((number, other) for number in range(step + 1, last + 1) for other in self.shares)]
        self._ahead = {place: self._ahead.get(place) or self._begin(*place) for place in coming}
        started = time.perf_counter()
        parts = [part.result() for part in self._ahead.pop((step, share))]
        self.seconds_waited += time.perf_counter() - started
        return join_parts(parts)

    def keys(self, step: int) -> tuple[str, ...]:
        """The names of all images of a step, those of other processes included."""
        return tuple(self.data.rows[number].key for number in batch_indices(len(self.data), step, self.config.batch_size, self.seed).tolist())

    def _begin(self, step: int, share: Share) -> list[Future[Batch]]:
        """Let threads read a share of a step's batch, a few images each."""
        size, rows = self.config.batch_size, share.rows(self.config.batch_size)
        indices, draws = batch_indices(len(self.data), step, size, self.seed)[rows], caption_draws(size, step, self.seed)[rows]
        return [self._pool.submit(read_part, self.data, self.encode, indices[start:start + IMAGES_OF_TASK], draws[start:start + IMAGES_OF_TASK])
                for start in range(0, len(indices), IMAGES_OF_TASK)]


def read_part(data: CuratedSplit, encode: Encode, indices: NDArray[np.int64], draws: NDArray[np.float64]) -> Batch:
    """Read some images, each with the caption that its draw in [0, 1) chooses.

    Raises:
        TrainingError: an image cannot be decoded any more, or is not what was curated.
    """
    rows = [data.rows[number] for number in indices.tolist()]
    texts = tuple(row.captions[int(draw * len(row.captions))] for row, draw in zip(rows, draws.tolist(), strict=True))
    squares = [data.square(number, row) for number, row in zip(indices.tolist(), rows, strict=True)]
    return Batch(torch.from_numpy(np.stack(squares)), texts, encode(texts), torch.tensor([row.weight for row in rows], dtype=torch.float32),
                 tuple(row.key for row in rows))


def join_parts(parts: Sequence[Batch]) -> Batch:
    """One batch of several, in their order."""
    tokens, others = (torch.cat([part.tokens[place] for part in parts]) for place in range(2))
    return Batch(torch.cat([part.pixels for part in parts]), tuple(text for part in parts for text in part.texts), (tokens, others),
                 torch.cat([part.weights for part in parts]), tuple(key for part in parts for key in part.keys))


@lru_cache(maxsize=2)  # a step may end one epoch and begin the next
def epoch_order(num_examples: int, epoch: int, seed: int) -> NDArray[np.int64]:
    """The order of one epoch: a permutation that depends on nothing but seed and epoch; it is not to be written to."""
    order = np.random.default_rng([seed, epoch]).permutation(num_examples)
    order.flags.writeable = False
    return order


def batch_indices(num_examples: int, step: int, batch_size: int, seed: int) -> NDArray[np.int64]:
    """Which examples the step takes: epochs laid end to end, so every example is seen equally often."""
    first, last = step * batch_size, (step + 1) * batch_size  # places in the epochs laid end to end
    parts = [epoch_order(num_examples, epoch, seed)[max(0, first - epoch * num_examples):last - epoch * num_examples]
             for epoch in range(first // num_examples, (last - 1) // num_examples + 1)]
    return np.concatenate(parts)


def caption_draws(batch_size: int, step: int, seed: int) -> NDArray[np.float64]:
    """Which of their captions the images of a step are shown with, as shares of their number in [0, 1): float64 (B,).

    One of each image's is drawn at random on every visit. The draw depends on nothing but seed and step, and on no other generator.
    """
    return np.random.default_rng([seed, step, CAPTION_STREAM]).random(batch_size)
