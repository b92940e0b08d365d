"""The gate on loading: a fresh process loads the release and draws a picture."""

import json
import os
import subprocess
import sys

from ...evidence.contents import Release
from .gate import Asked, Gate

RELOAD_CODE = """
import json, sys
from pathlib import Path
from glideslope import GlidePipeline
from glideslope.errors import GlideslopeError
from glideslope.trust.opening import Trust, open_release
try:
    opened = open_release(Path(sys.argv[1]), Trust(verify="required", ignores_signature=sys.argv[2] == "unsigned"))
    pipe = GlidePipeline.from_release(opened, device="cpu")
    image = pipe("a red circle", num_images=1, num_steps=2, seed=0).images[0]
    low, high = image.convert("L").getextrema()
    problem = f"the picture is blank: every value is {low}" if low == high else None
except GlideslopeError as error:
    problem = str(error)
print(json.dumps({"problem": problem}))
"""


def find_reload_problems(release: Release, asked: Asked) -> list[str]:
    """One sentence when a release does not load in a fresh process, or draws a blank picture there."""
    signature = "unsigned" if release.opened.trust.ignores_signature else "as it is"
    command = [sys.executable, "-P", "-c", RELOAD_CODE, str(release.directory.resolve()), signature]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=asked.reload_timeout_s, check=False, stdin=subprocess.DEVNULL,
                              env=environment)
    except subprocess.TimeoutExpired:
        return [f"loading and drawing took more than {asked.reload_timeout_s:.0f} s; try `glideslope sample` on the release"]
    try:
        problem = json.loads(done.stdout.strip().splitlines()[-1])["problem"] if done.returncode == 0 else _last_line(done.stderr)
    except (ValueError, KeyError, IndexError, TypeError):
        problem = f"its answer cannot be read: {done.stdout[-200:]!r}"
    return [] if problem is None else [f"does not load or draw in a fresh process: {problem}; try `glideslope sample` on the release"]


def _last_line(text: str) -> str:
    return (text.strip() or "no message").splitlines()[-1]


RELOAD = Gate("reload", "the release does not load in a fresh process, or draws a blank picture", demand=find_reload_problems)
