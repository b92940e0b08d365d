"""The process that publishes in a rehearsal, so that it can be killed.

Python and its packages take seconds to start, so one process loads them once and forks a child for every publication.
It reads one JSON object a line from its standard input and writes two lines for each: the child's id, and how it ended.
The way of transfer (`HF_HUB_DISABLE_XET`) and the client's own directory (`HF_HOME`) come from the environment, as they do
for everybody.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from glideslope.errors import GlideslopeError, StageError
from glideslope.store.whole_files import write_json
from glideslope.trust.opening import OpenRelease

from .scenes import Transfer

CODE = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); from tests.hub.child import serve; serve()"
CLIENT_SETTINGS = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE",
                   "HF_HUB_DISABLE_XET", "HF_XET_CACHE")
LOADED_FIRST = ("glideslope.release.publishing.publish", "glideslope.release.publishing.publication", "huggingface_hub.hf_api",
                "huggingface_hub._snapshot_download", "huggingface_hub.utils.httpx", "hf_xet")
FIRST_WAIT_S, NUM_TRIES = 0.05, 3


@dataclass(frozen=True)
class Order:
    """A publication to be made.

    Attributes:
        release: the release's directory.
        repository, endpoint, token: where, and as whom.
        tag: the release's name there.
        is_checked: whether the download is verified in full; otherwise its files are compared with the manifest alone.
        outcome: the file that gets how it ended.
    """

    release: str
    repository: str
    endpoint: str
    token: str
    tag: str
    is_checked: bool
    outcome: str


@dataclass(frozen=True)
class Outcome:
    """How a publication ended: "published", "refused" or "killed"; the steps it did, or the class and text of the refusal."""

    ended: str
    done: tuple[str, ...] = ()
    error: str = ""
    message: str = ""


class Publisher:
    """The loaded process; a context manager."""

    def __init__(self, transfer: Transfer, home: Path) -> None:
        """Remember how files are transferred, and where the client keeps its own files."""
        self.environment = client_environment(home) | ({"HF_HUB_DISABLE_XET": "1"} if transfer == "lfs" else {})

    def __enter__(self) -> "Publisher":
        """Start the process."""
        self._process = subprocess.Popen([sys.executable, "-P", "-c", CODE], env=self.environment, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def publish(self, order: Order, on_start: Callable[[int], None] = lambda pid: None) -> Outcome:
        """Make a publication in a process of its own.

        Args:
            order: what to publish where.
            on_start: gets the id of the process, which may then be killed.

        Returns:
            How it ended.

        Raises:
            StageError: the process broke down in a way that is no refusal.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        on_start(int(self._read()))
        status = int(self._read())
        if status == -signal.SIGKILL:
            return Outcome("killed")
        if status != 0:
            raise StageError(f"the publishing process ended with status {status}; see its messages above")
        value = json.loads(Path(order.outcome).read_bytes())
        return Outcome(value["ended"], tuple(value["done"]), value["error"], value["message"])

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise StageError("the publishing process has gone; see its messages above")
        return line


def client_environment(home: Path) -> dict[str, str]:
    """The environment of a client that knows nothing of this machine's accounts, caches and proxies."""
    kept = {name: value for name, value in os.environ.items() if name not in CLIENT_SETTINGS}
    (home / "tmp").mkdir(parents=True, exist_ok=True)  # what a killed process leaves goes with the rest
    return kept | {"HF_HOME": str(home), "TMPDIR": str(home / "tmp"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                   "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HUB_VERBOSITY": "error", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def serve() -> None:
    """Take orders until the standard input ends."""
    for module in LOADED_FIRST:
        with contextlib.suppress(ImportError):  # the client may come without hf_xet
            importlib.import_module(module)
    for line in sys.stdin:
        order = Order(**json.loads(line))
        child = os.fork()
        if child == 0:
            os._exit(_work(order))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _work(order: Order) -> int:
    """Publish, in the child; 0 when it ended in a known way."""
    try:
        write_json(Path(order.outcome), _publish(order))
    except BaseException:  # the child must never return into its parent's loop
        import traceback

        traceback.print_exc()
        return 1
    return 0


def _publish(order: Order) -> Mapping[str, Any]:
    from glideslope.release.publishing.hub_target import HubTarget
    from glideslope.release.publishing.patience import Patience
    from glideslope.release.publishing.publication import Options, plan_publication
    from glideslope.release.publishing.publish import publish, verify_whole

    patience = Patience(num_tries=NUM_TRIES, first_wait_s=FIRST_WAIT_S)
    target = HubTarget(order.repository, endpoint=order.endpoint, token=order.token)
    try:
        plan = plan_publication(Path(order.release), target, Options(tag=order.tag, replace_foreign=True), patience=patience)
        published = publish(plan, target, patience=patience, check=verify_whole if order.is_checked else compare_only)
    except GlideslopeError as error:
        return asdict(Outcome("refused", error=type(error).__name__, message=str(error)))
    return asdict(Outcome("published", published.done))


def compare_only(release: OpenRelease) -> None:
    """Check nothing beyond the manifest, which publishing compares anyway."""
