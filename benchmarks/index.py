"""How fast the index is beside the bare forward pass of the same model at the same batch size: `python -m benchmarks.index`.

Two kinds of pictures: drawings as PNG of 224 pixels (one crop each), and photographs as JPEG of 1,000 pixels (three crops
each). Both sides see the same number of crops and take turns shard by shard, so that a busy machine slows both. Two
ratios are printed: of time by the clock, where decoding may hide behind the forward pass, and of processor time, where
it cannot. The model is loaded before; reading, checking, decoding, resizing, embedding and writing are counted.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image, ImageDraw

from glideslope.clip.model import Clip
from glideslope.data_filter.index.embed import ShardTask, index_shard_file, load_clip_once
from glideslope.data_filter.sources.folder import FolderSource
from glideslope.data_filter.sources.kind import open_source
from glideslope.recipe.filters import ClipConfig, IndexConfig

Seconds = tuple[float, float]


def draw_picture(number: int) -> bytes:
    """A drawing of flat shapes with outlines, 224 x 224, as PNG."""
    generator = np.random.default_rng(number)
    image = Image.new("RGB", (448, 448), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = sorted(generator.integers(0, 448, 2).tolist()), sorted(generator.integers(0, 448, 2).tolist())
        shape = pen.ellipse if generator.random() < 0.5 else pen.rectangle
        shape((x[0], y[0], x[1], y[1]), fill=tuple(generator.integers(0, 256, 3).tolist()), outline="black", width=5)
    sink = io.BytesIO()
    image.resize((224, 224), Image.Resampling.LANCZOS).save(sink, "PNG")
    return sink.getvalue()


def take_photograph(number: int) -> bytes:
    """A part of one of scikit-learn's two photographs, 1,000 x 667, as JPEG of quality 90."""
    from sklearn.datasets import load_sample_image

    generator = np.random.default_rng(number)
    whole = Image.fromarray(load_sample_image(("china.jpg", "flower.jpg")[number % 2]))
    width = int(generator.integers(whole.width // 2, whole.width + 1))
    height = width * 667 // 1000
    left, top = int(generator.integers(0, whole.width - width + 1)), int(generator.integers(0, whole.height - height + 1))
    sink = io.BytesIO()
    whole.crop((left, top, left + width, top + height)).resize((1000, 667), Image.Resampling.BICUBIC).save(sink, "JPEG", quality=90)
    return sink.getvalue()


def write_folder(folder: Path, make: Callable[[int], bytes], suffix: str, num_images: int) -> None:
    """Pictures with captions."""
    folder.mkdir()
    for number in range(num_images):
        (folder / f"{number:05d}.{suffix}").write_bytes(make(number))
        (folder / f"{number:05d}.txt").write_text(f"picture {number}")


def measure(work: Callable[[], object]) -> Seconds:
    """Time of one call by the clock, and of all threads on the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


@torch.inference_mode()
def forward(clip: Clip, num_crops: int) -> None:
    """The bare forward pass on so many crops that are ready."""
    x = torch.full((clip.batch_size, 3, clip.image_size, clip.image_size), 0.5, device=clip.device)
    x = x.contiguous(memory_format=torch.channels_last)
    for start in range(0, num_crops, clip.batch_size):
        clip.model.encode_image(x[: num_crops - start]).cpu()  # type: ignore[operator]  # an open_clip model


def compare(name: str, folder: Path, options: argparse.Namespace) -> None:
    """Print one kind of picture's line."""
    source, config = FolderSource(path=str(folder)), IndexConfig(shard_size=options.shard_size)
    clip_config = ClipConfig(model=options.model, pretrained=options.pretrained, batch_size=options.batch_size)
    clip = load_clip_once(clip_config)
    shards = open_source(source, shard_size=config.shard_size).shards()
    with Image.open(next(folder.glob("00000.*"))) as image:
        crops_each = 1 if image.width == image.height else 3
    bare, index = [], []
    forward(clip, clip.batch_size)
    for repeat in range(options.repeats):
        for shard in shards:
            task = ShardTask(source, clip_config, config, shard, folder.parent / f"{name}-{repeat}" / f"{shard.name}.parquet")
            bare.append(measure(lambda: forward(clip, crops_each * (shard.num_inputs or 0))))  # noqa: B023  # called at once
            index.append(measure(lambda: index_shard_file(task)))  # noqa: B023  # called at once
    ratios = [median(b[place] / i[place] for b, i in zip(bare, index, strict=True)) for place in (0, 1)]
    rate = sum(shard.num_inputs or 0 for shard in shards) * options.repeats / sum(seconds for seconds, _ in index)
    print(f"{name}: index at {100 * ratios[0]:.0f} % of the bare forward pass by the clock, {100 * ratios[1]:.0f} % by processor time "
          f"(median of {len(index)} shards, {crops_each} crop(s) per image, {rate:.1f} images/s)", flush=True)


def main() -> None:
    """Print a line per kind of picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lite0")
    parser.add_argument("--pretrained")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1, help="of the forward pass")
    parser.add_argument("--images", type=int, default=256, help="of each kind")
    parser.add_argument("--shard-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.model}, batches of {options.batch_size}, {options.threads} thread(s)")
    with tempfile.TemporaryDirectory() as folder:
        for name, make, suffix in (("drawings", draw_picture, "png"), ("photographs", take_photograph, "jpg")):
            write_folder(Path(folder) / name, make, suffix, options.images)
            compare(name, Path(folder) / name, options)


if __name__ == "__main__":
    main()
