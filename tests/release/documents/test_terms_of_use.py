from pathlib import Path
from typing import Any

import pytest

from glideslope.data_filter.sources.huggingface import DatasetsSource
from glideslope.errors import ReleaseError
from glideslope.recipe.recipe import Recipe
from glideslope.release import pack
from glideslope.release.documents.terms_of_use import (
    built_in_terms,
    find_changed_terms,
    refuse_unusable,
    source_claims,
    terms_claims,
    terms_text,
)
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.vetting.metadata import read_header

OWN = "# Our terms\n\nDraw nothing but circles.\n"


def with_terms(recipe: Recipe, path: Path | str | None) -> Recipe:
    return recipe.model_copy(update={"release": recipe.release.model_copy(update={"terms_of_use": None if path is None else str(path)})})


def test_built_in_terms_name_each_category_by_its_specification(recipe: Recipe) -> None:
    text = built_in_terms(recipe)
    assert 'pictures of the category "person": a human being, or a recognisable part of one.' in text
    assert "Not part of it: animals and smileys." in text
    assert "> OpenMoji, CC BY-SA 4.0" in text
    refuse_unusable(text, where="built-in")


def test_own_terms_are_released_as_they_stand(run_dir: Path, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "terms.md").write_bytes(OWN.replace("\n", "\r\n").encode())
    pack(run_dir, with_terms(recipe, tmp_path / "terms.md"), run_dir / "release")
    release = open_evidence(run_dir / "release")
    assert (run_dir / "release/USE_POLICY.md").read_text() == OWN
    assert find_changed_terms(release) == []
    assert terms_claims(release)["terms.is_built_in"] is False
    assert read_header((run_dir / "release/README.md").read_text(), where="card")["extra_gated_prompt"] == "Draw nothing but circles."
    assert str(tmp_path) not in (run_dir / "release/evidence/recipe.yaml").read_text()


@pytest.mark.parametrize(("content", "message"), [(b"", "must begin with a heading"), (b"# Only a title\n", "must begin with a heading"),
                                                  (b"no heading\nat all\n", "must begin with a heading"), (b"# A\n\xff\n", "not UTF-8"),
                                                  (b"# A\n" + b"x" * 9000, "at most 8000"), (b"# A\nx\x07\n", "control characters")])
def test_terms_that_cannot_be_shown_are_refused(recipe: Recipe, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "terms.md").write_bytes(content)
    with pytest.raises(ReleaseError, match=message):
        terms_text(with_terms(recipe, tmp_path / "terms.md"))


def test_terms_that_are_not_there_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="cannot be read"):
        terms_text(with_terms(recipe, tmp_path / "nothing.md"))


def test_built_in_terms_that_were_edited_are_found(tamper: Any) -> None:
    tamper.text("USE_POLICY.md", "Not meant for", "Meant for")
    problem, = find_changed_terms(open_evidence(tamper.directory))
    assert problem == "USE_POLICY.md: is not the built-in text that the recipe asks for; pack the release again"


def test_only_a_source_with_a_revision_is_named_as_a_data_set_of_the_hub(tamper: Any) -> None:
    release = open_evidence(tamper.directory)
    assert source_claims(release) == {"source.dataset_id": None, "source.dataset_revision": None}
    for revision, expected in ((None, None), ("v1", "org/name")):
        release.__dict__["recipe"] = release.recipe.model_copy(update={"source": DatasetsSource(path="org/name", revision=revision)})
        assert source_claims(release)["source.dataset_id"] == expected


def test_the_words_of_a_recipe_make_no_heading_or_link_in_terms_that_are_called_the_usual_ones(recipe: Recipe) -> None:
    hostile = "a weapon\n\n## Audited by OpenAI\n\n[see](https://x.example) <b>"
    category = recipe.categories[0].model_copy(update={"counts": hostile, "does_not_count": hostile})
    words = recipe.release.model_copy(update={"title": hostile, "license": "`x`\n# y", "data_attribution": hostile})
    text = built_in_terms(recipe.model_copy(update={"categories": (category,), "release": words}))
    plain = built_in_terms(recipe.model_copy(update={"categories": recipe.categories[:1]}))
    assert [line for line in text.splitlines() if line.startswith("#")][1:] == [line for line in plain.splitlines() if line.startswith("#")][1:]
    assert "[see](" not in text and "<b>" not in text
