from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from glideslope.data_filter.classifiers.file import load_classifier, save_classifier
from glideslope.data_filter.classifiers.kinds.classifier import Classifier
from glideslope.errors import FilterError, StorageError

from .kinds.test_classifier import ALL, NEW


@pytest.mark.parametrize("classifier", ALL, ids=lambda classifier: classifier.kind)
def test_a_classifier_survives_the_round_trip_with_equal_bytes(tmp_path: Path, classifier: Classifier) -> None:
    save_classifier(classifier, tmp_path / "a.safetensors")
    loaded = load_classifier(tmp_path / "a.safetensors")
    assert loaded.kind == classifier.kind and np.array_equal(loaded.score(NEW), classifier.score(NEW))
    save_classifier(loaded, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_what_an_index_holds_is_stored_in_half_precision() -> None:
    assert str(ALL[0].tensors()["support_embeddings"].dtype) == "torch.float16"


def test_damaged_and_foreign_classifier_files_are_refused(tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    save_classifier(ALL[0], good)
    tensors = {name: tensor.contiguous() for name, tensor in ALL[0].tensors().items()}
    cases = {
        "classifier cannot be read": lambda path: path.write_bytes(good.read_bytes()[:200]),
        "not a classifier of format": lambda path: save_file(tensors, path),
        "unknown kind 'forest'.*; fit the filter again":
            lambda path: save_file(tensors, path, metadata={"format": "glideslope.classifier.forest/1"}),
        "expected center, intercept, scale, weights":
            lambda path: save_file(tensors, path, metadata={"format": "glideslope.classifier.logistic/1"}),
        "classifier is missing": lambda path: None,
    }
    for place, (message, write) in enumerate(cases.items()):
        path = tmp_path / f"{place}.safetensors"
        write(path)
        with pytest.raises(FilterError, match=message):
            load_classifier(path)


def test_a_directory_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        save_classifier(ALL[0], tmp_path / "file" / "classifier.safetensors")
