import random
import shutil
from pathlib import Path

import pytest

from benchmarks.fuzz import Bench, judge, try_change
from benchmarks.hostile import OF_KIND, mutate
from glideslope.store.digests import sha256_bytes
from tests.release.conftest import packed_run, policy, recipe  # noqa: F401  # the small release


@pytest.fixture
def bench(packed_run: Path, tmp_path: Path) -> Bench:  # noqa: F811  # the fixture of that name
    return Bench(packed_run / "release", tmp_path)


def content(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_release_that_nobody_changed_verifies_after_its_digests_were_written_anew(bench: Bench) -> None:
    bench.seal()
    assert judge(bench) == ("same", "") and content(bench.directory) == bench.pristine


def test_digests_are_written_anew_through_the_records_to_the_manifest(bench: Bench) -> None:
    path = "evidence/filters/person/classifier.safetensors"
    data = bytearray(bench.pristine[path])
    data[-1] ^= 1
    (bench.directory / path).write_bytes(bytes(data))
    assert judge(bench)[0] == "refused"
    bench.seal()
    for file in ("evidence/records/classifiers__person.json", "manifest.json"):
        assert sha256_bytes(bytes(data)) in (bench.directory / file).read_text()
    problems = judge(bench)[1]
    assert "sha256 is" not in problems and "record's digest" not in problems


def test_everything_is_put_back_after_each_change(bench: Bench) -> None:
    for number in range(12):
        outcome = try_change(bench, 0, number)
        assert not outcome.is_fault, outcome
        assert content(bench.directory) == bench.pristine


def test_a_release_that_verifies_and_says_something_else_is_a_fault(bench: Bench) -> None:
    bench.statement = b"what it said before"
    assert judge(bench)[0] == "says otherwise"


def test_a_changed_release_is_refused_with_the_change_named(bench: Bench) -> None:
    (bench.directory / "README.md").write_bytes(b"# other\n")
    verdict, detail = judge(bench)
    assert verdict == "refused" and "README.md" in detail


@pytest.mark.parametrize("suffix", sorted(OF_KIND))
def test_a_change_gives_other_bytes_and_the_same_ones_for_the_same_seed(bench: Bench, suffix: str) -> None:
    path = next(path for path in bench.pristine if path.endswith(f".{suffix}"))
    for seed in range(15):
        first, second = (mutate(path, bench.pristine[path], random.Random(seed)) for _ in range(2))
        assert first == second and first[1] != bench.pristine[path]


def test_strangers_and_links_are_removed_again(bench: Bench) -> None:
    (bench.directory / "evil.py").write_text("x")
    shutil.rmtree(bench.directory / "figures")
    (bench.directory / "README.md").unlink()
    (bench.directory / "README.md").symlink_to("nowhere")
    bench.restore()
    assert content(bench.directory) == bench.pristine
