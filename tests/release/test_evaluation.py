import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glideslope.clip.model import Clip
from glideslope.errors import StageError
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.loading.loaded_networks import Networks
from glideslope.models.networks.presets import UNET_PRESETS
from glideslope.models.networks.unet import TextConditionedUNet
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.recipe.training import EvaluateConfig
from glideslope.release.claims.evaluation import deal_captions
from glideslope.release.evaluation import (
    TellsOfAll,
    best_drawn,
    choose_pairs,
    count_cut_captions,
    draw_pairs,
    refuse_one_caption,
    summarise,
    sweep_guidance,
)


def write_split(curated: Path, split: str, captions: list[str]) -> None:
    (curated / "data").mkdir(parents=True, exist_ok=True)
    keys = [f"{split}-{number}" for number in range(len(captions))]
    pq.write_table(pa.table({"key": keys, "caption": captions, "image": [b"" for _ in keys]}), curated / f"data/{split}-00000.parquet")


def test_held_back_captions_come_first_and_the_choice_follows_from_the_seed(tmp_path: Path) -> None:
    write_split(tmp_path, "validation", [f"held back {number}" for number in range(5)])
    write_split(tmp_path, "train", [f"trained {number}" for number in range(50)])
    pairs = choose_pairs(tmp_path, EvaluateConfig(num_pairs=8), seed=3)
    captions = {caption for pair in pairs for caption in (pair["prompt"], *pair["others"])}
    assert len(captions) == 8 and sum(caption.startswith("held back") for caption in captions) == 5
    assert pairs == choose_pairs(tmp_path, EvaluateConfig(num_pairs=8), seed=3)
    assert pairs != choose_pairs(tmp_path, EvaluateConfig(num_pairs=8), seed=4)
    assert [pair["seed"] for pair in pairs] == list(range(3, 11))
    trained = choose_pairs(tmp_path, EvaluateConfig(num_pairs=8, captions_from="train"), seed=3)
    assert [pair["split"] for pair in trained] == ["train"] * 8
    assert {len(pair["others"]) for pair in trained} == {7}
    assert len({pair["prompt"] for pair in choose_pairs(tmp_path, EvaluateConfig(num_pairs=6, captions_from="train"), seed=3)}) == 6


def test_a_caption_that_many_share_is_one_caption_and_is_drawn_as_often_as_the_other(tmp_path: Path) -> None:
    write_split(tmp_path, "validation", ["an apple"] * 44 + ["a pear"] * 20)
    pairs = [pair for seed in range(8) for pair in choose_pairs(tmp_path, EvaluateConfig(), seed=seed)]
    assert {(pair["prompt"], *pair["others"]) for pair in pairs} == {("an apple", "a pear"), ("a pear", "an apple")}
    assert abs(sum(pair["prompt"] == "an apple" for pair in pairs) - 256) < 34


@given(num_captions=st.integers(2, 40), num_hands=st.integers(1, 12), seed=st.integers(0, 5))
def test_hands_hold_different_captions_in_even_numbers_and_none_comes_before_its_turn(num_captions: int, num_hands: int, seed: int) -> None:
    captions = [f"caption {number}" for number in range(num_captions)]
    hands = deal_captions(captions, num_hands, seed)
    assert len(hands) == num_hands and all(len(set(hand)) == len(hand) and hand == sorted(hand) for hand in hands)
    assert {len(hand) for hand in hands} == {min(8, num_captions // 2 * 2)}
    first = [caption for hand in hands[:num_captions // len(hands[0])] for caption in hand]
    assert len(set(first)) == len(first)


def test_one_caption_alone_cannot_be_evaluated(tmp_path: Path) -> None:
    write_split(tmp_path, "train", ["an apple", "an apple"])
    with pytest.raises(StageError, match="fewer than two different captions"):
        choose_pairs(tmp_path, EvaluateConfig(), seed=0)


def test_a_draw_is_no_win_and_the_bound_is_exact() -> None:
    pairs = [{"own_score": own, "own_mean": 0.0, "other_scores": [0.2], "other_means": [0.0], "split": "validation"}
             for own in (0.3, 0.2, 0.1, 0.4)]
    summary = summarise(pairs)
    assert (summary["num_wins"], summary["num_pairs"], summary["num_held_back"]) == (2, 4, 4)
    assert summarise([pairs[0]] * 3)["share_lower_bound"] == pytest.approx(0.05 ** (1 / 3))


def test_captions_longer_than_the_model_reads_are_cut_as_in_training() -> None:
    long = "a red apple beside a green pear and a yellow lemon on a blue plate " * 4
    tokenizer = CaptionTokenizer.train([long], 300)
    config = UNET_PRESETS["glide-micro-16"].model_copy(update={"n_vocab": tokenizer.vocab_size})
    pipe = GlidePipeline(Networks(TextConditionedUNet(config).eval().requires_grad_(False), tokenizer))
    pairs = [{"prompt": text, "seed": i} for i, text in enumerate((long, "a pear"))]
    assert len(draw_pairs(pipe, pairs, EvaluateConfig(num_pairs=2, num_steps=1), None)) == 2


class Brightness:
    """A CLIP for this test: a picture fits a caption by its brightness and the caption's length."""

    def compare(self, images: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
        return np.array([[float(image.mean()) + len(caption) for caption in captions] for image in images], dtype=np.float32)


def test_other_guidance_scales_are_drawn_for_the_first_pairs_and_the_own_scale_is_taken_over() -> None:
    tokenizer = CaptionTokenizer.train(["a red apple", "a pear"], 300)
    config = UNET_PRESETS["glide-micro-16"].model_copy(update={"n_vocab": tokenizer.vocab_size})
    torch.manual_seed(0)
    network = TextConditionedUNet(config)
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    pipe = GlidePipeline(Networks(network.eval().requires_grad_(False), tokenizer))
    pairs = [{"index": i, "prompt": "a red apple", "others": ["a pear"], "seed": i, "own_score": 7.0 + i, "own_mean": 7.0,
              "other_scores": [1.0], "other_means": [1.0]} for i in range(3)]
    settings = EvaluateConfig(num_pairs=3, num_steps=2, guidance_scale=3.0, sweep_scales=(1.0, 8.0), sweep_pairs=2)
    rows = sweep_guidance(pipe, Brightness(), pairs, settings)  # type: ignore[arg-type]  # all that is asked of a CLIP here
    assert [(row["guidance_scale"], row["index"]) for row in rows] == [(1.0, 0), (1.0, 1), (3.0, 0), (3.0, 1), (8.0, 0), (8.0, 1)]
    assert [row["own_score"] for row in rows if row["guidance_scale"] == 3.0] == [7.0, 8.0]
    by_scale = {row["guidance_scale"]: row["own_score"] for row in rows if row["index"] == 0}
    assert by_scale[1.0] != by_scale[8.0] and all(row["own_score"] - row["other_scores"][0] == pytest.approx(5, abs=1e-3) for row in rows
                                                  if row["guidance_scale"] != 3.0)
    assert sweep_guidance(pipe, Brightness(), pairs, settings.model_copy(update={"sweep_scales": ()})) == []  # type: ignore[arg-type]
    assert [pair["own_score"] for pair in pairs] == [7.0, 8.0, 9.0]


def test_the_best_drawn_caption_is_the_one_that_stands_out_most(tmp_path: Path) -> None:
    rows = [{"prompt": prompt, "own_score": own, "own_mean": 0.0, "other_scores": [other], "other_means": [0.0]}
            for prompt, own, other in (("a", 0.9, 0.8), ("b", 0.2, -0.3), ("c", 0.4, 0.5))]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert best_drawn(tmp_path) == "b"


def test_one_caption_for_all_images_is_refused_and_two_are_enough(tmp_path: Path) -> None:
    write_split(tmp_path, "train", ["photo of sks dog"] * 40)
    with pytest.raises(StageError, match=r"all images have the same caption .'photo of sks dog'.*describe the images"):
        refuse_one_caption(tmp_path)
    write_split(tmp_path, "validation", ["photo of sks dog", "a red ball"])
    refuse_one_caption(tmp_path)
    pairs = choose_pairs(tmp_path, EvaluateConfig(num_pairs=4), seed=0)
    assert {pair["prompt"] for pair in pairs} <= {"photo of sks dog", "a red ball"} and all(len(pair["others"]) == 1 for pair in pairs)


def test_one_held_back_caption_alone_is_joined_by_those_of_training(tmp_path: Path) -> None:
    write_split(tmp_path, "validation", ["an apple"])
    write_split(tmp_path, "train", ["a pear", "a plum"])
    pair, = choose_pairs(tmp_path, EvaluateConfig(num_pairs=1), seed=0)
    assert {pair["prompt"], *pair["others"]} == {"an apple", "a pear"} or {pair["prompt"], *pair["others"]} == {"an apple", "a plum"}


def test_captions_that_the_judge_reads_only_in_part_are_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    clip = Clip("judge", torch.nn.Linear(1, 1), 8, (0.5,), (0.5,), None, find_cut=lambda captions: [len(caption) > 9 for caption in captions])
    pairs = [{"prompt": "a pear", "others": ["a green pear", "a plum"]}, {"prompt": "a green pear", "others": ["an apple"]}]
    assert count_cut_captions(clip, pairs) == {"num_captions": 4, "num_captions_cut": 1}
    assert "evaluation: 1 of 4 captions are longer than judge reads" in caplog.text
    caplog.clear()
    assert count_cut_captions(clip, [{"prompt": "a pear", "others": []}]) == {"num_captions": 1, "num_captions_cut": 0}
    assert caplog.messages == []


def test_the_time_left_is_that_of_all_scales_together() -> None:
    told: list[tuple[int, int]] = []
    settings = EvaluateConfig(num_pairs=40, sweep_scales=(1.0, 3.0, 6.0), sweep_pairs=20)
    all_scales = TellsOfAll(lambda done, total, text: told.append((done, total)), settings, 40)
    for number in (40, 20, 20):
        for done in range(0, number, 16):
            all_scales(min(done + 16, number), number, "pictures drawn")
    assert told == [(16, 80), (32, 80), (40, 80), (56, 80), (60, 80), (76, 80), (80, 80)]
