"""The comparison of two runs as a page with pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.compute as pc

from ...store.run_layout import RunLayout
from ...store.whole_files import write_bytes
from ..sources.source import Source, hash_share
from .diff import Difference
from .galleries import Pictures, Shown, all_keys, make_thumbnails
from .page import load_template

NUM_SHOWN = 60


def write_difference_page(difference: Difference, source: Source | None, path: Path, *, pictures: Pictures = "veiled") -> None:
    """Write a difference as one HTML page.

    Args:
        difference: of two runs.
        source: of run B, read for the thumbnails; None: no pictures.
        path: the file.
        pictures: as in `report.write_report`; what enters and what leaves is veiled alike.

    Raises:
        StorageError: the file cannot be written.
    """
    galleries = {change: choose_changes(difference, change) for change in ("enters", "leaves")}
    thumbnails = make_thumbnails(source, RunLayout(difference.run_b).index, sorted(set(all_keys(galleries))), pictures)
    write_bytes(path, render_difference(difference, galleries, thumbnails, pictures).encode("utf-8", "replace"))


def choose_changes(difference: Difference, change: str) -> list[Shown]:
    """Some of the inputs that enter or leave, by the hash of their keys."""
    if not len(difference.changes):
        return []
    changes = difference.changes.filter(pc.equal(difference.changes["change"], change))
    rows = changes.select(["key", "caption", "reason_a", "reason_b"]).to_pylist()
    chosen = sorted(rows, key=lambda row: (hash_share("report", row["key"]), row["key"]))[:NUM_SHOWN]
    return [Shown(row["key"], row["caption"] or "", None, row["reason_a"] if change == "enters" else row["reason_b"]) for row in chosen]


def render_difference(difference: Difference, galleries: Mapping[str, Sequence[Shown]], thumbnails: Mapping[str, str],
                      pictures: Pictures) -> str:
    """The page."""
    names = (difference.run_a.resolve().name, difference.run_b.resolve().name)
    return str(load_template("diff.html.jinja").render(**difference.to_json(), name_a=names[0], name_b=names[1], galleries=galleries,
                                                       thumbnails=thumbnails, pictures=pictures))
