"""Commands that make keys and sign a release."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ReleaseError
from .arguments import JsonOption, PolicyOption, ReleaseArgument, flag, tell, told_signers

PASSPHRASE_VARIABLE = "GLIDESLOPE_KEY_PASSPHRASE"

def keygen(key: Annotated[Path, typer.Argument(metavar="KEY", help="Where the private key goes; the public one goes beside it, as KEY.pub.")],
           encrypt: Annotated[bool, flag(
               "--encrypt", help=f"Ask for a passphrase that the private key is encrypted with ({PASSPHRASE_VARIABLE} gives it too).")] = False,
           for_bundles: Annotated[bool, flag(
               "--for-bundles", help="A P-256 key for OpenSSF model-signing bundles instead of an Ed25519 key for releases.")] = False,
           as_json: JsonOption = False) -> None:
    """Make a key pair to sign releases with.

    Publish the key id where your readers find it, not only beside the release.
    """
    from ..release.exports.model_signing import generate_bundle_key
    from ..trust.keys import generate_key

    passphrase = os.environ.get(PASSPHRASE_VARIABLE)
    if passphrase is None and encrypt:
        passphrase = ask_passphrase("Passphrase", is_new=True)
    key_id = (generate_bundle_key if for_bundles else generate_key)(key, passphrase=passphrase)
    tell({"private key": str(key), "public key": f"{key}.pub", "key id": key_id, "encrypted": passphrase is not None}, as_json=as_json)


def sign(release: ReleaseArgument,
         key: Annotated[Path, typer.Option("--key", metavar="KEY", help="The private key, as `glideslope keygen` wrote it.")],
         policy: PolicyOption = None,
         export_bundle: Annotated[Path | None, typer.Option(
             "--export-bundle", metavar="FILE", help="Write an OpenSSF model-signing bundle over the signed release too, elsewhere.")] = None,
         bundle_key: Annotated[Path | None, typer.Option(
             "--bundle-key", metavar="KEY", help="The P-256 key for the bundle (`glideslope keygen --for-bundles`).")] = None,
         as_json: JsonOption = False) -> None:
    """Check a release, then add your signature.

    The signature names the gates, the policy and every bypass. Signatures of other keys stay.
    """
    from ..release.exports.model_signing import export_bundle as export
    from ..release.sign import sign as sign_release

    if (export_bundle is None) != (bundle_key is None):
        raise typer.BadParameter("--export-bundle and --bundle-key go together")
    signers = sign_release(release, key, passphrase=passphrase_of(key), policy=policy)
    gates = list(signers.gates)
    told: dict[str, Any] = {"release": str(release), "signed by": told_signers(signers, as_json=as_json),
            "gates": gates if as_json else ", ".join(gates), **({"unsafe bypasses": signers.unsafe} if signers.unsafe else {})}
    if export_bundle is not None and bundle_key is not None:
        told["bundle"] = str(export_bundle)
        told["files in the bundle"] = export(release, bundle_key, export_bundle, passphrase=passphrase_of(bundle_key))
    tell(told, as_json=as_json)


def passphrase_of(key: Path) -> str | None:
    """The passphrase of a key: none when it has none, else from the environment, else asked for."""
    from ..trust.keys import is_encrypted

    if not is_encrypted(key):
        return None
    return os.environ.get(PASSPHRASE_VARIABLE) or ask_passphrase(f"Passphrase of {key}", is_new=False)


def ask_passphrase(question: str, *, is_new: bool) -> str:
    """Ask at the terminal; a new passphrase is asked for twice.

    Raises:
        ReleaseError: there is nobody to ask.
    """
    try:
        return str(typer.prompt(question, hide_input=True, confirmation_prompt=is_new, err=True))
    except (typer.Abort, OSError, AttributeError) as error:  # the last: no standard input at all
        raise ReleaseError(f"{question}: none was given, as there is no terminal to ask at; set {PASSPHRASE_VARIABLE}") from error
