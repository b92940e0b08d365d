"""Whether the index's memory grows with the collection: `python -m benchmarks.memory`.

Tars of 1,000 small pictures each, a CLIP of two tiny towers, and a process of its own for each size. What is printed is the
peak of the resident memory, beside what the process holds once its model is loaded.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from PIL import Image
from safetensors.torch import save_file

from glideslope.data_filter.index.embed import load_clip_once
from glideslope.data_filter.index.stage import build_index
from glideslope.data_filter.sources.webdataset import WebDatasetSource
from glideslope.recipe.filters import ClipConfig, IndexConfig

PICTURES_PER_TAR = 1000


def write_clip(directory: Path) -> None:
    """A CLIP with random weights that open_clip loads from a directory."""
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 1, "layers": 1}
    model = open_clip.CLIP(512, CLIPVisionCfg(**vision), CLIPTextCfg(**text))
    directory.mkdir()
    settings = {"model_cfg": {"embed_dim": 512, "vision_cfg": vision, "text_cfg": text},
                "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (directory / "open_clip_config.json").write_text(json.dumps(settings))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, directory / "open_clip_model.safetensors")


def write_tars(directory: Path, num_pictures: int) -> None:
    """Pairs of a picture of 64 pixels and a caption."""
    directory.mkdir()
    generator, pictures = np.random.default_rng(0), []
    for _ in range(16):
        sink = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(sink, "PNG")
        pictures.append(sink.getvalue())
    for start in range(0, num_pictures, PICTURES_PER_TAR):
        with tarfile.open(directory / f"{start // PICTURES_PER_TAR:05d}.tar", "w") as tar:
            for number in range(start, min(num_pictures, start + PICTURES_PER_TAR)):
                for suffix, data in (("png", pictures[number % 16]), ("txt", f"caption {number}".encode())):
                    member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def index(root: Path) -> None:
    """Make the index and print the peaks before and after, in MB."""
    clip = ClipConfig(model=f"local-dir:{root / 'clip'}", batch_size=16)
    load_clip_once(clip)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    build_index(WebDatasetSource(path=str(root / "tars")), clip, IndexConfig(), root / "index")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB at most, {before / 1024:,.0f} MB with the model loaded")


def main() -> None:
    """Print a line per size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--root", type=Path)
    options = parser.parse_args()
    if options.root:
        index(options.root)
        return
    for num_pictures in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_clip(Path(folder) / "clip")
            write_tars(Path(folder) / "tars", num_pictures)
            print(f"{num_pictures:,} pictures: ", end="", flush=True)
            subprocess.run([sys.executable, "-m", "benchmarks.memory", "--root", folder], check=True)


if __name__ == "__main__":
    main()
