"""Which files of a release are its signature, or were to be."""

import re

from ...trust.release_manifest import SIGNATURE_NAME

LEFTOVER = re.compile(rf"{re.escape(SIGNATURE_NAME)}\.[0-9a-f]{{8}}\.tmp")


def is_of_signature(path: str) -> bool:
    """Whether a relative path is that of the signature, or of one that was being written when its writer was killed."""
    return path == SIGNATURE_NAME or LEFTOVER.fullmatch(path) is not None
