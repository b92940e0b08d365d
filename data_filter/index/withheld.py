"""What an index keeps back: captions, names and details that hold a token, a key, a mail address or a place of a machine.

The ledger of a release names every input with its caption. A secret that is found while packing is found after days of
training. So the index finds it: the input is dropped with the reason `secret`, and no later stage sees the text.
"""

from typing import Any

from ...store.digests import sha256_json
from ...store.vocabulary import Cause, Status
from ...text.secrets import KINDS, find_matches, scan_tree
from ..sources.source import all_captions

KEY_DIGITS = 32


def withhold_secrets(row: dict[str, Any]) -> None:
    """Make a row of the index one that may be published, in place.

    A caption with a secret becomes null. A key or concept with one becomes `withheld-` and 32 hex digits of its SHA-256.
    Either makes a sound input a bad one with the reason `secret`; an input that was bad already keeps its reason. A detail
    that quotes a secret is replaced.
    """
    key = row["key"]
    secrets = [(f"the {what}", kind) for what in ("key", "concept") if (kind := secret_in(row[what], what))]
    for what in ("key", "concept"):
        if secret_in(row[what], what):
            row[what] = withheld_name(row[what])
    kinds = (kind for caption in all_captions(row["caption"], row["captions"]) if (kind := caption_secret(caption)))
    if kind := next(kinds, None):
        row |= {"caption": None, "captions": None}
        secrets.append((f"the caption of {row['key']}", kind))
    if row["error"] is not None and (row["key"] != key or secret_in(row["error"], "error")):
        row["error"] = f"{row['reason']}; the rest of the message quotes what must not be published"
    if secrets and row["status"] == Status.OK:
        where, kind = secrets[0]
        error = f"{where} holds {kind}, which a release must not publish; remove it from the data to keep this input"
        row |= {"status": Status.BAD, "reason": Cause.SECRET, "error": error, "width": None, "height": None}


def secret_in(text: str, field: str) -> str | None:
    """The first kind of secret that a published field would hold, as a search of a release finds it; None where there is none."""
    return next((finding.kind for finding in scan_tree({field: text}, KINDS)), None)


def caption_secret(text: str) -> str | None:
    """The first kind of secret in a caption, which may speak of anything else; None where there is none."""
    return next((kind for kind, _ in find_matches(text, KINDS, is_caption=True)), None)


def withheld_name(name: str) -> str:
    """What stands for a name that must not be published."""
    return f"withheld-{sha256_json(name)[:KEY_DIGITS]}"
