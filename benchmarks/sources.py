"""How fast each source is opened, listed and read, beside a plain folder: `python -m benchmarks.sources`.

The same random bytes are written in every form, once. Listing takes the digest of all content; reading gives every image
and caption and compares them with that digest again. `bare` opens and reads the image files and does nothing else. Times are
processor seconds with everything in the page cache, so that neither a busy machine nor its disk is measured; the forms take
turns, and the best of a few rounds counts. `again` lists once more in the same process, which knows the digests of files that
nobody has written to since.
"""

import argparse
import csv
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from glideslope.data_filter.sources.folder import FolderSource
from glideslope.data_filter.sources.huggingface import DatasetsSource
from glideslope.data_filter.sources.kind import open_source
from glideslope.data_filter.sources.parquet import ParquetSource
from glideslope.data_filter.sources.webdataset import WebDatasetSource
from glideslope.recipe.sources import SourceSettings

SHARD_SIZE = 1000
Pairs = list[tuple[str, bytes, str]]


def write_folder(root: Path, pairs: Pairs) -> SourceSettings:
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text"])
        for name, image, caption in pairs:
            (root / f"{name}.jpg").write_bytes(image)
            writer.writerow([f"{name}.jpg", caption])
    return FolderSource(path=str(root))


def write_text_folder(root: Path, pairs: Pairs) -> SourceSettings:
    for name, image, caption in pairs:
        (root / f"{name}.jpg").write_bytes(image)
        (root / f"{name}.txt").write_text(caption)
    return FolderSource(path=str(root))


def write_webdataset(root: Path, pairs: Pairs) -> SourceSettings:
    for start in range(0, len(pairs), SHARD_SIZE):
        with tarfile.open(root / f"{start:08d}.tar", "w") as archive:
            for name, image, caption in pairs[start:start + SHARD_SIZE]:
                for suffix, data in (("jpg", image), ("txt", caption.encode()), ("json", b'{"width": 256, "height": 256, "url": "https://a"}')):
                    info = tarfile.TarInfo(f"{name}.{suffix}")
                    info.size, info.mtime = len(data), time.time()  # times with fractions, as the common writers have them
                    archive.addfile(info, io.BytesIO(data))
    return WebDatasetSource(path=str(root))


def table_of(pairs: Pairs) -> pa.Table:
    kind = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    images = pa.array([{"bytes": image, "path": None} for _, image, _ in pairs], type=kind)
    return pa.table({"key": [name for name, _, _ in pairs], "image": images, "text": [caption for _, _, caption in pairs]})


def write_parquet(root: Path, pairs: Pairs) -> SourceSettings:
    for start in range(0, len(pairs), 10 * SHARD_SIZE):
        pq.write_table(table_of(pairs[start:start + 10 * SHARD_SIZE]), root / f"{start:08d}.parquet", row_group_size=SHARD_SIZE)
    return ParquetSource(path=str(root), key_column="key")


def write_parquet_paths(root: Path, pairs: Pairs) -> SourceSettings:
    for name, image, _ in pairs:
        (root / f"{name}.jpg").write_bytes(image)
    table = pa.table({"image": [f"{name}.jpg" for name, _, _ in pairs], "text": [caption for _, _, caption in pairs]})
    pq.write_table(table, root / "all.parquet", row_group_size=SHARD_SIZE)
    return ParquetSource(path=str(root))


def write_saved(root: Path, pairs: Pairs) -> SourceSettings:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset(table_of(pairs)).save_to_disk(str(root))
    return DatasetsSource(path=str(root), key_column="key")


def write_stream(root: Path, pairs: Pairs) -> SourceSettings:
    write_parquet(root, pairs)
    return DatasetsSource(path="parquet", data_files=(str(root / "*.parquet"),), streaming=True, key_column="key")


WRITERS: dict[str, Callable[[Path, Pairs], SourceSettings]] = {
    "folder, metadata.csv": write_folder, "folder, .txt": write_text_folder, "webdataset": write_webdataset, "parquet, bytes": write_parquet,
    "parquet, paths": write_parquet_paths, "datasets, saved": write_saved, "datasets, streaming": write_stream}


def measure(config: SourceSettings, num_images: int) -> tuple[float, float, float]:
    """Processor seconds to open, to list with digests, and to read everything as a worker does."""
    started = time.process_time()
    source = open_source(config, shard_size=SHARD_SIZE)
    opened = time.process_time()
    shards = source.shards()
    listed = time.process_time()
    worker = open_source(config, shard_size=SHARD_SIZE)
    num_read = sum(item.image is not None and not item.reason for shard in shards for item in worker.read(shard))
    assert num_read == num_images, f"{num_read} of {num_images} read"
    return opened - started, listed - opened, time.process_time() - listed


def bare(root: Path) -> float:
    """Processor seconds to read the image files of a folder."""
    started = time.process_time()
    for path in root.glob("*.jpg"):
        path.read_bytes()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-images", type=int, default=20_000)
    parser.add_argument("--size-bytes", type=int, default=8_000, help="bytes per image")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pairs = [(f"{number:08d}", os.urandom(options.size_bytes), f"caption of picture {number}") for number in range(options.num_images)]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        configs = {}
        for number, (name, write) in enumerate(WRITERS.items()):
            (root / str(number)).mkdir()
            configs[name] = write(root / str(number), pairs)
        del pairs
        times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in configs}
        plain = []
        for _ in range(options.rounds):
            for name, config in configs.items():
                times[name].append(measure(config, options.num_images))
            plain.append(bare(root / "0"))
    print(f"{options.num_images} images of {options.size_bytes} bytes; best of {options.rounds} rounds")
    print(f"{'source':22}{'open':>9}{'list':>9}{'again':>9}{'read':>9}{'images/s':>11}{'to folder':>11}")
    best = {name: [min(column) for column in zip(*rounds, strict=True)] for name, rounds in times.items()}
    base = best["folder, metadata.csv"][2]
    for name, (opening, again, reading) in best.items():
        listing = times[name][0][1]
        print(f"{name:22}{opening:9.3f}{listing:9.2f}{again:9.2f}{reading:9.2f}{options.num_images / reading:11.0f}{base / reading:11.2f}")
    print(f"{'bare image files':49}{min(plain):9.2f}{options.num_images / min(plain):11.0f}{base / min(plain):11.2f}")


if __name__ == "__main__":
    main()
