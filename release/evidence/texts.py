"""Files of a release that follow from its recipe alone: recipe and licence."""

from importlib import resources

from ...recipe.load import dump_recipe
from ...recipe.recipe import Recipe
from .published_recipe import published_recipe


def recipe_text(recipe: Recipe) -> str:
    """The text of evidence/recipe.yaml."""
    return dump_recipe(published_recipe(recipe))


def license_text(recipe: Recipe) -> str:
    """The LICENSE of a release: whose licence it is, the data's credit, and the licence's text where it is known."""
    identifier = recipe.release.license
    lines = [f"{recipe.release.title}", "", f"The weights are released under the licence {identifier}."]
    if recipe.release.data_attribution:
        lines += ["", f"Training data: {recipe.release.data_attribution.strip()}"]
    known = resources.files("glideslope.release") / "licenses" / f"{identifier}.txt"
    text = known.read_text(encoding="utf-8") if known.is_file() else f"Full text: https://spdx.org/licenses/{identifier}.html\n"
    return "\n".join(lines) + "\n\n" + text.replace("\r\n", "\n")
