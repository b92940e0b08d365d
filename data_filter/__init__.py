"""Find and remove what must not be learned: sources, index, labels, filters, curated data.

The stages, in order: `build_index`, `train_text_tower` (lite0 only), `import_labels`, then per category `fit_classifier`, `score_index`
and `build_filter`, then `curate`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .classifiers.fit_stage import fit_classifier
    from .classifiers.score_stage import score_index
    from .deciding.curate_stage import curate
    from .deciding.filter_figures import measure_filter
    from .deciding.threshold_stage import build_filter
    from .index.lite0_text_training import train_text_tower
    from .index.stage import build_index
    from .labels.csv_files import read_label_csv
    from .labels.stage import import_labels
    from .sources.kind import open_source
    from .sources.source import Source

_HOMES = {
    "train_text_tower": "index.lite0_text_training", "curate": "deciding.curate_stage", "measure_filter": "deciding.filter_figures",
    "build_filter": "deciding.threshold_stage", "fit_classifier": "classifiers.fit_stage", "build_index": "index.stage",
    "import_labels": "labels.stage", "read_label_csv": "labels.stage", "score_index": "classifiers.score_stage", "Source": "sources.source",
    "open_source": "sources.kind",
}

__all__ = ["Source", "build_filter", "build_index", "curate", "fit_classifier", "import_labels", "measure_filter",
           "open_source", "read_label_csv", "score_index", "train_text_tower"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `glideslope --help` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
