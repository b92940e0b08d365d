import functools
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glideslope.data_filter.index.parquet import read_table, write_table
from glideslope.device.processes import Processes
from glideslope.errors import TrainingError
from glideslope.models.drawing.pixels import fit_square
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.models.training import data as dataset
from glideslope.models.training.data import BatchReader, CuratedSplit, Share, batch_indices, decode_row, epoch_order, open_split
from glideslope.models.training.rows import Row, open_rows
from glideslope.pictures.decode import decode_image
from glideslope.recipe.components import BaseTraining
from glideslope.recipe.training import TrainingConfig
from glideslope.store.digests import sha256_bytes, sha256_json

from ..conftest import curated_rows, write_curated


@given(st.integers(1, 50), st.integers(1, 70), st.integers(1, 5), st.integers(0, 2**31 - 1))
def test_every_example_is_seen_equally_often(num_examples: int, batch_size: int, num_epochs: int, seed: int) -> None:
    num_steps = num_epochs * num_examples // batch_size
    seen = Counter(int(i) for step in range(num_steps) for i in batch_indices(num_examples, step, batch_size, seed))
    counts = [seen[i] for i in range(num_examples)]
    assert sum(counts) == num_steps * batch_size
    assert max(counts) - min(counts) <= 1


@given(st.integers(1, 50), st.integers(0, 100), st.integers(1, 70), st.integers(0, 1000))
def test_a_batch_follows_from_its_number_alone(num_examples: int, step: int, batch_size: int, seed: int) -> None:
    indices = batch_indices(num_examples, step, batch_size, seed)
    laid_out = np.concatenate([epoch_order(num_examples, e, seed) for e in range((step + 1) * batch_size // num_examples + 1)])
    np.testing.assert_array_equal(indices, laid_out[step * batch_size:(step + 1) * batch_size])


def test_over_the_steps_every_caption_of_an_image_is_drawn_by_seed_and_step_alone(tmp_path: Path, tokenizer: CaptionTokenizer) -> None:
    rows = curated_rows()[:2]
    write_curated(tmp_path, "train", rows)
    path = tmp_path / "data" / "train-00000.parquet"
    several = pa.array([None, ["one", "two", "three"]], pa.list_(pa.string()))
    write_table(path, read_table(path).append_column("captions", several))
    reader = read_batches_of(open_split(tmp_path, "train", 16, tmp_path), tokenizer, num_images=600, batch_size=2)
    drawn = [text for step in range(300) for text in reader.read(step).texts]
    counts = Counter(drawn)
    assert counts["a red square"] == 300
    assert all(70 < counts[text] < 130 for text in ("one", "two", "three"))
    assert [text for step in range(300) for text in reader.read(step).texts] == drawn


def test_another_seed_and_another_epoch_have_another_order() -> None:
    assert not np.array_equal(epoch_order(50, 0, 1), epoch_order(50, 0, 2))
    assert not np.array_equal(epoch_order(50, 0, 1), epoch_order(50, 1, 1))


def read_batches_of(split: CuratedSplit, tokenizer: CaptionTokenizer, *, num_images: int = 40, batch_size: int = 12) -> BatchReader:
    config = TrainingConfig(num_images=num_images, batch_size=batch_size, learning_rate=1e-3)
    return BatchReader(config, split, functools.partial(tokenizer.encode_padded, text_ctx=16), 3)


def test_a_batch_holds_pictures_captions_tokens_weights_and_keys_of_its_indices(tmp_path: Path, tokenizer: CaptionTokenizer) -> None:
    rows = [row | {"weight": number / 4} for number, row in enumerate(curated_rows())]
    write_curated(tmp_path, "train", rows)
    batch = read_batches_of(open_split(tmp_path, "train", 16, tmp_path), tokenizer, batch_size=20).read(1)
    chosen = [rows[number] for number in batch_indices(12, 1, 20, 3)]
    assert batch.keys == tuple(row["key"] for row in chosen)
    assert batch.texts == tuple(row["caption"] for row in chosen)
    assert batch.weights.tolist() == [row["weight"] for row in chosen]
    expected = [fit_square(decode_image(row["image"]["bytes"], max_pixels=1000), 16) for row in chosen]  # type: ignore[index]  # a table of tests
    assert batch.pixels.dtype == torch.uint8
    np.testing.assert_array_equal(batch.pixels.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    for found, one in zip(batch.tokens, tokenizer.encode_padded(batch.texts, 16), strict=True):
        assert torch.equal(found, one)


@pytest.mark.parametrize("kept_bytes", [0, 5 * 3 * 16**2, 1 << 20])
def test_a_step_is_the_same_whenever_it_is_read_and_however_much_is_kept(tmp_path: Path, tokenizer: CaptionTokenizer, kept_bytes: int) -> None:
    write_curated(tmp_path, "train", curated_rows())
    first = read_batches_of(open_split(tmp_path, "train", 16, tmp_path), tokenizer, num_images=120)
    expected = [first.read(step) for step in range(10)]
    other = read_batches_of(CuratedSplit(open_rows(tmp_path, "train", tmp_path), 16, kept_bytes=kept_bytes), tokenizer, num_images=120)
    for step in (0, 1, 2, 7, 8, 3, 9, 3, 0):
        batch = other.read(step)
        assert torch.equal(batch.pixels, expected[step].pixels)
        assert batch.pixels.is_contiguous()
        assert (batch.keys, batch.texts) == (expected[step].keys, expected[step].texts)


def test_an_image_is_decoded_once_where_there_is_room_and_on_each_visit_where_there_is_none(
        tmp_path: Path, tokenizer: CaptionTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def count(row: Row, image_size: int) -> NDArray[np.uint8]:
        decoded.append(row.key)
        return decode_row(row, image_size)

    monkeypatch.setattr(dataset, "decode_row", count)
    monkeypatch.setattr(dataset, "STEPS_AHEAD", 0)  # threads of two steps may decode one image twice
    write_curated(tmp_path, "train", curated_rows())
    rows, room = open_rows(tmp_path, "train", tmp_path), 5 * 3 * 16**2
    reader = read_batches_of(CuratedSplit(rows, 16, kept_bytes=room), tokenizer, num_images=48)
    for step in range(4):  # four epochs
        reader.read(step)
    counts = Counter(decoded)
    assert [counts[rows[number].key] for number in range(12)] == [1] * 5 + [4] * 7


def test_shares_of_a_step_make_the_whole_step_and_keys_name_all_of_it(tmp_path: Path, tokenizer: CaptionTokenizer) -> None:
    write_curated(tmp_path, "train", curated_rows())
    split = open_split(tmp_path, "train", 16, tmp_path)
    config = BaseTraining(num_images=48, batch_size=12, learning_rate=1e-3, accumulation=2)
    encode = functools.partial(tokenizer.encode_padded, text_ctx=16)
    readers = [BatchReader(config, split, encode, 3, processes=Processes(rank, 3)) for rank in range(3)]
    assert [share for reader in readers for share in reader.shares] == [Share(number, 6) for number in range(6)]
    for step in (0, 1, 3):
        whole = read_batches_of(split, tokenizer, num_images=48).read(step)
        parts = [reader.read(step, share) for reader in readers for share in reader.shares]
        assert torch.equal(torch.cat([part.pixels for part in parts]), whole.pixels)
        assert tuple(text for part in parts for text in part.texts) == whole.texts
        assert all(reader.keys(step) == whole.keys for reader in readers)


def test_a_picture_that_does_not_decode_any_more_is_refused_by_its_key(tmp_path: Path, tokenizer: CaptionTokenizer) -> None:
    row, data = curated_rows()[0], b"\x89PNG\r\n"
    write_curated(tmp_path, "train", [row | {"image": {"bytes": data, "path": "x.png"}, "sha256": sha256_bytes(data)}])
    reader = read_batches_of(open_split(tmp_path, "train", 16, tmp_path), tokenizer, batch_size=1)
    with pytest.raises(TrainingError, match=r"curated image 'red-square': .* could be read when it was indexed, and its bytes are the same"):
        reader.read(0)


def test_a_split_says_how_much_it_holds_and_what_was_consumed(curated: Path, tmp_path: Path) -> None:
    split, rows = open_split(curated, "train", 16, tmp_path), curated_rows()[:-1]
    assert len(split) == 11
    assert list(split.texts) == [row["caption"] for row in rows]
    assert split.consumed_sha256 == sha256_json(sorted(str(row["sha256"]) for row in rows))
    assert len(open_split(curated, "validation", 16, tmp_path)) == 1
