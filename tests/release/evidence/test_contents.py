"""A release's evidence is read no further than what an honest file can hold."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glideslope.errors import ReleaseError
from glideslope.release.claims.data import unsafe_claims
from glideslope.release.evidence.contents import FREE_ROWS, allowed_rows, open_unsealed
from glideslope.release.vetting.secret_files import UNSEARCHABLE, scan_file

SCORES = "evidence/filters/a/scores.parquet"


def write(directory: Path, path: str, columns: dict[str, Any], **options: Any) -> Path:
    place = directory / path
    place.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), place, **{"compression": "zstd", "use_dictionary": False} | options)
    return place


def test_a_table_comes_back_with_its_types_and_rows(tmp_path: Path) -> None:
    columns = {"key": pa.array([f"k{n}" for n in range(20_000)]), "flags": pa.array([["x"]] * 20_000),
               "score": pa.array([0.5] * 20_000, pa.float32())}
    write(tmp_path, SCORES, columns)
    assert open_unsealed(tmp_path).scores("a") == pa.table(columns)
    write(tmp_path, SCORES, {"key": pa.array([], pa.string())})
    assert open_unsealed(tmp_path).scores("a") == pa.table({"key": pa.array([], pa.string())})


def test_a_small_file_of_very_many_rows_is_refused_before_it_is_read(tmp_path: Path) -> None:
    place = write(tmp_path, SCORES, {"key": pa.repeat("k", 10 * FREE_ROWS)})
    assert allowed_rows(place.stat().st_size) < 10 * FREE_ROWS
    with pytest.raises(ReleaseError, match=rf"{SCORES}: {10 * FREE_ROWS} rows in \d+ bytes, at most \d+ are read"):
        open_unsealed(tmp_path).scores("a")
    finding, = scan_file(place)
    assert finding.kind == UNSEARCHABLE


def test_a_small_file_that_unfolds_to_very_much_is_refused(tmp_path: Path) -> None:
    write(tmp_path, SCORES, {"key": pa.repeat("k" * 10_000, 50_000)})
    with pytest.raises(ReleaseError, match=rf"{SCORES}: its \d+ bytes unfold to more than \d+"):
        open_unsealed(tmp_path).scores("a")


def test_many_small_shards_of_many_rows_are_refused_together(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path, f"evidence/ledger/shard-{number:05d}.parquet", {"key": pa.repeat("k", FREE_ROWS // 2)})
    with pytest.raises(ReleaseError, match=rf"evidence/ledger: {3 * FREE_ROWS // 2} rows in \d+ bytes"):
        _ = open_unsealed(tmp_path).ledger


def test_many_small_shards_that_unfold_to_very_much_are_refused_together(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, f"evidence/ledger/shard-{number:05d}.parquet", {"key": pa.repeat("k" * 3_000_000, 10)})
    with pytest.raises(ReleaseError, match=r"evidence/ledger: 30 rows in \d+ bytes, .*unfold to \d+ bytes, at most"):
        _ = open_unsealed(tmp_path).ledger


def test_a_file_larger_than_its_place_allows_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence/policy.yaml").write_bytes(b"a" * 1_000_001)
    with pytest.raises(ReleaseError, match="more than 1000000 bytes"):
        open_unsealed(tmp_path).read("evidence/policy.yaml", bytes)


def test_recipe_and_policy_that_would_unfold_without_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence/policy.yaml").write_text("a: &a [x, x]\nb: &b [*a, *a]\n")
    (tmp_path / "evidence/recipe.yaml").write_text("[" * 20_000)
    release = open_unsealed(tmp_path)
    with pytest.raises(ReleaseError, match=r"policy\.yaml: not readable as YAML: \*a: an alias"):
        unsafe_claims(release)
    for _ in range(2):
        with pytest.raises(ReleaseError, match=r"recipe\.yaml: not readable as YAML \(lists and mappings lie more than 32 deep"):
            _ = release.recipe
