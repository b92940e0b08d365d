"""Small models with lively weights, a small curated set, and a small release."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from glideslope.data_filter.index.parquet import write_table
from glideslope.models.loading.components import WEIGHTS_NAME
from glideslope.models.networks.components import component_config
from glideslope.models.networks.noised_clip import NoisedClip
from glideslope.models.networks.presets import NOISED_CLIP_PRESETS, UNET_PRESETS
from glideslope.models.networks.unet import TextConditionedUNet
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.models.training.checkpoints import save_tensors
from glideslope.recipe.components import CONFIG_NAME, scheduler_config
from glideslope.store.digests import sha256_bytes
from glideslope.store.whole_files import write_bytes, write_json
from glideslope.trust.hashed_files import build_manifest
from glideslope.trust.keys import generate_key

from ..hub.loopback import OWNER, LoopbackHub
from .closed_form import with_closed_form_weights
from .hub_client import READER, REPO, Load, Strangers

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230), "yellow": (240, 220, 40)}
SHAPES = ("square", "bar", "corner")
MODEL_INDEX = {"_class_name": "GlidePipeline", "_format": "glideslope", "_format_version": 1,
               "base": ["glideslope", "TextConditionedUNet"], "noised_clip": ["glideslope", "NoisedClip"],
               "tokenizer": ["glideslope", "CaptionTokenizer"], "scheduler": ["glideslope", "GaussianDiffusion"]}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def picture(colour: str, shape: str, size: int = 24) -> bytes:
    """A square PNG of a coloured shape on white."""
    pixels = np.full((24, 24, 3), 255, dtype=np.uint8)
    rows, columns = {"square": (slice(6, 18), slice(6, 18)), "bar": (slice(9, 15), slice(0, 24)), "corner": (slice(0, 12), slice(0, 12))}[shape]
    pixels[rows, columns] = COLOURS[colour]
    file = io.BytesIO()
    Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST).save(file, format="png")
    return file.getvalue()


def write_curated(directory: Path, split: str, rows: list[dict[str, object]]) -> None:
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("caption", pa.string()),
                        ("key", pa.string()), ("sha256", pa.string()), ("concept", pa.string()), ("weight", pa.float32())])
    (directory / "data").mkdir(parents=True, exist_ok=True)
    write_table(directory / "data" / f"{split}-00000.parquet", pa.Table.from_pylist(rows, schema=schema))


def curated_rows(size: int = 24) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for colour in COLOURS:
        for shape in SHAPES:
            data = picture(colour, shape, size)
            rows.append({"image": {"bytes": data, "path": f"{colour}-{shape}.png"}, "caption": f"a {colour} {shape}",
                         "key": f"{colour}-{shape}", "sha256": sha256_bytes(data), "concept": shape, "weight": 1.0})
    return rows


@pytest.fixture(scope="session")
def large_curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shapes of 48 pixels, large enough for an upsampler."""
    directory, rows = tmp_path_factory.mktemp("large"), curated_rows(48)
    write_curated(directory, "train", rows[:-1])
    write_curated(directory, "validation", rows[-1:])
    return directory


@pytest.fixture(scope="session")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curated set of twelve captioned shapes, eleven of them to train on."""
    directory = tmp_path_factory.mktemp("curated")
    rows = curated_rows()
    write_curated(directory, "train", rows[:-1])
    write_curated(directory, "validation", rows[-1:])
    return directory


@pytest.fixture(scope="session")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.train([str(row["caption"]) for row in curated_rows()], 300)


@pytest.fixture(scope="session")
def unet(tokenizer: CaptionTokenizer) -> TextConditionedUNet:
    config = UNET_PRESETS["glide-micro-16"].model_copy(update={"n_vocab": tokenizer.vocab_size})
    return with_closed_form_weights(TextConditionedUNet(config)).requires_grad_(False)


@pytest.fixture(scope="session")
def clip(tokenizer: CaptionTokenizer) -> NoisedClip:
    config = NOISED_CLIP_PRESETS["noised-clip-micro-16"].model_copy(update={"n_vocab": tokenizer.vocab_size})
    return with_closed_form_weights(NoisedClip(config)).requires_grad_(False)


@pytest.fixture(scope="session")
def whole_release(tmp_path_factory: pytest.TempPathFactory, unet: TextConditionedUNet, clip: NoisedClip, tokenizer: CaptionTokenizer) -> Path:
    directory = tmp_path_factory.mktemp("release")
    for name, model in (("base", unet), ("noised_clip", clip)):
        save_tensors(directory / name / WEIGHTS_NAME, model.state_dict())
        write_json(directory / name / CONFIG_NAME, component_config(model))
    (directory / "tokenizer").mkdir()
    tokenizer.save(directory / "tokenizer" / "tokenizer.json")
    write_json(directory / "scheduler" / "scheduler_config.json", scheduler_config("scheduler"))
    write_json(directory / "model_index.json", MODEL_INDEX)
    write_bytes(directory / "manifest.json", build_manifest(directory).to_bytes())
    return directory


@pytest.fixture(scope="session")
def companions(unet: TextConditionedUNet) -> dict[str, TextConditionedUNet]:
    """By name: upsampler from 16 to 32 pixels, and both inpainting variants."""
    networks = {}
    for name, changes in {"upsampler": {"image_size": 32, "super_res": True}, "base_inpaint": {"inpaint": True},
                          "upsampler_inpaint": {"image_size": 32, "super_res": True, "inpaint": True}}.items():
        networks[name] = with_closed_form_weights(TextConditionedUNet(unet.config.model_copy(update=changes))).requires_grad_(False)
    return networks


@pytest.fixture(scope="session")
def full_release(tmp_path_factory: pytest.TempPathFactory, whole_release: Path, companions: dict[str, TextConditionedUNet]) -> Path:
    """A release with every component."""
    directory = Path(shutil.copytree(whole_release, tmp_path_factory.mktemp("full") / "release"))
    for name, model in companions.items():
        save_tensors(directory / name / WEIGHTS_NAME, model.state_dict())
        write_json(directory / name / CONFIG_NAME, component_config(model))
    write_json(directory / "upsampler_scheduler" / "scheduler_config.json", scheduler_config("upsampler_scheduler"))
    parts = {name: ["glideslope", "TextConditionedUNet"] for name in companions}
    write_json(directory / "model_index.json", MODEL_INDEX | parts | {"upsampler_scheduler": ["glideslope", "GaussianDiffusion"]})
    sign_again(directory)
    return directory


@pytest.fixture
def release(whole_release: Path, tmp_path: Path) -> Path:
    """A copy of a small release, to be damaged."""
    return Path(shutil.copytree(whole_release, tmp_path / "release"))


def sign_again(release: Path) -> None:
    """Write a manifest that matches what lies there now."""
    write_bytes(release / "manifest.json", build_manifest(release).to_bytes())


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory, whole_release: Path) -> Iterator[Strangers]:
    running = Strangers(tmp_path_factory.mktemp("home"), whole_release)
    yield running
    running.close()


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub(accounts=(OWNER, READER)) as running:
        yield running


@pytest.fixture
def load(hub: LoopbackHub, strangers: Strangers, tmp_path: Path) -> Load:
    """Load REPO from the hub in a new process; the cache is the test's own."""
    def ask(env: dict[str, str] | None = None, endpoint: str | None = None, **call: Any) -> dict[str, Any]:
        asked = {"pretrained": REPO, "cache_dir": tmp_path / "cache", **call}
        return strangers.ask(endpoint or hub.endpoint, asked, **(env or {}))
    return ask


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Name -> private key and key id."""
    directory = tmp_path_factory.mktemp("keys")
    return {name: (directory / name, generate_key(directory / name)) for name in ("ours", "theirs")}
