"""Ed25519 keys: made, kept in PEM files, named by their public half.

The id of a key is the hex of its 32 public bytes: whoever has the id can check a signature, and trusting a signer means
nothing else than knowing the id from somewhere else than the release itself.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ReleaseError, VerificationError
from ..store.digests import DIGEST_PATTERN
from ..store.file_lists import MANIFEST_NAME
from ..store.strict_json import read_bounded
from ..store.whole_files import storage_error, write_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FIELD_PRIME = 2**255 - 19
CURVE_D = -121665 * pow(121666, -1, FIELD_PRIME) % FIELD_PRIME
SHORT_ID_LENGTH = 16
MIN_PASSPHRASE_LENGTH = 8
MAX_KEY_BYTES = 10_000
NEEDS_EXTRA = "signatures need the package cryptography; install it with: pip install 'glideslope[sign]'"


def generate_key(path: Path, *, passphrase: str | None = None) -> str:
    """Make a key pair: the private key in `path`, readable by its owner alone, the public one beside it as `<path>.pub`.

    Args:
        path: where the private key goes (PEM, PKCS #8); nothing is overwritten.
        passphrase: encrypts the private key; none leaves it as it is.

    Returns:
        The id of the key, 64 hex characters.

    Raises:
        ReleaseError: `cryptography` is not installed, a file is there already, the passphrase is too short, or `path` lies in a
            directory with a manifest, or below one.
        StorageError: the files cannot be written.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise ReleaseError(NEEDS_EXTRA) from error
    key = Ed25519PrivateKey.generate()
    write_key_pair(path, key, passphrase)
    return key_id_of(key)


def write_key_pair(path: Path, key: Any, passphrase: str | None) -> None:
    """Write a private key and its public half; see `generate_key`."""
    from cryptography.hazmat.primitives import serialization as pem

    refuse_near_manifest(path)
    public_path = path.with_name(path.name + ".pub")
    for taken in (path, public_path):
        if taken.exists() or taken.is_symlink():
            raise ReleaseError(f"{taken}: is there already, and a key is never overwritten; choose another name")
    if passphrase is not None and len(passphrase) < MIN_PASSPHRASE_LENGTH:
        raise ReleaseError(f"the passphrase has {len(passphrase)} characters; expected at least {MIN_PASSPHRASE_LENGTH}")
    encryption = pem.NoEncryption() if passphrase is None else pem.BestAvailableEncryption(passphrase.encode())
    private = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, encryption)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(private)
    except OSError as error:
        raise storage_error(path, error) from error
    write_bytes(public_path, key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo))


def refuse_near_manifest(key: Path) -> None:
    """Refuse to write a private key where it could be given away: in a directory with any manifest, or below one.

    Raises:
        ReleaseError: there is such a directory.
    """
    folder = next((folder for folder in key.expanduser().resolve().parents if os.path.lexists(folder / MANIFEST_NAME)), None)
    if folder is not None:
        raise ReleaseError(f"{key}: {folder} holds a {MANIFEST_NAME}, so the private key would lie inside what is given to others; keep keys "
                           "elsewhere, such as ~/keys")


def read_private_key(path: Path, *, passphrase: str | None = None) -> "Ed25519PrivateKey":
    """Read a private key that `generate_key` wrote.

    Raises:
        ReleaseError: `cryptography` is not installed, the file is missing, open to others, no Ed25519 key, or encrypted with
            another passphrase.
    """
    key = read_pem_key(path, passphrase)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not isinstance(key, Ed25519PrivateKey):
        raise ReleaseError(f"{path}: holds another kind of key than Ed25519; make one with `glideslope keygen`")
    return key


def read_pem_key(path: Path, passphrase: str | None) -> Any:
    """Read a private key of any kind; see `read_private_key`."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise ReleaseError(NEEDS_EXTRA) from error
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise ReleaseError(f"{path}: others may read this private key; take it from them with `chmod 600`, and make a new one if they have")
        return load_pem_private_key(read_bounded(path, MAX_KEY_BYTES), None if passphrase is None else passphrase.encode())
    except OSError as error:
        raise ReleaseError(f"{path}: {error.strerror}; make a key with `glideslope keygen`") from error
    except VerificationError as error:
        raise ReleaseError(f"{path}: {error.problems[0]}") from error
    except TypeError as error:
        wanted = "is encrypted; give its passphrase" if passphrase is None else "is not encrypted; give no passphrase"
        raise ReleaseError(f"{path}: the key {wanted}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ReleaseError(f"{path}: no private key in PEM form, or another passphrase") from error


def is_encrypted(path: Path) -> bool:
    """Whether a private key asks for a passphrase; a file that cannot be read does not."""
    try:
        return b"ENCRYPTED" in read_bounded(path, MAX_KEY_BYTES)
    except VerificationError:
        return False


def key_id_of(key: "Ed25519PrivateKey") -> str:
    """The id of a private key's public half, 64 hex characters."""
    return key.public_key().public_bytes_raw().hex()


def read_key_id(key: str) -> str:
    """The id of a key that is given by its id or by the path of its public key.

    Raises:
        ReleaseError: `cryptography` is not installed, the text is neither a whole id nor the path of an Ed25519 public key, or
            the key is one of those whose signatures anybody can make.
    """
    if DIGEST_PATTERN.fullmatch(key):
        return _refuse_weak(key)
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise ReleaseError(NEEDS_EXTRA) from error
    try:
        public = load_pem_public_key(read_bounded(Path(key), MAX_KEY_BYTES))
    except (VerificationError, ValueError, UnsupportedAlgorithm) as error:
        raise ReleaseError(f"key {key!r:.200}: neither a whole key id (64 characters of 0-9 and a-f) nor the path of a public key "
                           "(`<key>.pub`, as `glideslope keygen` writes it)") from error
    if not isinstance(public, Ed25519PublicKey):
        raise ReleaseError(f"{key}: holds another kind of key than Ed25519; give the public key of who signed the release")
    return _refuse_weak(public.public_bytes_raw().hex())


def is_weak_key(key_id: str) -> bool:
    """Whether a public key is a point of small order, for which anybody can make signatures over anything, or not in its one spelling.

    A point (x, y) of the curve -x² + y² = 1 + d x² y² has an order of 1, 2, 4 or 8 when y is 1, -1 or 0, or when its double has
    y = 0, that is when d y⁴ + 2 y² = 1. y is taken modulo the field's prime and without the sign of x, so that every spelling of
    these eight points is found. Other points whose y is not below the prime are refused too: one key would have two ids.

    Args:
        key_id: 64 hex characters.

    Source: RFC 8032, sections 5.1 (the curve) and 5.1.2 (how points are written).
    """
    written = int.from_bytes(bytes.fromhex(key_id), "little") & (2**255 - 1)
    y = written % FIELD_PRIME
    return written >= FIELD_PRIME or y in (0, 1, FIELD_PRIME - 1) or (CURVE_D * pow(y, 4, FIELD_PRIME) + 2 * y * y - 1) % FIELD_PRIME == 0


def _refuse_weak(key_id: str) -> str:
    if is_weak_key(key_id):
        raise ReleaseError(f"key {key_id}: is a point of small order, no key that `glideslope keygen` makes: anybody can sign anything in "
                           "its name; ask who gave it to you for the id of their real key")
    return key_id


def is_signed_by(key_id: str, signature: bytes, message: bytes) -> bool:
    """Whether the key with this id made a signature of 64 bytes over a message; always false for a key of small order.

    Raises:
        ReleaseError: `cryptography` is not installed.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise ReleaseError(NEEDS_EXTRA) from error
    if is_weak_key(key_id):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key_id)).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
