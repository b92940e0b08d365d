from pathlib import Path
from typing import Any

import pytest
import yaml

from glideslope.data_filter.sources.folder import FolderSource
from glideslope.data_filter.sources.huggingface import DatasetsSource
from glideslope.data_filter.sources.kind import SourceKind
from glideslope.data_filter.sources.kinds import KINDS
from glideslope.data_filter.sources.parquet import ParquetSource
from glideslope.errors import ReleaseError
from glideslope.recipe.filters import Category, Detector
from glideslope.recipe.load import dump_recipe
from glideslope.recipe.recipe import Recipe
from glideslope.release import pack
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.evidence.published_recipe import last_part, published_recipe
from glideslope.release.verify import verify
from glideslope.release.vetting.secret_files import find_secrets

from ..conftest import write_run


@pytest.mark.parametrize(("path", "expected"), [
    ("/home/anna/photos", "photos"), ("/home/anna/photos/", "photos"), ("/data/x/part-*.tar", "part-*.tar"),
    ("C:\\Users\\anna\\photos", "photos"),
    ("D:/photos", "photos"), ("\\\\server\\share\\photos", "photos"), ("~/photos", "photos"), ("~anna/photos", "photos"), ("/", "data"),
    ("photos", "photos"), ("data/photos", "data/photos"), ("../photos", "../photos"), ("org/name", "org/name"),
    ("https://example.org/x.parquet", "https://example.org/x.parquet"), ("hf://datasets/org/name", "hf://datasets/org/name")])
def test_of_a_place_on_a_machine_the_last_part_is_published(path: str, expected: str) -> None:
    assert last_part(path) == expected
    assert last_part(expected) == expected


def test_every_place_in_a_recipe_is_shortened_and_nothing_else(recipe: Recipe) -> None:
    detector = Detector(name="faces", path="/srv/faces.csv", threshold=0.5)
    category: Category = recipe.categories[0].model_copy(update={"detectors": (detector,)})
    places = {"terms_of_use": "/home/anna/terms.md", "companions": "/mnt/nets"}
    release = recipe.release.model_copy(update=places)
    placed = recipe.model_copy(update={"categories": (category, recipe.categories[1]), "release": release, "policy": "/home/anna/strict.yaml",
                                       "source": ParquetSource(path="/data/in/*.parquet", image_root="/data/images")})
    public = published_recipe(placed)
    assert isinstance(public.source, ParquetSource)
    assert (public.source.path, public.source.image_root) == ("*.parquet", "images")
    assert public.categories[0].detectors[0].path == "faces.csv"
    assert (public.release.terms_of_use, public.policy, public.release.companions) == ("terms.md", "policy.yaml", "nets")
    assert published_recipe(public) == public
    assert published_recipe(recipe) == recipe.model_copy(update={"policy": "policy.yaml"})


def test_data_files_are_shortened_one_by_one(recipe: Recipe) -> None:
    source = DatasetsSource(path="parquet", data_files=("/data/a.parquet", "b.parquet"))
    public = published_recipe(recipe.model_copy(update={"source": source}))
    assert isinstance(public.source, DatasetsSource) and public.source.data_files == ("a.parquet", "b.parquet")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_kind_of_source_tells_where_the_data_lie(recipe: Recipe, kind: type[SourceKind]) -> None:
    assert {name for name in kind.model_fields if name.endswith(("path", "root", "files", "dir"))} <= kind.PLACES
    places = {name: ("/home/anna/photos",) if name == "data_files" else "/home/anna/photos" for name in kind.PLACES}
    public = published_recipe(recipe.model_copy(update={"source": kind.model_construct(None, **places)}))
    assert "anna" not in dump_recipe(public)
    assert ("photos" in dump_recipe(public)) == bool(kind.PLACES)


def test_a_run_on_a_folder_with_an_absolute_path_is_packed_and_verified_like_any_other(recipe: Recipe, tmp_path: Path) -> None:
    placed, run_dir = recipe.model_copy(update={"source": FolderSource(path="/home/anna/photos")}), tmp_path / "run"
    run_dir.mkdir()
    write_run(run_dir, placed)
    pack(run_dir, placed, run_dir / "release")
    pack(run_dir, placed.model_copy(update={"source": FolderSource(path="/elsewhere/photos")}), tmp_path / "again")
    assert yaml.safe_load((run_dir / "release/evidence/recipe.yaml").read_text())["source"]["path"] == "photos"
    assert find_secrets(open_evidence(run_dir / "release")) == []
    assert verify(run_dir / "release").manifest_root == verify(tmp_path / "again").manifest_root


def test_a_record_that_names_a_place_says_to_give_a_relative_path(tamper: Any) -> None:
    def place(value: dict[str, Any]) -> None:
        value["config"]["clip"] = {"model": "local-dir:/srv/models/vit"}

    tamper.record("index", place)
    problem, = find_secrets(open_evidence(tamper.directory))
    assert problem.startswith("evidence/records/index.json: holds a path of a machine, at config.clip.model (/srv/…, 15 characters); "
                              "give a path relative to the directory you work in")


def test_a_recipe_that_speaks_of_a_machine_is_refused_without_showing_it_whole(run_dir: Path, recipe: Recipe) -> None:
    release = recipe.release.model_copy(update={"data_attribution": "see /home/anna/secret-project/readme, ask anna.b@uni-wien.ac.at"})
    with pytest.raises(ReleaseError, match=r"evidence/recipe\.yaml: holds a path of a machine") as refusal:
        pack(run_dir, recipe.model_copy(update={"release": release}), run_dir / "release")
    assert "evidence/recipe.yaml: holds a mail address, at release.data_attribution (a…, 21 characters)" in str(refusal.value)
    assert "secret-project" not in str(refusal.value) and "anna.b@uni" not in str(refusal.value)
    assert not (run_dir / "release").exists()
