"""Networks that this run did not train: brought in from a directory, their digests recorded, and what the card says of them.

A directory such as `glideslope release import-openai` writes may hold an upsampler or inpainting variants. They come with no evidence
about their training data, and everything that a release says of them says so.
"""

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, ReleaseError, VerificationError
from ...recipe.components import COMPONENTS, INDEX_NAME, NETWORKS, SCHEDULERS, TOKENIZERS, TrainedNetworks, Training, components_of
from ...recipe.training import DenoiserTraining
from ...store.digests import sha256_file
from ...store.file_lists import MANIFEST_NAME
from ...store.records import Record, run_stage
from ...store.run_layout import COMPANIONS
from ...store.weight_files import WeightFiles
from ...store.whole_files import read_json
from ...trust.release_manifest import ReleaseManifest
from ..weights import count_parameters, find_noncanonical, joined_digest, read_weights
from .comparison import Claims
from .contents import Release
from .plan import record_path

IMPORT_NAME = "evidence/import.json"
TOKENIZER_PATH = "tokenizer/tokenizer.json"
NO_EVIDENCE = "brought in, no evidence about its training data"


def gather_companions(source: Path, directory: Path, *, trained: Mapping[str, Training], clip_tokenizer_sha256: str | None) -> Record:
    """Run the stage `companions`: gather the networks that a directory holds beside its base, with the digest of every file.

    The stage's directory holds links to the files, or copies where links are impossible.

    Args:
        source: the directory of components, with its model_index.json.
        directory: the stage's, in the run.
        trained: the networks that the run trains itself and their settings; base and noised CLIP are left where they are.
        clip_tokenizer_sha256: digest of the tokenizer that the run's noised CLIP was trained with; another one is left out.

    Returns:
        The record. Its inputs are the digests of the source's files; its summary names the parts, and the SHA-256 of each
        network's weights in one canonical file.

    Raises:
        ReleaseError: no such directory, nothing in it to bring in, networks that do not go with those of the run, or files that its own
            manifest does not list.
        StorageError: the stage cannot be written.
    """
    found, left_out = choose_parts(source, trained, clip_tokenizer_sha256)
    weights = {name: read_weights(source / name) for name in found if name in NETWORKS}
    paths = list_sources(source, found, weights)
    digests = {path: sha256_file(source / path) for path in paths}
    check_manifest(source, digests)
    optional = [path for path in (TOKENIZER_PATH, IMPORT_NAME) if (source / path).is_file()]

    def work(partial: Path) -> Mapping[str, Any]:
        for path in paths:
            link_or_copy(source / path, partial / path)
        return {"parts": found, "left_out": left_out, "sources": describe_sources(source, found),
                "weights": {name: weights_digest(source, files, digests) for name, files in weights.items()},
                "num_parameters": {name: count_parameters(files.headers) for name, files in weights.items()}}

    inputs = digests | {path: sha256_file(source / path) for path in optional}
    return run_stage(directory, stage=COMPANIONS, config={"noised_clip_tokenizer": clip_tokenizer_sha256}, inputs=inputs, work=work)


def weights_digest(source: Path, files: WeightFiles, digests: Mapping[str, str]) -> str:
    """SHA-256 of weights in one canonical file; a file that is canonical already has been hashed."""
    if len(files.files) == 1 and not find_noncanonical(files):
        return digests[files.files[0].relative_to(source).as_posix()]
    return joined_digest(files)


def choose_parts(source: Path, trained: Mapping[str, Training], clip_tokenizer_sha256: str | None) -> tuple[list[str], dict[str, str]]:
    """Which components of a directory are brought in, in their fixed order, and which are not and why.

    Raises:
        ReleaseError: the directory or its index is refused, there is nothing to bring in, or it does not go with what the run trains.
    """
    from ...models.loading.components import read_index

    try:
        held = read_index(source / INDEX_NAME)
    except CheckpointError as error:
        raise ReleaseError(f"release.companions: {error}; give a directory such as `glideslope release import-openai` writes") from error
    wanted = [name for name in NETWORKS if name not in trained]
    found = [name for name in wanted if name in held]
    refuse_twice_there(source, held, trained)
    refuse_other_schedules(source, found, trained)
    schedulers = [name for name in components_of(found, held) if name in SCHEDULERS and SCHEDULERS[name].trained_with not in trained]
    left_out = {}
    if "clip_tokenizer" in held:
        if sha256_file(source / "clip_tokenizer" / TOKENIZERS["clip_tokenizer"].file) == clip_tokenizer_sha256:
            found.append("clip_tokenizer")
        else:
            left_out["clip_tokenizer"] = "the noised CLIP of this run was trained with another tokenizer"
    found += schedulers
    if not set(found) & set(wanted):
        raise ReleaseError(f"release.companions: {source} holds none of {', '.join(wanted)}; remove the key or give another directory")
    return found, left_out


def refuse_twice_there(source: Path, held: Collection[str], trained: Mapping[str, Training]) -> None:
    """Refuse a directory with a network that this run trains though not every run does: nobody could tell which of the two is wanted.

    Raises:
        ReleaseError: naming it.
    """
    for name in held:
        if name in trained and not TrainedNetworks.model_fields[name].is_required():
            raise ReleaseError(f"release.companions: {source} holds {name}, which this recipe trains itself; remove the key {name} from the "
                               f"recipe, or give a directory without {name}")


def refuse_other_schedules(source: Path, found: Sequence[str], trained: Mapping[str, Training]) -> None:
    """Refuse networks that would draw with a noise schedule of this run, but learned with another or predict something else.

    Raises:
        ReleaseError: naming the first.
    """
    from ...models.diffusion.process import NoiseSchedule
    from ...models.loading.components import read_schedule

    for name in found:
        row = SCHEDULERS[NETWORKS[name].scheduler]
        settings = trained.get(row.trained_with or "")
        if not isinstance(settings, DenoiserTraining):
            continue
        try:
            theirs = read_schedule(source / row.name / row.file)
        except CheckpointError as error:
            raise ReleaseError(f"release.companions: {error}; import the directory again") from error
        ours = NoiseSchedule(row.schedule, settings.prediction_type)
        if theirs != ours:
            raise ReleaseError(f"release.companions: {name} of {source} predicts {theirs.prediction_type} on the schedule {theirs.betas}, but "
                               f"{row.trained_with}, whose {row.name} it would share, predicts {ours.prediction_type} on {ours.betas}; set "
                               f"{row.trained_with}.prediction_type to {theirs.prediction_type}, or leave the companions out")


def list_sources(source: Path, found: list[str], weights: Mapping[str, WeightFiles]) -> list[str]:
    """Relative paths of the files of parts: configurations, tokenizers, schedulers, weights and their indices."""
    paths = [f"{name}/{COMPONENTS[name].file}" for name in found]
    files = [file for held in weights.values() for file in (*held.files, *([held.index] if held.index else []))]
    missing = [path for path in paths if not (source / path).is_file()]
    if missing:
        raise ReleaseError(f"release.companions: {source} holds no {missing[0]}; import it again")
    return sorted({*paths, *(file.relative_to(source).as_posix() for file in files)})


def check_manifest(source: Path, digests: Mapping[str, str]) -> None:
    """Where the directory has a manifest, hold the files against it.

    Raises:
        ReleaseError: a file is not listed, or has other bytes.
    """
    if not (source / MANIFEST_NAME).is_file():
        return
    try:
        stated = {entry.path: entry.sha256 for entry in ReleaseManifest.read(source / MANIFEST_NAME).files}
    except VerificationError as error:
        raise ReleaseError(f"release.companions: {error}; import the directory again") from error
    changed = [path for path, digest in digests.items() if stated.get(path) != digest]
    if changed:
        raise ReleaseError(f"release.companions: {source / changed[0]} is not the file that {MANIFEST_NAME} beside it lists; import it again")


def describe_sources(source: Path, found: list[str]) -> list[dict[str, Any]]:
    """The published files that an import recorded as the origin of these networks; empty where there is no such record."""
    if not (source / IMPORT_NAME).is_file():
        return []
    report = read_json(source / IMPORT_NAME)
    try:
        rows = [{"file": file, "component": str(entry["component"]), "size_bytes": int(entry["size_bytes"]),
                 "sha256": str(entry["sha256"])}
                for file, entry in report["sources"].items()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ReleaseError(f"release.companions: {source / IMPORT_NAME} is malformed ({error!r}); import the directory again") from error
    return sorted((row for row in rows if row["component"] in found), key=lambda row: row["file"])


def link_or_copy(source: Path, target: Path) -> None:
    """Link to a file, or copy it where that cannot be done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def companion_claims(release: Release) -> Claims:
    """What the card says of each network that was brought in, and which those are.

    Raises:
        ReleaseError: the record or the weights are missing or malformed.
    """
    names = release.brought_in_networks
    claims: Claims = {"companions": names}
    for name in names:
        record = release.record(COMPANIONS)
        sources = record.summary.get("sources", [])
        claims[f"companions.{name}"] = {
            "digest": record.summary["weights"][name], "num_parameters": count_parameters(release.weights(name).headers),
            "evidence": NO_EVIDENCE, "has_same_tokenizer": record.inputs.get(TOKENIZER_PATH) == release.digest(TOKENIZER_PATH),
            "sources": [row for row in sources if row["component"] == name]}
    return claims


def check_companions(release: Release) -> list[str]:
    """Companions are there exactly when the recipe asks for them, and their record fits itself."""
    wanted, there = release.recipe.release.companions is not None, COMPANIONS in release.records
    if wanted != there:
        return [f"companions: the recipe {'names' if wanted else 'does not name'} a directory of companions, the release holds "
                f"{'a' if there else 'no'} record of them; pack the release again"]
    if not there:
        return []
    record, where = release.record(COMPANIONS), record_path(COMPANIONS)
    problems = [f"{where}: {entry.path} has the digest {entry.sha256[:12]}…, its source has {str(record.inputs.get(entry.path))[:12]}…; "
                "pack the release again" for entry in record.outputs.files if record.inputs.get(entry.path) != entry.sha256]
    held = sorted(record.summary.get("weights", {}))
    expected = sorted(release.brought_in_networks)
    if held != expected:
        problems.append(f"{where}: states weights of {held}, parts name {expected}; pack the release again")
    return problems


def find_unproven_companions(release: Release) -> list[str]:
    """One sentence for every network whose training data nothing in the release says anything about."""
    return [f"{name}: {NO_EVIDENCE}; remove release.companions from the recipe, or let the policy allow networks without evidence"
            for name in release.brought_in_networks]
