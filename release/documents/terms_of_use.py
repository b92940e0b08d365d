"""USE_POLICY.md: the terms of use, built in or from the recipe's own file, and what the Hub shows of them before access."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ReleaseError
from ...recipe.recipe import Recipe
from ...store.digests import sha256_bytes
from ...text.number_text import cell, in_code
from ...text.text_files import LINE_ENDS, NotTextError, decode_text
from ..evidence.contents import Release

TERMS_PATH = "USE_POLICY.md"
MAX_CHARACTERS = 8_000


def terms_text(recipe: Recipe) -> str:
    """The text that a release of a recipe gets, to be written while packing.

    Raises:
        ReleaseError: the recipe's own file is missing or cannot be used.
    """
    path = recipe.release.terms_of_use
    if path is None:
        text = built_in_terms(recipe)
        refuse_unusable(text, where="the built-in terms of use, made of release.title, license, data_attribution and what counts in each "
                                     "category")
        return text
    try:
        text = "\n".join(LINE_ENDS.split(decode_text(Path(path).read_bytes())))
    except OSError as error:
        raise ReleaseError(f"release.terms_of_use: {path} cannot be read ({error.strerror}); name a Markdown file, or remove the key for the "
                           "built-in terms") from error
    except NotTextError as error:
        raise ReleaseError(f"release.terms_of_use: {path} {error}") from error
    refuse_unusable(text, where=f"release.terms_of_use: {path}")
    return text.rstrip() + "\n"


def refuse_unusable(text: str, *, where: str) -> None:
    """Refuse terms that say nothing, or that the Hub could not show whole to whoever asks for access.

    Raises:
        ReleaseError: empty, without a heading, longer than 8,000 characters, or with characters that are no text.
    """
    if not text.lstrip().startswith("# ") or len(text.strip().splitlines()) < 2:
        raise ReleaseError(f"{where}: must begin with a heading (`# Terms of use`) and say something below it")
    if len(text) > MAX_CHARACTERS:
        raise ReleaseError(f"{where}: {len(text)} characters, at most {MAX_CHARACTERS} are shown to those who ask for access; shorten it")
    if any(not (letter.isprintable() or letter in "\n\t") for letter in text):
        raise ReleaseError(f"{where}: holds control characters; save it as plain text")


def built_in_terms(recipe: Recipe) -> str:
    """The terms that hold where a recipe names none: what a model of unproven quality, trained on filtered data, may be used for."""
    lines = [f"# Terms of use: {cell(recipe.release.title)}", "",
             f"The weights are released under the licence {in_code(recipe.release.license)} (see LICENSE). What follows says what they were "
             "made for and what was left out on purpose. Where the licence grants more, the licence decides; whoever runs a gated copy may ask "
             "for agreement to these terms.", "",
             "## Meant for", "",
             "- studying how small diffusion models are trained, guided and released",
             "- trying out the filtering of training data, and the evidence for it",
             "- drawing simple pictures in the manner of the training data", "",
             "## Not meant for", ""]
    for category in recipe.categories:
        lines += [f"- pictures of the category \"{category.name}\": {cell(category.counts).rstrip('.')}. Images of it were removed from the "
                  "training data; do not fine-tune, merge or guide the model to bring it back."]
        if category.does_not_count:
            lines += [f"  Not part of it: {cell(category.does_not_count).rstrip('.')}."]
    lines += ["- pictures that are passed off as photographs, as records of events, or as somebody else's work",
              "- harassing, deceiving or putting down anybody",
              "- decisions about people, and any use in which a wrong, crude or offensive picture does harm", "",
              "## What nobody promises", "",
              "Filtering lowers how often something was seen in training, as far as the bounds on the model card say. It is no proof that the "
              "model cannot draw it. The model does not look at what it is asked for: whoever offers it to others has to.", "",
              "## Passing it on", "",
              "Pass these terms on with the weights and with whatever was trained from them, and keep the credit of the training data:", "",
              f"> {cell(recipe.release.data_attribution or 'none is asked for')}"]
    return "\n".join(lines) + "\n"


def find_changed_terms(release: Release) -> list[str]:
    """What is wrong with a release's terms: not those of the recipe, or not usable."""
    text = release.read(TERMS_PATH, bytes.decode)
    if release.recipe.release.terms_of_use is None:
        expected = built_in_terms(release.recipe)
        return [] if text == expected else [f"{TERMS_PATH}: is not the built-in text that the recipe asks for; pack the release again"]
    try:
        refuse_unusable(text, where=TERMS_PATH)
    except ReleaseError as error:
        return [str(error)]
    return []


def terms_claims(release: Release) -> dict[str, Any]:
    """The claims about the terms: their text, its digest, and whether they are the built-in ones."""
    text = release.read(TERMS_PATH, bytes.decode)
    refuse_unusable(text, where=TERMS_PATH)
    return {"terms.text": text, "terms.sha256": sha256_bytes(text.encode()),
            "terms.is_built_in": release.recipe.release.terms_of_use is None} | source_claims(release)


def source_claims(release: Release) -> dict[str, Any]:
    """Id and revision of the data set on the Hub. Only a recipe that names a revision surely means the Hub and not a folder."""
    source = release.recipe.source
    revision = getattr(source, "revision", None)
    path: Mapping[str, Any] = {"source.dataset_id": getattr(source, "path", None) if revision else None, "source.dataset_revision": revision}
    return dict(path)
