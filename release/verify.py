"""Verify a release: every file, every tensor's place, every number of the card, every link of the chain.

Works offline, on a CPU, with nothing but the release; what differs is named. Nothing in the release is trusted: files
are parsed as data, no code is loaded, and what cannot be parsed is reported like any other difference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from ..errors import ReleaseError, VerificationError
from ..recipe.components import INDEX_NAME, model_index
from ..store.digests import sha256_bytes
from ..store.file_lists import MANIFEST_NAME, compare_files
from ..store.strict_json import load_object
from ..trust.hashed_files import compare_tensors
from ..trust.release_manifest import SIGNATURE_NAME, UNLISTED
from ..trust.signatures import Signers
from ..trust.signers import SignerRule
from .claims.claims import claims_of, compare_claims
from .documents import documents_of
from .documents.card_check import check_cards, find_false_figures
from .documents.use_policy import find_changed_policy
from .evidence.chain import CHAIN_CHECKS, run_check
from .evidence.comparison import shorten
from .evidence.contents import CARD_PATH, Release
from .evidence.figures import can_draw
from .evidence.golden import check_golden
from .evidence.layout import find_irregular, find_strangers
from .evidence.packing import packing_facts, read_packing
from .evidence.plan import expected_paths
from .evidence.texts import license_text, recipe_text
from .publishing.snapshot import release_in
from .rehearsal.transcript import check_transcript
from .vetting.gates.signatures import check_signature
from .vetting.policy import check_policy
from .weights.architecture import check_architecture, check_finite, check_forms, weight_paths
from .weights.variants import check_variants

MAX_LINE_SHOWN = 160


@dataclass(frozen=True)
class VerificationReport:
    """What was verified, with nothing found wrong.

    Attributes:
        directory: the release.
        manifest_root: one digest for all of it, to be compared with the one that the publisher announced.
        checked: what was checked -> how many of it, in the order of the checks.
        signers: who signed the very bytes that were checked; none when nobody did.
    """

    directory: Path
    manifest_root: str
    checked: Mapping[str, int]
    signers: Signers | None = None

    def to_json(self) -> dict[str, object]:
        """The report as plain data."""
        return {"directory": str(self.directory), "manifest_root": self.manifest_root, "checked": dict(self.checked),
                "signed_by": None if self.signers is None else list(self.signers.key_ids)}


def verify(release_dir: Path, signers: SignerRule | None = None) -> VerificationReport:
    """Check a release against its manifest, its evidence and the architecture.

    Args:
        release_dir: the release, packed or downloaded (`release_in` says what may lie beside it then); nothing is written.
        signers: who must have signed it; none takes any valid signature, or none.

    Returns:
        What was checked, and who signed it: one answer, from one reading of the files.

    Raises:
        ReleaseError: there is no such directory.
        VerificationError: something differs; every problem that was found is listed.
    """
    with release_in(release_dir) as directory:
        return verify_view(directory, release_dir, signers)


def verify_view(directory: Path, shown: Path | None = None, signers: SignerRule | None = None) -> VerificationReport:
    """Check a folder that holds a release and nothing else; its files may be links to wherever the caller knows them to lie.

    Args:
        directory: the folder.
        shown: what messages and the report call it; none: the folder.
        signers: who must have signed it; see `verify`.

    Raises:
        ReleaseError, VerificationError: see `verify`.
    """
    shown = shown or directory
    irregular = find_irregular(directory) if directory.is_dir() else []
    if irregular:
        raise VerificationError(f"release {shown}", irregular)
    release = Release(directory)
    problems: list[str] = []
    for name, check in CHECKS.items():
        problems += [problem for problem in run_check(name, check, release) if problem not in problems]
    if not problems and can_draw():  # only sound evidence can say what its figures show
        problems = run_check("figures", find_false_figures, release)
    if not problems and signers is not None:
        lack = signers.find_lack(() if release.signers is None else release.signers.key_ids)
        problems = [] if lack is None else [f"{SIGNATURE_NAME}: {lack}"]
    if problems:
        raise VerificationError(f"release {shown}", problems)
    return replace(_report(release), directory=shown)


def check_manifest(release: Release) -> list[str]:
    """The manifest is whole and in its canonical form, and the files are those it lists."""
    try:
        manifest = release.manifest
    except VerificationError as error:
        return [f"{MANIFEST_NAME}: {problem}" for problem in error.problems]
    exchanged = [f"{path}: was exchanged while the release was read" for path, data in release.guards.items()
                 if path not in release.hashed or release.hashed[path].entry.sha256 != sha256_bytes(data)]
    if exchanged:
        return exchanged
    found = {path: hashed.entry for path, hashed in release.hashed.items() if path not in UNLISTED}
    return compare_files(manifest.files, found) or compare_tensors(manifest, release.hashed)


def check_files(release: Release) -> list[str]:
    """The files are those that a release of this recipe holds, each with the content that its place asks for."""
    expected = expected_paths(release.recipe, release.records) | weight_paths(release) | {MANIFEST_NAME}
    present = {path.relative_to(release.directory).as_posix() for path in release.directory.rglob("*") if path.is_file()}
    problems = find_strangers(release.directory)
    problems += [f"{path}: file is missing" for path in sorted(expected - present)]
    problems += [f"{path}: no stage of this release writes such a file" for path in sorted(present - expected - UNLISTED)]
    return problems


def check_generated(release: Release) -> list[str]:
    """Recipe, licence, terms and pipeline description are what pack writes for this recipe, the documents what it writes for the claims."""
    recipe = release.recipe
    texts = {"evidence/recipe.yaml": recipe_text(recipe), "LICENSE": license_text(recipe), **documents_of(release, release.claims)}
    problems = find_changed_policy(release)
    for path, expected in texts.items():
        problems += _compare_text(path, release.read(path, bytes.decode), expected)
    if release.read(INDEX_NAME, load_object) != model_index(release.components):
        problems.append(f"{INDEX_NAME}: names other components than a release has; pack the release again")
    return problems


def check_claims(release: Release) -> list[str]:
    """Each claim is what the evidence gives."""
    return compare_claims(release.claims, claims_of(release))


def check_card(release: Release) -> list[str]:
    """The cards are what their claims give, letter by letter; where they are not, whether another version may have worded them."""
    try:
        problems = shorten([str(difference) for difference in check_cards(release, release.claims)])
    except ReleaseError as error:
        problems = [str(error)]
    packer, here = read_packing(release), packing_facts()
    if problems and packer != here:
        told = "differ" if compare_claims(release.claims, claims_of(release)) else "agree"
        problems.insert(0, f"{CARD_PATH}: packed with other card templates (glideslope {packer['glideslope']}, you run {here['glideslope']}): "
                           f"the numbers {told}; verify with glideslope {packer['glideslope']} for the wording")
    return problems


CHECKS: Mapping[str, Callable[[Release], list[str]]] = {
    "manifest": check_manifest, "files": check_files, "tensors": check_architecture, "weight files": check_forms,
    "finite weights": check_finite, "variants": check_variants,
    "policy": check_policy, "golden samples": check_golden, "generated files": check_generated,
    "signature": check_signature, "rehearsal": check_transcript, **CHAIN_CHECKS, "claims": check_claims, "card": check_card}


def _report(release: Release) -> VerificationReport:
    manifest = release.manifest
    checked = {"files": len(manifest.files), "bytes": sum(entry.size_bytes for entry in manifest.files),
               "tensors": len(manifest.tensors),
               "claims": len(release.claims), "lines of the card": len(release.read(CARD_PATH, bytes.decode).splitlines()),
               "stage records": len(release.records), "ledger rows": len(release.ledger["key"])}
    if not can_draw():  # said, as they may show anything then
        checked["figures drawn again (matplotlib is missing)"] = 0
    return VerificationReport(release.directory, manifest.root, checked, release.signers)


def _compare_text(path: str, found: str, expected: str) -> list[str]:
    if found == expected:
        return []
    pairs = zip_longest(found.split("\n"), expected.split("\n"))
    number, (ours, theirs) = next((n, pair) for n, pair in enumerate(pairs, start=1) if pair[0] != pair[1])
    return [f"{path}: line {number} reads {_cut(ours)}, the evidence gives {_cut(theirs)}"]


def _cut(line: str | None) -> str:
    if line is None:
        return "nothing"
    return repr(line if len(line) <= MAX_LINE_SHOWN else line[:MAX_LINE_SHOWN] + "…")
