"""Pack a finished run as a release: copy what is on the list, compute the claims, render the card, write the manifest."""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..data_filter.audits.audit import list_fresh
from ..errors import ReleaseError
from ..model_cards.card import render_card, render_dataset_card, templates_sha256
from ..progress import Meter, Progress
from ..recipe.components import INDEX_NAME, NETWORKS, model_index
from ..recipe.policy import Policy, load_policy
from ..recipe.recipe import Recipe
from ..recipe.stage_settings import find_changed_settings
from ..store.digests import sha256_file
from ..store.file_lists import MANIFEST_NAME
from ..store.records import Record, check_outputs, read_record, run_stage
from ..store.run_layout import COMPANIONS, GOLDEN, RunLayout, mutation_stage, training_stage
from ..store.stage_places import INTENT_NAME, RECORD_NAME, record_beside
from ..store.weight_files import WeightFiles
from ..store.whole_files import storage_error, write_bytes, write_json
from ..trust.hashed_files import build_manifest
from ..trust.release_manifest import ReleaseManifest
from .claims.claims import claims_of
from .documents import documents_of
from .documents.terms_of_use import TERMS_PATH, terms_text
from .evidence.companions import gather_companions
from .evidence.comparison import shorten
from .evidence.contents import CARD_PATH, CLAIMS_PATH, DATASET_CARD_PATH, POLICY_PATH, open_unsealed
from .evidence.figures import blur, write_figures
from .evidence.golden import draw_golden
from .evidence.packing import PACKING_PATH, packing_facts
from .evidence.plan import Origin, blurred_paths, components, networks, plan_copies, record_path, required_stages, stated_weights
from .evidence.published_recipe import published_recipe
from .evidence.texts import license_text, recipe_text
from .vetting.secret_files import refuse_secrets
from .vetting.table import refuse_false_bypasses
from .weights import find_noncanonical, read_file, read_weights, size_on_disk
from .weights.shards import MEGABYTE
from .weights.writing import Form, write_weights, written_bytes

OPTIONAL_STAGES = ("clip",)
OWN_STAGES = frozenset({COMPANIONS, GOLDEN})

log = logging.getLogger(__name__)


def pack(run_dir: Path, recipe: Recipe, directory: Path, *, progress: Progress | None = None) -> Record:
    """Run the stage `release`: write a release directory that holds exactly what is published.

    The same run gives the same bytes, whenever and wherever it is packed. The stage's own record lies beside the
    release, as `<directory>.record.json`.

    Args:
        run_dir: the run, with every stage finished.
        recipe: the run's resolved recipe.
        directory: where the release goes.
        progress: told (megabytes done, megabytes in all, what is done).

    Returns:
        The record, new or found.

    Raises:
        StageError: a stage has not finished, or its files were changed since.
        ReleaseError: the evidence is incomplete or contradicts itself.
        StorageError: the directory cannot be written.
    """
    draw_golden(run_dir, recipe)
    records = read_stages(run_dir, recipe, progress=progress)
    if problems := find_changed_settings(recipe, records):
        raise ReleaseError(f"{run_dir}: was not run with this recipe, so that no release can say so: {'; '.join(shorten(problems))}")
    copies = plan_copies(recipe, records)
    config = {"recipe": published_recipe(recipe).model_dump(mode="json"), "card_templates": templates_sha256(), "files": digest_files(recipe),
              "policy": packed_policy(recipe).sha256, "glideslope": __version__}

    def work(partial: Path) -> Mapping[str, Any]:
        clear(partial)
        weights = {name: find_source(run_dir, recipe, records, name) for name in networks(recipe, records)}
        forms = [Form(variant, recipe.release.max_shard_mb * MEGABYTE) for variant in (None, *recipe.release.variants)]
        meter = Meter(progress, sum(written_bytes(source, form) for source in weights.values() for form in forms))
        copy_files(run_dir, copies, records, partial)
        for path, (stage, inner) in blurred_paths(recipe.release.blurred, records).items():
            write_bytes(partial / path, blur((run_dir / stage / inner).read_bytes()))
        for name, source in weights.items():
            copy_weights(source, partial / name, forms, meter)
        meter.begin("claims, cards and figures")
        write_generated(recipe, records, partial)
        meter.begin("searching for secrets")
        refuse_secrets(open_unsealed(partial))
        meter.begin("hashing what was written")
        manifest = write_manifest(partial)
        return {"manifest_root": manifest.root, "num_files": len(manifest.files),
                "size_bytes": sum(entry.size_bytes for entry in manifest.files)}

    return run_stage(directory, stage="release", config=config, work=work, record_path=record_beside(directory),
                     inputs={stage: record.digest for stage, record in records.items()})


def digest_files(recipe: Recipe) -> dict[str, str | None]:
    """Digests of the files that the recipe names for its release, so that a changed file is packed again; none for one that is not there."""
    paths = {"policy": recipe.policy, "terms_of_use": recipe.release.terms_of_use}
    return {key: sha256_file(Path(path)) if Path(path).is_file() else None for key, path in paths.items() if path is not None}


def packed_policy(recipe: Recipe) -> Policy:
    """The policy that the recipe names, or the built-in one.

    Raises:
        ReleaseError: it cannot be read, or leaves out what may not be left out.
    """
    return refuse_false_bypasses(load_policy(recipe.policy), where=f"policy {recipe.policy or 'built in'}")


def read_stages(run_dir: Path, recipe: Recipe, *, progress: Progress | None = None) -> dict[str, Record]:
    """Read the records of a run's stages and hash the files of each again; gather the companions that the recipe names.

    Raises:
        StageError: a stage has not finished, or its files were changed since.
        ReleaseError: the companions are refused.
    """
    stages = required_stages(recipe)
    stages += [stage for stage in OPTIONAL_STAGES if (run_dir / stage / RECORD_NAME).is_file()]
    stages += [GOLDEN] if recipe.release.golden_prompts else []
    records = {record.stage: record for category in recipe.categories for record in list_fresh(RunLayout(run_dir), category.name)}
    records |= {stage: read_record(run_dir / stage) for stage in stages}
    tested = list_mutations(run_dir, [category.name for category in recipe.categories], records)
    stages, records = [*stages, *tested], records | tested
    sizes = {stage: sum(entry.size_bytes for entry in records[stage].outputs.files) for stage in stages}
    meter = Meter(progress, sum(sizes.values()))
    for stage in stages:
        if stage != "labels":  # an append-only store: its record vouches for the labels in its summary, not for a file
            meter.begin(f"checking {stage}")
            check_outputs(run_dir / stage, records[stage])
        meter.advance(sizes[stage])
    if recipe.release.companions is not None:
        meter.begin("gathering companions")
        clip_tokenizer = records[training_stage("noised_clip")].inputs.get("tokenizer")
        records[COMPANIONS] = gather_companions(Path(recipe.release.companions), run_dir / COMPANIONS,
                                                      trained=recipe.trainings, clip_tokenizer_sha256=clip_tokenizer)
    return records


def list_mutations(run_dir: Path, categories: Sequence[str], records: Mapping[str, Record]) -> dict[str, Record]:
    """The mutation tests of these very filters; one of an earlier filter says nothing of this release and is left out."""
    found = {}
    for category in categories:
        stage = mutation_stage(category)
        if (run_dir / stage / RECORD_NAME).is_file():
            record = read_record(run_dir / stage)
            if all(records[name].digest == digest for name, digest in record.inputs.items() if name in records):
                found[stage] = record
            else:
                log.warning("%s: is of an earlier filter and is left out; run `glideslope filters mutate` again", stage)
    return found


def find_source(run_dir: Path, recipe: Recipe, records: Mapping[str, Record], network: str) -> WeightFiles:
    """Where the weights of a network lie in the run.

    Raises:
        ReleaseError: weights that training wrote are not in the canonical form, so that their digest would leave the chain.
    """
    stated_weights(recipe, records, network)
    if network not in recipe.trainings:
        return read_weights(run_dir / COMPANIONS / network)
    source = read_file(run_dir / training_stage(network) / str(NETWORKS[network].trained_file))
    problems = find_noncanonical(source)
    if problems:
        raise ReleaseError(f"{source.files[0].parent}: {problems[0]}; remove the stage's directory and train again")
    return source


def copy_files(run_dir: Path, copies: Mapping[str, Origin], records: Mapping[str, Record], directory: Path) -> None:
    """Copy the stages' files and records, none of them held whole.

    The records of the stages that packing itself runs lose times and machine, so that another day gives the same bytes.
    """
    origins = {path: run_dir / stage / inner for path, (stage, inner) in copies.items()}
    origins |= {record_path(stage): run_dir / stage / RECORD_NAME for stage in records if stage not in OWN_STAGES}
    for stage in OWN_STAGES & records.keys():
        versions = {key: value for key, value in records[stage].environment.items() if key == "versions"}
        write_json(directory / record_path(stage), records[stage].to_json() | {"environment": versions})
    for path, source in origins.items():
        target = directory / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with source.open("rb") as reader, target.open("xb") as writer:
                shutil.copyfileobj(reader, writer)
                writer.flush()
                os.fsync(writer.fileno())
        except OSError as error:
            raise storage_error(target, error) from error


def copy_weights(source: WeightFiles, directory: Path, forms: list[Form], meter: Meter) -> None:
    """Write a network's weights in every form that the recipe asks for."""
    for form in forms:
        meter.begin(f"writing {directory.name}{' ' + form.variant if form.variant else ''} ({size_on_disk(source.files) // MEGABYTE} MB)")
        write_weights(source, directory, form, meter.advance)


def write_generated(recipe: Recipe, records: Mapping[str, Record], directory: Path) -> None:
    """Write what no stage wrote: recipe, licence, pipeline description, figures, claims, card."""
    write_bytes(directory / "evidence/recipe.yaml", recipe_text(recipe).encode())
    write_bytes(directory / "LICENSE", license_text(recipe).encode())
    write_bytes(directory / POLICY_PATH, packed_policy(recipe).text.encode())
    write_json(directory / INDEX_NAME, model_index(components(recipe, records)))
    write_bytes(directory / TERMS_PATH, terms_text(recipe).encode())
    write_json(directory / PACKING_PATH, packing_facts())
    release = open_unsealed(directory)
    write_figures(release)
    claims = claims_of(release)
    write_json(directory / CLAIMS_PATH, claims)
    for path, text in documents_of(release, claims).items():
        write_bytes(directory / path, text.encode())
    write_bytes(directory / CARD_PATH, render_card(claims).encode())
    write_bytes(directory / DATASET_CARD_PATH, render_dataset_card(claims).encode())


def write_manifest(directory: Path) -> ReleaseManifest:
    """Write the manifest of everything that lies in a directory."""
    manifest = build_manifest(directory, exclude=(INTENT_NAME,))
    write_bytes(directory / MANIFEST_NAME, manifest.to_bytes())
    return manifest


def clear(partial: Path) -> None:
    """Empty the partial directory of a killed pack: packing is quick and starts again."""
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != INTENT_NAME:
            path.unlink()
