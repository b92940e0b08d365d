"""The rule of a filter, and a finished filter's threshold: an image is kept only when its score lies below the threshold."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import FilterError
from ...store.digests import sha256_file
from ...store.records import check_outputs, read_record
from ...store.whole_files import read_json
from ..classifiers.fitted import CLASSIFIER_NAME

FORMAT = "glideslope.filter/4"
FILTER_NAME, SCORES_NAME = "filter.json", "scores.parquet"

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Filter:
    """A finished filter: name of its category, digest of its classifier, threshold."""

    category: str
    sha256: str
    threshold: float


def is_dropped(scores: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Whether an image is dropped: it is kept only when `score < threshold` is true, so NaN is dropped. bool (N,)."""
    return ~(scores.astype(np.float64) < threshold)


def load_filter(category: str, directory: Path) -> Filter:
    """Read a finished filter.

    Raises:
        FilterError: the classifier is not the one that filter.json names, or the threshold is no number.
        StageError: the filter was not built, or was changed since.
    """
    check_outputs(directory, read_record(directory))
    settings = read_json(directory / FILTER_NAME)
    if settings.get("format") != FORMAT:
        raise FilterError(f"{directory / FILTER_NAME}: format is {settings.get('format')!r}, expected {FORMAT!r}")
    threshold, sha256 = settings["threshold"], settings["classifier"]["sha256"]
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not np.isfinite(threshold):
        raise FilterError(f"{directory / FILTER_NAME}: threshold is {threshold!r}, expected a number")
    if (digest := sha256_file(directory / CLASSIFIER_NAME)) != sha256:
        raise FilterError(f"{directory / CLASSIFIER_NAME}: sha256 is {digest[:12]}…, filter.json names {sha256[:12]}…; fit the filter again")
    return Filter(category, sha256, float(threshold))
