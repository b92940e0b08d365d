from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from glideslope.errors import TrainingError
from glideslope.models.networks.presets import unet_preset
from glideslope.models.networks.unet import TextConditionedUNet
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.models.training.base import begin_text
from glideslope.models.training.data import CuratedSplit, open_split
from glideslope.models.training.stage import TrainingData, TrainingTask
from glideslope.models.training.text_start import read_pairs, start_text
from glideslope.recipe.components import BaseTraining


def keys(data: CuratedSplit) -> list[str]:
    return [data.rows[number].key for number in range(len(data))]


def write_index(directory: Path, data: CuratedSplit, *, left_out: int = 0) -> Path:
    """An index with one embedding a colour, of other images too."""
    directory.mkdir()
    rng = np.random.default_rng(0)
    rows = [{"key": "another", "embedding": [1.0] * 8}, {"key": "unreadable", "embedding": None}]
    rows += [{"key": key, "embedding": rng.normal(size=8).tolist()} for key in keys(data)[left_out:]]
    for number, part in enumerate((rows[:4], rows[4:])):
        pq.write_table(pa.Table.from_pylist(part), directory / f"shard-{number:05d}.parquet")
    return directory


@pytest.fixture
def data(curated: Path, tmp_path: Path) -> CuratedSplit:
    return open_split(curated, "train", 16, tmp_path / "rows")


def fresh_network(tokenizer: CaptionTokenizer) -> TextConditionedUNet:
    torch.manual_seed(0)
    return TextConditionedUNet(unet_preset("glide-micro-16").model_copy(update={"n_vocab": tokenizer.vocab_size}))


def test_a_text_transformer_learns_to_tell_images_by_their_captions_and_nothing_else_changes(
        data: CuratedSplit, tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    network = fresh_network(tokenizer)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pairs = read_pairs(write_index(tmp_path / "index", data), data, tokenizer, network.config.text_ctx)
    assert pairs.embeddings.shape == (len(data), 8)
    torch.testing.assert_close(pairs.embeddings.norm(dim=1), torch.ones(len(data)))
    share = start_text(network, pairs, num_images=600, seed=0)
    assert share >= len(set(data.texts)) / len(data) > start_text(fresh_network(tokenizer), pairs, num_images=1, seed=0)
    changed = {name.split(".")[0] for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"transformer", "final_ln", "token_embedding", "positional_embedding", "padding_embedding"}


def test_the_same_start_gives_the_same_weights(data: CuratedSplit, tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    index, states = write_index(tmp_path / "index", data), []
    for _ in range(2):
        network = fresh_network(tokenizer)
        config = BaseTraining(preset="glide-micro-16", num_images=4, learning_rate=1e-3, text_images=40)
        begin_text(network, TrainingTask(config, TrainingData(tmp_path, "d", index, tmp_path), 3), data, tokenizer)
        states.append(network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_an_index_that_lacks_an_image_or_cannot_be_read_is_refused(data: CuratedSplit, tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"no embedding of 2 of {len(data)} curated images \(the first: '{keys(data)[0]}'\); run `index`"):
        read_pairs(write_index(tmp_path / "index", data, left_out=2), data, tokenizer, 16)
    (tmp_path / "index/shard-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(TrainingError, match=r"shard-00000\.parquet: cannot be read .*; run `index` again"):
        read_pairs(tmp_path / "index", data, tokenizer, 16)
