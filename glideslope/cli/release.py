"""Commands that pack, check and verify a release."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import VerificationError
from ..store.protected_places import refuse_in_release
from ..store.whole_files import write_bytes
from .arguments import (
    RELEASES,
    RUNS,
    JsonOption,
    PolicyOption,
    RecipeArgument,
    ReleaseArgument,
    RunsOption,
    ThresholdOption,
    opened,
    signer_rule,
    tell,
    told_signers,
)

app = typer.Typer()


@app.command(rich_help_panel=RELEASES)
def pack(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Write the release directory of a finished run: weights, card, evidence, manifest."""
    with opened(recipe, runs_dir) as opened_run:
        record = opened_run.pack()
    tell({"release": str(opened_run.directory / "release"), **record.summary}, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def check(release: ReleaseArgument, policy: PolicyOption = None,
          device: Annotated[str, typer.Option(help="Where golden samples are drawn again: cpu, cuda or mps.")] = "cpu",
          as_json: JsonOption = False) -> None:
    """Run every gate on a release: all failures are listed, and one is enough to refuse it."""
    from ..release.vetting.gates import run_policy

    report = run_policy(release, policy, device=device)
    tell({"release": str(release), "gates": list(report.passed) if as_json else "passed: " + ", ".join(report.passed),
          "signed by": told_signers(report.signers, as_json=as_json),
          **({"unsafe bypasses": dict(report.unsafe)} if report.unsafe or as_json else {})}, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def verify(release: ReleaseArgument,
           key: Annotated[list[str] | None, typer.Option("--key", metavar="KEY", help="Whom you trust: a key id, or the path of a public key. "
                                                         "The release must be signed by it. May be given several times.")] = None,
           threshold: ThresholdOption = None,
           as_json: JsonOption = False) -> None:
    """Recompute every digest and every number on the card, offline, and name what differs."""
    from ..release.verify import verify as verify_release

    rule = signer_rule(key, threshold, option="--key")
    report = verify_release(release, rule)
    signers, told = report.signers, report.to_json()
    if as_json:
        told["is_signer_trusted"] = rule is not None
    else:
        told["signed_by"] = "nobody" if signers is None else str(signers) if rule is not None else (
            f"{signers} (a valid signature; whether to trust this key, only --key with the id you know from elsewhere tells)")
        told |= {"unsafe bypasses": signers.unsafe} if signers is not None and signers.unsafe else {}
    tell(told, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def card(release: ReleaseArgument,
         check: Annotated[bool, typer.Option("--check", help="Hold both cards and their figures against the evidence, line by line.")] = False,
         html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the card as one HTML page, figures inside.")] = None,
         of_data: Annotated[bool, typer.Option("--dataset", help="The dataset card instead of the model card.")] = False,
         as_json: JsonOption = False) -> None:
    """Print a release's card as its evidence gives it, check it against the evidence, or write it as a page to look at."""
    from ..release.documents import card_check

    if check:
        differences, stale = card_check.check_card(release), card_check.check_figures(release)
        if as_json:
            tell({"release": str(release), "differences": [difference.to_json() for difference in differences], "figures": stale}, as_json=True)
            raise typer.Exit(code=1 if differences or stale else 0)
        if differences or stale:
            raise VerificationError(f"cards of {release}", [*map(str, differences), *stale])
        tell({"release": str(release), "cards": "every line and figure is what the evidence gives"}, as_json=False)
    elif html is not None:
        refuse_in_release(html, release)
        write_bytes(html, card_check.card_page(release, of_data=of_data).encode())
        tell({"page": str(html)}, as_json=as_json)
    else:
        text = card_check.render_again(release, of_data=of_data)
        if as_json:
            tell({"card": text}, as_json=True)
        else:
            sys.stdout.write(text)


@app.command("export-diffusers", rich_help_panel=RELEASES)
def export_diffusers(release: ReleaseArgument,
                     out: Annotated[Path, typer.Argument(metavar="OUT", help="Where the export goes: a new or empty directory.")],
                     check: Annotated[bool, typer.Option("--check", help="Write nothing: compare the export at OUT with the release, byte "
                                                         "for byte.")] = False,
                     as_json: JsonOption = False) -> None:
    """Write a copy of a release that plain diffusers loads, with code generated from glideslope's own sources."""
    from ..release.exports.diffusers import export_diffusers as export
    from ..release.exports.export_check import check_export

    if check:
        problems = check_export(out, release)
        if problems:
            raise VerificationError(f"export {out}", problems)
        tell({"export": str(out), "release": str(release), "differences": [] if as_json else "none: every file is what this glideslope writes"},
             as_json=as_json)
        return
    written = export(release, out)
    tell({"export": str(out), **written}, as_json=as_json)
