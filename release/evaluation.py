"""Do captions count? Pictures drawn from held-back captions, each compared with its own caption and a random one."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from ..config import ClipConfig, EvaluateConfig
from ..data_filter.clip import Clip, load_clip
from ..data_filter.sources import hash_share
from ..data_filter.statistics import lower_bound
from ..errors import StageError
from ..manifest import canonical_json, write_bytes, write_json
from ..models.options import DrawOptions
from ..models.pipeline import GlidePipeline
from ..models.pixels import contact_sheet
from ..records import Record, read_record, run_stage

EVALUATION_FORMAT = "glideslope.evaluation/1"
DRAW_AT_ONCE = 16
Progress = Callable[[int, int, str], None]


def evaluate(config: EvaluateConfig, clip_config: ClipConfig, run_dir: Path, directory: Path, *, seed: int,
             progress: Progress | None = None) -> Record:
    """Run the stage `evaluation`.

    Each pair is a caption and a seed. A pair wins when the run's CLIP finds the drawn picture closer to its own caption
    than to another pair's; without any link between caption and picture half of them would.

    Args:
        config: number of pairs, steps and guidance.
        clip_config: the CLIP that judges.
        run_dir: the run, with curated set and base model finished.
        directory: the stage's directory.
        seed: of the choice of captions and of the pictures.
        progress: told how many pictures are drawn.

    Raises:
        StageError: fewer than two different captions, or a stage that has not finished.
    """
    inputs = {stage: read_record(run_dir / stage).digest for stage in ("curated", "training/base")}
    text_dir = run_dir / "clip" if clip_config.model == "lite0" else None
    if text_dir is not None:
        inputs["clip"] = read_record(text_dir).digest
    settings = config.model_dump(mode="json") | {"seed": seed, "clip": clip_config.model}

    def work(partial: Path) -> Mapping[str, Any]:
        pairs = choose_pairs(run_dir / "curated", config, seed)
        pipe = GlidePipeline.from_training(run_dir / "training" / "base")
        images = draw_pairs(pipe, pairs, config, progress)
        clip = load_clip(clip_config, text_dir=text_dir)
        score_pairs(clip, images, pairs)
        sweep = sweep_guidance(pipe, clip, pairs, config)
        if sweep:
            write_bytes(partial / "guidance.jsonl", "".join(canonical_json(row) + "\n" for row in sweep).encode())
        write_bytes(partial / "pairs.jsonl", "".join(canonical_json(pair) + "\n" for pair in pairs).encode())
        contact_sheet(images, num_columns=8, scale=max(1, 96 // images[0].width)).save(partial / "samples.png", optimize=True)
        summary = summarise(pairs)
        write_json(partial / "evaluation.json", {"format": EVALUATION_FORMAT, "settings": settings, **summary})
        return summary

    return run_stage(directory, stage="evaluation", config=settings, inputs=inputs, work=work)


def choose_pairs(curated: Path, config: EvaluateConfig, seed: int) -> list[dict[str, Any]]:
    """Captions of the split that the recipe names, in the order of their hash, then, if those are too few, of the other.

    Returns:
        Plain rows: index, prompt, key, split, seed, random_prompt.

    Raises:
        StageError: fewer than two different captions.
    """
    rows = []
    for split in sorted(("train", "validation"), key=lambda split: split != config.captions_from):
        found = [row | {"split": split} for path in sorted((curated / "data").glob(f"{split}-*.parquet"))
                 for row in pq.read_table(path, columns=["key", "caption"]).to_pylist()]
        rows += sorted(found, key=lambda row: hash_share(str(seed), row["key"]))
    rows = rows[:config.num_pairs]
    if len({row["caption"] for row in rows}) < 2:
        raise StageError(f"{curated}: fewer than two different captions are left to evaluate with; keep more data")
    generator = random.Random(seed)
    return [{"index": i, "prompt": row["caption"], "key": row["key"], "split": row["split"], "seed": seed + i,
             "random_prompt": generator.choice([other["caption"] for other in rows if other["caption"] != row["caption"]])}
            for i, row in enumerate(rows)]


def draw_pairs(pipe: GlidePipeline, pairs: Sequence[Mapping[str, Any]], config: EvaluateConfig, progress: Progress | None) -> list[Image.Image]:
    """Draw the picture of every pair, in order."""
    images: list[Image.Image] = []
    for start in range(0, len(pairs), DRAW_AT_ONCE):
        prompts = [pair["prompt"] for pair in pairs[start:start + DRAW_AT_ONCE]]
        options = DrawOptions(guidance_scale=config.guidance_scale, num_steps=config.num_steps, seed=pairs[start]["seed"],
                              cut_long_prompts=True)  # as training cuts captions
        images += pipe.draw(prompts, options).images
        if progress is not None:
            progress(len(images), len(pairs), "pictures drawn")
    return images


def score_pairs(clip: Clip, images: Sequence[Image.Image], pairs: Sequence[dict[str, Any]]) -> None:
    """Write into each pair how close its picture is to its own caption and to the random one."""
    arrays = [np.asarray(image) for image in images]
    for name, key in (("prompt", "own_score"), ("random_prompt", "random_score")):
        scores = clip.score(arrays, [pair[name] for pair in pairs])
        for pair, score in zip(pairs, scores.tolist(), strict=True):
            pair[key] = round(float(score), 6)


def sweep_guidance(pipe: GlidePipeline, clip: Clip, pairs: Sequence[Mapping[str, Any]], config: EvaluateConfig) -> list[dict[str, Any]]:
    """Draw the first pairs with the recipe's other guidance scales too, and score them; the scored pairs join for their own scale.

    Returns:
        Rows of guidance_scale, index, own_score and random_score; none when the recipe names no other scale.
    """
    first, rows = pairs[:config.sweep_pairs], []
    for scale in sorted({*config.sweep_scales, config.guidance_scale}) if config.sweep_scales else ():
        drawn = [dict(pair) for pair in first]
        if scale != config.guidance_scale:
            settings = config.model_copy(update={"guidance_scale": scale})
            score_pairs(clip, draw_pairs(pipe, drawn, settings, None), drawn)
        rows += [{"guidance_scale": scale, **{key: pair[key] for key in ("index", "own_score", "random_score")}} for pair in drawn]
    return rows


def summarise(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Wins, their share, and its exact one-sided 95 % lower bound."""
    num_wins = sum(pair["own_score"] > pair["random_score"] for pair in pairs)
    return {"num_pairs": len(pairs), "num_wins": num_wins, "share": num_wins / len(pairs),
            "share_lower_bound": lower_bound(num_wins, len(pairs)),
            "num_held_back": sum(pair["split"] == "validation" for pair in pairs)}


def best_drawn(directory: Path) -> str:
    """The caption whose picture stands out most from another caption's, by the CLIP that judged, of a finished evaluation."""
    rows = [json.loads(line) for line in (directory / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    return str(max(rows, key=lambda row: row["own_score"] - row["random_score"])["prompt"])
