import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from glideslope.clip import lite0
from glideslope.clip.model import load_clip
from glideslope.data_filter.index.embed import INDEX_SCHEMA
from glideslope.data_filter.index.lite0_text_training import read_pairs, schedule, train_text_tower
from glideslope.data_filter.index.parquet import write_table
from glideslope.data_filter.index.repeated_keys import write_duplicates
from glideslope.errors import StageError
from glideslope.recipe.filters import ClipConfig
from glideslope.store.records import run_stage

CONFIG = ClipConfig(text_epochs=6, text_batch_size=16, text_learning_rate=3e-3)


@pytest.fixture(autouse=True)
def small_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "TEXT_CONFIG", {"context_length": 8, "vocab_size": 300, "width": 32, "heads": 2, "layers": 1})


def make_index(directory: Path, num_rows: int) -> Path:
    """Four kinds of pictures with four kinds of captions."""
    generator = np.random.default_rng(0)
    kinds = generator.normal(size=(4, lite0.TEXT_DIM + 192 + 320)) + 3
    words = ("red apple", "blue house", "green tree", "black cat")
    rows = [{"key": str(n), "concept": str(n), "sha256": "0" * 64, "size_bytes": 1, "width": 1, "height": 1, "caption": words[n % 4],
             "status": "ok", "reason": "", "error": None, "embedding": (kinds[n % 4] / 100).astype(np.float16)} for n in range(num_rows)]
    rows.append({**rows[0], "key": "bad", "status": "bad", "reason": "caption", "caption": None, "embedding": None})

    def work(partial: Path) -> dict[str, int]:
        write_table(partial / "shard-00000.parquet", pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))
        write_duplicates(["shard-00000"], partial)
        return {"num_inputs": len(rows)}

    run_stage(directory, stage="index", config={}, inputs={}, work=work)
    return directory


def test_training_is_deterministic_and_learns_which_caption_belongs(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", 64)
    told: list[tuple[int, int]] = []
    first = train_text_tower(CONFIG, index, tmp_path / "one", seed=1, progress=lambda done, total, text: told.append((done, total)))
    second = train_text_tower(CONFIG, index, tmp_path / "two", seed=1)
    other = train_text_tower(CONFIG, index, tmp_path / "three", seed=2)
    assert first.outputs == second.outputs != other.outputs
    assert told[-1] == (24, 24)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 24 and losses[-1] < losses[0] - 0.3
    assert first.summary["num_pairs"] == 64


def test_the_trained_tower_is_loaded_with_its_mean_and_tokenizer(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", 64)
    train_text_tower(CONFIG, index, tmp_path / "clip", seed=1)
    clip = load_clip(ClipConfig(), text_dir=tmp_path / "clip")
    texts = clip.encode_text(["red apple", "blue house", "green tree", "black cat"])
    images = read_pairs(index).embeddings[:4]
    assert (images @ texts.T).argmax(1).tolist() == [0, 1, 2, 3]
    scores = clip.score([np.zeros((224, 224, 3), dtype=np.uint8)], ["red apple"])
    assert scores.shape == (1,) and -1 <= scores[0] <= 1


def test_a_damaged_text_tower_is_one_clear_error(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", 20)
    train_text_tower(CONFIG, index, tmp_path / "clip", seed=1)
    weights = tmp_path / "clip" / "text.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(StageError, match="the text tower cannot be read"):
        load_clip(ClipConfig(), text_dir=tmp_path / "clip")
    with pytest.raises(StageError, match=r"config.json: file is missing"):
        load_clip(ClipConfig(), text_dir=tmp_path / "index")


def test_too_few_pairs_and_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"1 images with a caption.* needs at least 2.* set curate.captions to optional"):
        train_text_tower(CONFIG, make_index(tmp_path / "index", 1), tmp_path / "clip", seed=1)
    with pytest.raises(StageError, match="only lite0 is trained"):
        train_text_tower(ClipConfig(model="hf-hub:x/y"), tmp_path / "index", tmp_path / "clip", seed=1)


def test_the_learning_rate_rises_and_falls() -> None:
    factors = [schedule(step, 100) for step in range(100)]
    assert factors[9] == 1.0 and max(factors) == 1.0
    assert factors[:10] == sorted(factors[:10]) and factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] < 0.01


def test_of_a_large_index_some_pairs_are_taken_the_same_ones_each_time(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", 200)
    some = read_pairs(index, max_pairs=50)
    assert 30 <= len(some.captions) == len(some.embeddings) <= 70
    assert np.array_equal(some.embeddings, read_pairs(index, max_pairs=50).embeddings)
    assert len(read_pairs(index, max_pairs=201).captions) == 200
