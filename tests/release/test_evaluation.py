from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from glideslope.models.pipeline import GlidePipeline
from glideslope.models.presets import UNET_PRESETS
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.models.unet import TextConditionedUNet
from glideslope.release.evaluation import choose_pairs, draw_pairs, summarise

from glideslope.config import EvaluateConfig
from glideslope.errors import StageError


def write_split(curated: Path, split: str, captions: list[str]) -> None:
    (curated / "data").mkdir(parents=True, exist_ok=True)
    keys = [f"{split}-{number}" for number in range(len(captions))]
    pq.write_table(pa.table({"key": keys, "caption": captions, "image": [b"" for _ in keys]}), curated / f"data/{split}-00000.parquet")


def test_held_back_captions_come_first_and_the_choice_follows_from_the_seed(tmp_path: Path) -> None:
    write_split(tmp_path, "validation", [f"held back {number}" for number in range(5)])
    write_split(tmp_path, "train", [f"trained {number}" for number in range(50)])
    pairs = choose_pairs(tmp_path, EvaluateConfig(num_pairs=8), seed=3)
    assert [pair["split"] for pair in pairs] == ["validation"] * 5 + ["train"] * 3
    assert pairs == choose_pairs(tmp_path, EvaluateConfig(num_pairs=8), seed=3)
    assert pairs != choose_pairs(tmp_path, EvaluateConfig(num_pairs=8), seed=4)
    assert [pair["seed"] for pair in pairs] == list(range(3, 11))
    trained = choose_pairs(tmp_path, EvaluateConfig(num_pairs=8, captions_from="train"), seed=3)
    assert [pair["split"] for pair in trained] == ["train"] * 8


def test_the_random_caption_is_always_another_one(tmp_path: Path) -> None:
    write_split(tmp_path, "validation", ["an apple", "an apple", "an apple", "a pear"])
    for pair in choose_pairs(tmp_path, EvaluateConfig(), seed=0):
        assert pair["random_prompt"] != pair["prompt"]


def test_one_caption_alone_cannot_be_evaluated(tmp_path: Path) -> None:
    write_split(tmp_path, "train", ["an apple", "an apple"])
    with pytest.raises(StageError, match="fewer than two different captions"):
        choose_pairs(tmp_path, EvaluateConfig(), seed=0)


def test_a_draw_is_no_win_and_the_bound_is_exact() -> None:
    pairs = [{"own_score": own, "random_score": 0.2, "split": "validation"} for own in (0.3, 0.2, 0.1, 0.4)]
    summary = summarise(pairs)
    assert (summary["num_wins"], summary["num_pairs"], summary["num_held_back"]) == (2, 4, 4)
    assert summarise([pairs[0]] * 3)["share_lower_bound"] == pytest.approx(0.05 ** (1 / 3))


def test_captions_longer_than_the_model_reads_are_cut_as_in_training() -> None:
    long = "a red apple beside a green pear and a yellow lemon on a blue plate " * 4
    tokenizer = CaptionTokenizer.train([long], 300)
    config = UNET_PRESETS["glide-micro-16"].model_copy(update={"n_vocab": tokenizer.vocab_size})
    pipe = GlidePipeline(TextConditionedUNet(config).eval().requires_grad_(False), tokenizer)
    pairs = [{"prompt": text, "seed": i} for i, text in enumerate((long, "a pear"))]
    assert len(draw_pairs(pipe, pairs, EvaluateConfig(num_pairs=2, num_steps=1), None)) == 2
