"""Pack a run as a release, gate it, verify it."""

from .gates import check
from .pack import pack
from .verify import VerificationReport, verify

__all__ = ["VerificationReport", "check", "pack", "verify"]
