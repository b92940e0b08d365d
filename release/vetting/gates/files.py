"""The gates on the files of a release: all there, none besides, each as the manifest lists it or as `pack` writes it."""

from collections.abc import Iterator
from itertools import zip_longest

from ....recipe.components import INDEX_NAME, model_index
from ....store.digests import sha256_bytes
from ....store.file_lists import MANIFEST_NAME, compare_files
from ....store.strict_json import load_object
from ....trust.hashed_files import compare_tensors
from ....trust.release_manifest import UNLISTED
from ...documents import documents_of
from ...documents.terms_of_use import find_changed_terms
from ...evidence.contents import Release
from ...evidence.layout import MEGABYTE, find_strangers
from ...evidence.plan import expected_paths
from ...evidence.texts import license_text, recipe_text
from ...weights.architecture import weight_paths
from .gate import Asked, Gate

MAX_LINE_SHOWN = 160


def check_manifest(release: Release) -> list[str]:
    """The manifest is whole and in its canonical form, and the files are those it lists."""
    manifest = release.manifest
    exchanged = [f"{path}: was exchanged while the release was read" for path, data in release.guards.items()
                 if path not in release.hashed or release.hashed[path].entry.sha256 != sha256_bytes(data)]
    if exchanged:
        return exchanged
    found = {path: hashed.entry for path, hashed in release.hashed.items() if path not in UNLISTED}
    return compare_files(manifest.files, found) or compare_tensors(manifest, release.hashed)


def check_listing(release: Release) -> list[str]:
    """The files are those that a release of this recipe holds, each with the content that its place asks for."""
    expected = expected_paths(release.recipe, release.records) | weight_paths(release) | {MANIFEST_NAME}
    present = set(release.paths)
    problems = find_strangers(release.directory, release.paths)
    problems += [f"{path}: file is missing" for path in sorted(expected - present)]
    problems += [f"{path}: no stage of this release writes such a file" for path in sorted(present - expected - UNLISTED)]
    return problems


def check_generated(release: Release) -> list[str]:
    """Recipe, licence, terms and pipeline description are what pack writes for this recipe, the documents what it writes for the claims."""
    recipe = release.recipe
    texts = {"evidence/recipe.yaml": recipe_text(recipe), "LICENSE": license_text(recipe), **documents_of(release, release.claims)}
    problems = find_changed_terms(release)
    for path, expected in texts.items():
        problems += _compare_text(path, release.read(path, bytes.decode), expected)
    if release.read(INDEX_NAME, load_object) != model_index(release.components):
        problems.append(f"{INDEX_NAME}: names other components than a release has; pack the release again")
    return problems


def find_excess(release: Release, asked: Asked) -> list[str]:
    """One sentence when the release is larger than the policy allows."""
    size, most = sum((release.directory / path).stat().st_size for path in release.paths), asked.policy.size.at_most_mb
    if size <= most * MEGABYTE:
        return []
    return [f"size: {size / MEGABYTE:.1f} MB, the policy allows {most} MB; leave out variants or train a smaller model, or raise "
            "size.at_most_mb in the policy"]


def _compare_text(path: str, found: str, expected: str) -> Iterator[str]:
    if found != expected:
        pairs = zip_longest(found.split("\n"), expected.split("\n"))
        number, (ours, theirs) = next((n, pair) for n, pair in enumerate(pairs, start=1) if pair[0] != pair[1])
        yield f"{path}: line {number} reads {_cut(ours)}, the evidence gives {_cut(theirs)}"


def _cut(line: str | None) -> str:
    if line is None:
        return "nothing"
    return repr(line if len(line) <= MAX_LINE_SHOWN else line[:MAX_LINE_SHOWN] + "…")


INTACT = Gate("intact", "a file or tensor is not the manifest's", checks={"manifest": check_manifest})
ALLOWED_FILES = Gate("allowed files", "a file does not belong in a release, by path or by content (pickles, archives, scripts under any name)",
                     checks={"files": check_listing})
GENERATED_FILES = Gate("generated files", "the recipe, `LICENSE`, the terms or a document is not what `pack` writes for this evidence",
                       checks={"generated files": check_generated})
SIZE = Gate("size", "the release is larger", key="size", demand=find_excess)
