"""Notices of withdrawal: what keeps a release that was taken back from being loaded.

A withdrawal counts whether it is signed or not, as one that somebody forged costs less than one that is overlooked; whose it is
is said. A list that was signed once and is no longer as it was signed counts for every release: an entry may have been taken
from it. What nobody can see from one state of a repository is that list and signature were both removed.
"""

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .envelopes import MAX_ENVELOPE_BYTES
from .errors import VerificationError
from .signatures import verify_withdrawal, withdrawal_statement
from .signers import SignerRule
from .withdrawal import MAX_WITHDRAWN_BYTES, WITHDRAWN_NAME, WITHDRAWN_SIGNATURE_NAME, Withdrawals

NOTICE_FILES = {WITHDRAWN_NAME: MAX_WITHDRAWN_BYTES, WITHDRAWN_SIGNATURE_NAME: MAX_ENVELOPE_BYTES}
OVERRIDE = "load it all the same with allow_withdrawn=True"

logger = logging.getLogger("glideslope.loading")


@dataclass(frozen=True)
class WithdrawalSignature:
    """What the signature beside a WITHDRAWN.json is worth.

    Attributes:
        state: whether it fits the list, does not, is not there, or could not be checked, as `cryptography` is not installed.
        key_id: whose it is, when it fits.
        problem: why it does not fit, when it does not.
    """

    state: Literal["fits", "wrong", "absent", "unchecked"]
    key_id: str | None = None
    problem: str = ""

    def describe(self, trusted: SignerRule | None = None) -> str:
        """A few words for people.

        Args:
            trusted: id or path of the public key whose owner the reader trusts; none when they named nobody.

        Raises:
            ReleaseError: `trusted` is no key.
        """
        if self.state == "fits":
            foreign = trusted is not None and self.key_id not in trusted.keys
            return f"signed by {self.key_id}" + (f", which is foreign: you trust {trusted.describe()}" if foreign and trusted else "")
        if self.state == "wrong":
            return f"its signature does not fit: {self.problem}"
        return "not signed" if self.state == "absent" else "its signature was not checked, as the extra `sign` is not installed"


def examine_withdrawal(envelope: bytes | None, withdrawn_bytes: bytes) -> WithdrawalSignature:
    """Look at the signature beside a WITHDRAWN.json; whatever it is, it is told and not raised, as the list counts without one.

    Args:
        envelope: the bytes of WITHDRAWN.dsse.json; none when there is no such file.
        withdrawn_bytes: the bytes of WITHDRAWN.json.

    Raises:
        VerificationError: the list itself is malformed.
    """
    withdrawal_statement(withdrawn_bytes)
    if envelope is None:
        return WithdrawalSignature("absent")
    if importlib.util.find_spec("cryptography") is None:
        return WithdrawalSignature("unchecked")
    try:
        return WithdrawalSignature("fits", key_id=verify_withdrawal(envelope, withdrawn_bytes).key_ids[0])
    except VerificationError as error:
        return WithdrawalSignature("wrong", problem="; ".join(error.problems))


def refuse_withdrawn(name: str, files: Mapping[str, bytes], root: str | None, trusted: SignerRule | None = None) -> None:
    """Refuse a release that a repository's list of withdrawals names, or may have named.

    Args:
        name: how messages call the release.
        files: the content of WITHDRAWN.json and WITHDRAWN.dsse.json, of those that are there.
        root: of the release's manifest; none when it has none.
        trusted: id or path of the public key that must have signed the release; none when anybody may have.

    Raises:
        VerificationError: the release is on the list, or nobody can tell: it has no manifest, or list or signature are malformed,
            missing or do not fit each other.
        ReleaseError: `trusted` is no key.
    """
    data, envelope = files.get(WITHDRAWN_NAME), files.get(WITHDRAWN_SIGNATURE_NAME)
    if data is None:
        if envelope is not None:
            raise VerificationError(name, [f"{WITHDRAWN_SIGNATURE_NAME} is there without the {WITHDRAWN_NAME} that it signs: somebody removed "
                                           f"the list, and this release may be on it; ask its publisher, or {OVERRIDE}"])
        return
    withdrawals = Withdrawals.from_bytes(data, where=f"{WITHDRAWN_NAME} of {name}")
    signature = examine_withdrawal(envelope, data)
    said = f"{WITHDRAWN_NAME}: {signature.describe(trusted)}"
    if root is None:
        raise VerificationError(name, [f"releases of this repository were withdrawn, and nobody can tell whether it is one of them, as it has "
                                       f"no manifest ({said}); take another release, or {OVERRIDE}"])
    withdrawal = withdrawals.find(root)
    if withdrawal is not None:
        raise VerificationError(name, [f"it was withdrawn: {withdrawal.reason} ({said}); take another release, or {OVERRIDE}"])
    if signature.state == "wrong":
        raise VerificationError(name, [f"{said}: somebody changed the list of withdrawn releases, and this one may have been on it; ask its "
                                       f"publisher, or {OVERRIDE}"])
    if signature.state == "unchecked" or (trusted is not None and signature.key_id not in trusted.keys):
        logger.warning("%s: is not on the list of withdrawn releases, but %s", name, said)
