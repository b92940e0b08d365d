"""What everything after the index costs as a collection grows, on synthetic embeddings: `python -m benchmarks.scale`.

Each step of each size runs in a process of its own: processor time by the operating system's count, peak memory beyond what
the imports take, and bytes on disk per row. The rows look like a CLIP's embeddings of a collection in which one image in
fifty counts; one key in a thousand is repeated. The pictures themselves are a few bytes each: reading and copying those
depends on them alone. The last column is the exponent of growth between the two largest sizes: 1 is linear, 0 is flat.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from glideslope.data_filter.classifiers.fit_stage import fit_classifier
from glideslope.data_filter.classifiers.score_stage import score_index
from glideslope.data_filter.deciding.curate_stage import curate
from glideslope.data_filter.deciding.threshold_stage import build_filter
from glideslope.data_filter.index.embed import INDEX_SCHEMA
from glideslope.data_filter.index.parquet import write_table
from glideslope.data_filter.index.read import read_index
from glideslope.data_filter.index.repeated_keys import write_duplicates
from glideslope.data_filter.labels.csv_files import Verdict
from glideslope.data_filter.labels.stage import import_labels
from glideslope.data_filter.reports.report import gather_report
from glideslope.data_filter.sources.kinds import read_source
from glideslope.data_filter.sources.source import Shard, SourceItem, SourceLabel, digest_shards, shard_name
from glideslope.recipe.load import parse_recipe
from glideslope.recipe.policy import load_policy
from glideslope.recipe.recipe import Recipe
from glideslope.store.digests import sha256_bytes
from glideslope.store.records import run_stage
from glideslope.store.run_layout import INDEX, RunLayout

SHARD_ROWS, WIDTH, NUM_LABELS = 10_000, 512, 6000
WORDS = ("a", "the", "red", "blue", "small", "old", "man", "woman", "dog", "house", "tree", "on", "in", "with", "street", "boat", "cup", "sky")
SIZES = (1_000, 10_000, 100_000, 1_000_000)


class Synthetic:
    """A source of rows that follow from their numbers alone."""

    def __init__(self, num_rows: int) -> None:
        """Nothing is made before it is read."""
        self.num_rows = num_rows

    def fingerprint(self) -> str:
        """Digest of the shards."""
        return digest_shards(self.shards())

    def shards(self) -> Sequence[Shard]:
        """Runs of rows."""
        starts = range(0, self.num_rows, SHARD_ROWS)
        return [Shard(shard_name(number), f"synthetic {start}", start, min(self.num_rows, start + SHARD_ROWS), None)
                for number, start in enumerate(starts)]

    def read(self, shard: Shard, *, keys: Collection[str] | None = None) -> Iterator[SourceItem]:
        """The rows of a shard; a picture is its key."""
        for row in range(shard.start, shard.stop):
            key = key_of(row)
            if keys is None or key in keys:
                yield SourceItem(key, key, key.encode(), caption_of(row))

    def look_ahead(self, *, needs_captions: bool) -> None:
        """Nothing to find."""

    def notes(self) -> list[str]:
        """None."""
        return []

    def labels(self, categories: Collection[str]) -> list[SourceLabel]:
        """None."""
        return []


def key_of(row: int) -> str:
    """One key in a thousand is that of an earlier row."""
    return f"{row - 500 if row % 1000 == 999 else row:012d}"


def caption_of(row: int) -> str:
    """Some words."""
    return " ".join(WORDS[(row * step + step) % len(WORDS)] for step in range(1, 9))


def is_positive(row: int) -> bool:
    """Whether a row counts."""
    return row % 50 == 7


def make_recipe(num_rows: int) -> Recipe:
    """A recipe with one category; only the parts before training matter."""
    category = {"name": "subject", "counts": "rows around another centre", "classifiers": ["rbf_svm"], "kernel_gamma": 2.0,
                "max_train_labels": NUM_LABELS, "caption_words": ["gun"]}
    model = {"num_images": 1, "learning_rate": 1e-3}
    return parse_recipe({"name": f"rows-{num_rows}", "source": {"kind": "webdataset", "path": "synthetic"}, "categories": [category],
                         "clip": {"model": "synthetic", "pretrained": "none"}, "base": model, "noised_clip": model}, read_source,
                        where="benchmark")


def make_shard(shard: Shard) -> pa.Table:
    """The index rows of one shard."""
    generator = np.random.default_rng(shard.start)
    rows = range(shard.start, shard.stop)
    x = generator.normal(size=(len(rows), WIDTH)).astype(np.float32) + 1
    x[[is_positive(row) for row in rows]] += np.random.default_rng(0).normal(size=WIDTH).astype(np.float32) / 4
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    keys = [key_of(row) for row in rows]
    columns = {"key": keys, "concept": keys, "sha256": [sha256_bytes(key.encode()) for key in keys], "size_bytes": [len(key) for key in keys],
               "width": [1] * len(rows), "height": [1] * len(rows), "caption": [caption_of(row) for row in rows],
               "captions": [None] * len(rows), "status": ["ok"] * len(rows),
               "reason": [""] * len(rows), "error": [None] * len(rows), "embedding": list(x.astype(np.float16))}
    return pa.table([pa.array(columns[field.name], type=field.type) for field in INDEX_SCHEMA], schema=INDEX_SCHEMA)


def make_index(run: Path, source: Synthetic) -> None:
    """The index and its record."""
    def work(partial: Path) -> dict[str, Any]:
        names = [shard.name for shard in source.shards()]
        for shard in source.shards():
            write_table(partial / f"{shard.name}.parquet", make_shard(shard))
        write_duplicates(names, partial)
        return {"num_inputs": source.num_rows, "num_ok": source.num_rows, "num_bad": {}}

    run_stage(RunLayout(run).index, stage=INDEX, config={}, inputs={"source": source.fingerprint()}, work=work)


def steps(run: Path, num_rows: int) -> dict[str, Callable[[], object]]:
    """Name -> work; `make` is not measured."""
    source, recipe = Synthetic(num_rows), make_recipe(num_rows)
    category, = recipe.categories
    layout, name = RunLayout(run), category.name

    def label() -> None:
        rows = np.unique(np.linspace(0, num_rows - 1, NUM_LABELS).astype(int) // 50 * 50)
        judged = [row for start in rows.tolist() for row in (start + 7, start + 11, start + 13) if row < num_rows][:NUM_LABELS]
        verdicts = [Verdict(key_of(row), name, int(is_positive(row)), "benchmark", "drawn", str(row)) for row in judged]
        import_labels(verdicts, layout.labels, layout.index, recipe.labels, categories=[name])

    return {
        "make": lambda: make_index(run, source),
        "read the index": lambda: [len(table) for _, table in read_index(layout.index)],
        "find repeated keys": lambda: write_duplicates([shard.name for shard in source.shards()], layout.index),
        "import labels": label,
        "fit the classifier": lambda: fit_classifier(category, layout),
        "score": lambda: score_index(category, layout),
        "threshold and evidence": lambda: build_filter(category, layout, source),
        "decide, write ledger": lambda: curate(source, recipe.categories, layout, recipe.curate),
        "report's figures": lambda: gather_report(recipe, layout, load_policy(None)),
    }


def run_step(run: Path, num_rows: int, step: str) -> None:
    """Do one step and print its cost as JSON."""
    work = steps(run, num_rows)[step]
    before = resource.getrusage(resource.RUSAGE_SELF)
    clock = time.perf_counter()
    work()
    seconds, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_SELF)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"seconds": seconds, "processor": processor, "bytes": (after.ru_maxrss - before.ru_maxrss) * 1024}))


def measure(run: Path, num_rows: int, step: str) -> dict[str, float]:
    """One step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--run", str(run), "--rows", str(num_rows), "--step", step]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]))


def bytes_per_row(folder: Path, num_rows: int) -> float:
    """Size on disk."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / num_rows


def main() -> None:
    """Print one table of processor seconds and memory by size, and bytes per row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--run", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--step")
    options = parser.parse_args()
    if options.step:
        run_step(options.run, options.rows, options.step)
        return
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for num_rows in options.sizes:
            run = Path(folder) / str(num_rows)
            for step in steps(run, num_rows):
                found = measure(run, num_rows, step)
                if step != "make":
                    results.setdefault(step, []).append(found)
                print(f"{num_rows:>9,} {step}: {found}", file=sys.stderr, flush=True)
        print("bytes per row: " + ", ".join(f"{name} {bytes_per_row(run / name, num_rows):,.0f}"
                                            for name in ("index", "scores", "curated/ledger", "curated/data")))
    print("| step | " + " | ".join(f"{size:,} rows" for size in options.sizes) + " | growth |")
    print("| --- |" + " ---: |" * (len(options.sizes) + 1))
    for step, row in results.items():
        cells = [f"{found['processor']:.2f} s, {found['bytes'] / 2**20:,.0f} MB" for found in row]
        growth = math.log(max(row[-1]["processor"], 1e-3) / max(row[-2]["processor"], 1e-3)) / math.log(options.sizes[-1] / options.sizes[-2])
        print(f"| {step} | " + " | ".join(cells) + f" | {growth:.2f} |")


if __name__ == "__main__":
    main()
