import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from glideslope.config import DatasetsSource, FolderSource, OpenMojiSource, ParquetSource, WebDatasetSource, load_recipe
from glideslope.errors import RecipeError, StorageError
from glideslope.starter import guess_source, run_name, starter_recipe, write_starter


def keys(value: Any, prefix: str = "") -> set[str]:
    if isinstance(value, dict):
        return {f"{prefix}{key}" for key in value} | {name for key, inner in value.items() for name in keys(inner, f"{prefix}{key}.")}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return keys(value[0], prefix)
    return set()


@pytest.mark.parametrize("images", [None, "my pictures: all # of them", "/data/ünïcode"])
def test_the_starter_reads_back_and_holds_every_key(tmp_path: Path, images: str | None) -> None:
    path = tmp_path / "recipe.yaml"
    write_starter(path, images)
    recipe = load_recipe(path)
    assert recipe == starter_recipe(images, name="recipe")
    assert isinstance(recipe.source, OpenMojiSource if images is None else FolderSource)
    assert keys(yaml.safe_load(path.read_text())) == keys(recipe.model_dump(mode="json"))


def test_every_key_is_explained_on_its_line(tmp_path: Path) -> None:
    write_starter(tmp_path / "recipe.yaml", None)
    lines = (tmp_path / "recipe.yaml").read_text().splitlines()
    assert [line for line in lines if line.strip() and not line.startswith("#") and "  # " not in line and "kind:" not in line] == []


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("mine")
    with pytest.raises(RecipeError, match="exists already"):
        write_starter(path, None)
    assert path.read_text() == "mine"


def test_a_path_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_starter(tmp_path / "file" / "recipe.yaml", None)


@pytest.mark.parametrize(("file", "name"), [
    ("cats.yaml", "cats"), ("v1.2.yaml", "v1.2"), ("2024.yaml", "2024"),
    ("my cats.yaml", "my-cats-[0-9a-f]{8}"), ("猫.yaml", "run-[0-9a-f]{8}"), (".yaml", "yaml-[0-9a-f]{8}"), ("_x_.yml", "x-[0-9a-f]{8}")])
def test_the_run_is_named_for_the_file(tmp_path: Path, file: str, name: str) -> None:
    write_starter(tmp_path / file, None)
    assert re.fullmatch(name, load_recipe(tmp_path / file).name)


def test_recipes_of_different_files_never_share_a_run_directory() -> None:
    files = ["a b", "a-b", "a_b", "a  b", "猫", "犬", "a" * 81, "a" * 82, "a" * 200, "-a", "a-"]
    names = [run_name(Path(f"{stem}.yaml")) for stem in files]
    assert len(set(names)) == len(files)
    assert all(starter_recipe(None, name=name).name == name for name in names)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(("files", "kind"), [
    (["a.png", "a.txt"], FolderSource), (["a.jpg", "metadata.csv"], FolderSource), (["deep/a.png"], FolderSource), ([], FolderSource),
    (["0000.tar", "0001.tar"], WebDatasetSource), (["part/0000.tar", "0000.parquet", "0000_stats.json"], WebDatasetSource),
    (["data/train.parquet"], ParquetSource), (["images/a.png", "table.parquet"], ParquetSource),
    (["a.png", "metadata.csv", "x.parquet"], FolderSource),
    (["a.png", "a.txt", "backup.tar"], FolderSource), ([".hidden/a.tar", "a.png"], FolderSource),
    (["dataset_dict.json", "train/state.json", "train/data-00000-of-00001.arrow"], DatasetsSource),
    (["state.json", "dataset_info.json", "data-00000-of-00001.arrow"], DatasetsSource),
])
def test_the_source_follows_what_lies_in_the_folder(tmp_path: Path, files: list[str], kind: type) -> None:
    source = guess_source(str(touch(tmp_path / "images", *files)))
    assert isinstance(source, kind)
    assert source.path == str(tmp_path / "images")


def test_files_and_patterns_are_known_by_their_endings(tmp_path: Path) -> None:
    kinds = {"a-{000..099}.tar": WebDatasetSource, "x/*.tar": WebDatasetSource, "a.tar.gz": WebDatasetSource, "x/*.parquet": ParquetSource,
             "a.parquet": ParquetSource, "photos": FolderSource}
    assert {name: type(guess_source(str(tmp_path / name))) for name in kinds} == kinds


def test_loose_arrow_files_go_to_the_builder_of_datasets(tmp_path: Path) -> None:
    source = guess_source(str(touch(tmp_path, "deep/a.arrow")))
    assert source == DatasetsSource(path="arrow", data_files=(str(tmp_path / "**/*.arrow"),))


def test_columns_of_parquet_files_are_looked_up_and_a_card_means_a_data_set(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "jpg": [b"x"], "caption": ["y"]}), tmp_path / "a.parquet")
    assert guess_source(str(tmp_path)) == ParquetSource(path=str(tmp_path), image_column="jpg", caption_column="caption")
    (tmp_path / "README.md").write_text("# Notes\n")
    assert isinstance(guess_source(str(tmp_path)), ParquetSource)
    (tmp_path / "README.md").write_text("---\nconfigs: []\n---\n")
    assert guess_source(str(tmp_path)) == DatasetsSource(path=str(tmp_path), image_column="jpg", caption_column="caption")
    (tmp_path / "a.parquet").write_bytes(b"damaged")
    assert guess_source(str(tmp_path)) == DatasetsSource(path=str(tmp_path))


def test_a_starter_for_each_source_reads_back(tmp_path: Path) -> None:
    for number, files in enumerate((["a.tar"], ["a.parquet"], ["state.json"], ["a.arrow"])):
        folder = touch(tmp_path / f"{number}", *files)
        write_starter(tmp_path / f"{number}.yaml", str(folder))
        assert load_recipe(tmp_path / f"{number}.yaml").source == guess_source(str(folder))


@pytest.mark.parametrize(("files", "column"), [
    ({"a.png": "", "a.txt": "x"}, "text"), ({"deep/a.png": "", "deep/a.txt": "x"}, "text"), ({"a.png": "", "b.txt": "x"}, None),
    ({"a.png": ""}, None), ({"a.png": "", "labels.csv": "key,text"}, None), ({"a.png": "", ".hidden/a.txt": "x", ".hidden/a.png": ""}, None),
    ({"a.png": "", "metadata.csv": "file_name,text\na.png,x"}, "text"), ({"a.png": "", "metadata.csv": "\ufefffile_name,caption\n"}, "caption"),
    ({"a.png": "", "metadata.csv": "file_name,label\na.png,3"}, None),
    ({"a.png": "", "sub/metadata.jsonl": '\n{"file_name": "a.png", "caption": "x"}\n'}, "caption"),
    ({"a.png": "", "metadata.jsonl": '{"file_name": "a.png", "label": 3}\n'}, None),
    ({"a.png": "", "metadata.jsonl": "damaged"}, "text"), ({"a.png": "", "metadata.csv": ""}, "text"), ({}, "text")])
def test_captions_are_optional_only_where_a_folder_has_none(tmp_path: Path, files: dict[str, str], column: str | None) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    write_starter(tmp_path / "recipe.yaml", str(folder))
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.curate.captions == ("optional" if column is None else "required")
    assert isinstance(recipe.source, FolderSource) and recipe.source.caption_column == (column or "text")
