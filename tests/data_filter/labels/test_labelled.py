"""Pictures that change under their names: labels stay with the bytes they were given for, through every stage."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from glideslope.data_filter.audits.audit import list_audits
from glideslope.data_filter.audits.population import AuditRequest, open_kept
from glideslope.data_filter.audits.report import run_audit
from glideslope.data_filter.deciding.threshold import SCORES_NAME
from glideslope.data_filter.index.parquet import read_table, read_tables
from glideslope.data_filter.labels.concepts import role_of
from glideslope.data_filter.labels.csv_files import Verdict
from glideslope.data_filter.labels.labelled import resolve_labels
from glideslope.data_filter.labels.stage import import_labels
from glideslope.data_filter.labels.store import read_audit_labels
from glideslope.errors import FilterError
from glideslope.recipe.filters import LabelsConfig
from glideslope.store.digests import sha256_file

from ..conftest import World, category, draw

TEST = [f"{n:03d}.png" for n in range(60) if role_of(f"{n:03d}.png", LabelsConfig()) == "test"]
TRAIN = [f"{n:03d}.png" for n in range(60) if role_of(f"{n:03d}.png", LabelsConfig()) == "train"]


def is_red(key: str) -> bool:
    return int(key[:3]) % 3 == 0


def repaint(world: World, *keys: str) -> None:
    """Other green pictures under these names."""
    for number, key in enumerate(keys):
        draw(world.root / "images" / key, (3, 171, 172 + number))
    world.index()


def judge(world: World, key: str, label: int, *, who: str = "") -> None:
    import_labels([Verdict(key, "red", label, who, "by eye", "test")], world.root / "labels", world.root / "index", LabelsConfig())


def ledger(world: World) -> dict[str, dict[str, str]]:
    return {row["key"]: row for table in read_tables(world.root / "curated" / "ledger") for row in table.to_pylist()}


def labelled_keys(world: World) -> set[str]:
    return {one.key for one in resolve_labels(world.layout).embedded_set("red").judgements}


def test_labels_of_other_bytes_fit_nothing_and_measure_nothing(fitted: World, caplog: pytest.LogCaptureFixture) -> None:
    changed = {TEST[0], TRAIN[0]}
    repaint(fitted, *changed)
    assert labelled_keys(fitted) == {f"{n:03d}.png" for n in range(60)} - changed
    assert "labels of 2 keys are of other bytes than the index has now" in caplog.text
    fitted.fit()
    measured = set(read_table(fitted.root / "filters" / "red" / SCORES_NAME)["key"].to_pylist())
    learned = set(read_table(fitted.root / "classifiers" / "red" / "training.parquet")["key"].to_pylist())
    assert not changed & (measured | learned) and len(measured) == 58
    judge(fitted, TEST[0], 0)
    assert labelled_keys(fitted) == {f"{n:03d}.png" for n in range(60)} - {TRAIN[0]}


def test_fitting_reads_the_index_once_for_all_labels_and_once_to_score_each_category(fitted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = [Verdict(f"{n:03d}.png", "blue", int(n % 3 == 0), "", "by eye", "test") for n in range(60)]
    import_labels(verdicts, fitted.layout.labels, fitted.layout.index, LabelsConfig())
    reads: Counter[str] = Counter()

    def counted(path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
        reads.update([path.stem] if path.parent == fitted.layout.index and path.stem.startswith("shard-") else [])
        return read_table(path, columns=columns)

    monkeypatch.setattr("glideslope.data_filter.index.read.read_table", counted)
    fitted.fit()
    fitted.fit(category("blue"))
    assert reads == {f"shard-{number:05d}": 3 for number in range(4)}


def test_what_an_import_has_said_is_not_said_again(fitted: World, caplog: pytest.LogCaptureFixture) -> None:
    repaint(fitted, TEST[0])
    import_labels([], fitted.root / "labels", fitted.root / "index", LabelsConfig())
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        resolve_labels(fitted.layout)
    assert caplog.messages == []


def test_nothing_can_be_fitted_to_labels_of_other_pictures_alone(fitted: World) -> None:
    repaint(fitted, *(f"{n:03d}.png" for n in range(60)))
    with pytest.raises(FilterError, match="none of the 0 train labels is positive"):
        fitted.fit()


def test_what_was_positive_before_it_changed_is_dropped_until_somebody_has_judged_it(fitted: World) -> None:
    key, other = next(key for key in TEST if is_red(key)), next(key for key in TEST if not is_red(key))
    repaint(fitted, key, other)
    fitted.fit()
    fitted.curate()
    row = ledger(fitted)[key]
    assert (row["decision"], row["reason"]) == ("drop", "label:red")
    assert row["detail"] == f"input {key} had other bytes when it was labelled; nobody has judged these yet"
    assert ledger(fitted)[other]["decision"] == "keep", "a no for other bytes neither keeps nor drops: the filter decides"
    judge(fitted, key, 0)
    fitted.fit()
    fitted.curate()
    assert ledger(fitted)[key]["decision"] == "keep"
    judge(fitted, key, 1, who="another")
    fitted.fit()
    fitted.curate()
    assert (ledger(fitted)[key]["reason"], ledger(fitted)[key]["detail"]) == ("label:red", None), "people disagree on the new bytes"


def drawn_audit(world: World, *, num: int) -> list[list[int]]:
    """Draw or continue an audit; returns the labels that it has."""
    run_audit([category()], world.layout, world.source, AuditRequest(num=num, claim=0.5, draw=True), import_file=None, who="")
    return list(json.loads((list_audits(world.layout, "red")[-1].directory / "audit.json").read_text())["labels"])


def test_an_audit_carries_no_verdict_of_people_who_never_saw_the_pictures(fitted: World) -> None:
    negative = [key for key in TEST if not is_red(key)]
    repaint(fitted, *negative[:3])
    fitted.fit()
    fitted.curate()
    num = sum(is_free for _, is_free in open_kept(category(), fitted.layout).rows())
    labels = drawn_audit(fitted, num=num)
    keys = list_audits(fitted.layout, "red")[-1].keys
    assert set(negative) <= set(keys)
    assert {key for key, given in zip(keys, labels, strict=True) if not given} == set(negative[:3])


def test_a_review_counts_for_the_drawn_pictures_even_when_they_have_changed_since(fitted: World) -> None:
    fitted.num_images = 0
    free = [f"x{n}.png" for n in range(8)]
    for number, key in enumerate(free):
        draw(fitted.root / "images" / key, (2, 150 + number, 190))
    with (fitted.root / "images" / "metadata.csv").open("a") as file:
        file.writelines(f"{key},green thing\n" for key in free)
    fitted.index()
    fitted.fit()
    fitted.curate()
    num = sum(is_free for _, is_free in open_kept(category(), fitted.layout).rows())
    labels = drawn_audit(fitted, num=num)
    table = list_audits(fitted.layout, "red")[-1].directory / "review" / "sample.csv"
    lines = table.read_text().splitlines()
    assert sum(not given for given in labels) == len(lines) - 1 == 8
    before = {key: sha256_file(fitted.root / "images" / key) for key in free}
    repaint(fitted, *free)
    table.write_text("\n".join([lines[0], *(line.removesuffix(",,") + ",0,ann" for line in lines[1:])]) + "\n")
    run_audit([category()], fitted.layout, fitted.source, AuditRequest(), import_file=table, who="")
    found = read_audit_labels(fitted.root / "labels")
    assert {label.key: label.sha256 for label in found} == before
    fitted.fit()
    fitted.curate()
    fresh = drawn_audit(replace(fitted), num=num)
    keys = list_audits(fitted.layout, "red")[-1].keys
    assert all(not given for key, given in zip(keys, fresh, strict=True) if key in free), "nobody has seen the pictures of now"
