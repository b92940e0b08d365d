"""Trained networks on held-back pictures: what is measured of upsampler and noised CLIP is what pictures and networks give."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from glideslope.errors import StageError
from glideslope.models.diffusion.process import GaussianDiffusion, NoiseSchedule
from glideslope.models.diffusion.samplers import SeededNoise
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.loading.loaded_networks import Networks
from glideslope.models.networks.noised_clip import NoisedClip
from glideslope.models.networks.presets import noised_clip_preset, unet_preset
from glideslope.models.networks.unet import TextConditionedUNet
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.pictures.likeness import measure_psnr
from glideslope.recipe.training import EvaluateConfig
from glideslope.release.claims.noised_clip import TIMESTEPS, measure_noised_clip
from glideslope.release.claims.upsampler import measure_upsampler
from glideslope.release.evaluation import TellsOfAll, evaluate_held_back
from glideslope.release.held_back_evaluation import enlarge_held_back, rank_held_back, read_pictures, to_tensor
from glideslope.store.strict_json import load_lines

CAPTIONS = ("a red square", "a green disc", "a blue bar", "a red square", "a white ring")


def png(seed: int, size: int = 40) -> bytes:
    """A picture of soft colours, which bicubic interpolation enlarges well but not exactly."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC).save(sink, format="png")
    return sink.getvalue()


def write_held_back(curated: Path, captions: Sequence[str]) -> Path:
    (curated / "data").mkdir(parents=True)
    for shard in range(2):  # keys alternate between two files
        numbers = range(shard, len(captions), 2)
        table = pa.table({"key": [f"key-{n}" for n in numbers], "caption": [captions[n] for n in numbers],
                          "image": pa.array([{"bytes": png(n)} for n in numbers], pa.struct([("bytes", pa.binary())]))})
        pq.write_table(table, curated / f"data/validation-{shard:05d}.parquet")
    return curated


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_held_back(tmp_path_factory.mktemp("curated"), CAPTIONS)


@pytest.fixture(scope="module")
def networks() -> Networks:
    tokenizer = CaptionTokenizer.train(CAPTIONS, 300)
    torch.manual_seed(0)
    base, upsampler = (TextConditionedUNet(unet_preset(name)).eval().requires_grad_(False)
                       for name in ("glide-micro-16", "glide-upsampler-micro-32"))
    clip = NoisedClip(noised_clip_preset("noised-clip-micro-16")).eval().requires_grad_(False)
    sample = NoiseSchedule("squaredcos_cap_v2", "sample"), NoiseSchedule("linear", "sample")
    return Networks(base, tokenizer, sample[0], upsampler, upsampler_schedule=sample[1], noised_clip=clip)


def test_an_untrained_upsampler_gives_the_bilinear_picture_and_wins_nothing(curated: Path, networks: Networks) -> None:
    told: list[tuple[int, int]] = []
    rows = enlarge_held_back(GlidePipeline(networks), curated, 3, lambda done, total, text: told.append((done, total)))
    assert sorted(row["key"] for row in rows) == [f"key-{n}" for n in range(5)] and told == [(5, 5)]
    for row in rows:
        real, = read_pictures(curated, [row["key"]], 32)
        small = Image.fromarray(real).reduce(2)  # what averaging to half the size gives
        bicubic = np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC))
        assert row["bicubic_psnr"] == pytest.approx(measure_psnr(real, bicubic), abs=0.2)
        bilinear = np.asarray(small.resize((32, 32), Image.Resampling.BILINEAR))
        assert row["psnr"] == pytest.approx(measure_psnr(real, bilinear), abs=0.2) and row["psnr"] < row["bicubic_psnr"]
    figures = measure_upsampler(rows)
    assert (figures["num_pictures"], figures["num_wins"], figures["share_lower_bound"]) == (5, 0, 0.0)
    assert rows == enlarge_held_back(GlidePipeline(networks), curated, 3)


def test_the_noised_clip_ranks_the_captions_of_all_pictures_at_each_noise(curated: Path, networks: Networks) -> None:
    rows = rank_held_back(networks, curated, 3)
    keys = [row["key"] for row in rows[:4]]
    captions = [CAPTIONS[int(key.removeprefix("key-"))] for key in keys]
    assert sorted(captions) == sorted(set(CAPTIONS))  # two pictures share one caption, and one of them is left out
    assert [(row["timestep"], row["key"]) for row in rows] == [(timestep, key) for timestep in TIMESTEPS for key in keys]
    clip, tokenizer = networks.noised_clip, networks.tokenizer
    assert clip is not None
    x_start, noise = to_tensor(read_pictures(curated, keys, 16)), SeededNoise(range(3, 7)).draw((3, 16, 16))
    tokens, lengths = tokenizer.encode_delimited(captions, clip.config.max_text_len)
    for timestep in TIMESTEPS:
        steps = torch.full((4,), timestep)
        logits = clip(GaussianDiffusion.create("squaredcos_cap_v2").add_noise(x_start, steps, noise), steps, tokens, lengths)
        order = logits.argsort(dim=1, descending=True).tolist()
        assert [row["rank"] for row in rows if row["timestep"] == timestep] == [order[place].index(place) + 1 for place in range(4)]
    assert [row["num_pairs"] for row in measure_noised_clip(rows)] == [4] * 8


def test_the_stage_writes_a_row_for_each_and_reports_the_figures_that_the_rows_give(curated: Path, networks: Networks, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    progress = TellsOfAll(lambda done, total, text: told.append((done, total)), EvaluateConfig(num_pairs=7), 7, 5)
    report = evaluate_held_back(GlidePipeline(networks), curated, tmp_path, 3, progress)
    rows = {name: load_lines((tmp_path / f"{name}.jsonl").read_bytes()) for name in ("upsampler", "noised_clip")}
    assert report == {"upsampler": measure_upsampler(rows["upsampler"]), "noised_clip": measure_noised_clip(rows["noised_clip"])}
    assert (len(rows["upsampler"]), len(rows["noised_clip"])) == (5, 32) and told[-1] == (5, 12)
    (tmp_path / "alone").mkdir()
    alone = evaluate_held_back(GlidePipeline(replace(networks, upsampler=None)), curated, tmp_path / "alone", 3, progress)
    assert alone == report | {"upsampler": None} and [path.name for path in (tmp_path / "alone").iterdir()] == ["noised_clip.jsonl"]


def test_with_one_caption_nothing_is_ranked_and_with_no_picture_nothing_can_be_enlarged(networks: Networks, tmp_path: Path) -> None:
    assert rank_held_back(networks, write_held_back(tmp_path / "one", ["a red square"] * 3), 0) == []
    assert measure_noised_clip([]) == []
    (tmp_path / "none").mkdir()
    with pytest.raises(StageError, match=r"no image is held back.*set curate.validation_share higher"):
        enlarge_held_back(GlidePipeline(networks), tmp_path / "none", 0)


def test_a_picture_that_cannot_be_read_any_more_is_named(tmp_path: Path) -> None:
    curated = write_held_back(tmp_path, ["a red square", "a green disc"])
    table = pa.table({"key": ["key-0"], "caption": ["a red square"], "image": [{"bytes": b"no picture"}]})
    pq.write_table(table, curated / "data/validation-00000.parquet")
    with pytest.raises(StageError, match=r"validation-00000.parquet: 'key-0': .*restore the curated set"):
        read_pictures(curated, ["key-1", "key-0"], 16)
