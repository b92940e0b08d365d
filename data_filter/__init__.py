"""Find and remove what must not be learned: sources, index, labels, filters, curated data.

The stages, in order: `build_index`, `train_text_tower` (lite0 only), `import_labels`, `fit_filter`, `curate`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clip import Clip, load_clip
    from .clip_training import train_text_tower
    from .curation import curate
    from .evidence import measure_filter
    from .fit import fit_filter
    from .index import build_index
    from .labels import import_labels, read_label_csv
    from .sources import Source, open_source

_HOMES = {
    "Clip": "clip", "load_clip": "clip", "train_text_tower": "clip_training", "curate": "curation",
    "measure_filter": "evidence", "fit_filter": "fit", "build_index": "index", "import_labels": "labels",
    "read_label_csv": "labels", "Source": "sources", "open_source": "sources",
}

__all__ = ["Clip", "Source", "build_index", "curate", "fit_filter", "import_labels", "load_clip", "measure_filter",
           "open_source", "read_label_csv", "train_text_tower"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `glideslope --help` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
