"""Does a changed release ever verify? `python -m benchmarks.fuzz RELEASE --minutes 30`.

A small release is changed in one place, verified in process, and put back, over and over. Half of the changes are plain, as by a
damaged disk or a stranger; for the others manifest, record digests and every mention of a digest are written anew, as somebody
who owns the release would, so that parsers and claims meet them. A change must be refused, unless the release says the same as
before: cards, claims and documents but for their digests. It must not take more than 10 seconds or 1 GiB, nor end in anything
but a refusal. `--only N` does one change again and prints what it was.
"""

import argparse
import json
import multiprocessing
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType

from benchmarks.hostile import mutate
from glideslope.errors import GlideslopeError, VerificationError
from glideslope.recipe.stage_settings import expected_settings
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.verify import verify
from glideslope.store.digests import canonical_json, sha256_bytes, sha256_json
from glideslope.store.stage_manifest import Manifest
from glideslope.trust.hashed_files import build_manifest
from glideslope.trust.release_manifest import UNLISTED, ReleaseManifest

LIMIT_S, LIMIT_BYTES, KILL_AFTER_S, TELL_EVERY_S = 10, 1 << 30, 60, 20
STATEMENTS = ("README.md", "DATASET_CARD.md", "USE_POLICY.md", "LICENSE", ".eval_results/glideslope.yaml", "model_index.json",
              "evidence/claims.json", "evidence/croissant.json", "evidence/mlbom.cdx.json")
DIGEST = re.compile(rb"[0-9a-f]{64}|[0-9a-f]{12}(?=\xe2\x80\xa6)")  # whole, or its first twelve figures and an ellipsis
TEXT_SUFFIXES = (".json", ".jsonl", ".yaml", ".md")
STRANGERS = {"evil.py": b"print(1)\n", "base/pytorch_model.bin": b"\x80\x02}q\x00.", "evidence/x.json": b"{}", ".hidden": b"",
             "readme.md": b"# x\n", "evidence/ledger/shard-00009.parquet": b"PAR1PAR1PAR1", "base/config.json.bak": b"{}",
             "evidence/records/other.json": b"{}"}


class TooLong(BaseException):
    """Raised by the alarm; nothing that catches errors may catch it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one change.

    Attributes:
        number: of the change; it follows from the seed alone.
        mode: `plain`, or `owner` where the digests were written anew.
        path, change: which file, and how.
        verdict: `refused`, `same` (verified, and says the same as before), or a fault: `says otherwise`, `too long`, `too large`, `crash`.
        detail: the refusal or the fault.
        seconds, peak_bytes: what verifying took; memory beyond what the process held before.
    """

    number: int
    mode: str
    path: str
    change: str
    verdict: str
    detail: str
    seconds: float
    peak_bytes: int

    @property
    def is_fault(self) -> bool:
        """Whether this must not happen."""
        return self.verdict not in ("refused", "same")


class Bench:
    """A copy of a release that is changed and put back."""

    def __init__(self, release: Path, directory: Path) -> None:
        """Copy the release."""
        self.directory = Path(shutil.copytree(release, directory / "release"))
        self.pristine = {path.relative_to(self.directory).as_posix(): path.read_bytes()
                         for path in sorted(self.directory.rglob("*")) if path.is_file()}
        self.digests = {path: sha256_bytes(data) for path, data in self.pristine.items()}
        self.statement = self.read_statement()

    def read_statement(self) -> bytes:
        """What the release says, digests aside."""
        said = b"\0".join((self.directory / path).read_bytes() for path in STATEMENTS if path in self.pristine)
        settings = expected_settings(open_evidence(self.directory).recipe)  # but for those that only pace a run
        return DIGEST.sub(b"digest", said + canonical_json(settings).encode())

    def restore(self) -> None:
        """Put everything back."""
        for path in sorted(self.directory.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                continue
            name = path.relative_to(self.directory).as_posix()
            if name not in self.pristine or path.is_symlink():
                path.unlink()
        for name, data in self.pristine.items():
            path = self.directory / name
            if path.is_dir():
                shutil.rmtree(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data:
                path.write_bytes(data)

    def change(self, rng: random.Random, *, is_owner: bool) -> tuple[str, str]:
        """Change one thing; says which file, and how."""
        paths = [path for path in self.pristine if path not in (UNLISTED if is_owner else ())]  # an owner writes those anew
        path = rng.choice(paths)
        file, kind = self.directory / path, rng.randrange(40)
        if kind == 0:
            file.unlink()
            return path, "removed"
        if kind == 1:
            stranger = rng.choice(sorted(STRANGERS))
            (self.directory / stranger).parent.mkdir(parents=True, exist_ok=True)
            (self.directory / stranger).write_bytes(STRANGERS[stranger])
            return stranger, "added"
        if kind == 2:
            other = rng.choice([other for other in paths if self.pristine[other] != self.pristine[path]])
            file.write_bytes(self.pristine[other])
            return path, "replaced by another"
        if kind == 3:
            file.unlink()
            file.symlink_to(rng.choice(("/etc/hostname", "nowhere", "..", str(self.directory / rng.choice(paths)))))
            return path, "made a link"
        name, data = mutate(path, self.pristine[path], rng)
        file.write_bytes(data)
        return path, name

    def seal(self) -> None:
        """Write digests anew until they all fit: of files, of records, and last the manifest."""
        known = dict(self.digests)
        for _ in range(12):
            renewed = self._stale_digests(known)
            if not renewed:
                break
            for path in self.directory.rglob("*"):
                if path.suffix in TEXT_SUFFIXES and path.is_file() and path.name not in UNLISTED:
                    data = path.read_bytes()
                    for old, new in renewed.items():
                        data = data.replace(old.encode(), new.encode()).replace(f"{old[:12]}…".encode(), f"{new[:12]}…".encode())
                    path.write_bytes(data)
        try:
            manifest = build_manifest(self.directory)
        except VerificationError:  # weights that nobody can read have no tensors to list
            try:
                manifest = ReleaseManifest(Manifest.of_directory(self.directory, exclude=UNLISTED).files, ())
            except VerificationError:  # no owner can list a link to nowhere
                return
        except OSError:
            return
        (self.directory / "manifest.json").write_bytes(manifest.to_bytes())

    def _stale_digests(self, known: dict[str, str]) -> dict[str, str]:
        renewed = {}
        for path, digest_before in list(known.items()):
            file = self.directory / path
            if path in UNLISTED or not file.is_file():
                continue
            data = file.read_bytes()
            digest = sha256_bytes(data)
            if digest != digest_before:
                renewed[digest_before], known[path] = digest, digest
            if path.startswith("evidence/records/"):
                try:
                    value = json.loads(data)
                    found = sha256_json({key: value[key] for key in ("stage", "config", "inputs", "outputs", "summary")})
                    if isinstance(value["digest"], str) and len(value["digest"]) == 64 and value["digest"] != found:
                        renewed[value["digest"]] = found
                except (ValueError, KeyError, TypeError, RecursionError):  # no record any more: nothing to write anew
                    continue
        return renewed


def mode_of(number: int) -> str:
    """Two changes in turn are plain and two the owner's, so that each of two workers gets both."""
    return ("plain", "owner")[number // 2 % 2]


def try_change(bench: Bench, seed: int, number: int, hang: type[BaseException] = TooLong) -> Outcome:
    """Make one change, verify, and put everything back."""
    rng = random.Random(f"{seed} {number}")
    mode = mode_of(number)
    try:
        path, change = bench.change(rng, is_owner=mode == "owner")
        if mode == "owner":
            bench.seal()
        before = reset_peak()
        started = time.monotonic()
        verdict, detail = judge(bench, hang)
        seconds, peak = time.monotonic() - started, max(0, read_status("VmHWM") - before)
        if verdict in ("refused", "same") and peak > LIMIT_BYTES:
            verdict, detail = "too large", f"{peak / 2**30:.2f} GiB; {detail}"
        return Outcome(number, mode, path, change, verdict, detail[:2000], seconds, peak)
    finally:
        bench.restore()


def judge(bench: Bench, hang: type[BaseException] = TooLong) -> tuple[str, str]:
    """Verify: the verdict, and why."""
    signal.alarm(LIMIT_S)
    try:
        verify(bench.directory)
    except GlideslopeError as error:
        return ("too large" if "MemoryError" in str(error) else "refused"), str(error)
    except hang:
        return "too long", f"more than {LIMIT_S} s"
    except MemoryError:
        return "too large", "MemoryError"
    except Exception as error:
        return "crash", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    return ("same", "") if bench.read_statement() == bench.statement else ("says otherwise", "verified, with other cards, claims or documents")


def read_status(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    match = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def reset_peak() -> int:
    """Forget the highest memory seen so far; returns what is held now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return read_status("VmRSS")


def work(release: Path, seed: int, numbers: range, pipe: Connection) -> None:
    """Make the changes of some numbers, and send what became of each."""
    def ring(number: int, frame: FrameType | None) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, ring)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(release, Path(folder))
        verify(bench.directory)  # everything is imported, and the release is sound
        soft = read_status("VmData") + 2 * LIMIT_BYTES  # what asks for far more gets none, and is counted as too large
        resource.setrlimit(resource.RLIMIT_DATA, (soft, soft))
        for number in numbers:
            pipe.send(number)
            pipe.send(asdict(try_change(bench, seed, number)))


@dataclass
class Worker:
    """A process and what it is at."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    number: int
    since: float


class Campaign:
    """Workers that share the numbers of one seed out among them."""

    def __init__(self, release: Path, seed: int, num_workers: int) -> None:
        """Start the workers."""
        self.release, self.seed, self.step = release, seed, num_workers
        self.context = multiprocessing.get_context("spawn")
        self.outcomes: list[Outcome] = []
        self.workers = [self._start(first) for first in range(num_workers)]

    def _start(self, first: int) -> Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=work, args=(self.release, self.seed, range(first, sys.maxsize, self.step), theirs), daemon=True)
        process.start()
        theirs.close()
        return Worker(process, ours, first, time.monotonic())

    def run(self, until: float, most: int) -> None:
        """Collect outcomes until a time of the monotonic clock, or until there are enough."""
        started = told = time.monotonic()
        while time.monotonic() < until and len(self.outcomes) < most:
            for pipe in wait([worker.pipe for worker in self.workers], timeout=1):
                self._receive(next(worker for worker in self.workers if worker.pipe is pipe))
            for worker in self.workers:
                if time.monotonic() - worker.since > KILL_AFTER_S:
                    self._replace(worker, "too long", f"killed after {KILL_AFTER_S} s")
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                faults = sum(outcome.is_fault for outcome in self.outcomes)
                print(f"{len(self.outcomes)} changes, {faults} faults, {(until - told) / 60:.1f} min left, "
                      f"{len(self.outcomes) / (told - started):.1f} a second", flush=True)
        for worker in self.workers:
            worker.process.kill()

    def _receive(self, worker: Worker) -> None:
        try:
            message = worker.pipe.recv()
        except EOFError:
            self._replace(worker, "crash", f"the process ended with {worker.process.exitcode}")
            return
        worker.since = time.monotonic()
        if isinstance(message, int):
            worker.number = message
        else:
            self._count(Outcome(**message))

    def _count(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if outcome.is_fault:
            print(describe(outcome), flush=True)

    def _replace(self, worker: Worker, verdict: str, detail: str) -> None:
        worker.process.kill()
        mode = mode_of(worker.number)
        self._count(Outcome(worker.number, mode, "?", "?", verdict, detail, KILL_AFTER_S, 0))
        self.workers[self.workers.index(worker)] = self._start(worker.number + self.step)


def report(outcomes: list[Outcome]) -> None:
    """Print counts, what verified, and every fault."""
    for mode in ("plain", "owner"):
        of_mode = [outcome for outcome in outcomes if outcome.mode == mode]
        print(f"{mode}: {len(of_mode)} changes, {dict(Counter(outcome.verdict for outcome in of_mode))}")
    if outcomes:
        print(f"longest {max(o.seconds for o in outcomes):.1f} s, most memory {max(o.peak_bytes for o in outcomes) / 2**20:.0f} MiB")
    print("\nverified, and says the same:")
    same = Counter((outcome.mode, re.sub(r"\d+", "N", outcome.path), outcome.change) for outcome in outcomes if outcome.verdict == "same")
    examples = {(o.mode, re.sub(r"\d+", "N", o.path), o.change): o.number for o in outcomes if o.verdict == "same"}
    for (mode, path, change), count in same.most_common():
        print(f"  {count:5d}  {mode:5s}  {path}  {change}  (such as number {examples[mode, path, change]})")
    print("\nfaults:")
    for outcome in outcomes:
        if outcome.is_fault:
            print(f"  {describe(outcome)}")


def describe(outcome: Outcome) -> str:
    """A fault on one line."""
    return f"number {outcome.number}: {outcome.verdict}: {outcome.mode} {outcome.path} {outcome.change}: {outcome.detail[:300]}"


def show(release: Path, seed: int, number: int) -> None:
    """Do one change again, and print what it was and what became of it."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(release, Path(folder))
        rng = random.Random(f"{seed} {number}")
        path, _ = bench.change(rng, is_owner=mode_of(number) == "owner")
        file, before = bench.directory / path, bench.pristine.get(path, b"")
        after = file.read_bytes() if file.is_file() else b""
        place = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after)))
        print(f"{path}: {len(before)} -> {len(after)} bytes, from byte {place}:\n  {before[max(0, place - 60):place + 120]!r}\n"
              f"  {after[max(0, place - 60):place + 120]!r}")
        bench.restore()
        print(try_change(bench, seed, number))


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--most", type=int, default=sys.maxsize, help="end after so many changes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, help="do one change again and show it")
    options = parser.parse_args()
    if options.only is not None:
        show(options.release, options.seed, options.only)
        return
    campaign = Campaign(options.release, options.seed, options.workers)
    try:
        campaign.run(time.monotonic() + 60 * options.minutes, options.most)
    except KeyboardInterrupt:
        print("stopped early", flush=True)
    report(campaign.outcomes)
    sys.exit(1 if any(outcome.is_fault for outcome in campaign.outcomes) else 0)


if __name__ == "__main__":
    main()
