"""How good the pictures of a run are, by ImageNet features that never saw a caption: `python -m benchmarks.pictures RUN`.

Drawn from captions that were trained on (or held back, with `--split validation`), each compared with the real pictures of all these
captions. Prints, as JSON: how often the own real picture is the nearest, among the five nearest, and nearer than another; and the
Fréchet distance of the drawn pictures, and of as many real ones, to all other curated pictures. Chance is 1 / N, 5 / N and 50 %.

The judge is EfficientNet-Lite0 trained on ImageNet, the image tower of the built-in CLIP. It knows photographs of 1,000 classes and no
caption of these pictures. A base model whose text transformer began with the CLIP's embeddings (`text_epochs`) learned from them.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from glideslope.clip.lite0 import TEXT_DIM
from glideslope.clip.model import load_clip
from glideslope.models.drawing.editing import UpsampleOptions
from glideslope.models.drawing.options import DrawOptions
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.drawing.pixels import fit_square
from glideslope.models.loading.components import load_component, read_schedule
from glideslope.models.training.data import open_split
from glideslope.pictures.sheets import contact_sheet
from glideslope.recipe.filters import ClipConfig

FEATURE_SIZE = 96  # drawn and real pictures are brought to one size first, so that the judge sees no difference of resolution
Features = NDArray[np.float64]


def main() -> None:
    """Draw, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="directory of a run that was trained")
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    parser.add_argument("--num", type=int, default=64)
    parser.add_argument("--scale", type=float, default=3.0, help="of classifier-free guidance")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--sampler", default="ddim")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--no-upsampler", action="store_true", help="judge what the base draws")
    parser.add_argument("--training", type=Path, help="directory that holds base and upsampler, where it is not RUN/training")
    parser.add_argument("--sheet", type=Path, help="write drawn and real pictures, in turn, as one PNG")
    options = parser.parse_args()
    training = options.training or options.run / "training"

    captions, real = read_real(options.run, options.split)
    chosen = np.random.default_rng(options.seed).choice(len(real), min(options.num, len(real)), replace=False)
    drawn = draw(training, [captions[int(place)] for place in chosen], options)
    low = GlidePipeline.from_training(training).networks.base.config.image_size
    if drawn[0].width < FEATURE_SIZE:  # real pictures of the drawn ones' resolution
        real = [Image.fromarray(fit_square(np.asarray(image), low)) for image in real]
    if options.sheet is not None:
        pairs = [image for place, image in zip(chosen, drawn, strict=True) for image in (image, real[int(place)])]
        contact_sheet(pairs, num_columns=16, scale=max(1, FEATURE_SIZE // pairs[0].width)).save(options.sheet)

    drawn_features, real_features = embed(drawn), embed(real)
    others = np.delete(real_features, chosen, axis=0) if options.split == "train" else embed_training(options, low, drawn[0].width)
    figures = rank(drawn_features, real_features[chosen]) | {
        "frechet": frechet(drawn_features, others), "frechet_real": frechet(real_features[chosen], others)}
    figures = {key: round(value, 4) for key, value in figures.items()}
    print(json.dumps({"run": options.run.name, "num": len(drawn), "scale": options.scale, **figures}))


def embed_training(options: argparse.Namespace, low: int, width: int) -> Features:
    """Features of the pictures that were trained on."""
    _, real = read_real(options.run, "train")
    return embed([image if width >= FEATURE_SIZE else Image.fromarray(fit_square(np.asarray(image), low)) for image in real])


def read_real(run: Path, split: str) -> tuple[list[str], list[Image.Image]]:
    """The first caption of every curated picture of a split, and the pictures."""
    with TemporaryDirectory() as directory:
        data = open_split(run / "curated", split, FEATURE_SIZE, Path(directory))
        rows = [data.rows[number] for number in range(len(data))]
        squares = [data.square(number, row).transpose(1, 2, 0) for number, row in enumerate(rows)]
        return [row.captions[0] for row in rows], [Image.fromarray(square) for square in squares]


def draw(training: Path, captions: Sequence[str], options: argparse.Namespace) -> list[Image.Image]:
    """One picture a caption, enlarged where the run has an upsampler."""
    pipe = GlidePipeline.from_training(training)
    images = pipe.draw(captions, DrawOptions(guidance_scale=options.scale, num_steps=options.steps, sampler=options.sampler,
                                             seed=options.seed, cut_long_prompts=True)).images
    if options.no_upsampler or not (training / "upsampler/config.json").is_file():
        return images
    upsampler = load_component(training / "upsampler", weights_name="ema.safetensors")
    schedule = read_schedule(training / "upsampler/scheduler_config.json")
    pipe = GlidePipeline(replace(pipe.networks, upsampler=upsampler, upsampler_schedule=schedule))
    return pipe.upsample(images, captions, options=UpsampleOptions(seed=options.seed, cut_long_prompts=True)).images


def embed(images: Sequence[Image.Image]) -> Features:
    """ImageNet features, rows of length 1: float64 (N, 1280)."""
    clip = load_clip(ClipConfig(model="lite0"))
    pictures = [np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)) for image in images]
    features = clip.embed_images(pictures)[:, :TEXT_DIM].astype(np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def rank(drawn: Features, real: Features) -> dict[str, float]:
    """How near the own real picture is among all: first, among the first five, and nearer than another one on average."""
    distances = 1 - drawn @ real.T
    nearer = (distances < np.diag(distances)[:, None]).sum(axis=1)
    return {"first": float((nearer == 0).mean()), "among_five": float((nearer < 5).mean()),
            "nearer_than_other": float(1 - nearer.mean() / (len(real) - 1))}


def frechet(first: Features, second: Features) -> float:
    """Fréchet distance of two sets of features (arXiv 1706.08500, equation 6). It falls with the number of either: compare equal numbers."""
    means, covariances = zip(*((rows.mean(axis=0), np.cov(rows, rowvar=False)) for rows in (first, second)), strict=True)
    centred = (first - means[0]) / math.sqrt(len(first) - 1)
    cross = np.linalg.eigvalsh(centred @ covariances[1] @ centred.T)  # the eigenvalues of C1 C2 that are not 0
    return float(np.square(means[0] - means[1]).sum() + sum(np.trace(c) for c in covariances) - 2 * np.sqrt(cross.clip(min=0)).sum())


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
