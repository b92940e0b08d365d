"""Do captions count? Pictures drawn from held-back captions, each compared with its own caption and with others of its hand.

The stage also holds what `held_back_evaluation` measures of the upsampler and of the noised CLIP.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from ..clip.model import Clip, load_clip
from ..errors import StageError
from ..models.drawing.options import DrawOptions
from ..models.drawing.pipeline import GlidePipeline
from ..pictures.sheets import contact_sheet, png_bytes
from ..progress import Progress
from ..recipe.filters import ClipConfig
from ..recipe.training import EvaluateConfig
from ..store.digests import canonical_json
from ..store.records import Record, read_record, run_stage
from ..store.run_layout import training_stage
from ..store.strict_json import load_lines
from ..store.whole_files import write_bytes, write_json
from .claims.evaluation import compare_with_middle, count_wins, deal_pairs
from .claims.held_back import MAX_OF_UPSAMPLER
from .claims.noised_clip import measure_noised_clip
from .claims.upsampler import measure_upsampler
from .held_back_evaluation import enlarge_held_back, list_held_back, rank_held_back

EVALUATION_FORMAT = "glideslope.evaluation/3"
SCORES = ("own_score", "own_mean", "other_scores", "other_means")
DRAW_AT_ONCE = 16

log = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig, clip_config: ClipConfig, run_dir: Path, directory: Path, *, networks: Sequence[str], seed: int,
             progress: Progress | None = None) -> Record:
    """Run the stage `evaluation`.

    Each pair is a hand of captions, of which a coin chose the one that is drawn, and a seed. A pair wins when the run's CLIP ranks
    the drawn caption in the better half of the hand; without any link between caption and picture half of them would, whatever the
    captions: see `claims.evaluation`.

    Args:
        config: number of pairs, steps and guidance.
        clip_config: the CLIP that judges.
        run_dir: the run, with curated set and networks finished.
        directory: the stage's directory.
        networks: names of base and noised CLIP, and of the upsampler where the run has trained one, see `plan.evaluated_networks`.
        seed: of the choice of captions and of the pictures.
        progress: told how many pictures are drawn.

    Raises:
        StageError: fewer than two different captions, an upsampler and nothing held back, or a stage that has not finished.
    """
    inputs = {stage: read_record(run_dir / stage).digest for stage in ("curated", *map(training_stage, networks))}
    text_dir = run_dir / "clip" if clip_config.model == "lite0" else None
    if text_dir is not None:
        inputs["clip"] = read_record(text_dir).digest
    settings = config.model_dump(mode="json") | {"seed": seed, "clip": clip_config.model}

    def work(partial: Path) -> Mapping[str, Any]:
        pairs = choose_pairs(run_dir / "curated", config, seed)
        pipe = GlidePipeline.from_training(run_dir / "training", networks)
        num_enlarged = min(MAX_OF_UPSAMPLER, len(list_held_back(run_dir / "curated"))) if "upsampler" in networks else 0
        told = TellsOfAll(progress, config, len(pairs), num_enlarged)
        images = draw_pairs(pipe, pairs, config, told)
        clip = load_clip(clip_config, text_dir=text_dir)
        score_pairs(clip, images, pairs)
        sweep = sweep_guidance(pipe, clip, pairs, config, told)
        if sweep:
            write_rows(partial / "guidance.jsonl", sweep)
        write_rows(partial / "pairs.jsonl", pairs)
        write_bytes(partial / "samples.png", png_bytes(contact_sheet(images, num_columns=8, scale=max(1, 96 // images[0].width))))
        summary = summarise(pairs) | count_cut_captions(clip, pairs)
        report = summary | evaluate_held_back(pipe, run_dir / "curated", partial, seed, told)
        write_json(partial / "evaluation.json", {"format": EVALUATION_FORMAT, "settings": settings, **report})
        return summary

    return run_stage(directory, stage="evaluation", config=settings, inputs=inputs, work=work)


def evaluate_held_back(pipe: GlidePipeline, curated: Path, partial: Path, seed: int, progress: Progress) -> dict[str, Any]:
    """Write what the networks do with held-back pictures, a row each; returns the figures that the rows give, none without an upsampler."""
    ranks = rank_held_back(pipe.networks, curated, seed)
    write_rows(partial / "noised_clip.jsonl", ranks)
    figures: dict[str, Any] = {"noised_clip": measure_noised_clip(ranks), "upsampler": None}
    if pipe.networks.upsampler is not None:
        enlarged = enlarge_held_back(pipe, curated, seed, progress)
        write_rows(partial / "upsampler.jsonl", enlarged)
        figures["upsampler"] = measure_upsampler(enlarged)
    return figures


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines."""
    write_bytes(path, "".join(canonical_json(row) + "\n" for row in rows).encode())


def refuse_one_caption(curated: Path) -> None:
    """Refuse a curated set whose images all share one caption, before anything is trained on it.

    Raises:
        StageError: they do, or there is no image.
    """
    seen: set[str] = set()
    for path in sorted((curated / "data").glob("*.parquet")):
        seen.update(pc.unique(pq.read_table(path, columns=["caption"])["caption"]).to_pylist())
        if len(seen) > 1:
            return
    raise StageError(f"{curated}: all images have the same caption ({', '.join(map(repr, seen))[:120] or 'none'}), so that nothing can show "
                     "that captions count; describe the images in words of their own, then run the stages from `index` on")


def choose_pairs(curated: Path, config: EvaluateConfig, seed: int) -> list[dict[str, Any]]:
    """The pairs that a curated set gives, see `claims.evaluation.deal_pairs`.

    Raises:
        StageError: fewer than two different captions.
    """
    rows = [row | {"split": split} for split in ("train", "validation") for path in sorted((curated / "data").glob(f"{split}-*.parquet"))
            for row in pq.read_table(path, columns=["key", "caption"]).to_pylist()]
    pairs = deal_pairs(rows, config, seed)
    if not pairs:
        raise StageError(f"{curated}: fewer than two different captions are left to evaluate with; keep more data")
    return pairs


def other_scales(config: EvaluateConfig) -> list[float]:
    """The guidance scales that pairs are drawn with beside the recipe's own."""
    return sorted({*config.sweep_scales} - {config.guidance_scale})


class TellsOfAll:
    """Tells of the pictures of all scales and of those that are enlarged together, so that the time left is that of the whole stage."""

    def __init__(self, progress: Progress | None, config: EvaluateConfig, num_pairs: int, num_enlarged: int = 0) -> None:
        """`num_pairs` are drawn with the recipe's scale, the first of them with each other one too; `num_enlarged` come last."""
        self.progress, self.before = progress, 0
        self.total = num_pairs + len(other_scales(config)) * min(config.sweep_pairs, num_pairs) + num_enlarged

    def __call__(self, done: int, total: int, text: str) -> None:
        """So many of the pictures of one scale are drawn."""
        if self.progress is not None:
            self.progress(self.before + done, self.total, text)
        self.before += done if done == total else 0


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
    """Write into each pair how close its picture is to the captions of its hand, and how close all pictures are on average."""
    captions = sorted({caption for pair in pairs for caption in (pair["prompt"], *pair["others"])})
    places = {caption: place for place, caption in enumerate(captions)}
    cosines = clip.compare([np.asarray(image) for image in images], captions)
    means = cosines.mean(axis=0, dtype=np.float64)
    for pair, row in zip(pairs, cosines, strict=True):
        own, others = places[pair["prompt"]], [places[caption] for caption in pair["others"]]
        pair |= {"own_score": round(float(row[own]), 6), "own_mean": round(float(means[own]), 6),
                 "other_scores": [round(float(row[place]), 6) for place in others],
                 "other_means": [round(float(means[place]), 6) for place in others]}


def count_cut_captions(clip: Clip, pairs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many of the captions that were compared the judging CLIP reads only in part; the log says so."""
    captions = sorted({caption for pair in pairs for caption in (pair["prompt"], *pair["others"])})
    num_cut = 0 if clip.find_cut is None else sum(clip.find_cut(captions))
    if num_cut:
        log.warning("evaluation: %d of %d captions are longer than %s reads, which judged them by their beginnings", num_cut, len(captions),
                    clip.name)
    return {"num_captions": len(captions), "num_captions_cut": num_cut}


def sweep_guidance(pipe: GlidePipeline, clip: Clip, pairs: Sequence[Mapping[str, Any]], config: EvaluateConfig,
                   progress: Progress | None = None) -> list[dict[str, Any]]:
    """Draw the first pairs with the recipe's other guidance scales too, and score them; the scored pairs join for their own scale.

    Returns:
        Rows of guidance_scale, index and the scores of `score_pairs`; none when the recipe names no other scale.
    """
    first, rows = pairs[:config.sweep_pairs], []
    for scale in sorted({*config.sweep_scales, config.guidance_scale}) if config.sweep_scales else ():
        drawn = [dict(pair) for pair in first]
        if scale != config.guidance_scale:
            settings = config.model_copy(update={"guidance_scale": scale})
            score_pairs(clip, draw_pairs(pipe, drawn, settings, progress), drawn)
        rows += [{"guidance_scale": scale, **{key: pair[key] for key in ("index", *SCORES)}} for pair in drawn]
    return rows


def summarise(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Wins, their share, its exact one-sided 95 % lower bound, and how many prompts were held back from training."""
    return count_wins(pairs) | {"num_held_back": sum(pair["split"] == "validation" for pair in pairs)}


def best_drawn(directory: Path) -> str:
    """The caption that stands out most from the others of its hand, by the CLIP that judged, of a finished evaluation."""
    rows = load_lines((directory / "pairs.jsonl").read_bytes())
    compared = [(own - middle, row) for row in rows for own, middle, _ in [compare_with_middle(row)]]
    return str(max(compared, key=lambda found: found[0])[1]["prompt"])
