"""Find and remove what must not be learned: sources, index, labels, filters, curated data.

The stages, in order: `build_index`, `train_text_tower` (lite0 only), `import_labels`, then per category `fit_classifier`, `score_index`
and `build_filter`, then `curate`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clip import Clip, load_clip
    from .clip_training import train_text_tower
    from .curation import curate
    from .evidence import measure_filter
    from .filters import build_filter
    from .fit import fit_classifier
    from .index import build_index
    from .labels import import_labels, read_label_csv
    from .scores import score_index
    from .sources import Source, open_source

_HOMES = {
    "Clip": "clip", "load_clip": "clip", "train_text_tower": "clip_training", "curate": "curation", "measure_filter": "evidence",
    "build_filter": "filters", "fit_classifier": "fit", "build_index": "index", "import_labels": "labels", "read_label_csv": "labels",
    "score_index": "scores", "Source": "sources", "open_source": "sources",
}

__all__ = ["Clip", "Source", "build_filter", "build_index", "curate", "fit_classifier", "import_labels", "load_clip", "measure_filter",
           "open_source", "read_label_csv", "score_index", "train_text_tower"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `glideslope --help` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
