"""A small world for the tests: a folder of plain pictures, an eight-number CLIP, and the stages run on them."""

import csv
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from glideslope.clip.crops import three_crops
from glideslope.clip.model import Crops
from glideslope.data_filter.classifiers.fit_stage import fit_classifier
from glideslope.data_filter.classifiers.score_stage import score_index
from glideslope.data_filter.deciding.curate_stage import curate
from glideslope.data_filter.deciding.threshold_stage import build_filter
from glideslope.data_filter.index import embed as index
from glideslope.data_filter.index.stage import build_index
from glideslope.data_filter.labels.csv_files import read_label_csv
from glideslope.data_filter.labels.stage import import_labels
from glideslope.data_filter.sources.folder import FolderSource, ImageFolder
from glideslope.recipe.filters import Category, ClipConfig, CurateConfig, IndexConfig, LabelsConfig
from glideslope.store.records import Record
from glideslope.store.run_layout import RunLayout

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
CPU = torch.device("cpu")


@dataclass
class TinyClip:
    """Embeds a picture as the mean colour of its halves; may be told to fail after some pictures."""

    batch_size: int = 4
    num_images_left: int = 10**9
    num_images: int = 0
    image_size: int = 16
    device: torch.device = CPU
    largest_side: int = 0

    def crop(self, pixels: NDArray[np.uint8]) -> Crops:
        self.largest_side = max(self.largest_side, *pixels.shape[:2])
        return three_crops(pixels, self.image_size)

    def embed_crops(self, images: Sequence[Crops]) -> NDArray[np.float32]:
        self.num_images_left -= len(images)
        self.num_images += len(images)
        if self.num_images_left < 0:
            raise KeyboardInterrupt
        pictures = [np.average(crops, axis=0, weights=weights) for crops, weights in images]
        rows = [[*p[: len(p) // 2].mean((0, 1)), *p[len(p) // 2:].mean((0, 1)), 40.0, 60.0] for p in pictures]
        x = np.array(rows, dtype=np.float32).reshape(-1, 8)
        return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture
def tiny_clip(monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyClip]:
    clip = TinyClip()
    index.load_clip_once.cache_clear()
    monkeypatch.setattr(index, "load_clip", lambda config, device: clip)
    yield clip
    index.load_clip_once.cache_clear()


def draw(path: Path, colour: tuple[int, int, int], *, size: tuple[int, int] = (16, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def fill_folder(root: Path, num_images: int) -> None:
    """Pictures with metadata.csv; every third is red and counts as the category."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(num_images):
        red = number % 3 == 0
        noise = generator.integers(0, 60, 3)
        colour = (200 + noise[0] // 2, noise[1], noise[2]) if red else (noise[0], 140 + noise[1], 140 + noise[2])
        draw(root / f"{number:03d}.png", tuple(int(c) for c in colour))  # type: ignore[arg-type]  # three numbers
        rows.append({"file_name": f"{number:03d}.png", "text": f"{'red' if red else 'green'} thing {number}"})
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", "text"])
        writer.writeheader()
        writer.writerows(rows)


def write_labels(path: Path, num_images: int, *, category: str = "red") -> Path:
    lines = [f"{number:03d}.png,{category},{int(number % 3 == 0)}" for number in range(num_images)]
    path.write_text("key,category,label\n" + "\n".join(lines) + "\n")
    return path


def category(name: str = "red", **changes: object) -> Category:
    values = {"name": name, "counts": "a picture that is mostly red", "target_recall": 0.9, "classifiers": ("rbf_svm", "logistic"),
              **changes}
    return Category.model_validate(values)


@dataclass
class World:
    """Paths and settings of a small run, and its stages as methods."""

    root: Path
    num_images: int = 60

    @property
    def layout(self) -> RunLayout:
        return RunLayout(self.root)

    @property
    def source(self) -> ImageFolder:
        return ImageFolder(self.root / "images", shard_size=16)

    def index(self) -> Record:
        return build_index(FolderSource(path=str(self.root / "images")), ClipConfig(), IndexConfig(shard_size=16), self.root / "index")

    def label(self) -> Record:
        verdicts = read_label_csv(write_labels(self.root / "labels.csv", self.num_images))
        return import_labels(verdicts, self.root / "labels", self.root / "index", LabelsConfig())

    def fit(self, wanted: Category | None = None) -> Record:
        wanted = wanted or category()
        fit_classifier(wanted, self.layout)
        score_index(wanted, self.layout)
        return build_filter(wanted, self.layout, self.source)

    def curate(self, *wanted: Category) -> Record:
        config = CurateConfig(shard_size=10, validation_share=0.2)
        return curate(self.source, wanted or [category()], self.layout, config)


@pytest.fixture
def world(tmp_path: Path, tiny_clip: TinyClip) -> World:
    fill_folder(tmp_path / "images", 60)
    return World(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its filter; tests work on copies."""
    root = tmp_path_factory.mktemp("finished")
    fill_folder(root / "images", 60)
    with pytest.MonkeyPatch.context() as patch:
        index.load_clip_once.cache_clear()
        patch.setattr(index, "load_clip", lambda config, device: TinyClip())
        run = World(root)
        run.index()
        run.label()
        run.fit()
    index.load_clip_once.cache_clear()
    return root


@pytest.fixture
def fitted(finished: Path, tmp_path: Path, tiny_clip: TinyClip) -> World:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return World(tmp_path)

