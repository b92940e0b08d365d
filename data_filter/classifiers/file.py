"""Classifiers as safetensors files; the header names format and kind. No pickle."""

import re
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save

from ...errors import FilterError
from ...store.whole_files import write_bytes
from ...text.one_line import one_line
from .kinds.classifier import Classifier
from .kinds.table import build_classifier

FORMAT = re.compile(r"glideslope\.classifier\.([a-z_]+)/1")


def save_classifier(classifier: Classifier, path: Path) -> None:
    """Write a classifier as safetensors; equal classifiers give equal bytes.

    Raises:
        StorageError: the file cannot be written.
    """
    tensors = {name: tensor.contiguous() for name, tensor in classifier.tensors().items()}
    write_bytes(path, save(tensors, metadata={"format": f"glideslope.classifier.{classifier.kind}/1"}))


def load_classifier(path: Path) -> Classifier:
    """Read a classifier.

    Raises:
        FilterError: missing, damaged, of another format, or with numbers that are not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = FORMAT.fullmatch((file.metadata() or {}).get("format", ""))
            if found is None:
                raise FilterError("not a classifier of format glideslope.classifier.<kind>/1")
            return build_classifier(found[1], {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  (no mapping)
    except FileNotFoundError as error:
        raise FilterError(f"{path}: classifier is missing; fit the filter first") from error
    except FilterError as error:
        raise FilterError(f"{path}: {error}; fit the filter again") from error
    except Exception as error:  # safetensors raises its own types
        raise FilterError(f"{path}: classifier cannot be read ({one_line(error)}); fit the filter again") from error
