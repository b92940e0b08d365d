from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from glideslope.data_filter.sources.huggingface import DatasetsSource
from glideslope.data_filter.sources.kind import SourceKind, open_source
from glideslope.data_filter.sources.kinds import KINDS, look_at, read_source
from glideslope.data_filter.sources.parquet import ParquetSource
from glideslope.errors import RecipeError, SourceError
from glideslope.recipe.sources import SourceSettings

LEAST: dict[str, dict[str, Any]] = {"folder": {"path": "x"}, "datasets": {"path": "x"}, "webdataset": {"path": "x"}, "parquet": {"path": "x"}}


def test_every_kind_has_a_name_of_its_own() -> None:
    names = [get_args(kind.model_fields["kind"].annotation) for kind in KINDS]
    assert len(set(names)) == len(KINDS)
    assert names == [(kind.model_fields["kind"].default,) for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_settings_of_every_kind_are_read_by_its_name(kind: type[SourceKind]) -> None:
    name = kind.model_fields["kind"].default
    settings = read_source({"kind": name} | LEAST.get(name, {}))
    assert type(settings) is kind
    assert read_source(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize("value", [{"kind": "imagenet"}, {"kind": ["folder"]}, {"kind": None}, {"path": "x"}, {}, None, "folder", [1]])
def test_what_names_no_kind_is_refused_with_the_kinds_there_are(value: object) -> None:
    with pytest.raises(RecipeError, match=f"a kind that is one of {', '.join(kind.model_fields['kind'].default for kind in KINDS)}"):
        read_source(value)


@pytest.mark.parametrize("value", [{"kind": "folder"}, {"kind": "folder", "path": "x", "image_size": 3}, {"kind": "openmoji", "limit": "3"}])
def test_settings_that_a_kind_does_not_have_are_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        read_source(value)


def test_settings_of_no_kind_are_never_opened() -> None:
    with pytest.raises(SourceError, match=r"SourceSettings \(kind 'folder'\) is no kind of source"):
        open_source(SourceSettings(kind="folder"), shard_size=4)


def test_a_kind_without_a_way_to_open_it_cannot_be_made() -> None:
    class Closed(SourceKind):
        kind: str = "closed"

    with pytest.raises(TypeError, match="abstract"):
        Closed()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_source_is_the_same_wherever_it_lies(kind: type[SourceKind]) -> None:
    settings = read_source({"kind": kind.model_fields["kind"].default} | LEAST.get(kind.model_fields["kind"].default, {}))
    for name in kind.PLACES:
        assert name in kind.model_fields
        assert settings.model_copy(update={name: "/elsewhere/y"}).identity() == settings.identity()
    assert not kind.PLACES & settings.identity().keys()


def test_a_data_set_of_the_hub_is_known_by_its_id_and_a_local_one_is_not() -> None:
    assert DatasetsSource(path="org/name").identity()["path"] == "org/name"
    assert "path" not in DatasetsSource(path="/data/org/name").identity() | DatasetsSource(path="parquet", streaming=True).identity()
    assert DatasetsSource(path="a", streaming=True).identity() == DatasetsSource(path="b").identity()


def test_a_key_column_that_does_not_name_the_rows_is_named(tmp_path: Path) -> None:
    assert "source.key_column" in ParquetSource(path="x", key_column="id").describe_keys()
    assert ParquetSource(path="x").describe_keys() == DatasetsSource(path="x").describe_keys() == "Give each input a name of its own"


@pytest.mark.parametrize(("name", "told"), [("a.png", "one image; name the folder"), ("a.xyz", "no file of a type that is read"),
                                            ("none", "no such file or folder")])
def test_a_path_that_no_kind_knows_is_refused(tmp_path: Path, name: str, told: str) -> None:
    if name != "none":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=told):
        look_at(str(tmp_path / name))
