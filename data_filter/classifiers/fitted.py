"""A finished stage `classifiers/<category>`: its files, and the classifier with its calibration, read once a process."""

from functools import lru_cache
from pathlib import Path

from ...errors import FilterError
from ...store.digests import sha256_file
from ...store.whole_files import read_json
from .calibration import Calibration
from .file import load_classifier
from .kinds.classifier import Classifier

FORMAT = "glideslope.classifier_report/2"
CLASSIFIER_NAME, REPORT_NAME, TRAINING_NAME = "classifier.safetensors", "classifier.json", "training.parquet"


@lru_cache(maxsize=2)
def load_classifier_once(classifier_dir: Path, sha256: str) -> tuple[Classifier, Calibration | None]:
    """The classifier of this process and its calibration.

    Raises:
        FilterError: the classifier is not the one of that digest.
    """
    report = read_json(classifier_dir / REPORT_NAME)
    if report.get("format") != FORMAT:
        raise FilterError(f"{classifier_dir / REPORT_NAME}: format is {report.get('format')!r}, expected {FORMAT!r}")
    digest = sha256_file(classifier_dir / CLASSIFIER_NAME)
    if digest != sha256 or report["sha256"] != sha256:
        raise FilterError(f"{classifier_dir / CLASSIFIER_NAME}: sha256 is {digest[:12]}…, expected {sha256[:12]}…; fit the filter again")
    calibration = report["calibration"]
    return load_classifier(classifier_dir / CLASSIFIER_NAME), calibration and Calibration(calibration["slope"], calibration["offset"])
