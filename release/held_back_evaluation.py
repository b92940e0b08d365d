"""Trained networks on pictures that were held back from training: the upsampler beside interpolation, the noised CLIP at each noise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from ..device.torch_state import PlainTorch
from ..errors import StageError
from ..models.diffusion.guidance import refuse_not_finite
from ..models.diffusion.process import GaussianDiffusion
from ..models.diffusion.samplers import SeededNoise
from ..models.drawing.editing import UpsampleOptions
from ..models.drawing.guided_drawing import embed_prompts, get_noised_clip
from ..models.drawing.pipeline import GlidePipeline
from ..models.drawing.pixels import fit_square, to_model_range, to_pil
from ..models.loading.loaded_networks import Networks
from ..models.training.upsampler import degrade
from ..pictures.decode import Pixels, decode_image
from ..pictures.likeness import measure_psnr, measure_ssim
from ..pictures.refusals import Refusal
from ..progress import Progress
from .claims.held_back import choose_for_noised_clip, choose_for_upsampler
from .claims.noised_clip import TIMESTEPS

ENLARGE_AT_ONCE, READ_AT_ONCE = 16, 256
MAX_PIXELS = 1_000_000_000  # curated images passed the index's own limit
PSNR_DIGITS, SSIM_DIGITS = 4, 6


def list_held_back(curated: Path) -> list[dict[str, Any]]:
    """Key and caption of each image that a curated set holds back."""
    return [row for path in sorted((curated / "data").glob("validation-*.parquet"))
            for row in pq.read_table(path, columns=["key", "caption"]).to_pylist()]


def refuse_nothing_held_back(curated: Path) -> None:
    """Refuse a curated set that holds no image back, before an upsampler is trained on it that nothing could evaluate.

    Raises:
        StageError: it holds none back.
    """
    if not list_held_back(curated):
        raise StageError(f"{curated}: no image is held back, so that nothing can show what an upsampler does; set curate.validation_share "
                         "higher and run `curate` again, or remove the key upsampler from the recipe")


def enlarge_held_back(pipe: GlidePipeline, curated: Path, seed: int, progress: Progress | None = None) -> list[dict[str, Any]]:
    """Make held-back pictures small as in training but without noise, enlarge each in two ways, and compare it with the picture itself.

    Args:
        pipe: with the upsampler; what it enlarges has the base's size.
        curated: the curated set.
        seed: of the recipe: chooses the pictures, and picture i is enlarged from seed + i.
        progress: told how many pictures are enlarged.

    Returns:
        Rows of key, psnr, ssim, bicubic_psnr and bicubic_ssim.

    Raises:
        StageError: no image is held back.
    """
    refuse_nothing_held_back(curated)
    chosen = choose_for_upsampler(list_held_back(curated), seed)
    size = pipe.networks.companions["upsampler"].config.image_size
    pictures = read_pictures(curated, [image["key"] for image in chosen], size)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(chosen), ENLARGE_AT_ONCE):
        images, real = chosen[start:start + ENLARGE_AT_ONCE], pictures[start:start + ENLARGE_AT_ONCE]
        small = to_pil(degrade(to_tensor(real), pipe.networks.base.config.image_size, 0.0))
        options = UpsampleOptions(seed=seed + start, cut_long_prompts=True)  # as training cuts captions
        drawn = pipe.upsample(small, [image["caption"] for image in images], options=options).images
        interpolated = [picture.resize((size, size), Image.Resampling.BICUBIC) for picture in small]
        rows += [{"key": image["key"], **compare_both(pixels, np.asarray(by_network), np.asarray(by_rule))}
                 for image, pixels, by_network, by_rule in zip(images, real, drawn, interpolated, strict=True)]
        if progress is not None:
            progress(len(rows), len(chosen), "held-back pictures enlarged")
    return rows


def compare_both(real: Pixels, drawn: Pixels, interpolated: Pixels) -> dict[str, float]:
    """How alike a picture and each of the two that were enlarged are: all uint8 (S, S, 3)."""
    return {f"{prefix}{name}": round(measure(real, enlarged), digits) for prefix, enlarged in (("", drawn), ("bicubic_", interpolated))
            for name, measure, digits in (("psnr", measure_psnr, PSNR_DIGITS), ("ssim", measure_ssim, SSIM_DIGITS))}


@PlainTorch()
def rank_held_back(networks: Networks, curated: Path, seed: int) -> list[dict[str, Any]]:
    """Let the noised CLIP order the captions of held-back pictures by how well they fit each of these pictures, at each noise level.

    Args:
        networks: with the noised CLIP.
        curated: the curated set.
        seed: of the recipe: chooses the pairs, and the noise of picture i at every level is drawn from seed + i.

    Returns:
        Rows of timestep, key and rank, see `claims.noised_clip.measure_noised_clip`; none where fewer than two captions are held back.

    Raises:
        RequestError: a score is no number.
    """
    chosen = choose_for_noised_clip(list_held_back(curated), seed)
    if not chosen:
        return []
    clip, device = get_noised_clip(networks), networks.device
    x_start = to_tensor(read_pictures(curated, [image["key"] for image in chosen], clip.config.image_size))
    noise = SeededNoise(range(seed, seed + len(chosen))).draw(x_start.shape[1:])
    captions = embed_prompts(networks, [image["caption"] for image in chosen])
    diffusion, rows = GaussianDiffusion.create(networks.schedule.betas), []
    for timestep in TIMESTEPS:
        steps = torch.full((len(chosen),), timestep, dtype=torch.int64)
        cosines = clip.encode_image(diffusion.add_noise(x_start, steps, noise).to(device), steps.to(device)) @ captions.T
        refuse_not_finite("the noised CLIP's scores", cosines, next(clip.parameters()).dtype)
        ranks = (cosines >= cosines.diagonal()[:, None]).sum(dim=1)  # the own caption is one of them
        rows += [{"timestep": timestep, "key": image["key"], "rank": rank} for image, rank in zip(chosen, ranks.tolist(), strict=True)]
    return rows


def read_pictures(curated: Path, keys: Sequence[str], image_size: int) -> list[Pixels]:
    """The held-back pictures of these keys in their order, as uint8 (S, S, 3); no others are decoded.

    Raises:
        StageError: a picture cannot be decoded any more.
    """
    wanted, found = frozenset(keys), {}
    for path in sorted((curated / "data").glob("validation-*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(READ_AT_ONCE, columns=["key", "image"]):
            for row in batch.to_pylist():
                if row["key"] in wanted:
                    found[row["key"]] = decode_square(row["image"]["bytes"], image_size, where=f"{path}: {row['key']!r}")
    return [found[key] for key in keys]


def decode_square(data: bytes, image_size: int, *, where: str) -> Pixels:
    """A curated picture as uint8 (S, S, 3), fitted as training fits it.

    Raises:
        StageError: it cannot be decoded any more.
    """
    try:
        return fit_square(decode_image(data, max_pixels=MAX_PIXELS), image_size)
    except Refusal as error:
        raise StageError(f"{where}: {error}; it could be read when it was indexed: restore the curated set") from error


def to_tensor(pictures: Sequence[Pixels]) -> Tensor:
    """uint8 (S, S, 3) each -> float32 (N, 3, S, S) in [-1, 1]."""
    return to_model_range(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
