"""How long verification takes, and how fast it hashes beside disk and SHA-256: `python -m benchmarks.verify RELEASE`.

First the whole command in a fresh process, by the clock and by processor time, then each check of it on its own. Then the
hashing of every file and tensor, as `verify` does it (the bytes of weights go into two digests: the file's and the
tensor's), beside reading the same files from the page cache, reading them from disk after the cache was told to forget
them, and SHA-256 of as many bytes that lie in memory. All on the release, and on one large weight file of zeros. On a busy
machine only the processor time says something.
"""

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from glideslope.release.evidence.contents import open_evidence
from glideslope.release.vetting.gates.gate import run_check
from glideslope.release.vetting.table import CHECKS
from glideslope.release.weights import canonical_header
from glideslope.store.file_lists import NUM_THREADS
from glideslope.store.weight_files import TensorHeader, weights_name
from glideslope.trust.hashed_files import hash_files, is_weight_file

PIECE_BYTES = 1 << 20
MEGABYTE = 1e6
COMMAND = "from glideslope.cli.main import main; main()"


def measure(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds by the clock, or of all threads on the processor."""
    started = clock()
    work()
    return clock() - started


def read_all(files: list[Path]) -> None:
    """Read files in pieces of a mebibyte and do nothing with them."""
    piece = bytearray(PIECE_BYTES)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(piece):
                pass


def forget(files: list[Path]) -> None:
    """Ask the operating system to drop files from its cache."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def hash_memory(num_bytes: int) -> None:
    """SHA-256 of so many bytes that lie in memory, on one core."""
    piece, digest = bytes(PIECE_BYTES), hashlib.sha256()
    for _ in range(num_bytes // PIECE_BYTES):
        digest.update(piece)


def write_zeros(directory: Path, num_bytes: int) -> Path:
    """A directory with one large weight file, really written."""
    num_tensors = 16
    headers = {f"layer.{n:02d}": TensorHeader("F32", (num_bytes // num_tensors // 4,), 0, 0) for n in range(num_tensors)}
    path = directory / "base" / weights_name()
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.write(canonical_header(headers))
        for _ in range(num_tensors):
            file.write(bytes(num_bytes // num_tensors // 4 * 4))
    return directory


def compare(directory: Path, name: str) -> None:
    """Print the speeds of one directory, best of three."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    names = [path.relative_to(directory).as_posix() for path in files]
    num_bytes = sum(path.stat().st_size for path in files)
    num_weights = sum(path.stat().st_size for path in files if is_weight_file(path.relative_to(directory).as_posix()))
    from_disk = []
    for _ in range(3):
        forget(files)
        from_disk.append(measure(lambda: read_all(files)))
    cached, hashed = ([measure(work) for _ in range(3)] for work in (lambda: read_all(files), lambda: hash_files(directory, names)))
    memory = [measure(lambda: hash_memory(max(num_bytes, 200_000_000))) for _ in range(3)]
    speed = max(num_bytes, 200_000_000) / min(memory) / MEGABYTE
    digested = num_bytes + num_weights
    work_s, bare_s = (min(measure(work, time.process_time) for _ in range(3)) for work in
                      (lambda: hash_files(directory, names), lambda: hash_memory(digested)))
    print(f"{name}: {num_bytes / MEGABYTE:.0f} MB in {len(files)} files, {digested / MEGABYTE:.0f} MB to digest\n"
          f"  from disk {num_bytes / min(from_disk) / MEGABYTE:.0f} MB/s, from the page cache {num_bytes / min(cached) / MEGABYTE:.0f} MB/s, "
          f"SHA-256 of memory {speed:.0f} MB/s on one core\n"
          f"  hashed as verify does in {min(hashed):.2f} s: {num_bytes / min(hashed) / MEGABYTE:.0f} MB/s of files, "
          f"{digested / min(hashed) / MEGABYTE:.0f} MB/s into digests, {digested / min(hashed) / MEGABYTE / speed:.2f} of one core's SHA-256 "
          f"({min(NUM_THREADS, len(files))} files at a time)\n"
          f"  processor time {work_s:.2f} s, {bare_s:.2f} s of it for SHA-256 alone: reading and all else adds {work_s / bare_s - 1:.0%}",
          flush=True)


def time_command(release: Path) -> None:
    """Print how long `glideslope verify` takes in a process of its own, best of three."""
    clocks, processors = [], []
    command = [sys.executable, "-c", COMMAND, "verify", str(release)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        clocks.append(time.perf_counter() - started)
        if done.returncode:
            sys.exit(f"the release does not verify: {done.stderr}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processors.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"glideslope verify: {min(clocks):.1f} s by the clock, {min(processors):.1f} s of processor time, without a GPU", flush=True)


def time_checks(release_dir: Path) -> None:
    """Print what each check takes, modules loaded on first use included."""
    release = open_evidence(release_dir)
    for name, check in CHECKS.items():
        problems: list[str] = []
        seconds = measure(lambda: problems.extend(run_check(name, check, release)))  # noqa: B023  # called at once
        if seconds >= 0.05 or problems:
            print(f"  {name}: {seconds:.2f} s{' ' + str(problems[:2]) if problems else ''}", flush=True)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--large-mb", type=int, default=1000, help="size of the large weight file")
    options = parser.parse_args()
    time_command(options.release)
    time_checks(options.release)
    compare(options.release, "the release")
    with tempfile.TemporaryDirectory(dir=options.release.parent) as folder:
        compare(write_zeros(Path(folder) / "large", options.large_mb * 1_000_000), "one large file")


if __name__ == "__main__":
    main()
