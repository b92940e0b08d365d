import json

import numpy as np
import pytest

from glideslope.data_filter.deciding import threshold as filters
from glideslope.data_filter.deciding.threshold import is_dropped, load_filter
from glideslope.errors import FilterError, StageError

from ..conftest import World
from .test_threshold_stage import report


@pytest.mark.parametrize("threshold", ["null", "NaN", '"0.5"', "true"])
def test_a_threshold_that_is_no_number_is_refused(fitted: World, threshold: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fitted.root / "filters" / "red" / "filter.json"
    path.write_text(json.dumps({**report(fitted), "threshold": 0}).replace('"threshold": 0', f'"threshold": {threshold}'))
    with pytest.raises(StageError, match="changed since the stage finished"):
        load_filter("red", path.parent)
    monkeypatch.setattr(filters, "check_outputs", lambda directory, record: None)
    with pytest.raises(FilterError, match=r"threshold is .*, expected a number"):
        load_filter("red", path.parent)


def test_a_swapped_classifier_and_another_format_are_refused(fitted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fitted.root / "filters" / "red" / "classifier.safetensors"
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(StageError, match=r"classifier.safetensors: sha256"):
        load_filter("red", path.parent)
    monkeypatch.setattr(filters, "check_outputs", lambda directory, record: None)
    with pytest.raises(FilterError, match=r"filter.json names .*fit the filter again"):
        load_filter("red", path.parent)
    (path.parent / "filter.json").write_text("{}")
    with pytest.raises(FilterError, match="format is None"):
        load_filter("red", path.parent)


def test_an_image_is_kept_only_when_its_score_is_below_the_threshold() -> None:
    scores = np.array([-1.0, 0.25, np.nextafter(np.float32(0.25), np.float32(0)), np.nan, np.inf, -np.inf], dtype=np.float32)
    assert is_dropped(scores, 0.25).tolist() == [False, True, False, True, True, False]
    assert is_dropped(scores, float("nan")).all()
