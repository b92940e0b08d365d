from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glideslope.errors import TrainingError
from glideslope.models.training import data as dataset
from glideslope.models.training.data import batch_indices, caption_indices, epoch_order, load_split, take
from glideslope.store.digests import sha256_json

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


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.integers(0, 100), st.integers(1, 30), st.integers(0, 1000))
def test_a_visit_draws_one_of_an_images_own_captions_by_seed_and_step_alone(counts: list[int], step: int, batch_size: int, seed: int) -> None:
    starts, indices = np.cumsum([0, *counts]), batch_indices(len(counts), step, batch_size, seed)
    drawn = caption_indices(starts, indices, step, seed)
    assert ((starts[indices] <= drawn) & (drawn < starts[indices + 1])).all()
    np.testing.assert_array_equal(drawn, caption_indices(starts, indices, step, seed))


def test_over_the_steps_every_caption_of_an_image_is_drawn() -> None:
    drawn = Counter(int(place) for step in range(300) for place in caption_indices(np.array([0, 1, 4]), np.array([0, 1]), step, seed=0))
    assert drawn[0] == 300 and all(70 < drawn[place] < 130 for place in (1, 2, 3))


def test_another_seed_and_another_epoch_have_another_order() -> None:
    assert not np.array_equal(epoch_order(50, 0, 1), epoch_order(50, 0, 2))
    assert not np.array_equal(epoch_order(50, 0, 1), epoch_order(50, 1, 1))


def test_a_split_holds_pictures_captions_and_what_was_consumed(curated: Path) -> None:
    split, rows = load_split(curated, "train", 16), curated_rows()[:-1]
    assert split.pixels.shape == (11, 3, 16, 16)
    assert split.pixels.dtype == torch.uint8
    assert list(split.captions) == [(row["caption"],) for row in rows]
    assert split.consumed_sha256 == sha256_json(sorted(str(row["sha256"]) for row in rows))
    assert split.weights.tolist() == [1.0] * 11
    assert len(load_split(curated, "validation", 16)) == 1


def test_a_batch_is_float_in_the_models_range(curated: Path) -> None:
    x = take(load_split(curated, "train", 16), np.array([3, 0]))
    assert x.shape == (2, 3, 16, 16)
    assert x.dtype == torch.float32
    assert float(x.max()) == 1
    assert float(x.min()) > -1


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the split 'train' holds no image; nothing passed the filters"):
        load_split(tmp_path, "train", 16)
    write_curated(tmp_path, "train", [])
    with pytest.raises(TrainingError, match="holds no image"):
        load_split(tmp_path, "train", 16)


def test_a_picture_that_was_damaged_since_is_refused_by_its_key(tmp_path: Path) -> None:
    row = curated_rows()[0]
    write_curated(tmp_path, "train", [row | {"image": {"bytes": b"\x89PNG\r\n", "path": "x.png"}}])
    with pytest.raises(TrainingError, match="curated image 'red-square': "):
        load_split(tmp_path, "train", 16)


def test_a_picture_without_a_caption_is_refused_by_its_key(tmp_path: Path) -> None:
    rows = curated_rows()
    rows[3]["caption"] = None
    write_curated(tmp_path, "train", rows)
    with pytest.raises(TrainingError, match=f"1 of .* images of the split 'train' have no caption .*{rows[3]['key']}.*captions required"):
        load_split(tmp_path, "train", 16)


def test_a_curated_file_that_unfolds_beyond_what_curation_writes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "FREE_BYTES", 1 << 20)
    write_curated(tmp_path, "train", [curated_rows()[0] | {"caption": "x" * 5_000_000}])
    with pytest.raises(TrainingError, match=r"train-00000\.parquet: cannot be read .its [0-9]+ bytes unfold .*; run `curate` again"):
        load_split(tmp_path, "train", 24)
