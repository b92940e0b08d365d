"""Starts processes of `glideslope train` as a launcher does, forked from one that has imported what they need: `python launching.py`."""

import json
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from glideslope.cli.main import main
from glideslope.models.training import base

for needed in ("device.processes", "models.training.noised_clip", "release.evaluation", "release.vetting.recipe_check"):
    import_module(f"glideslope.{needed}")
base.SAMPLE_STEPS = base.NUM_SAMPLES = 2


def serve() -> None:
    """For each line of a request: fork, tell the numbers of the processes, and how they ended."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        children = [fork(asked, rank) for rank in range(asked["number"])]
        print(json.dumps(children), flush=True)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)


def fork(asked: dict[str, Any], rank: int) -> int:
    """Start one process; what it says goes to files."""
    child = os.fork()
    if child:
        return child
    os.environ |= asked["env"] | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(asked["told"]) / f"{name}-{rank}", os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["glideslope", *asked["command"]]
    code = 0
    try:
        main()
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:  # the child ends here whatever happened
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
