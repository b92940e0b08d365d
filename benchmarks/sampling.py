"""Pictures per second at equal quality: `python -m benchmarks.sampling MODEL --run RUN`.

MODEL is a release or a finished training directory, RUN the run it came from (curated pictures, trained lite0). Every setting
draws the same prompts from the same seeds, batch by batch in turn, so that whatever else the machine does slows all of
them alike. Judged by lite0: the mean cosine of picture and caption, and the Fréchet distance of the embeddings from those of
the run's own training pictures at the model's size. Spreads are standard deviations over resampled prompts; differences from
the baseline are resampled in pairs, and a setting is as good as the baseline when both of its 95 % intervals reach no worse than none.
"""

import argparse
import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from glideslope.clip.model import Clip, load_clip
from glideslope.errors import StageError
from glideslope.models.drawing.options import DrawOptions
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.drawing.pixels import fit_square
from glideslope.pictures.sheets import captioned_sheet
from glideslope.recipe.filters import ClipConfig

BASELINE = "ddpm 100"
NUM_RESAMPLES = 200
NUM_REAL = 1000
Rows = NDArray[np.float64]


def settings(guidance_scale: float, interval: tuple[float, float]) -> dict[str, DrawOptions]:
    """What is compared, by name: the baseline first."""
    guided = DrawOptions(guidance_scale=guidance_scale, sampler="ddpm", num_steps=100)
    few = replace(guided, guidance_interval=interval)
    return {BASELINE: guided, "ddpm 25": replace(guided, num_steps=25), "dpm++ 25": replace(guided, sampler="dpm++", num_steps=25),
            "dpm++ 25, interval": replace(few, sampler="dpm++", num_steps=25),
            "dpm++sde 25, interval": replace(few, sampler="dpm++sde", num_steps=25),
            "dpm++sde 15, interval": replace(few, sampler="dpm++sde", num_steps=15),
            "unipc 10, interval": replace(few, sampler="unipc", num_steps=10)}


@dataclass
class Outcome:
    """What a setting drew: seconds in all, pictures, their embeddings and their cosines with the captions."""

    seconds: float = 0.0
    images: list[Image.Image] = field(default_factory=list)
    embeddings: Rows | None = None
    cosines: Rows | None = None


def draw_in_turn(pipe: GlidePipeline, compared: dict[str, DrawOptions], prompts: Sequence[str], batch_size: int) -> dict[str, Outcome]:
    """Draw every batch with every setting before the next batch; the first batch's prompt is drawn once uncounted to warm up."""
    outcomes = {name: Outcome() for name in compared}
    pipe.draw(prompts[:1], DrawOptions(num_steps=2))
    for start in range(0, len(prompts), batch_size):
        part = list(prompts[start:start + batch_size])
        for name, options in compared.items():
            began = seconds_used(pipe.device)
            outcomes[name].images += pipe.draw(part, replace(options, seed=start, cut_long_prompts=True)).images
            outcomes[name].seconds += seconds_used(pipe.device) - began
        print(f"{start + len(part)} of {len(prompts)} prompts drawn", flush=True)
    return outcomes


def seconds_used(device: torch.device) -> float:
    """Of processor time on a CPU, which other processes do not lengthen; of the clock on a GPU."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def frechet_distance(one: Rows, other: Rows) -> float:
    """Between Gaussians with the moments of two sets of rows (arXiv 1706.08500, section 2), without forming covariances.

    The trace of the root of the product of both covariances is the sum of singular values of one centred set times the other.
    """
    a, b = (rows - rows.mean(axis=0) for rows in (one, other))
    degrees = np.sqrt((len(a) - 1) * (len(b) - 1))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum() / degrees
    shift = np.square(one.mean(axis=0) - other.mean(axis=0)).sum()
    return float(shift + np.square(a).sum() / (len(a) - 1) + np.square(b).sum() / (len(b) - 1) - 2 * cross)


def judge(outcomes: dict[str, Outcome], clip: Clip, prompts: Sequence[str], real: Rows) -> list[dict[str, Any]]:
    """Figures of each setting, with spreads and differences from the baseline."""
    texts = clip.encode_text(prompts)
    for outcome in outcomes.values():
        embedded = clip.embed_images([np.asarray(image) for image in outcome.images])
        outcome.embeddings = embedded.astype(np.float64)
        outcome.cosines = (clip.center(embedded) * texts).sum(axis=1).astype(np.float64)
    generator = np.random.default_rng(0)
    samples = [generator.integers(0, len(prompts), len(prompts)) for _ in range(NUM_RESAMPLES)]
    resampled = {name: resample(outcome, samples, real) for name, outcome in outcomes.items()}
    rows = []
    for name, outcome in outcomes.items():
        assert outcome.embeddings is not None and outcome.cosines is not None
        difference = resampled[name] - resampled[BASELINE]
        low, high = np.quantile(difference, [0.025, 0.975], axis=0)
        rows.append({"setting": name, "pictures_per_s": len(prompts) / outcome.seconds,
                     "times_faster": outcomes[BASELINE].seconds / outcome.seconds, "clip_score": float(outcome.cosines.mean()),
                     "clip_score_std": float(resampled[name][:, 0].std()),
                     "clip_score_difference": [float(low[0]), float(high[0])],
                     "frechet": frechet_distance(outcome.embeddings, real), "frechet_std": float(resampled[name][:, 1].std()),
                     "frechet_difference": [float(low[1]), float(high[1])], "as_good": bool(high[0] >= 0 and low[1] <= 0)})
    return rows


def resample(outcome: Outcome, samples: Sequence[NDArray[np.int64]], real: Rows) -> Rows:
    """(resamples, 2): mean cosine and Fréchet distance of each."""
    assert outcome.embeddings is not None and outcome.cosines is not None
    return np.array([(outcome.cosines[chosen].mean(), frechet_distance(outcome.embeddings[chosen], real)) for chosen in samples])


def read_pictures(run: Path, split: str) -> list[dict[str, Any]]:
    """Rows of a run's curated set."""
    rows = [row for path in sorted((run / "curated" / "data").glob(f"{split}-*.parquet"))
            for row in pq.read_table(path, columns=["key", "caption", "image"]).to_pylist()]
    if not rows:
        raise StageError(f"{run / 'curated'}: no pictures of the split {split}; give the run with --run")
    return sorted(rows, key=lambda row: str(row["key"]))


def as_drawn(data: bytes, image_size: int) -> NDArray[np.uint8]:
    """A training picture at the model's size, as the model saw it."""
    return fit_square(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), image_size)


def load_model(directory: Path) -> GlidePipeline:
    """A release, or a finished training directory."""
    if (directory / "model_index.json").exists():
        return GlidePipeline.from_pretrained(directory, components=[])
    return GlidePipeline.from_training(directory.parent)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The figures in Markdown; differences are 95 % intervals of setting less baseline."""
    lines = ["| setting | times faster | CLIP score | difference | Fréchet distance | difference | as good |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        of_clip, of_frechet = ("{:+.4f} to {:+.4f}".format(*row[f"{name}_difference"]) for name in ("clip_score", "frechet"))
        lines.append(f"| {row['setting']} | {row['times_faster']:.1f} | {row['clip_score']:.4f} ± {row['clip_score_std']:.4f} | {of_clip} | "
                     f"{row['frechet']:.3f} ± {row['frechet_std']:.3f} | {of_frechet} | {'yes' if row['as_good'] else 'no'} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="release or finished training directory")
    parser.add_argument("--run", type=Path, required=True, help="the run it came from")
    parser.add_argument("--split", default="train", help="whose captions are drawn: train or validation")
    parser.add_argument("--num-images", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--guidance-scale", type=float, default=3.0)
    parser.add_argument("--interval", type=float, nargs=2, default=(0.1, 0.8))
    parser.add_argument("--only", nargs="*", help="names of settings to compare with the baseline")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--out", type=Path, help="directory for figures.json and sheets of pictures")
    arguments = parser.parse_args()
    pipe = load_model(arguments.model)
    pipe.networks.base.to(getattr(torch, arguments.dtype))
    compared = settings(arguments.guidance_scale, tuple(arguments.interval))
    compared = {name: options for name, options in compared.items() if arguments.only is None or name in (BASELINE, *arguments.only)}
    rows = read_pictures(arguments.run, arguments.split)
    order = np.random.default_rng(0).permutation(len(rows))[:arguments.num_images]
    prompts = [str(rows[i]["caption"]) for i in order]
    clip = load_clip(ClipConfig(), text_dir=arguments.run / "clip")
    shown = read_pictures(arguments.run, "train")
    chosen = np.random.default_rng(1).permutation(len(shown))[:NUM_REAL]
    size = pipe.networks.base.config.image_size
    real = clip.embed_images([as_drawn(shown[i]["image"]["bytes"], size) for i in chosen]).astype(np.float64)
    outcomes = draw_in_turn(pipe, compared, prompts, arguments.batch_size)
    figures = judge(outcomes, clip, prompts, real)
    print(table(figures))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, outcome in outcomes.items():
            captioned_sheet(outcome.images[:64], prompts[:64], num_columns=8, scale=max(1, 96 // size)).save(
                arguments.out / f"{name.replace(', ', '-').replace(' ', '-')}.png")
        report = {"num_images": len(prompts), "settings": {name: asdict(options) for name, options in compared.items()}, "figures": figures}
        (arguments.out / "figures.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
