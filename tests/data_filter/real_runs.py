"""Runs that other processes take part in: pictures on disk, and a real CLIP that is small enough to load in every worker."""

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from PIL import Image
from safetensors.torch import save_file

from glideslope.data_filter.sources.folder import FolderSource
from glideslope.recipe.filters import ClipConfig, IndexConfig
from glideslope.store.records import Record

NUM_PICTURES, SHARD_SIZE = 120, 4
NUM_SHARDS = NUM_PICTURES // SHARD_SIZE


def write_clip(directory: Path) -> ClipConfig:
    """An open_clip model of two small towers with fixed weights, in a directory that open_clip loads."""
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 1, "layers": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(16, CLIPVisionCfg(**vision), CLIPTextCfg(**text))
    directory.mkdir()
    settings = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text},
                "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
    (directory / "open_clip_config.json").write_text(json.dumps(settings))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, directory / "open_clip_model.safetensors")
    return ClipConfig(model=f"local-dir:{directory}", batch_size=4)


def write_pictures(folder: Path) -> FolderSource:
    """Noisy pictures, wide ones among them, PNG and JPEG, each with a caption; decoding one takes some milliseconds."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    contents = []
    for number in range(6):
        noise = Image.fromarray(generator.integers(0, 256, (400, 400 + 150 * (number % 3), 3), dtype=np.uint8))
        noise.save(folder / "picture", "PNG" if number % 2 else "JPEG")
        contents.append((folder / "picture").read_bytes())
    (folder / "picture").unlink()
    for number in range(NUM_PICTURES):
        (folder / f"{number:03d}.png").write_bytes(contents[number % len(contents)])
        (folder / f"{number:03d}.txt").write_text(f"caption {number}")
    return FolderSource(path=str(folder))


def build(root: Path, name: str, **settings: object) -> Record:
    """The index of the pictures in `root`, with the CLIP beside them."""
    from glideslope.data_filter.index.stage import build_index

    return build_index(FolderSource(path=str(root / "pictures")), ClipConfig(model=f"local-dir:{root / 'clip'}", batch_size=4),
                       IndexConfig(shard_size=SHARD_SIZE), root / name, **settings)  # type: ignore[arg-type]  # engine and workers


def num_finished(root: Path, name: str) -> int:
    """How many shards a running index has finished."""
    return len(list((root / f"{name}.partial").glob("shard-*.parquet")))
