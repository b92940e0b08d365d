"""Commands that publish, go back and take back."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from ..errors import ReleaseError
from .arguments import JsonOption, PolicyOption, ReleaseArgument, err, flag, out, tell, told_signers

if TYPE_CHECKING:
    from ..release.publishing.publication import Plan
    from ..release.publishing.statuses import StatusWriter
    from ..trust.status import SignedStatus

TargetArgument = Annotated[str, typer.Argument(metavar="TARGET", help="A repository such as org/name, or a directory: ./published, /mnt/usb, "
                                               "file:///mnt/usb.")]
EndpointOption = Annotated[str | None, typer.Option("--endpoint", metavar="URL", help="Address of the Hub; without it HF_ENDPOINT, or "
                                                    "huggingface.co. Plain http is refused, but for this machine itself.")]
ForeignOption = Annotated[bool, flag("--replace-foreign", help="Also replace or remove files of main that no release put there, or "
                                             "that were edited since. They are listed first.")]
VALID_DAYS, ACCESS, STATUS = 180, "Who may see it", "Status of the repository"
YesOption = Annotated[bool, flag("--yes", "-y", help="Do not ask.")]


@dataclass(frozen=True)
class StatusOptions:
    """Who signs the repository's status, and how long it counts."""

    key: Annotated[Path | None, typer.Option("--key", metavar="KEY", rich_help_panel=STATUS, help=(
        "The private key that signs the status: one of those that signed the release. A signed status is only continued with its "
        "key."))] = None
    valid_days: Annotated[int, typer.Option("--valid-days", metavar="N", rich_help_panel=STATUS, help=(
        "For how many days a signed status counts. Renew it in time with `glideslope release status --renew`."))] = VALID_DAYS
    replace_key: Annotated[bool, flag("--replace-key", panel=STATUS, help=(
        "Continue a status whose key is lost. Readers who named that key have to learn of the new one."))] = False

    def to_writer(self) -> "StatusWriter":
        """The owner of the key, whose passphrase is asked for, or nobody."""
        from ..release.publishing.statuses import StatusWriter
        from .signing import passphrase_of

        passphrase = None if self.key is None else passphrase_of(self.key)
        return StatusWriter.of(self.key, passphrase=passphrase, valid_days=self.valid_days, replace_key=self.replace_key)

def publish(  # noqa: PLR0913, PLR0917 - one parameter for each option
        release: ReleaseArgument, target: TargetArgument, status_options: StatusOptions,
        dry_run: Annotated[bool, flag("--dry-run", help="Show the plan, run the gates, change nothing.")] = False,
        tag: Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Name of this release, such as v1.0.0; without it root- and "
                                                "16 digits.")] = None,
        gated: Annotated[Literal["auto", "manual", "no"] | None, typer.Option("--gated", rich_help_panel=ACCESS, help=(
            "Who may download: auto (who shares their contact), manual (who is let in), no (everybody)."))] = None,
        is_private: Annotated[bool | None, flag("--private/--public", panel=ACCESS, help=(
            "Who sees the repository; without it, it stays as it is, and a new one is private."))] = None,
        endpoint: EndpointOption = None, policy: PolicyOption = None, replace_foreign: ForeignOption = False,
        yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Publish a release, and check what arrived.

    The target is a repository on the Hub or a directory. Plan and gates come first, then staging, a download that is checked, and one
    commit that shows it. After a stop the same command goes on where it was. Main never shows what was not checked.
    """
    from ..release.publishing.publication import Options, open_target, plan_publication
    from ..release.publishing.publish import publish as carry_out
    from ..release.publishing.publish import refuse_unsigned_status
    from ..release.vetting.readiness import check_readiness

    place, writer = open_target(target, endpoint=endpoint), status_options.to_writer()
    plan = plan_publication(release, place, Options(tag, gated, is_private, replace_foreign))
    if not as_json:
        show_plan(plan)
    refuse_unsigned_status(plan.release, place, writer)
    readiness = check_readiness(plan.release, policy)
    told = {"signed by": told_signers(readiness.signers, as_json=as_json),
            "gates": list(readiness.gates.passed) if as_json else "passed: " + ", ".join(readiness.gates.passed),
            **({"unsafe bypasses": dict(readiness.gates.unsafe)} if readiness.gates.unsafe or as_json else {})}
    if dry_run:
        tell({**(plan.to_json() if as_json else {}), **told, "published": False}, as_json=as_json)
        return
    if not as_json:
        tell(told, as_json=False)
    confirm(f"Publish this to {place.name}?", yes=yes)
    published = carry_out(plan, place, writer=writer, report=reporter(as_json=as_json))
    tell({**(plan.to_json() | told if as_json else {}), "published": True if as_json else place.name, "revision": published.revision,
          "tag": published.tag, "root": published.root, "steps": list(published.done) if as_json else len(published.done)}, as_json=as_json)


def rollback(target: TargetArgument,
             tag: Annotated[str, typer.Option("--tag", metavar="TAG", help="Which earlier release main shall show again.")],
             status_options: StatusOptions, endpoint: EndpointOption = None, replace_foreign: ForeignOption = False, yes: YesOption = False,
             as_json: JsonOption = False) -> None:
    """Let a repository show an earlier release again.

    It is downloaded, checked and promoted as a new one is. Every tag stays.
    """
    from ..release.publishing.publication import open_target
    from ..release.publishing.publish import rollback as go_back

    place, writer = open_target(target, endpoint=endpoint), status_options.to_writer()
    tell_identity(place.identify(), as_json=as_json)
    confirm(f"Let main of {place.name} show {tag} again?", yes=yes)
    published = go_back(place, tag, writer=writer, replace_foreign=replace_foreign, report=reporter(as_json=as_json))
    tell({"target": place.name, "revision": published.revision, "tag": published.tag, "root": published.root}, as_json=as_json)


def withdraw(target: TargetArgument,
             reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why: loaders show it to whoever wants the release.")],
             status_options: StatusOptions,
             tag: Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Which release; without it the one that main shows.")] = None,
             endpoint: EndpointOption = None, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Take a published release back.

    Its files stay. glideslope refuses to load it from any tag or commit, and says why.
    """
    from ..release.publishing.publication import open_target
    from ..release.publishing.withdraw import withdraw as take_back

    place, writer = open_target(target, endpoint=endpoint), status_options.to_writer()
    tell_identity(place.identify(), as_json=as_json)
    confirm(f"Withdraw {tag or 'the release that main shows'} of {place.name}?", yes=yes)
    withdrawal = take_back(place, reason, tag=tag, writer=writer)
    tell({"target": place.name, "withdrawn": withdrawal.root, "tag": withdrawal.tag or "(none)", "reason": withdrawal.reason}, as_json=as_json)


def status(target: TargetArgument, status_options: StatusOptions,
           renew: Annotated[bool, flag("--renew", help="Write the next status, which says the same and counts from now on.")] = False,
           endpoint: EndpointOption = None, as_json: JsonOption = False) -> None:
    """Show which published releases are current or withdrawn.

    Its STATUS.json says that of every release, until when it counts, and who signed it.
    """
    from ..release.publishing.patience import Patience, PatientTarget, clear_refusals
    from ..release.publishing.publication import open_target
    from ..release.publishing.statuses import read_status
    from ..release.publishing.statuses import renew as write_again

    place, writer = open_target(target, endpoint=endpoint), status_options.to_writer()
    with clear_refusals(place):
        patient = PatientTarget(place, Patience())
        found = write_again(place, writer) if renew else read_status(patient, patient.read_state())
    if found is None:
        raise ReleaseError(f"{place.name}: has no status; write one with `glideslope publish` or `glideslope release status --renew --key KEY`")
    tell_status(found, as_json=as_json)


def show_plan(plan: "Plan") -> None:
    """Print who publishes what where, and how the shown files change."""
    tell({**plan.identity, "tag": plan.tag, "root": plan.release.root, **plan.access}, as_json=False)
    table = Table(title="what changes", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("file")
    table.add_column("bytes", justify="right")
    for mark, colour, files in (("+", "green", plan.changes.added), ("~", "yellow", plan.changes.changed), ("-", "red", plan.changes.removed)):
        for path, size_bytes in sorted(files.items()):
            note = " (not from a release)" if path in plan.foreign else ""
            table.add_row(Text(mark, colour), path + note, f"{size_bytes:,}")
    out.print(table)
    tell({name: f"{len(files)} files, {sum(files.values()):,} bytes" for name, files in plan.changes.to_json().items()}, as_json=False)


def tell_identity(identity: object, *, as_json: bool) -> None:
    """Print who is about to do something where, before it is done."""
    if not as_json and isinstance(identity, dict):
        tell(identity, as_json=False)


def reporter(*, as_json: bool) -> Callable[[str], None]:
    """Prints each step that is done."""
    def report(line: str) -> None:
        if not as_json:
            err.print(Text.assemble(("✓", "green"), f" {line}"))

    return report


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless told not to; who cannot be asked has to say `--yes`.

    Raises:
        ReleaseError: the answer is no, or there is nobody to ask.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():  # there is none when it was closed
        raise ReleaseError("there is no terminal to ask at; look at the plan with --dry-run, then add --yes")
    if not typer.confirm(question, err=True):
        raise ReleaseError("nothing was changed")


def tell_status(found: "SignedStatus", *, as_json: bool) -> None:
    """Print a status, a line for each release."""
    told = found.status.to_json() | {"signed_by": list(found.key_ids)}
    if as_json:
        tell(told, as_json=True)
        return
    releases = told.pop("releases")
    tell(told | {"signed_by": ", ".join(found.key_ids) or "nobody", "expires": told["expires"] or "never, as it is not signed"}, as_json=False)
    for release in releases:
        instead = f", take {release['successor'][:16]}…" if release["successor"] else ""
        tell({f"{release['root'][:16]}… {release['tag']}".rstrip(): f"{release['state']}{instead}{': ' if release['reason'] else ''}"
              f"{release['reason']}"}, as_json=False)
