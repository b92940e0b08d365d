"""Whether the memory of a training grows with its data, and whether its steps wait for them: `python -m benchmarks.data_memory`.

Curated sets of synthetic pictures, JPEG of 64 pixels, a micro network of 16 pixels on one thread, and a process of its own for each size.
Half of the decoded pictures of the smallest set would fit into the room that is kept for them, so that most visits decode. Of the memory
only what the process itself holds is counted: the pages of the mapped file are the system's, which takes them back when it needs them.
"""

import argparse
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from glideslope.data_filter.deciding.curate_stage import SplitWriter, data_schema
from glideslope.models.networks.presets import unet_preset
from glideslope.models.networks.unet import TextConditionedUNet
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.models.training import data as training_data
from glideslope.models.training.denoising import DenoisingBatches
from glideslope.models.training.loop import TrainingState
from glideslope.models.training.rows import open_rows
from glideslope.recipe.components import BaseTraining
from glideslope.store.digests import sha256_bytes

PRESET, BATCH_SIZE, NUM_STEPS, WARM_UP = "glide-micro-16", 16, 60, 10
KEPT_BYTES = 500 * 3 * 16**2
WORDS = ("a", "the", "red", "blue", "small", "old", "dog", "house", "tree", "on", "in", "with", "street", "boat", "cup", "sky")


@cache
def plain_picture(number: int) -> bytes:
    """A JPEG of two colours."""
    generator = np.random.default_rng(number)
    pixels = np.full((64, 64, 3), generator.integers(0, 256, 3), np.uint8)
    pixels[16:48, 16:48] = generator.integers(0, 256, 3)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG")
    return sink.getvalue()


def picture(number: int) -> bytes:
    """A JPEG whose bytes are like those of no other number: one of 64 with a comment of its own."""
    plain, comment = plain_picture(number % 64), str(number).encode()
    return plain[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + plain[2:]


def write_curated(directory: Path, num_pictures: int) -> None:
    """A curated set, its shards of 1,024 rows as `curate` writes them."""
    writer = SplitWriter(directory / "data", "train", 1024, data_schema(has_several=False))
    for number in range(num_pictures):
        image, caption = picture(number), " ".join(WORDS[(number * step + step) % len(WORDS)] for step in range(1, 9))
        writer.add({"image": {"bytes": image, "path": None}, "caption": caption, "key": f"{number:09d}", "sha256": sha256_bytes(image),
                    "concept": f"{number:09d}", "weight": 1.0, "metadata": None})
    writer.finish()


class PeakMemory:
    """A block in which the most bytes that the process itself holds are noted, ten times a second."""

    def __enter__(self) -> "PeakMemory":
        """Begin to look."""
        self.peak, self.is_over = held_bytes(), threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look for the last time."""
        self.is_over.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.is_over.wait(0.1):
            self.peak = max(self.peak, held_bytes())
        self.peak = max(self.peak, held_bytes())


def held_bytes() -> int:
    """Resident memory of this process without pages of files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024


def train(curated: Path, directory: Path) -> dict[str, float]:
    """Open the set and take some steps; what it took."""
    torch.set_num_threads(1)
    config = BaseTraining(preset=PRESET, num_images=BATCH_SIZE * NUM_STEPS, batch_size=BATCH_SIZE, learning_rate=1e-3, vocab_size=400)
    architecture = unet_preset(PRESET)
    started = time.perf_counter()
    with PeakMemory() as opening:
        rows = open_rows(curated, "train", directory)
        data = training_data.CuratedSplit(rows, architecture.image_size, kept_bytes=KEPT_BYTES)
        opened = time.perf_counter() - started
        tokenizer = CaptionTokenizer.train(data.texts, config.vocab_size)
        consumed = data.consumed_sha256
    assert len(consumed) == 64
    model = TextConditionedUNet(architecture.model_copy(update={"n_vocab": tokenizer.vocab_size}))
    batches = DenoisingBatches(config, data, tokenizer, schedule="squaredcos_cap_v2", text_ctx=architecture.text_ctx, seed=0)
    state = TrainingState.create(config, model, None, precision="float32")
    with PeakMemory() as stepping:
        for step in range(NUM_STEPS):
            if step == WARM_UP:
                started, waited = time.perf_counter(), batches.reader.seconds_waited
            state.step(batches.loss, step)
        seconds, waited = time.perf_counter() - started, batches.reader.seconds_waited - waited
    return {"num_pictures": len(data), "seconds_to_open": opened, "megabytes_opening": opening.peak / 2**20,
            "megabytes_training": stepping.peak / 2**20, "seconds_of_step": seconds / (NUM_STEPS - WARM_UP), "share_waited": waited / seconds,
            "megabytes_on_disk": math.fsum(path.stat().st_size for path in directory.glob("*.arrow")) / 2**20}


def main() -> None:
    """Print a table with a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--root", type=Path)
    options = parser.parse_args()
    if options.root:
        print(json.dumps(train(options.root / "curated", options.root / "training")))
        return
    print("| pictures | held while opening | held while training | seconds to open | step | waiting for data | copy on disk |")
    print("|---|---|---|---|---|---|---|")
    for num_pictures in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_curated(Path(folder) / "curated", num_pictures)
            command = [sys.executable, "-m", "benchmarks.data_memory", "--root", folder]
            environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
        found = json.loads(answer.splitlines()[-1])
        print(f"| {num_pictures:,} | {found['megabytes_opening']:,.0f} MB | {found['megabytes_training']:,.0f} MB | "
              f"{found['seconds_to_open']:.1f} | {found['seconds_of_step'] * 1000:.0f} ms | {found['share_waited']:.1%} | "
              f"{found['megabytes_on_disk']:,.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
