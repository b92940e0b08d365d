"""Pack a run as a release, gate it, verify it."""

from .pack import pack
from .verify import VerificationReport, verify
from .vetting.check import check

__all__ = ["VerificationReport", "check", "pack", "verify"]
