import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glideslope.data_filter.index.stage import build_index
from glideslope.data_filter.labels.csv_files import read_label_csv
from glideslope.data_filter.labels.stage import import_labels
from glideslope.data_filter.sources.folder import FolderSource
from glideslope.data_filter.sources.huggingface import DatasetsSource
from glideslope.data_filter.sources.kind import open_source
from glideslope.data_filter.sources.openmoji import OpenMojiSource
from glideslope.data_filter.sources.parquet import ParquetSource
from glideslope.data_filter.sources.source import (
    Shard,
    Source,
    SourceItem,
    check_caption,
    decode_caption,
    describe_item,
    digest_shards,
    hash_share,
    refuse_changed,
    shard_name,
)
from glideslope.data_filter.sources.webdataset import WebDatasetSource
from glideslope.errors import SourceError
from glideslope.recipe.filters import ClipConfig, IndexConfig, LabelsConfig
from glideslope.recipe.sources import SourceSettings
from glideslope.store.digests import sha256_bytes
from glideslope.store.records import Record

from ..conftest import TinyClip, World, category, fill_folder, write_labels
from ..pairs import WRITERS, Pair, count_pairs, encode, image_table, index_rows, open_small, read_items, some_pairs, tar_members, write_tar

CAPTIONS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda text: text.removeprefix("\ufeff").strip())
ODD_CAPTIONS = (" two  spaces ", "line\nbreak\r\n", "Ärmel \u00e9 e\u0301", '"quoted", with, commas', "2020-01-01", "007", "null", "\ufeffmark",
                "a\u2028b", "😀")
DIRECT = ("folder", "webdataset", "parquet_bytes", "parquet_structs", "parquet_paths")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def expected(pairs: list[Pair]) -> Counter[tuple[str, str | None]]:
    """Images and captions as any source must give them: a byte order mark is no part of a caption."""
    return Counter((sha256_bytes(pair.image), pair.caption.removeprefix("\ufeff")) for pair in pairs)


@settings(max_examples=8)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=700), CAPTIONS), min_size=1, max_size=6))
def test_the_same_pairs_are_the_same_images_and_captions_from_every_source(tmp_path_factory: pytest.TempPathFactory,
                                                                           contents: list[tuple[bytes, str]]) -> None:
    pairs = [Pair(f"p{number}", image, caption) for number, (image, caption) in enumerate(contents)]
    root = tmp_path_factory.mktemp("pairs")
    for name in DIRECT:
        items = read_items(WRITERS[name](root / name, pairs))
        assert [item.reason for item in items] == [""] * len(pairs)
        assert count_pairs(items) == expected(pairs)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_what_is_indexed_and_read_again_has_the_same_bytes_from_every_source(tmp_path: Path, own_cache: None, tiny_clip: TinyClip,
                                                                             name: str) -> None:
    pairs = some_pairs(5) + [Pair(f"odd{number}", encode((number, 0, 0)), caption) for number, caption in enumerate(ODD_CAPTIONS)]
    config = WRITERS[name](tmp_path / "data", pairs)
    rows = index_rows(config, tmp_path / "index")
    assert [row["reason"] for row in rows] == [""] * len(pairs)
    assert Counter((row["sha256"], row["caption"]) for row in rows) == expected(pairs)
    wanted = {row["key"]: row["sha256"] for row in rows[::2]}
    source = open_small(config)
    again = [item for shard in source.shards() for item in source.read(shard, keys=wanted)]
    assert {item.key: sha256_bytes(item.image or b"") for item in again} == wanted and len(again) == len(wanted)


def test_two_parts_with_the_same_key_are_one_input_and_one_bad_row(tmp_path: Path, tiny_clip: TinyClip) -> None:
    pairs = some_pairs(3)
    for name in ("webdataset", "parquet_bytes"):
        config = WRITERS[name](tmp_path / name, [*pairs, *pairs])
        rows = index_rows(config, tmp_path / f"{name}-index")
        assert sorted(row["reason"] for row in rows) == [""] * 3 + ["duplicate key"] * 3
        assert Counter((row["sha256"], row["caption"]) for row in rows if row["status"] == "ok") == expected(pairs)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_equal_data_has_an_equal_fingerprint_and_other_data_another(tmp_path: Path, own_cache: None, name: str) -> None:
    pairs = some_pairs(4)
    one, two = (open_small(WRITERS[name](tmp_path / folder / "data", pairs)).fingerprint() for folder in made(tmp_path, "one", "two"))
    other = open_small(WRITERS[name](made(tmp_path, "other")[0] / "data", [*pairs[:3], Pair(pairs[3].name, pairs[3].image, "another")]))
    assert one == two and other.fingerprint() != one


def made(root: Path, *names: str) -> list[Path]:
    for name in names:
        (root / name).mkdir()
    return [root / name for name in names]


def test_shard_names_sort_as_their_numbers() -> None:
    names = [shard_name(number) for number in (0, 9, 10, 99_999)]
    assert names == sorted(names) and names[0] == "shard-00000"


def test_the_fingerprint_of_a_source_follows_each_shard_and_their_order() -> None:
    first, second, third = (Shard(shard_name(number), text, 0, 1, 1) for number, text in enumerate("abc"))
    assert digest_shards([first, second]) == digest_shards([first, second])
    assert len({digest_shards(shards) for shards in ([], [first], [first, second], [second, first], [first, third])}) == 5


@given(st.text(), st.text())
def test_a_hash_share_is_a_share_and_depends_on_the_words_alone(first: str, second: str) -> None:
    assert 0 <= hash_share(first, second) < 1
    assert hash_share(first, second) == hash_share(first, second)


@given(st.binary())
def test_a_caption_is_kept_byte_for_byte_or_refused(data: bytes) -> None:
    caption, error = decode_caption(data, "k")
    if error is None:
        assert caption is not None and caption == data.decode().lstrip("\ufeff") and caption.strip()
    else:
        assert caption is None
        assert error.startswith(("caption of k is missing", "caption of k is not UTF-8: byte", "caption of k is UTF-16", "caption of k byte"))


@pytest.mark.parametrize(("caption", "error"), [
    (None, "caption of k is missing"), ("", "caption of k is missing"), (" \n", "caption of k is missing"),
    (3, "caption of k is int, expected text"), ("half a pair \ud800", "caption of k is not UTF-8"), ("\u00e9 ok ", None),
    ("\ufeff", "caption of k is missing"), ("a\0b", "caption of k holds a zero byte, which text does not hold"),
    ("x" * (1 << 18), None), ("x" * (1 << 18) + "y", "caption of k is too long: 262145 letters, at most 262144 are read"),
    ("\ufeff\ufeff", "caption of k is missing"),
])
def test_what_is_no_caption_is_named(caption: object, error: str | None) -> None:
    assert check_caption(caption, "k") == (caption if error is None else None, error)


def test_the_description_of_an_input_follows_everything_that_is_kept_of_it() -> None:
    items = [SourceItem("k", "c", b"x", "t"), SourceItem("l", "c", b"x", "t"), SourceItem("k", "c", b"y", "t"), SourceItem("k", "c", b"x", "u"),
             SourceItem("k", "c", b"x", "t", metadata="{}"), SourceItem("k", "c", None, "t", "missing", "gone")]
    assert len({str(describe_item(item)) for item in items}) == len(items)


def test_a_shard_that_changed_while_it_was_read_is_refused_by_name() -> None:
    shard = Shard("shard-00002", "a", 0, 4, 4, file="part-2.tar")
    refuse_changed(shard, "a")
    with pytest.raises(SourceError, match=r"part-2\.tar changed while it was read"):
        refuse_changed(shard, "b")


@dataclass
class SourceWorld(World):
    """A small run on any source, whose keys are `000` and so on with a suffix."""

    config: SourceSettings = field(default_factory=OpenMojiSource)
    suffix: str = ".png"

    @property
    def source(self) -> Source:  # type: ignore[override]  # any source takes the folder's place
        return open_source(self.config, shard_size=16)

    def index(self) -> Record:
        return build_index(self.config, ClipConfig(), IndexConfig(shard_size=16), self.root / "index")

    def label(self) -> Record:
        verdicts = [replace(verdict, key=verdict.key.replace(".png", self.suffix))
                    for verdict in read_label_csv(write_labels(self.root / "labels.csv", self.num_images))]
        return import_labels(verdicts, self.root / "labels", self.root / "index", LabelsConfig())

    def data(self) -> dict[str, str]:
        """The curated files, after every stage."""
        self.root.mkdir()
        quick = category(classifiers=("logistic",))
        self.index()
        self.label()
        self.fit(quick)
        self.curate(quick)
        return {path.name: sha256_bytes(path.read_bytes()) for path in sorted((self.root / "curated" / "data").iterdir())}


@pytest.mark.parametrize("suffix", [".png", ""])
def test_the_same_pairs_and_keys_are_curated_to_the_same_bytes_from_every_source(tmp_path: Path, own_cache: None, tiny_clip: TinyClip,
                                                                                 suffix: str) -> None:
    fill_folder(tmp_path / "images", 60)
    files = sorted((tmp_path / "images").glob("*.png"))
    pairs = [Pair(path.stem, path.read_bytes(), f"{'red' if number % 3 == 0 else 'green'} thing {number}") for number, path in enumerate(files)]
    captions, keys = [pair.caption for pair in pairs], pa.array([pair.name + suffix for pair in pairs])
    structs = image_table([{"bytes": pair.image, "path": None} for pair in pairs], captions, id=keys)
    pq.write_table(structs, tmp_path / "structs.parquet", row_group_size=7)
    pq.write_table(pa.table({"image": [f"images/{path.name}" for path in files], "text": captions, "id": keys}), tmp_path / "paths.parquet")
    rows = DatasetsSource(path="parquet", data_files=(str(tmp_path / "structs.parquet"),), key_column="id", streaming=bool(suffix))
    configs: list[SourceSettings] = [ParquetSource(path=str(tmp_path / "structs.parquet"), key_column="id"), rows]
    if suffix:  # keys of a folder have one, those of tars have none
        configs += [FolderSource(path=str(tmp_path / "images")), ParquetSource(path=str(tmp_path / "paths.parquet"), key_column="id")]
    else:
        configs += [WebDatasetSource(path=str(write_tar(tmp_path / "tars" / "a.tar", tar_members(pairs))))]
    first, *others = [SourceWorld(tmp_path / f"run{number}", config=config, suffix=suffix).data() for number, config in enumerate(configs)]
    assert len(first) >= 2
    assert all(other == first for other in others)


def test_what_else_came_with_a_pair_reaches_the_curated_set(tmp_path: Path, own_cache: None, tiny_clip: TinyClip) -> None:
    fill_folder(tmp_path / "images", 60)
    files = sorted((tmp_path / "images").glob("*.png"))
    table = image_table([{"bytes": path.read_bytes(), "path": None} for path in files],
                        [f"{'red' if number % 3 == 0 else 'green'} thing {number}" for number in range(60)],
                        id=pa.array([path.name for path in files]), page=pa.array([f"page {path.stem}" for path in files]))
    pq.write_table(table, tmp_path / "pairs.parquet")
    SourceWorld(tmp_path / "run", config=ParquetSource(path=str(tmp_path / "pairs.parquet"), key_column="id")).data()
    rows = pq.read_table(tmp_path / "run" / "curated" / "data" / "train-00000.parquet").to_pylist()
    assert rows and all(json.loads(row["metadata"])["page"] == f"page {row['key'].removesuffix('.png')}" for row in rows)
