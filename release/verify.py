"""Verify a release: every file, every tensor's place, every number of the card, every link of the chain.

Works offline, on a CPU, with nothing but the release; what differs is named. Nothing in the release is trusted: files
are parsed as data, no code is loaded, and what cannot be parsed is reported like any other difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import VerificationError
from ..trust.signatures import Signers
from ..trust.signers import SignerRule
from .documents.card_check import find_false_figures
from .evidence.contents import CARD_PATH, Release, open_evidence
from .evidence.figures import can_draw
from .vetting.gates.gate import run_check
from .vetting.table import CHECKS


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
        release_dir: the release, packed or downloaded (`trust.unlisted_files` says what may lie beside it then); nothing is written.
        signers: who must have signed it; none takes any valid signature, or none.

    Returns:
        What was checked, and who signed it: one answer, from one reading of the files.

    Raises:
        CheckpointError: there is no such directory.
        VerificationError: the release is not let in, see `open_release`; or something differs, and every problem that was found is listed.
    """
    return verify_release(open_evidence(release_dir, signer=signers))


def verify_release(release: Release) -> VerificationReport:
    """Check a release that was opened; see `verify`.

    Raises:
        VerificationError: something differs; every problem that was found is listed.
    """
    problems: list[str] = []
    for name, check in CHECKS.items():
        problems += [problem for problem in run_check(name, check, release) if problem not in problems]
    if not problems and can_draw():  # only sound evidence can say what its figures show
        problems = run_check("figures", find_false_figures, release)
    if problems:
        raise VerificationError(f"release {release.directory}", problems)
    return _report(release)


def _report(release: Release) -> VerificationReport:
    manifest = release.manifest
    checked = {"files": len(manifest.files), "bytes": sum(entry.size_bytes for entry in manifest.files),
               "tensors": len(manifest.tensors),
               "claims": len(release.claims), "lines of the card": len(release.read(CARD_PATH, bytes.decode).splitlines()),
               "stage records": len(release.records), "ledger rows": len(release.ledger["key"])}
    if not can_draw():  # said, as they may show anything then
        checked["figures drawn again (matplotlib is missing)"] = 0
    return VerificationReport(release.directory, manifest.root, checked, release.signers)
