"""The table of the kinds of sources. A new kind is a file of this folder, with a subclass of `SourceKind`, and a line here."""

from collections.abc import Mapping
from typing import Any

from ...errors import RecipeError, SourceError
from .files import IMAGE_SUFFIXES
from .folder import FolderSource
from .huggingface import DatasetsSource
from .kind import Found, Place, SourceKind
from .openmoji import OpenMojiSource
from .parquet import ParquetSource
from .webdataset import WebDatasetSource

# In the order in which they look at a path: the first that knows the data reads it.
KINDS: tuple[type[SourceKind], ...] = (OpenMojiSource, DatasetsSource, WebDatasetSource, ParquetSource, FolderSource)


def read_source(value: Any) -> SourceKind:
    """The settings of a source from plain data, by its `kind`.

    Raises:
        RecipeError: no such kind.
        ValidationError: an unknown key, a wrong type or an impossible value.
    """
    kinds = {kind.model_fields["kind"].default: kind for kind in KINDS}
    name = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(name, str) or name not in kinds:
        raise RecipeError(f"source: expected a mapping with a kind that is one of {', '.join(kinds)}, got {name if name else value!r:.60}")
    return kinds[name].model_validate(value)


def look_at(images: str) -> Found:
    """Look at what lies at a path, for `glideslope init`. Only names, headers and first inputs are looked at; no picture is decoded.

    Args:
        images: a folder of images, of WebDataset tars, of parquet or Arrow files, a data set that `datasets` saved or that is
            laid out for the Hub, one such file, or a pattern of tars or parquet files.

    Raises:
        SourceError: nothing lies there, nothing that is read, or something that is damaged.
    """
    place = Place.of(images)
    for kind in KINDS:
        found = kind.look_at(place)
        if found is not None:
            return found
    if place.path.exists() and place.path.suffix.lower() in IMAGE_SUFFIXES:
        raise SourceError(f"{images}: one image; name the folder that it lies in")
    told = "no file of a type that is read" if place.path.exists() else "no such file or folder"
    raise SourceError(f"{images}: {told}; expected a folder of images, .tar, .parquet or .arrow files, or a pattern of such files "
                      "(for a data set of the Hub write kind: datasets and its id into the recipe)")
