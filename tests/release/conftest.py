"""A small but complete run directory, written stage by stage as the real stages write theirs, and a release of it."""

import io
import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from PIL import Image

from glideslope.data_filter.deciding.decision import ledger_schema
from glideslope.data_filter.deciding.filter_figures import SCORES_SCHEMA, measure_filter
from glideslope.data_filter.deciding.statistics import choose_threshold
from glideslope.data_filter.index.parquet import write_table
from glideslope.data_filter.judges.filter import reason_of
from glideslope.data_filter.labels.concepts import role_of
from glideslope.data_filter.sources.kinds import read_source
from glideslope.errors import VerificationError
from glideslope.pictures.sheets import contact_sheet
from glideslope.recipe.components import NETWORKS, UpsamplerTraining, scheduler_config
from glideslope.recipe.filters import Category, LabelsConfig
from glideslope.recipe.load import dump_recipe, parse_recipe
from glideslope.recipe.policy import load_policy
from glideslope.recipe.recipe import Recipe
from glideslope.recipe.stage_settings import CLASSIFIER_FIELDS, SCORES_FIELDS, expected_settings
from glideslope.release import pack
from glideslope.release.claims.evaluation import deal_pairs
from glideslope.release.claims.held_back import choose_for_noised_clip, choose_for_upsampler
from glideslope.release.claims.noised_clip import TIMESTEPS, measure_noised_clip
from glideslope.release.claims.upsampler import measure_upsampler
from glideslope.release.evaluation import EVALUATION_FORMAT, summarise, write_rows
from glideslope.store.digests import canonical_json, sha256_bytes, sha256_file, sha256_json
from glideslope.store.records import Record, run_stage
from glideslope.store.stage_manifest import Manifest
from glideslope.store.whole_files import write_bytes, write_json
from glideslope.trust.hashed_files import build_manifest
from glideslope.trust.release_manifest import UNLISTED, ReleaseManifest

from .components import write_components

NUM_INPUTS = 400
CATEGORIES = ("person", "violence")
NUM_STEPS = 60
NUM_PAIRS = 24


@pytest.fixture
def quiet_lfs_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Hub's client goes over LFS, says nothing, waits for nothing, and asks no proxy."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture(scope="session")
def policy() -> dict[str, Any]:
    """The policy of the recipe, as plain data to be changed."""
    def demands(recall: float, bound: float) -> dict[str, Any]:
        return {"recall": {"at_least": recall, "bound": bound}, "kept_share": {"at_least": 0.5}}

    return load_policy(None).model_dump(mode="json") | {"categories": {"person": demands(0.9, 0.85), "violence": demands(0.5, 0.1)}}


@pytest.fixture
def policy_with(policy: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Writes the policy, with changes, to a file."""
    def write(name: str = "policy.yaml", **changes: Any) -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(policy | changes))
        return path

    return write


@pytest.fixture(scope="session")
def recipe(policy: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    policy_file = tmp_path_factory.mktemp("policy") / "policy.yaml"
    policy_file.write_text(yaml.safe_dump(policy))

    def category(name: str, counts: str) -> dict[str, Any]:
        return {"name": name, "counts": counts, "does_not_count": "animals and smileys"}

    return parse_recipe({
        "name": "small", "policy": str(policy_file), "source": {"kind": "openmoji", "limit": NUM_INPUTS},
        "categories": [category("person", "a human being, or a recognisable part of one"),
                       category("violence", "a weapon, a wound or an attack")],
        "base": {"num_images": NUM_STEPS * 32, "learning_rate": 3e-4, "preset": "test"},
        "noised_clip": {"num_images": NUM_STEPS * 32, "learning_rate": 1e-3, "preset": "test"},
        "evaluate": {"num_pairs": NUM_PAIRS, "num_steps": 10},
        "release": {"title": "Small test model", "data_attribution": "OpenMoji, CC BY-SA 4.0"}}, read_source, where="test recipe")


@pytest.fixture(scope="session")
def cascade_recipe(recipe: Recipe) -> Recipe:
    """The recipe with an upsampler to train."""
    settings = {"num_images": NUM_STEPS * 32, "learning_rate": 3e-4, "preset": "test", "low_res_size": 16}
    return recipe.model_copy(update={"name": "cascade", "upsampler": UpsamplerTraining.model_validate(settings)})


@pytest.fixture(scope="session")
def cascade_run(tmp_path_factory: pytest.TempPathFactory, cascade_recipe: Recipe) -> Path:
    """A run that trained an upsampler too, with its release packed; tests must not change it."""
    run_dir = tmp_path_factory.mktemp("cascade")
    write_run(run_dir, cascade_recipe)
    pack(run_dir, cascade_recipe, run_dir / "release")
    return run_dir


@pytest.fixture
def cascade_tamper(cascade_run: Path, tmp_path: Path) -> "Tamperer":
    return Tamperer(Path(shutil.copytree(cascade_run / "release", tmp_path / "cascade")))


@pytest.fixture(scope="session")
def packed_run(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Path:
    """A run directory with its release packed; tests must not change it."""
    run_dir = tmp_path_factory.mktemp("run")
    write_run(run_dir, recipe)
    pack(run_dir, recipe, run_dir / "release")
    return run_dir


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory, packed_run: Path) -> Path:
    """A copy of the run, with a directory of components beside it."""
    root = tmp_path_factory.mktemp("full")
    write_components(root / "components")
    return Path(shutil.copytree(packed_run, root / "run", ignore=shutil.ignore_patterns("release*")))


@pytest.fixture(scope="session")
def full_recipe(recipe: Recipe, full_run: Path) -> Recipe:
    changes = {"variants": ("fp16", "bf16"), "max_shard_mb": 1, "companions": str(full_run.parent / "components")}
    return recipe.model_copy(update={"release": recipe.release.model_copy(update=changes)})


@pytest.fixture(scope="session")
def full_release(full_run: Path, full_recipe: Recipe) -> Path:
    """A release with every network, shards and variants; tests must not change it."""
    pack(full_run, full_recipe, full_run / "release")
    return full_run / "release"


@pytest.fixture
def full_tamper(full_release: Path, tmp_path: Path) -> "Tamperer":
    return Tamperer(Path(shutil.copytree(full_release, tmp_path / "release")))


@pytest.fixture
def release_dir(packed_run: Path, tmp_path: Path) -> Path:
    """A copy of the release, to be damaged."""
    return Path(shutil.copytree(packed_run / "release", tmp_path / "release"))


@pytest.fixture
def run_dir(packed_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, without its release."""
    return Path(shutil.copytree(packed_run, tmp_path / "run", ignore=shutil.ignore_patterns("release*")))


class Tamperer:
    """Edits a release as somebody might who wants it to say something else."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def json(self, path: str, change: Callable[[Any], None]) -> None:
        value = json.loads((self.directory / path).read_text())
        change(value)
        write_json(self.directory / path, value)

    def text(self, path: str, old: str, new: str) -> None:
        text = (self.directory / path).read_text()
        assert old in text, f"{path} does not hold {old!r}"
        (self.directory / path).write_text(text.replace(old, new, 1))

    def table(self, path: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
        table = pq.read_table(self.directory / path)
        rows = table.to_pylist()
        change(rows)
        write_table(self.directory / path, pa.Table.from_pylist(rows, schema=table.schema))

    def record(self, stage: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Edit a record and give it the digest of its new content."""
        path = f"evidence/records/{stage.replace('/', '__')}.json"

        def change_and_seal(value: dict[str, Any]) -> None:
            change(value)
            value["digest"] = sha256_json({key: value[key] for key in ("stage", "config", "inputs", "outputs", "summary")})

        self.json(path, change_and_seal)

    def seal(self) -> None:
        """Write a manifest that fits what is there now."""
        try:
            manifest = build_manifest(self.directory)
        except VerificationError:  # weights that nobody can read have no tensors to list
            files = Manifest.of_directory(self.directory, exclude=UNLISTED).files
            manifest = ReleaseManifest(files, ())
        write_bytes(self.directory / "manifest.json", manifest.to_bytes())


@pytest.fixture(scope="session")
def tamperer() -> type[Tamperer]:
    return Tamperer


@pytest.fixture
def tamper(release_dir: Path) -> Tamperer:
    return Tamperer(release_dir)


def write_run(run_dir: Path, recipe: Recipe) -> None:
    """Write every stage of a run with made-up but consistent content."""
    rng = np.random.default_rng(0)
    (run_dir / "recipe.yaml").write_text(dump_recipe(recipe))
    keys = [f"1F{number:03X}" for number in range(NUM_INPUTS)]
    captions = [f"drawing {number} <of> a *thing*" for number in range(NUM_INPUTS)]
    labels = {"person": rng.random(NUM_INPUTS) < 0.5, "violence": np.arange(NUM_INPUTS) % 17 == 3}
    roles = [("train", "calibrate", "test", "train")[number % 4] for number in range(NUM_INPUTS)]
    concepts = [concept_with(role, key) for key, role in zip(keys, roles, strict=True)]
    scores = {name: (rng.normal(size=NUM_INPUTS) + 5 * labels[name]).astype(np.float32) for name in CATEGORIES}
    flags = {name: [["faces"] if n % 40 == 7 and name == "person" else [] for n in range(NUM_INPUTS)] for name in CATEGORIES}
    settings = expected_settings(recipe)
    index_summary = {"num_inputs": NUM_INPUTS + 1, "num_ok": NUM_INPUTS, "num_without_caption": 0, "num_bad": {"unreadable": 1}}
    index = stage(run_dir, "index", {"source": "0" * 64}, lambda d: write_bytes(d / "shard-00000.parquet", b"index") or index_summary,
                  settings["index"])
    labels_record = Record("labels", settings["labels"], {}, Manifest(()), {"num_labels": 2 * NUM_INPUTS}, {"seconds": 0.1})
    write_bytes(run_dir / "labels/labels.jsonl", b"{}\n")
    write_json(run_dir / "labels/record.json", labels_record.to_json())
    clip = stage(run_dir, "clip", {"index": index.digest}, lambda d: write_bytes(d / "text.safetensors", b"text") or {}, settings["clip"])
    inputs = {"index": index.digest, "labels": labels_record.digest}
    thresholds: dict[str, float] = {}
    filters: dict[str, Record] = {}
    for category in recipe.categories:
        table = pa.table({"key": keys, "concept": concepts, "caption": captions, "role": roles,
                          "label": labels[category.name].astype(np.int8), "in_training": [role == "train" for role in roles],
                          "score": scores[category.name], "flags": flags[category.name],
                          "groups": [[("gender", ("", "female", "male")[n % 5 % 3]), ("skin_tone", str(n % 3) if n % 3 else "")]
                                     for n in range(NUM_INPUTS)]}, schema=SCORES_SCHEMA)
        rows = zip(scores[category.name], roles, labels[category.name], strict=True)
        positives = [score for score, role, label in rows if role == "calibrate" and label]
        thresholds[category.name] = choose_threshold(positives, category.target_recall)
        filters |= write_filter_stages(run_dir, category, table, thresholds[category.name], inputs)
    curated = write_curated(run_dir, inputs | {name: record.digest for name, record in filters.items() if not name.startswith("classifiers")},
                            keys, captions, (scores, flags, labels), thresholds, recipe)
    inputs, judged = {"curated": curated.digest}, {"curated": curated.digest, "clip": clip.digest}
    for network in recipe.trainings:
        name = f"training/{network}"
        trained = stage(run_dir, name, inputs, lambda d, network=network: write_training(d, network, run_dir), settings[name])  # type: ignore[misc]  # bound early
        inputs |= {"tokenizer": sha256_file(run_dir / "training/base/tokenizer.json")}
        judged |= {name: trained.digest}
    stage(run_dir, "evaluation", judged, lambda d: write_evaluation(d, run_dir, recipe), settings["evaluation"])


def concept_with(role: str, key: str) -> str:
    """The first concept named after a key whose hash gives a role."""
    return next(name for number in itertools.count() if role_of(name := f"{key}-{number}", LabelsConfig()) == role)


def stage(run_dir: Path, name: str, inputs: dict[str, str], work: Callable[[Path], Any], config: dict[str, Any] | None = None) -> Record:
    return run_stage(run_dir / name, stage=name, config=config or {}, inputs=inputs, work=work)


def picture(colour: str, size: int = 48) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, format="png")
    return buffer.getvalue()


def write_filter_stages(run_dir: Path, category: Category, table: pa.Table, threshold: float, inputs: dict[str, str]) -> dict[str, Record]:
    """The stages of one category: classifier, scores of the whole index (none are released), filter."""
    name = category.name
    classifier, scores, last = (f"{kind}/{name}" for kind in ("classifiers", "scores", "filters"))
    records = {classifier: stage(run_dir, classifier, inputs, classifier_writer(name),
                                 category.model_dump(mode="json", include=set(CLASSIFIER_FIELDS)) | {"seed": 0})}
    records[scores] = stage(run_dir, scores, {"index": inputs["index"], classifier: records[classifier].digest},
                            lambda d: write_bytes(d / "shard-00000.parquet", b"scores") or {},
                            category.model_dump(mode="json", include=set(SCORES_FIELDS)))
    records[last] = stage(run_dir, last, inputs | {stage_name: record.digest for stage_name, record in records.items()},
                          filter_writer(name, table, threshold, run_dir / classifier), category.model_dump(mode="json"))
    return records


def classifier_writer(name: str) -> Callable[[Path], dict[str, Any]]:
    def work(directory: Path) -> dict[str, Any]:
        from safetensors.numpy import save

        weights = save({"weights": np.full(8, len(name), np.float64)}, metadata={"format": "glideslope.classifier.logistic/1"})
        write_bytes(directory / "classifier.safetensors", weights)
        write_json(directory / "classifier.json", {"kind": "logistic", "sha256": sha256_bytes(weights)})
        return {}

    return work


def filter_writer(name: str, table: pa.Table, threshold: float, classifier_dir: Path) -> Callable[[Path], dict[str, Any]]:
    def work(directory: Path) -> dict[str, Any]:
        for file in ("classifier.safetensors", "classifier.json"):
            write_bytes(directory / file, (classifier_dir / file).read_bytes())
        write_table(directory / "scores.parquet", table)
        evidence = measure_filter(table, threshold)
        parts = [{"kind": "rbf_svm"}, {"kind": "logistic"}]
        classifier = {"kind": "average", "parts": parts, "sha256": sha256_file(directory / "classifier.safetensors")}
        write_json(directory / "filter.json", {"format": "glideslope.filter/4", "category": {"name": name}, "threshold": threshold,
                                               "classifier": classifier, **evidence})
        write_bytes(directory / "precision_recall.png", picture("blue"))
        if evidence["missed"]:
            write_bytes(directory / "missed.png", picture("red"))
        return {"threshold": threshold}

    return work


def write_curated(run_dir: Path, inputs: dict[str, str], keys: list[str], captions: list[str], judged: tuple[Any, Any, Any],
                  thresholds: dict[str, float], recipe: Recipe) -> Record:
    scores, flags, labels = judged
    digests = {name: sha256_file(run_dir / "filters" / name / "classifier.safetensors") for name in CATEGORIES}
    judges = {f"classifier_{name}": digest for name, digest in digests.items()}
    rows: list[dict[str, Any]] = []
    for number, key in enumerate(keys):
        verdicts = [reason_of(name, not scores[name][number] < thresholds[name], True, flags[name][number]) for name in CATEGORIES]
        named = [f"label:{name}" for name in CATEGORIES if labels[name][number]]
        reason = next(filter(None, [*verdicts, *named]), "")
        rows.append({"key": key, "sha256": sha256_bytes(key.encode()), "decision": "drop" if reason else "keep", "reason": reason,
                     "detail": None, "split": "" if reason else ("validation" if number % 7 == 0 else "train"), "weight": float(not reason),
                     "caption": captions[number], **{f"score_{name}": float(scores[name][number]) for name in CATEGORIES},
                     **{f"flags_{name}": flags[name][number] for name in CATEGORIES}, **judges})
    rows.append({"key": "broken", "sha256": None, "decision": "drop", "reason": "unreadable", "detail": "broken: not an image", "split": "",
                 "weight": 0.0, "caption": None, **{f"score_{name}": None for name in CATEGORIES},
                 **{f"flags_{name}": [] for name in CATEGORIES}, **judges})
    dropped = Counter(row["reason"] for row in rows if row["decision"] == "drop")
    splits = Counter(row["split"] for row in rows if row["decision"] == "keep")

    def work(directory: Path) -> dict[str, Any]:
        for shard, part in enumerate((rows[:250], rows[250:])):
            write_table(directory / f"ledger/shard-{shard:05d}.parquet", pa.Table.from_pylist(part, schema=ledger_schema(CATEGORIES)))
        write_bytes(directory / "data/train-00000.parquet", b"data")
        summary = {"seen": len(rows), "kept": sum(splits.values()), "dropped": dict(dropped), "splits": dict(splits)}
        write_json(directory / "curated.json", {"format": "glideslope.curated/1", **summary, "categories": {
            name: {"threshold": thresholds[name], "classifier_sha256": digests[name]} for name in CATEGORIES}})
        return summary

    return stage(run_dir, "curated", inputs, work, recipe.curate.model_dump(mode="json"))


def read_ledger(run_dir: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((run_dir / "curated/ledger").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def write_training(directory: Path, model: str, run_dir: Path) -> dict[str, Any]:
    num_parameters = write_component(directory, model)
    rng = np.random.default_rng(len(model))
    lines = [{"step": step, "num_images": 32 * step, "loss": round(2 * 0.97**step + 0.05 * rng.random(), 6), "learning_rate": 1e-3,
              "grad_norm": 1.0} for step in range(1, NUM_STEPS + 1)]
    write_bytes(directory / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    train = sorted(row["sha256"] for row in read_ledger(run_dir) if row["split"] == "train")
    held_back = [] if model == "noised_clip" else [{"num_images": 32 * step, "loss": round(2.1 - step / 50, 6)} for step in (20, 40, NUM_STEPS)]
    if held_back:
        write_bytes(directory / "held_back.jsonl", "".join(json.dumps(row) + "\n" for row in held_back).encode())
    return {"num_images_seen": 32 * NUM_STEPS, "num_steps": NUM_STEPS, "num_train_examples": len(train),
            "num_parameters": num_parameters, "final_loss": round(float(np.mean([line["loss"] for line in lines[-NUM_STEPS // 10:]])), 6),
            "precision": "float32", "consumed_sha256": sha256_json(train), **({"held_back_loss": held_back[-1]["loss"]} if held_back else {}),
            "environment": {"device": "cpu", "images_per_second": 30.0, "seconds": 754.2}}


def write_component(directory: Path, model: str) -> int:
    from glideslope.models.networks.components import component_config
    from glideslope.models.networks.noised_clip import NoisedClip
    from glideslope.models.networks.presets import noised_clip_preset, unet_preset
    from glideslope.models.networks.unet import TextConditionedUNet
    from glideslope.models.tokenizer import CaptionTokenizer
    from glideslope.models.training.checkpoints import save_tensors

    torch.manual_seed(0)
    unets = {"base": "glide-micro-16", "upsampler": "glide-upsampler-micro-32"}
    network = TextConditionedUNet(unet_preset(unets[model])) if model in unets else NoisedClip(noised_clip_preset("noised-clip-micro-16"))
    with torch.no_grad():
        for parameter in network.parameters():  # the output layer starts at zero, and would draw nothing but noise
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    save_tensors(directory / "model.safetensors", network.state_dict())
    write_json(directory / "config.json", component_config(network))
    if model == "base":
        CaptionTokenizer.train(["a red circle", "a green tree"], 300).save(directory / "tokenizer.json")
    if model in unets:
        save_tensors(directory / "ema.safetensors", network.state_dict())
        write_json(directory / "scheduler_config.json", scheduler_config(NETWORKS[model].scheduler, "sample"))
        write_bytes(directory / "samples/images-00000960.png", picture("green"))
        write_bytes(directory / "samples/images-00001920.png", picture("yellow"))
    return sum(parameter.numel() for parameter in network.parameters())


def write_evaluation(directory: Path, run_dir: Path, recipe: Recipe) -> dict[str, Any]:
    pairs = [dealt | {"own_score": 0.3, "own_mean": 0.1, "other_scores": [0.4, 0.4, 0.4, 0.2 if n % 8 else 0.35, 0.1, 0.1, 0.1],
                      "other_means": [0.1] * 7}
             for n, dealt in enumerate(deal_pairs([row for row in read_ledger(run_dir) if row["split"]], recipe.evaluate, recipe.seed))]
    write_bytes(directory / "pairs.jsonl", "".join(canonical_json(pair) + "\n" for pair in pairs).encode())
    tiles = [Image.new("RGB", (16, 16), (10 * n, 255 - 10 * n, 128)) for n in range(len(pairs))]
    contact_sheet(tiles, num_columns=8, scale=6).save(directory / "samples.png")
    summary = summarise(pairs) | {"num_captions": 11, "num_captions_cut": 2}
    write_json(directory / "evaluation.json", {"format": EVALUATION_FORMAT, **summary, **write_held_back(directory, run_dir, recipe)})
    return summary


def write_held_back(directory: Path, run_dir: Path, recipe: Recipe) -> dict[str, Any]:
    """Rows of what the networks do with held-back pictures; every fourth picture the upsampler loses."""
    held_back = [row for row in read_ledger(run_dir) if row["split"] == "validation"]
    ranks = [{"timestep": timestep, "key": image["key"], "rank": 1 if 80 * n < 1000 - timestep else 2}
             for timestep in TIMESTEPS for n, image in enumerate(choose_for_noised_clip(held_back, recipe.seed))]
    write_rows(directory / "noised_clip.jsonl", ranks)
    figures = {"noised_clip": measure_noised_clip(ranks), "upsampler": None}
    if recipe.upsampler is not None:
        enlarged = [{"key": image["key"], "psnr": 22.5 + n % 3, "ssim": 0.85, "bicubic_psnr": 21.25, "bicubic_ssim": 0.8 if n % 4 else 0.9}
                    for n, image in enumerate(choose_for_upsampler(held_back, recipe.seed))]
        write_rows(directory / "upsampler.jsonl", enlarged)
        figures["upsampler"] = measure_upsampler(enlarged)
    return figures
