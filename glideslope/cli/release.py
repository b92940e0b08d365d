"""Commands that pack, check and verify a release."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import VerificationError
from ..store.protected_places import refuse_in_release
from ..store.whole_files import write_bytes
from .arguments import (
    RUNS,
    JsonOption,
    PolicyOption,
    RecipeArgument,
    ReleaseArgument,
    RunsOption,
    SignerOption,
    ThresholdOption,
    flag,
    opened,
    signer_rule,
    tell,
    told_signers,
)


def pack(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Write the release: weights, card, evidence, manifest."""
    with opened(recipe, runs_dir) as opened_run:
        record = opened_run.pack()
    tell({"release": str(opened_run.directory / "release"), **record.summary}, as_json=as_json)


def check(release: ReleaseArgument, policy: PolicyOption = None,
          device: Annotated[str, typer.Option(help="Where golden samples are drawn again: cpu, cuda or mps.")] = "cpu",
          as_json: JsonOption = False) -> None:
    """Hold a release against its policy.

    Every failure is listed; one is enough to refuse the release.
    """
    from ..release.vetting.check import run_policy

    report = run_policy(release, policy, device=device)
    tell({"release": str(release), "gates": list(report.passed) if as_json else "passed: " + ", ".join(report.passed),
          "signed by": told_signers(report.signers, as_json=as_json),
          **({"unsafe bypasses": dict(report.unsafe)} if report.unsafe or as_json else {})}, as_json=as_json)


def verify(release: ReleaseArgument,
           signer: SignerOption = None, threshold: ThresholdOption = None, as_json: JsonOption = False) -> None:
    """Recompute every digest and number of a release, offline."""
    from ..release.verify import verify as verify_release

    rule = signer_rule(signer, threshold)
    report = verify_release(release, rule)
    signers, told = report.signers, report.to_json()
    if as_json:
        told["is_signer_trusted"] = rule is not None
    else:
        told["signed_by"] = "nobody" if signers is None else str(signers) if rule is not None else (
            f"{signers} (valid; name the key you trust with --signer)")
        told |= {"unsafe bypasses": signers.unsafe} if signers is not None and signers.unsafe else {}
    tell(told, as_json=as_json)


def card(release: ReleaseArgument,
         check: Annotated[bool, flag("--check", help="Hold both cards and their figures against the evidence, line by line.")] = False,
         out_file: Annotated[Path | None, typer.Option("--out", metavar="FILE.html", help="Write the card as one HTML page, figures "
                                                       "inside.")] = None,
         of_data: Annotated[bool, flag("--dataset", help="The dataset card instead of the model card.")] = False,
         as_json: JsonOption = False) -> None:
    """Print a card, write it as a page, or check it."""
    from ..release.documents import card_view

    if check:
        differences, stale = card_view.check_card(release), card_view.check_figures(release)
        if as_json:
            tell({"release": str(release), "differences": [difference.to_json() for difference in differences], "figures": stale}, as_json=True)
            raise typer.Exit(code=1 if differences or stale else 0)
        if differences or stale:
            raise VerificationError(f"cards of {release}", [*map(str, differences), *stale])
        tell({"release": str(release), "cards": "every line and figure is what the evidence gives"}, as_json=False)
    elif out_file is not None:
        refuse_in_release(out_file, release)
        write_bytes(out_file, card_view.card_page(release, of_data=of_data).encode())
        tell({"page": str(out_file)}, as_json=as_json)
    else:
        text = card_view.render_again(release, of_data=of_data)
        if as_json:
            tell({"card": text}, as_json=True)
        else:
            sys.stdout.write(text)


def export_diffusers(release: ReleaseArgument,
                     out_dir: Annotated[Path, typer.Option("--out", metavar="DIRECTORY", help="Where the export goes: a new or empty "
                                                           "directory.")],
                     check: Annotated[bool, flag("--check", help="Write nothing: compare the export that lies there with the "
                                                         "release, byte for byte.")] = False,
                     as_json: JsonOption = False) -> None:
    """Write a copy for those who have only diffusers."""
    from ..release.exports.diffusers import export_diffusers as export
    from ..release.exports.export_check import check_export

    if check:
        problems = check_export(out_dir, release)
        if problems:
            raise VerificationError(f"export {out_dir}", problems)
        tell({"export": str(out_dir), "release": str(release),
              "differences": [] if as_json else "none: every file is what this glideslope writes"}, as_json=as_json)
        return
    written = export(release, out_dir)
    tell({"export": str(out_dir), **written}, as_json=as_json)
