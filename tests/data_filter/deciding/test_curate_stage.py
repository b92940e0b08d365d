import json
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from glideslope.data_filter.classifiers.score_stage import score_index
from glideslope.data_filter.deciding import curate_stage as curation
from glideslope.data_filter.deciding.curate_stage import curate
from glideslope.data_filter.deciding.ledger import open_ledger
from glideslope.data_filter.index.parquet import read_table, read_tables, write_table
from glideslope.data_filter.labels.concepts import role_of
from glideslope.data_filter.labels.csv_files import Verdict
from glideslope.data_filter.labels.stage import import_labels
from glideslope.data_filter.reports.balance import count_captions
from glideslope.data_filter.sources.source import Shard, SourceItem
from glideslope.errors import FilterError, StageError, StorageError
from glideslope.recipe.filters import CurateConfig, LabelsConfig
from glideslope.store.digests import sha256_bytes

from ..conftest import TinyClip, World, category, draw, fill_folder


def test_the_ledger_has_one_row_for_every_input_and_the_counts_add_up(fitted: World) -> None:
    (fitted.root / "images" / "zero.png").write_bytes(b"")
    fitted.index()
    fitted.label()
    fitted.fit()
    record = fitted.curate()
    summary = json.loads((fitted.root / "curated" / "curated.json").read_text())
    rows = [row for table in read_tables(fitted.root / "curated" / "ledger") for row in table.to_pylist()]
    assert [row["key"] for row in rows] == [entry.key for entry in fitted.source.entries]
    assert summary["seen"] == len(rows) == 61 == summary["kept"] + sum(summary["dropped"].values())
    assert summary["dropped"] == {"filter:red": summary["dropped"]["filter:red"], "unreadable": 1}
    assert sum(summary["splits"].values()) == summary["kept"] == sum(row["decision"] == "keep" for row in rows)
    bad = next(row for row in rows if row["key"] == "zero.png")
    assert (bad["decision"], bad["detail"], bad["split"], bad["weight"]) == ("drop", "file is empty (0 bytes)", "", 0.0)
    assert record.summary["kept"] == summary["kept"]
    sha256 = json.loads((fitted.root / "filters" / "red" / "filter.json").read_text())["classifier"]["sha256"]
    assert summary["categories"]["red"]["classifier_sha256"] == sha256 == rows[0]["classifier_red"]


@pytest.fixture
def described(tmp_path: Path, tiny_clip: TinyClip) -> World:
    """A run on a folder whose first two green pictures have a second caption, one of them with a caption word, up to its filter."""
    fill_folder(tmp_path / "images", 60)
    with (tmp_path / "images" / "metadata.csv").open("a", newline="") as file:
        file.write("001.png,a verdant thing\r\n002.png,an armed thing\r\n")
    found = World(tmp_path)
    found.index()
    found.label()
    found.fit(category(caption_words=("armed",)))
    return found


def test_several_captions_of_an_image_are_searched_recorded_and_kept(described: World) -> None:
    import datasets

    summary = described.curate(category(caption_words=("armed",))).summary
    assert summary["dropped"]["filter:red:caption_words"] == 1
    rows = {row["key"]: row for table in read_tables(described.root / "curated" / "ledger") for row in table.to_pylist()}
    assert rows["001.png"]["captions"] == ["green thing 1", "a verdant thing"] and rows["001.png"]["decision"] == "keep"
    assert rows["002.png"]["captions"] == ["green thing 2", "an armed thing"] and rows["002.png"]["decision"] == "drop"
    assert rows["004.png"]["captions"] is None
    paths = [str(path) for path in sorted((described.root / "curated" / "data").glob("*.parquet"))]
    loaded = datasets.Dataset.from_parquet(paths, cache_dir=str(described.root / "cache"))
    images = {row["key"]: row for row in loaded.remove_columns("image")}
    assert images["001.png"]["captions"] == ["green thing 1", "a verdant thing"] and images["001.png"]["caption"] == "green thing 1"
    assert images["004.png"]["captions"] == ["green thing 4"]


def test_reports_see_every_caption_and_whoever_looks_does_too(described: World) -> None:
    described.curate(category(caption_words=("armed",)))
    counts = count_captions(described.root / "curated" / "ledger", {"armed": ["armed"], "verdant": ["verdant"], "green": ["green"]})
    assert [counts.groups[name].num_inputs for name in ("armed", "verdant", "green")] == [1, 1, 40]
    ledger = open_ledger(described.root / "curated")
    captions = {row["key"]: row["caption"] for _, table in ledger.tables(columns=["key", "caption"]) for row in table.to_pylist()}
    assert captions["001.png"] == "green thing 1 | a verdant thing" and captions["004.png"] == "green thing 4"


def test_data_with_single_captions_has_the_columns_it_always_had(fitted: World) -> None:
    fitted.curate()
    for path in [*(fitted.root / "curated" / "data").glob("*.parquet"), *(fitted.root / "curated" / "ledger").glob("*.parquet")]:
        schema = read_table(path).schema
        assert "captions" not in schema.names and b"captions" not in (schema.metadata or {}).get(b"huggingface", b"")


@pytest.fixture
def bare(tmp_path: Path, tiny_clip: TinyClip) -> World:
    """A run on a folder in which only the first ten images have a caption, up to its filter."""
    fill_folder(tmp_path / "images", 60)
    lines = (tmp_path / "images" / "metadata.csv").read_text().splitlines()
    (tmp_path / "images" / "metadata.csv").write_text("\n".join(lines[:11]) + "\n")
    found = World(tmp_path)
    found.index()
    found.label()
    found.fit()
    return found


def test_images_without_captions_are_judged_like_others_and_dropped_with_a_row_each(bare: World) -> None:
    evidence = json.loads((bare.root / "filters" / "red" / "filter.json").read_text())
    assert evidence["num_labels_without_score"] == 0 and evidence["test"]["recall"] == 1.0
    summary = bare.curate().summary
    assert summary["dropped"]["caption"] == 50 and summary["seen"] == 60 == summary["kept"] + sum(summary["dropped"].values())
    rows = [row for table in read_tables(bare.root / "curated" / "ledger") for row in table.to_pylist()]
    assert all(row["score_red"] is not None for row in rows)
    assert rows[-1]["detail"] == "image 059.png is not in the metadata and has no 059.txt beside it"


def test_images_without_captions_are_kept_where_the_recipe_says_so(bare: World) -> None:
    import datasets

    record = curate(bare.source, [category()], bare.layout, CurateConfig(captions="optional"))
    assert set(record.summary["dropped"]) == {"filter:red"} and record.summary["kept"] > 30
    found = datasets.load_dataset(str(bare.root / "curated"), cache_dir=str(bare.root / "cache"))
    captions = {row["key"]: row["caption"] for split in found.values() for row in split.remove_columns("image")}
    assert captions["001.png"] == "green thing 1" and captions["059.png"] is None and "003.png" not in captions
    assert len(captions) == record.summary["kept"]


def test_nothing_but_images_without_captions_is_refused_with_what_to_set(bare: World) -> None:
    (bare.root / "images" / "metadata.csv").unlink()
    bare.index()
    bare.label()
    bare.fit()
    with pytest.raises(StageError, match=r"nothing is left of 60 inputs .*set curate.captions to optional in the recipe"):
        bare.curate()


def test_load_dataset_opens_the_curated_set_with_the_original_bytes(fitted: World) -> None:
    import datasets

    fitted.curate()
    found = datasets.load_dataset(str(fitted.root / "curated"), cache_dir=str(fitted.root / "cache"))
    summary = json.loads((fitted.root / "curated" / "curated.json").read_text())
    assert {split: len(rows) for split, rows in found.items()} == summary["splits"]
    assert found["train"][0]["image"].size == (16, 16)
    raw = found["train"].cast_column("image", datasets.Image(decode=False))
    for row in raw:
        data = (fitted.root / "images" / row["key"]).read_bytes()
        assert row["image"]["bytes"] == data and row["sha256"] == sha256_bytes(data)
        assert row["caption"].endswith(f"thing {int(row['key'][:3])}") and row["weight"] == 1.0


def test_an_input_that_changed_since_it_was_indexed_is_dropped(fitted: World) -> None:
    ledger = [{"key": "001.png", "decision": "keep", "reason": "", "split": "train", "weight": 1.0, "detail": None}]
    index = pa.table({"sha256": [sha256_bytes((fitted.root / "images" / "001.png").read_bytes())]})
    shard = fitted.source.shards()[0]
    assert [place for place, _ in curation.read_kept(fitted.source, shard, index, ledger)] == [0]
    draw(fitted.root / "images" / "001.png", (0, 0, 0))
    assert list(curation.read_kept(fitted.source, shard, index, ledger)) == []
    assert (ledger[0]["decision"], ledger[0]["reason"], ledger[0]["split"]) == ("drop", "changed since index", "")
    ledger[0]["decision"] = "keep"
    (fitted.root / "images" / "001.png").unlink()
    assert list(curation.read_kept(fitted.source, shard, index, ledger)) == []


def test_of_inputs_with_one_key_the_one_that_was_judged_is_kept_and_nothing_is_read_ahead(fitted: World) -> None:
    items = [SourceItem("a", "a", content, "c") for content in (b"first", b"second")] + [SourceItem("b", "b", b"third", "c")]
    read: list[bytes] = []

    class Repeating:
        def read(self, shard: Shard, *, keys: Collection[str] | None = None) -> Iterator[SourceItem]:
            for item in items:
                read.append(item.image or b"")
                yield item

    ledger = [{"key": key, "decision": decision} for key, decision in (("a", "keep"), ("a", "drop"), ("b", "keep"))]
    index = pa.table({"sha256": [sha256_bytes(item.image or b"") for item in items]})
    shard = Shard("shard-00000", "", 0, 3, 3)
    kept = curation.read_kept(Repeating(), shard, index, ledger)  # type: ignore[arg-type]  # the part of a source that is used
    place, item = next(kept)
    assert (place, item.image, read) == (0, b"first", [b"first"])
    assert [(place, item.image) for place, item in kept] == [(2, b"third")]
    assert [row["decision"] for row in ledger] == ["keep", "drop", "keep"]


def test_curating_again_and_after_a_kill_gives_the_same_digest(fitted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fitted.curate()
    assert fitted.curate().digest == first.digest
    for path in sorted((fitted.root / "curated").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (fitted.root / "curated").rmdir()
    real, calls = curation.write_table, []

    def killed(path: Path, table: pa.Table) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(path, table)

    monkeypatch.setattr(curation, "write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        fitted.curate()
    monkeypatch.setattr(curation, "write_table", real)
    assert fitted.curate().digest == first.digest


def test_no_filter_a_missing_filter_and_an_empty_result_are_refused(fitted: World) -> None:
    root, config = fitted.root, CurateConfig()
    with pytest.raises(FilterError, match="no category to filter"):
        curate(fitted.source, [], fitted.layout, config)
    with pytest.raises(StageError, match="no finished stage here"):
        fitted.curate(category("blue"))
    assert not (root / "curated").exists()


def test_nothing_left_is_refused_with_the_counts(tmp_path: Path) -> None:
    from collections import Counter

    with pytest.raises(StageError, match="nothing is left of 3 inputs"):
        curation.write_summary(tmp_path, 3, Counter({"filter:a": 3}), {"train": 0, "validation": 0}, [])
    with pytest.raises(StageError, match="do not add up"):
        curation.write_summary(tmp_path, 3, Counter({"filter:a": 1, "": 1}), {"train": 1, "validation": 0}, [])


def test_an_unwritable_directory_is_one_clear_error(fitted: World) -> None:
    (fitted.root / "file").write_text("")
    fitted.layout.curated.symlink_to(fitted.root / "file" / "curated")
    with pytest.raises(StorageError, match="cannot write"):
        curate(fitted.source, [category()], fitted.layout, CurateConfig())


def test_what_people_call_positive_is_dropped_even_when_filters_let_it_pass(fitted: World) -> None:
    odd = next(number for number in range(60) if number % 3 and role_of(f"{number:03d}.png", LabelsConfig()) == "test")
    verdicts = [Verdict(f"{number:03d}.png", "odd", int(number % 3 == 0 or number == odd), "a", "", "") for number in range(60)]
    doubted = next(number for number in range(60) if number % 3 and number != odd)
    verdicts.append(Verdict(f"{doubted:03d}.png", "odd", 1, "b", "", ""))
    import_labels(verdicts, fitted.root / "labels", fitted.root / "index", LabelsConfig())
    fitted.fit(category("odd"))
    fitted.curate(category("odd"))
    rows = {row["key"]: row for table in read_tables(fitted.root / "curated" / "ledger") for row in table.to_pylist()}
    assert rows[f"{odd:03d}.png"]["reason"] == rows[f"{doubted:03d}.png"]["reason"] == "label:odd"
    found = json.loads((fitted.root / "filters" / "odd" / "filter.json").read_text())
    assert [row["key"] for row in found["missed"]] == [f"{odd:03d}.png"], "the evidence counts it as missed all the same"
    assert found["num_ambiguous"] == 1


def test_filters_of_other_scores_are_refused(fitted: World) -> None:
    wanted = category(caption_words=("nothing like it",))
    score_index(wanted, fitted.layout)
    with pytest.raises(FilterError, match="built from other scores"):
        fitted.curate()


def test_changed_scores_are_refused(fitted: World) -> None:
    path = fitted.root / "scores" / "red" / "shard-00000.parquet"
    table = read_table(path)
    write_table(path, table.set_column(1, "score", pa.array([-9.0] * len(table), type=pa.float32())))
    with pytest.raises(StageError, match="changed since the stage finished"):
        fitted.curate()
