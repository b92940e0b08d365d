"""Who must have signed: keys by name, and how many of them. The loader, `verify` and the policy apply this one rule."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from ..errors import ReleaseError, VerificationError
from .keys import SHORT_ID_LENGTH, read_key_id

Keys = Union[str, Path, Collection[str | Path], "SignerRule"]


@dataclass(frozen=True)
class SignerRule:
    """Keys, and how many of them must have signed.

    Attributes:
        keys: ids of public keys, sorted, each once.
        threshold: how many of them; from 1 to all.
    """

    keys: tuple[str, ...]
    threshold: int

    def __post_init__(self) -> None:
        """Refuse a rule that nobody's signature would meet, or everybody's.

        Raises:
            ReleaseError: there is no key, or the threshold is not from 1 to the number of keys.
        """
        if not self.keys:
            raise ReleaseError("signers: no key is named, so any signature or none would do; name at least one key id")
        num_keys = len(set(self.keys))
        if num_keys != len(self.keys) or not 1 <= self.threshold <= num_keys:
            raise ReleaseError(f"signers: the threshold is {self.threshold}, but {num_keys} different keys are named; expected 1 to {num_keys}")

    @classmethod
    def of(cls, keys: Keys, threshold: int | None = None) -> "SignerRule":
        """A rule from one key or several.

        Args:
            keys: id or path of a public key, several of them, or a rule. A key that is given twice counts once.
            threshold: how many must have signed; none: all of them.

        Raises:
            ReleaseError: there is no key, one is no key or a weak one, or the threshold is not from 1 to the number of keys.
        """
        if isinstance(keys, SignerRule):
            return keys if threshold is None else cls.of(keys.keys, threshold)
        given = [keys] if isinstance(keys, str | Path) else list(keys)
        key_ids = tuple(sorted({read_key_id(str(key)) for key in given}))
        return cls(key_ids, len(key_ids) if threshold is None else threshold)

    def describe(self) -> str:
        """The rule in words."""
        named = ", ".join(f"{key_id[:SHORT_ID_LENGTH]}…" for key_id in self.keys)
        return named if len(self.keys) == 1 else f"{self.threshold} of {named}"

    def find_lack(self, key_ids: Collection[str]) -> str | None:
        """Why signatures by these keys are not enough, in one sentence; none when they are."""
        valid = set(key_ids) & set(self.keys)
        if len(valid) >= self.threshold:
            return None
        if not key_ids:
            return f"the release is not signed, and a signature of {self.describe()} is asked for"
        signed = ", ".join(f"{key_id[:SHORT_ID_LENGTH]}…" for key_id in sorted(key_ids))
        if not valid:
            return f"signed by {signed}, expected {self.describe()}: somebody else signed this release"
        return f"signed by {signed}, which is {len(valid)} of the {self.threshold} signatures that are asked for (expected {self.describe()})"

    def refuse_lack(self, key_ids: Collection[str], *, where: str) -> None:
        """Refuse signatures that are not enough.

        Raises:
            VerificationError: fewer of the keys than the threshold signed.
        """
        lack = self.find_lack(key_ids)
        if lack is not None:
            raise VerificationError(where, [lack])
