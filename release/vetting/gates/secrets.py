"""The gate on secrets: nothing that must not be published."""

from collections.abc import Iterator

from ....recipe.policy import Policy
from ....recipe.recipe import Recipe
from ....text.secrets import KINDS, private_words, scan_tree, word_kind
from ...evidence.contents import Release
from ...evidence.published_recipe import published_recipe
from ..secret_files import find_secrets
from .gate import Asked, Gate


def find_private_words(release: Release, asked: Asked) -> list[str]:
    """One sentence for each file and kind of secret, the name of this machine included; see `find_secrets`."""
    return find_secrets(release, words=private_words())


def foresee_secrets(recipe: Recipe, policy: Policy) -> Iterator[str]:
    """One sentence for each key of the recipe, as it is published, that holds what must not be."""
    kinds = (*KINDS, *map(word_kind, private_words()))
    for finding in scan_tree(published_recipe(recipe).model_dump(mode="json"), kinds):
        yield f"{finding.place} holds {finding.kind} ({finding.shown}), which would be published; write something else there"


SECRETS = Gate("secrets", "a token, a private key, a mail address, a path of a machine, or data hidden in a picture", demand=find_private_words,
               foresee=foresee_secrets)
