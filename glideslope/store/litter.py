"""What operating systems and desktops put into folders by themselves."""

import re

# Pattern of a whole name, whatever its case -> who leaves it.
LITTER = {re.compile(r"(?i)\.ds_store|\._.+|__macosx|\.spotlight-v100|\.fseventsd"): "macOS",
          re.compile(r"(?i)(eh)?thumbs\.db|desktop\.ini|\$recycle\.bin|system volume information"): "Windows",
          re.compile(r"(?i)\.directory|\.nfs[0-9a-f]+|.+~|@eadir|lost\+found"): "a file manager, editor or network drive"}


def who_left(name: str) -> str | None:
    """Which system leaves files or folders of that name behind; None: it is somebody's own."""
    return next((who for pattern, who in LITTER.items() if pattern.fullmatch(name)), None)
