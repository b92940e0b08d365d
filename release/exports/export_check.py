"""Hold an export against what this version of glideslope makes: code byte for byte, weights by their digests, every file accounted for.

No judgement is made of what a piece of code may do: whoever wants harm finds words that no list knows. Code that is not exactly the
code that is generated here is refused, whatever it says.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import CheckpointError, ReleaseError, VerificationError
from ...models.diffusion.process import PREDICTION_TYPES, NoiseSchedule
from ...models.loading.components import read_component_config
from ...recipe.components import COMPONENTS, NETWORKS, TOKENIZERS, required_components
from ...store.digests import DIGEST_PATTERN, sha256_bytes, sha256_file
from ...store.file_lists import MAX_MANIFEST_BYTES, measure_files
from ...store.stage_manifest import Manifest
from ...store.strict_json import parse_object, read_bounded
from ...trust.hashed_files import hash_files, manifest_of
from ...trust.opening import OpenRelease, Trust, open_release
from ...trust.release_manifest import ReleaseManifest
from ..evidence.layout import check_content
from .diffusers import (
    BETAS,
    DIFFUSERS_VERSION,
    EXPORT_FORMAT,
    EXPORT_NAME,
    TERMS,
    choose_classes,
    generated_files,
    is_copied,
    listing_text,
    open_whole,
    plan_export,
    scheduler_text,
    schedulers,
)

MAX_LISTING_DEPTH = 5
VERSIONS = {"format": EXPORT_FORMAT, "glideslope": __version__, "diffusers": DIFFUSERS_VERSION}


def check_export(directory: Path, release_dir: Path | None = None, *, tensors_root: str | None = None) -> list[str]:
    """One sentence for everything in an export that this version of glideslope would not have written.

    The release's files must be those of its manifest; whether its evidence holds is `verify`'s question.

    Args:
        directory: the export.
        release_dir: the release that it must come from: every file is made again from it and compared byte for byte.
        tensors_root: root of the tensors of that release, as a verified copy or its publisher states it, where the release is not at
            hand: then the weights are hashed and compared with it. With neither of the two the code is compared, and what is not code
            is held against what such files are, but nothing is said of whose weights they are.

    Returns:
        The problems; none when the export is what it should be.

    Raises:
        ReleaseError, VerificationError: `release_dir` is no release, or is not what its manifest says.
    """
    expected = None if release_dir is None else _expect_all(release_dir)
    try:
        return _check_place(open_release(directory, Trust("off", status="ignored")), expected, tensors_root)
    except VerificationError as error:
        return list(error.problems)
    except ReleaseError as error:
        return [str(error)]


def _check_place(export: OpenRelease, release: tuple[ReleaseManifest, Mapping[str, str]] | None, tensors_root: str | None) -> list[str]:
    place, paths = export.directory, [path for path in export.paths if path != EXPORT_NAME]
    stated = parse_object(read_bounded(place / EXPORT_NAME, MAX_MANIFEST_BYTES), where=EXPORT_NAME, max_bytes=MAX_MANIFEST_BYTES,
                          max_depth=MAX_LISTING_DEPTH)
    if any(stated.get(key) != value for key, value in VERSIONS.items()):
        return [_other_version(stated)]
    listing = Manifest(tuple(sorted(measure_files(place, paths).values())))
    present = {entry.path: entry.sha256 for entry in listing.files}
    roots = stated.get("release_root"), stated.get("release_tensors_root")
    if release is not None:
        manifest, expected = release
        problems, roots = _compare(present, expected), (manifest.root, manifest.tensors_root)
    else:
        problems = _check_alone(place, present)
    if not all(isinstance(root, str) and DIGEST_PATTERN.fullmatch(root) for root in roots) or (
            (place / EXPORT_NAME).read_bytes() != listing_text(listing, *map(str, roots))):
        problems.append(f"{EXPORT_NAME}: is not the list of these files{' and this release' if release else ''}; export the release again")
    if tensors_root is not None and not problems:
        found = manifest_of(hash_files(place, paths), where=str(place)).tensors_root
        problems += [] if found == tensors_root else [f"weights: the root of their tensors is {found[:12]}…, expected {tensors_root[:12]}…; "
                                                      "they are not this release's"]
    return problems


def _other_version(stated: Mapping[str, Any]) -> str:
    made = f"glideslope {stated.get('glideslope')!r:.40} for diffusers {stated.get('diffusers')!r:.40}"
    if stated.get("format") != EXPORT_FORMAT:
        made = f"a program that writes {stated.get('format')!r:.60} where this one writes {EXPORT_FORMAT!r}"
    return (f"{EXPORT_NAME}: made by {made}, and this is glideslope {__version__} for diffusers {DIFFUSERS_VERSION}: code can be compared only "
            "by the version that made it; check with that version, or export the release again")


def _expect_all(release_dir: Path) -> tuple[ReleaseManifest, dict[str, str]]:
    """A release's manifest, and the digest of every file of its export, all of it made again.

    Raises:
        ReleaseError: no release, or one that is not what its manifest says.
        VerificationError: it is not let in, see `open_release`.
    """
    release = open_whole(release_dir)
    return release.manifest, {path: sha256_bytes(content) if isinstance(content, bytes) else sha256_file(content)
                              for path, content in plan_export(release).items()}


def _compare(present: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    problems = [f"{path}: file is missing" for path in sorted(expected.keys() - present.keys())]
    problems += [f"{path}: no such file belongs in this export; remove it" for path in sorted(present.keys() - expected.keys())]
    changed = [path for path in sorted(expected.keys() & present.keys()) if expected[path] != present[path]]
    return problems + [f"{path}: is not what glideslope {__version__} writes into this export" for path in changed]


def _check_alone(place: Path, present: Mapping[str, str]) -> list[str]:
    """Check an export without its release: generated files byte for byte, all other files for being what their places say."""
    parts = [name for name in COMPONENTS if (place / name).is_dir()]
    missing = [f"{name}: is missing" for name in required_components(()) if name not in parts]
    if missing:
        return missing
    tokenizers = {name: place / name / "tokenizer.json" for name in parts if name in TOKENIZERS}
    generated = {path: sha256_bytes(content) for path, content in generated_files(choose_classes(tokenizers, parts)).items()}
    schedules = {sha256_bytes(scheduler_text(NoiseSchedule(betas, predicted))) for betas in BETAS for predicted in PREDICTION_TYPES}
    problems = _compare({path: digest for path, digest in present.items() if path in generated}, generated)
    for name in schedulers(parts):
        path = f"{name}/scheduler_config.json"
        problems += [] if present.get(path) in schedules else [f"{path}: is none of the schedules {', '.join(BETAS)} as diffusers spells them"]
    known = {*generated, *(f"{name}/scheduler_config.json" for name in schedulers(parts))}
    for path in sorted(present.keys() - known):
        problems += _check_data(place, path, tokenizers)
    return problems


def _check_data(place: Path, path: str, tokenizers: Collection[str]) -> list[str]:
    """Check that a file without code is one that belongs in an export, and holds what its place says."""
    folder, _, name = path.rpartition("/")
    if not (path in (*TERMS, "README.md") or (folder in NETWORKS and is_copied(name)) or (folder in tokenizers and name == "tokenizer.json")):
        return [f"{path}: no such file belongs in an export; remove it"]
    try:
        check_content(place / path, path)
        if name == "config.json" and (found := read_component_config(place / path)[0]) != COMPONENTS[folder].class_name:
            return [f"{path}: is that of a {found}, expected {COMPONENTS[folder].class_name}"]
    except (ReleaseError, CheckpointError) as error:
        return [str(error)]
    return []
