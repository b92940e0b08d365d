"""Released weights held against the architecture: names, shapes and types from headers, no tensor loaded."""

from ..errors import GlideslopeError
from .contents import Release
from .layout import MODELS, WEIGHTS_NAME
from .weights import METADATA, find_nonfinite, read_header, read_metadata

CLASSES = {"base": "TextConditionedUNet", "noised_clip": "NoisedClip"}
FLOAT_TYPES = frozenset({"F32", "F16", "BF16"})


def check_architecture(release: Release) -> list[str]:
    """One sentence for every tensor that is missing, unknown, or of another shape or type than the architecture's."""
    problems = []
    for model in MODELS:
        problems += _check_component(release, model)
    return problems


def check_finite(release: Release) -> list[str]:
    """One sentence for every weight tensor that holds a NaN or an infinity."""
    problems = []
    for model in MODELS:
        path = release.path(f"{model}/{WEIGHTS_NAME}")
        read_header(path)
        problems += [f"{model}: tensor {name} holds values that are not finite; train again" for name in find_nonfinite(path)]
    return problems


def _check_component(release: Release, model: str) -> list[str]:
    from ..models.loading import expected_tensors, read_component_config

    path = release.path(f"{model}/{WEIGHTS_NAME}")
    found = read_header(path)
    try:
        class_name, config = read_component_config(release.path(f"{model}/config.json"))
        expected = expected_tensors(class_name, config)
    except GlideslopeError as error:
        return [f"{model}: {error}"]
    where = f"{model}/{WEIGHTS_NAME}"
    problems = [] if class_name == CLASSES[model] else [f"{model}/config.json: _class_name is {class_name}, expected {CLASSES[model]}"]
    problems += [f"{where}: tensor {name} is missing" for name in sorted(expected.keys() - found.keys())]
    problems += [f"{where}: tensor {name} is not part of the architecture" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        header = found[name]
        if header.shape != tuple(expected[name]):
            problems.append(f"{where}: tensor {name} has shape {header.shape}, expected {tuple(expected[name])}")
        if header.dtype not in FLOAT_TYPES:
            problems.append(f"{where}: tensor {name} has type {header.dtype}, expected one of {', '.join(sorted(FLOAT_TYPES))}")
    if read_metadata(path) != METADATA:
        problems.append(f"{where}: metadata is {read_metadata(path)}, expected {METADATA}")
    return problems
