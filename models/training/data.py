"""The curated set as training reads it: parquet shards, decoded once to the model's size."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import TrainingError
from ...pictures.decode import decode_image
from ...pictures.refusals import Refusal
from ...store.digests import sha256_json
from ...store.parquet_pages import FREE_BYTES, FREE_ROWS, FREE_VALUES, MAX_EXPANSION, ROWS_OF_BYTE, VALUES_OF_BYTE, Budget, open_bounded
from ...text.one_line import one_line
from ..drawing.pixels import fit_square, to_model_range

CAPTION_STREAM = 1  # keeps the draw of captions apart from other draws of a step
MAX_PIXELS = 1_000_000_000  # curated images passed the index's own limit


@dataclass(frozen=True)
class CuratedSplit:
    """One split in memory.

    Attributes:
        pixels: uint8 (N, 3, S, S).
        captions: the captions of each of N images, one or several.
        keys, sha256s: N keys and digests of the original bytes.
        weights: float32 (N,), factor of each image's loss.
    """

    pixels: Tensor
    captions: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...]
    sha256s: tuple[str, ...]
    weights: Tensor

    def __len__(self) -> int:
        """How many images."""
        return len(self.captions)

    @property
    def texts(self) -> tuple[str, ...]:
        """Every caption, those of an image one after the other: T texts."""
        return tuple(text for several in self.captions for text in several)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where the captions of each image begin in `texts`, and T: int64 (N + 1,)."""
        return np.cumsum([0, *map(len, self.captions)])

    @property
    def consumed_sha256(self) -> str:
        """Digest of the sorted digests of all images: says exactly what was trained on."""
        return sha256_json(sorted(self.sha256s))


def load_split(curated: Path, split: str, image_size: int) -> CuratedSplit:
    """Read and decode a split.

    Args:
        curated: directory of the curated set.
        split: `train` or `validation`.
        image_size: side S of the squares in pixels.

    Raises:
        TrainingError: the split holds no image, or one without a caption.
    """
    rows = list(read_rows(curated, split))
    if without := [row["key"] for row in rows if row["caption"] is None]:
        raise TrainingError(f"{curated / 'data'}: {len(without)} of {len(rows)} images of the split {split!r} have no caption (the first: "
                            f"{without[0]!r}), and training needs one for each; curate with curate.captions required")
    if not rows:
        raise TrainingError(f"{curated / 'data'}: the split {split!r} holds no image; nothing passed the filters, or "
                            "curate.validation_share leaves none")
    squares = np.stack([decode_row(row, image_size) for row in rows])
    return CuratedSplit(pixels=torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous(),
                        captions=tuple(tuple(row.get("captions") or [row["caption"]]) for row in rows), keys=tuple(row["key"] for row in rows),
                        sha256s=tuple(row["sha256"] for row in rows), weights=torch.tensor([row["weight"] for row in rows]))


def decode_row(row: Mapping[str, Any], image_size: int) -> NDArray[np.uint8]:
    """The image of a row as uint8 (S, S, 3).

    Raises:
        TrainingError: it cannot be decoded any more.
    """
    try:
        return fit_square(decode_image(row["image"]["bytes"], max_pixels=MAX_PIXELS), image_size)
    except Refusal as error:
        raise TrainingError(f"curated image {row['key']!r}: {error}; it could be read when it was indexed: restore the curated set") from error


def read_rows(curated: Path, split: str) -> Iterator[dict[str, Any]]:
    """Rows of a split's parquet files in order, as plain dictionaries.

    Raises:
        TrainingError: a file cannot be read, or takes more than the curation writes into one of its size.
    """
    for path in sorted((curated / "data").glob(f"{split}-*.parquet")):
        size = path.stat().st_size
        budget = Budget(FREE_BYTES + MAX_EXPANSION * size, FREE_VALUES + VALUES_OF_BYTE * size, FREE_ROWS + ROWS_OF_BYTE * size)
        try:
            with open_bounded(path, budget) as opened:
                for batch in opened.iter_batches(batch_size=256):
                    yield from batch.to_pylist()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise TrainingError(f"{path}: cannot be read ({one_line(error)}); run `curate` again") from error


def epoch_order(num_examples: int, epoch: int, seed: int) -> NDArray[np.int64]:
    """The order of one epoch: a permutation that depends on nothing but seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(num_examples)


def batch_indices(num_examples: int, step: int, batch_size: int, seed: int) -> NDArray[np.int64]:
    """Which examples the step takes: epochs laid end to end, so every example is seen equally often."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = np.unique(positions // num_examples)
    orders = {int(epoch): epoch_order(num_examples, int(epoch), seed) for epoch in epochs}
    return np.array([orders[int(p // num_examples)][p % num_examples] for p in positions])


def caption_indices(starts: NDArray[np.int64], indices: NDArray[np.int64], step: int, seed: int) -> NDArray[np.int64]:
    """Which of their captions the images of a step are shown with, as places in `CuratedSplit.texts`: int64 (B,).

    One of each image's is drawn at random on every visit. The draw depends on nothing but seed and step, and on no other generator.
    """
    uniform = np.random.default_rng([seed, step, CAPTION_STREAM]).random(len(indices))
    first = starts[indices]
    return first + (uniform * (starts[indices + 1] - first)).astype(np.int64)


def take(split: CuratedSplit, indices: NDArray[np.int64]) -> Tensor:
    """Images of a batch, float32 (B, 3, S, S) in [-1, 1]."""
    return to_model_range(split.pixels[torch.from_numpy(indices)])
