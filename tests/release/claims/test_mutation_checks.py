import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glideslope.data_filter.index.parquet import write_table
from glideslope.data_filter.mutations.figures import PLANTED_SCHEMA, measure_mutations
from glideslope.errors import VerificationError
from glideslope.recipe.filters import ClipConfig
from glideslope.recipe.recipe import Recipe
from glideslope.recipe.stage_settings import settings_of
from glideslope.release import pack
from glideslope.release.claims.mutation_checks import check_mutations
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.verify import verify
from glideslope.store.records import read_record
from glideslope.store.whole_files import read_json, write_bytes

from ..conftest import Tamperer, picture, stage

SHAPES = ("unchanged", "tiny_1_2", "mirrored")


def planted_rows(run_dir: Path, category: str) -> list[dict[str, Any]]:
    """Six held-out positives and four kept others in three shapes; the smallest shape hides half of the positives."""
    threshold = read_json(run_dir / "filters" / category / "filter.json")["threshold"]
    table = pq.read_table(run_dir / "filters" / category / "scores.parquet").to_pylist()
    positives = [row for row in table if row["role"] == "test" and row["label"] == 1][:6]
    others = [row for row in table if row["role"] != "train" and row["label"] == 0 and row["score"] < threshold][:4]
    rows = []
    for shape in SHAPES:
        for number, row in enumerate((*positives, *others)):
            score = threshold - 1 if row["label"] == 0 or (shape == "tiny_1_2" and number % 2) else threshold + 1
            rows.append({"mutation": shape, "key": row["key"], "concept": row["concept"], "label": row["label"], "area_share": 0.2,
                         "score": score, "was_dropped": row["label"] == 1, "dropped": not score < threshold})
    return rows


def write_mutations(run_dir: Path, category: str = "person") -> None:
    planted = pa.Table.from_pylist(planted_rows(run_dir, category), schema=PLANTED_SCHEMA)
    figures = measure_mutations(planted)
    worst = min(figures["mutations"], key=lambda row: row["recall"])

    def work(directory: Path) -> dict[str, Any]:
        write_table(directory / "planted.parquet", planted)
        write_bytes(directory / "mutations.json", b"{}\n")
        write_bytes(directory / "mutations.png", picture("orange"))
        return {"num_positives": figures["num_positives"], "num_planted": len(planted), "num_unreadable": 0,
                "worst_mutation": worst["mutation"], "worst_recall": worst["recall"]}

    inputs = {name: read_record(run_dir / name).digest for name in ("index", f"classifiers/{category}", f"filters/{category}")}
    stage(run_dir, f"mutations/{category}", inputs | {"source": "0" * 64}, work, {"clip": settings_of(ClipConfig())})


@pytest.fixture
def mutated(run_dir: Path, recipe: Recipe) -> Path:
    """A release with the mutation test of one of its two filters."""
    write_mutations(run_dir)
    pack(run_dir, recipe, run_dir / "release")
    return run_dir / "release"


def test_a_mutation_test_is_packed_claimed_and_verified(mutated: Path) -> None:
    release = open_evidence(mutated)
    verify(mutated)
    rows = {row["mutation"]: row for row in release.claims["mutations.person.list"]}
    assert (rows["unchanged"]["num_caught"], rows["tiny_1_2"]["num_caught"], rows["tiny_1_2"]["num_positive"]) == (6, 3, 6)
    assert release.claims["mutations.violence.list"] == []
    assert {"evidence/mutations/person/planted.parquet", "figures/person_mutations.png", "evidence/records/mutations__person.json"} <= {
        path.relative_to(mutated).as_posix() for path in mutated.rglob("*")}


def test_a_run_without_a_mutation_test_needs_none(packed_run: Path) -> None:
    assert check_mutations(open_evidence(packed_run / "release")) == []


def test_a_mutation_test_of_an_earlier_filter_is_left_out_and_said_to_be(run_dir: Path, recipe: Recipe,
                                                                          caplog: pytest.LogCaptureFixture) -> None:
    write_mutations(run_dir)
    record = read_json(run_dir / "mutations/person/record.json")
    earlier = dict(record["inputs"]) | {"filters/person": "f" * 64}
    (run_dir / "mutations/person/record.json").unlink()
    stage(run_dir, "mutations/person", earlier, lambda directory: write_bytes(directory / "planted.parquet", b"old") or {})
    with caplog.at_level(logging.WARNING):
        pack(run_dir, recipe, run_dir / "release")
    assert "mutations/person: is of an earlier filter" in caplog.text
    assert not (run_dir / "release/evidence/mutations").exists()


def relabel(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["label"] = 1


def drop_a_missed_one(rows: list[dict[str, Any]]) -> None:
    rows.remove(next(row for row in rows if row["label"] == 1 and not row["dropped"]))


def plant_what_fitted(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["key"] = "1F000"


def edit(mutated: Path, change: Callable[[list[dict[str, Any]]], None]) -> list[str]:
    """Edit the table as somebody might who also edits the record to fit, and look."""
    tamper = Tamperer(mutated)
    tamper.table("evidence/mutations/person/planted.parquet", change)
    return check_mutations(open_evidence(mutated))


@pytest.mark.parametrize(("change", "said"), [
    (relabel, "have another label in the filter's table"), (drop_a_missed_one, "exactly once in every shape"),
    (plant_what_fitted, "were used to fit it"), (lambda rows: rows.pop(0), "num_planted is recorded as 30, its table gives 29")])
def test_an_edited_table_is_found(mutated: Path, change: Callable[[list[dict[str, Any]]], None], said: str) -> None:
    assert any(said in problem and problem.startswith("mutations/person: ") for problem in edit(mutated, change))


def test_a_table_that_is_not_the_recorded_one_fails_verification(mutated: Path) -> None:
    tamper = Tamperer(mutated)

    def flatter(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["score"], row["dropped"] = (99.0, True) if row["label"] == 1 else (row["score"], row["dropped"])

    tamper.table("evidence/mutations/person/planted.parquet", flatter)
    tamper.seal()
    with pytest.raises(VerificationError) as refusal:
        verify(mutated)
    text = str(refusal.value)
    assert "is not the planted.parquet that stage mutations/person recorded" in text
    assert "worst_recall is recorded as 0.5, its table gives 1.0" in text
    assert "claim mutations.person.list" in text


def test_a_record_that_names_no_filter_is_found(mutated: Path) -> None:
    Tamperer(mutated).record("mutations/person", lambda value: value["inputs"].pop("filters/person"))
    told = "mutations/person: does not say which filters/person it used; run `glideslope filters mutate` again"
    assert told in check_mutations(open_evidence(mutated))
