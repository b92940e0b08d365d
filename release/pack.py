"""Pack a finished run as a release: copy what is on the list, compute the claims, render the card, write the manifest."""

import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ..config import Recipe, dump_recipe
from ..data_filter.audit import list_fresh
from ..errors import ReleaseError
from ..manifest import MANIFEST_NAME, ReleaseManifest, write_bytes, write_json
from ..model_cards.card import render_card, render_dataset_card, templates_sha256
from ..records import INTENT_NAME, RECORD_NAME, Record, check_outputs, read_record, run_stage
from .claims import claims_of
from .contents import CARD_PATH, CLAIMS_PATH, DATASET_CARD_PATH, Release
from .figures import write_figures
from .layout import WEIGHTS_NAME
from .plan import Origin, plan_copies, record_path, required_stages
from .weights import canonical_weights

OPTIONAL_STAGES = ("clip",)
MODEL_INDEX = {"_class_name": "GlidePipeline", "_format": "glideslope", "_format_version": 1,
               "base": ["glideslope", "TextConditionedUNet"], "noised_clip": ["glideslope", "NoisedClip"],
               "tokenizer": ["glideslope", "CaptionTokenizer"], "scheduler": ["glideslope", "GaussianDiffusion"]}


def pack(run_dir: Path, recipe: Recipe, directory: Path) -> Record:
    """Run the stage `release`: write a release directory that holds exactly what is published.

    The same run gives the same bytes, whenever and wherever it is packed. The stage's own record lies beside the
    release, as `<directory>.record.json`.

    Args:
        run_dir: the run, with every stage finished.
        recipe: the run's resolved recipe.
        directory: where the release goes.

    Returns:
        The record, new or found.

    Raises:
        StageError: a stage has not finished, or its files were changed since.
        ReleaseError: the evidence is incomplete or contradicts itself.
        StorageError: the directory cannot be written.
    """
    records = read_stages(run_dir, recipe)
    copies = plan_copies([category.name for category in recipe.categories], records)
    config = {"recipe": recipe.model_dump(mode="json"), "card_templates": templates_sha256()}

    def work(partial: Path) -> Mapping[str, Any]:
        clear(partial)
        copy_files(run_dir, copies, records, partial)
        write_generated(recipe, records, partial)
        manifest = write_manifest(partial)
        return {"manifest_root": manifest.root, "num_files": len(manifest.files),
                "size_bytes": sum(entry.size_bytes for entry in manifest.files)}

    return run_stage(directory, stage="release", config=config, work=work, record_path=record_beside(directory),
                     inputs={stage: record.digest for stage, record in records.items()})


def record_beside(directory: Path) -> Path:
    """Where the record of a packed release lies: beside it, as it may not lie in it."""
    return directory.with_name(directory.name + ".record.json")


def read_stages(run_dir: Path, recipe: Recipe) -> dict[str, Record]:
    """Read the records of a run's stages and hash the files of each again.

    Raises:
        StageError: a stage has not finished, or its files were changed since.
    """
    stages = required_stages([category.name for category in recipe.categories])
    stages += [stage for stage in OPTIONAL_STAGES if (run_dir / stage / RECORD_NAME).is_file()]
    records = {record.stage: record for category in recipe.categories for record in list_fresh(run_dir, category.name)}
    for stage in stages:
        records[stage] = read_record(run_dir / stage)
        if stage != "labels":  # an append-only store: its record vouches for the labels in its summary, not for a file
            check_outputs(run_dir / stage, records[stage])
    return records


def copy_files(run_dir: Path, copies: Mapping[str, Origin], records: Mapping[str, Record], directory: Path) -> None:
    """Copy the stages' files; weights must already be in the canonical form, so that their digests stay in the chain."""
    for path, (stage, inner) in copies.items():
        source = run_dir / stage / inner
        data = source.read_bytes()
        if path.endswith(WEIGHTS_NAME) and canonical_weights(source) != data:
            raise ReleaseError(f"{source}: is not canonical safetensors (sorted tensors, the one metadata key 'format'); "
                               "remove the stage's directory and train again")
        write_bytes(directory / path, data)
    for stage in records:
        write_bytes(directory / record_path(stage), (run_dir / stage / RECORD_NAME).read_bytes())


def write_generated(recipe: Recipe, records: Mapping[str, Record], directory: Path) -> None:
    """Write what no stage wrote: recipe, licence, pipeline description, figures, claims, card."""
    write_bytes(directory / "evidence/recipe.yaml", dump_recipe(recipe).encode())
    write_bytes(directory / "LICENSE", license_text(recipe).encode())
    write_json(directory / "model_index.json", MODEL_INDEX)
    release = Release(directory)
    write_figures(release)
    claims = claims_of(release)
    write_json(directory / CLAIMS_PATH, claims)
    write_bytes(directory / CARD_PATH, render_card(claims).encode())
    write_bytes(directory / DATASET_CARD_PATH, render_dataset_card(claims).encode())


def write_manifest(directory: Path) -> ReleaseManifest:
    """Write the manifest of everything that lies in a directory."""
    manifest = ReleaseManifest.from_directory(directory, exclude=(INTENT_NAME,))
    write_bytes(directory / MANIFEST_NAME, manifest.to_bytes())
    return manifest


def license_text(recipe: Recipe) -> str:
    """The LICENSE of a release: whose licence it is, the data's credit, and the licence's text where it is known."""
    identifier = recipe.release.license
    lines = [f"{recipe.release.title}", "", f"The weights are released under the licence {identifier}."]
    if recipe.release.data_attribution:
        lines += ["", f"Training data: {recipe.release.data_attribution.strip()}"]
    known = resources.files(__package__) / "licenses" / f"{identifier}.txt"
    text = known.read_text(encoding="utf-8") if known.is_file() else f"Full text: https://spdx.org/licenses/{identifier}.html\n"
    return "\n".join(lines) + "\n\n" + text.replace("\r\n", "\n")


def clear(partial: Path) -> None:
    """Empty the partial directory of a killed pack: packing is quick and starts again."""
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != INTENT_NAME:
            path.unlink()
