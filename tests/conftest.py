"""What holds for every test: one Hypothesis profile, and none of the surroundings that a shell or a CI sets."""

import os

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("steady")

# Tests that need one of these set it themselves. A CI sets the first four, a shell or an editor the others.
SURROUNDINGS = ("CI", "GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS", "NO_COLOR", "TERM", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE",
                "HF_TOKEN", "HF_HUB_OFFLINE", "GLIDESLOPE_KEY_PASSPHRASE", "RAY_ADDRESS", "OMP_NUM_THREADS")
for name in SURROUNDINGS:
    os.environ.pop(name, None)


LONGEST = ("test_end_to_end.py", "test_ray_engine.py", "test_hub_commands.py")  # begin first, so that no process waits for them at the end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)
