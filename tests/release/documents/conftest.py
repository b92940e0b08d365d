"""The documents of the small release, and its claims."""

import json
from pathlib import Path
from typing import Any

import pytest

from glideslope.release.evidence.contents import Release, open_evidence


@pytest.fixture(scope="session")
def release(packed_run: Path) -> Release:
    """The packed release; tests must not change it."""
    return open_evidence(packed_run / "release")


@pytest.fixture(scope="session")
def stated(release: Release) -> dict[str, Any]:
    return release.claims


@pytest.fixture
def read(release: Release) -> Any:
    return lambda path: json.loads((release.directory / path).read_text())
