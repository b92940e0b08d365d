"""The inputs of a folder of images, told by the names of its files and the rows of its metadata; nothing is opened but metadata.

A file is found however its name is spelled (capitals, accents). Every picture and every caption is an input: an image that metadata
lists but that is missing, an image nobody described, a caption without an image, a picture of a type that is not read.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import SourceError
from ...text.text_files import NotTextError, decode_text
from ...text.text_tables import TableError, read_csv, read_json_lines
from .files import (
    IMAGE_SUFFIXES,
    UNSUPPORTED_SUFFIXES,
    below_root,
    find_spelled,
    fold,
    list_visible,
    plain_text,
)
from .source import (
    CAPTION,
    FIELD_PREFIX,
    check_captions,
)

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")


@dataclass(frozen=True, slots=True)
class Entry:
    """One input before it is read.

    Attributes:
        key: its name.
        image: path of its image relative to the folder, or None.
        caption: the caption where metadata gives one.
        caption_file: the file that holds the caption, relative to the folder, or None.
        reason, error: what is wrong with it already.
        captions: all captions where metadata gives several, `caption` the first; else none.
    """

    key: str
    image: str | None
    caption: str | None = None
    caption_file: str | None = None
    reason: str = ""
    error: str | None = None
    captions: tuple[str, ...] = ()


@dataclass
class Listing:
    """The files of a folder, relative to it, by what they are.

    Attributes:
        images: path and stem of each picture, of types that are read and of types that are not.
        captions: stem -> path of each file whose ending is that of the captions.
        metadata: metadata files.
        others: all the rest.
    """

    images: list[tuple[str, str]] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)
    metadata: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def suffix_of(name: str) -> str:
    """A file name's ending in small letters, with its dot; "" where it has none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  (see list_folder)


def split_caption_file(caption_file: str) -> tuple[str, str | None]:
    """The ending of the captions' files, with its dot and in small letters, and the JSON field that holds them or None."""
    if caption_file.lower().startswith(FIELD_PREFIX):
        return ".json", caption_file[len(FIELD_PREFIX):]
    return f".{caption_file.lower().removeprefix('.')}", None


def list_folder(root: Path, caption_suffix: str = ".txt") -> Listing:
    """Tell the files of a folder apart by their names.

    Args:
        root: the folder.
        caption_suffix: ending of the captions' files.

    Raises:
        SourceError: no image file of a type that is read.
    """
    listing, unsupported = Listing(), Counter[str]()
    for name in list_visible(root):
        stem, suffix = os.path.splitext(name)  # noqa: PTH122  (a Path for each of a million files is slow)
        suffix = suffix.lower()
        if suffix in IMAGE_SUFFIXES or suffix in UNSUPPORTED_SUFFIXES:
            listing.images.append((name, stem))
            unsupported.update([suffix] if suffix in UNSUPPORTED_SUFFIXES else [])
        elif name.rpartition("/")[2].lower() in METADATA_NAMES:
            listing.metadata.append(name)
        elif suffix == caption_suffix:
            listing.captions[name if stem in listing.captions else stem] = name  # `a.TXT` and `a.txt`: the second lies beside no image
        else:
            listing.others.append(name)
    if len(listing.images) == unsupported.total():
        found = ", ".join(f"{number} x {suffix}" for suffix, number in sorted(unsupported.items()))
        hint = f"; convert those of types that are not read ({found}) to PNG or JPEG" if found else ""
        raise SourceError(f"{root}: no images in this folder (looked for {', '.join(sorted(IMAGE_SUFFIXES))}){hint}")
    return listing


def list_entries(listing: Listing, root: Path, caption_column: str, caption_suffix: str = ".txt") -> list[Entry]:
    """Every input of a folder, in order.

    Raises:
        SourceError: metadata that cannot be parsed.
    """
    folders = [name.rpartition("/")[0] for name in listing.metadata]
    if len(set(folders)) != len(folders):
        raise SourceError(f"{root}: several files of metadata lie in one folder; keep one of them")
    rows: dict[str, list[tuple[Any, str]]] = {}  # a picture that is listed several times is one input with several captions
    for name in listing.metadata:
        for image, caption, where in read_metadata(name, root, caption_column):
            rows.setdefault(image, []).append((caption, where))
    spelled = respell(rows, root, {*(name for name, _ in listing.images), *listing.others}) if rows else {}
    given: dict[str, list[tuple[Any, str]]] = {}
    for image, values in rows.items():
        given.setdefault(spelled.get(image, image), []).extend(values)
    entries = [place_rows(image, root, values) for image, values in given.items()]
    listed = {entry.image for entry in entries}
    captions = match_captions(listing)
    entries += [describe_unlisted(name, captions.get(stem), bool(listing.metadata), caption_suffix) for name, stem in listing.images
                if name not in listed]
    matched = set(captions.values())
    lonely = [name for name in listing.captions.values() if name not in matched]
    if listing.metadata:
        listing.others += lonely
    else:
        entries += [Entry(plain_text(name), None, reason="missing", error=f"caption {plain_text(name)} has no image beside "
                                                                          f"it") for name in lonely]
    return entries


def respell(images: Collection[str], root: Path, present: Collection[str]) -> dict[str, str]:
    """The names of images that metadata spells otherwise than the folder -> the names there.

    A row whose image is not there, but for one file that differs in capitals or in how its accents are written, means that file. Where
    another row lists that file as it is spelled, another case of letters means another file, which is lost.
    """
    spelled = {}
    for image in images:
        if image not in present and below_root(root, image) is not None and (inside := below_root(root, image.replace("\\", "/"))) is not None:
            name = find_image(root, image)
            if name is not None and (name not in images or fold(inside, any_case=False) == fold(name, any_case=False)):
                spelled[image] = name
    return spelled


def find_image(root: Path, name: str) -> str | None:
    """The file below a folder that a row of metadata means by another spelling, that of Windows (`a\\b.png`) included; None: there is none."""
    if "\0" in name:
        return None
    inside = below_root(root, name.replace("\\", "/"))  # what leads out of the folder with slashes does with the signs of Windows too
    return find_spelled(root, name) or (None if inside is None else find_spelled(root, inside))


def match_captions(listing: Listing) -> dict[str, str]:
    """Stem of an image -> its caption's file; one that differs in capitals or accents counts where there is just one such pair."""
    stems = {stem for _, stem in listing.images}
    captions = {stem: name for stem, name in listing.captions.items() if stem in stems}
    lonely = [stem for stem in listing.captions if stem not in captions]
    if lonely:
        images, files = group_by_fold(stems - captions.keys()), group_by_fold(lonely)
        captions |= {images[name][0]: listing.captions[found[0]] for name, found in files.items() if len(found) == len(images.get(name,
                                                                                                                                  ())) == 1}
    return captions


def group_by_fold(stems: Collection[str]) -> dict[str, list[str]]:
    """Stems by the one spelling by which they are compared."""
    groups: dict[str, list[str]] = {}
    for stem in stems:
        groups.setdefault(fold(stem), []).append(stem)
    return groups


def refuse_type(image: str) -> str | None:
    """One sentence where a file is a picture of a type that is not read."""
    suffix = suffix_of(image)
    return f"image {plain_text(image)}: {suffix} files are not read; convert it to PNG or JPEG" if suffix in UNSUPPORTED_SUFFIXES else None


def describe_unlisted(image: str, caption_file: str | None, has_metadata: bool, caption_suffix: str) -> Entry:
    """The entry of an image that no metadata lists: its caption comes from the file beside it."""
    key = plain_text(image)
    if error := refuse_type(image):
        return Entry(key, image, reason="unreadable", error=error)
    if caption_file is not None:
        return Entry(key, image, caption_file=caption_file)
    where = "is not in the metadata and has" if has_metadata else "has"
    return Entry(key, image, reason=CAPTION, error=f"image {key} {where} no {Path(key).stem}{caption_suffix} beside it")


def read_metadata(name: str, root: Path, caption_column: str) -> Iterator[tuple[str, Any, str]]:
    """The rows of one metadata file: the image's path relative to the folder, in its normal form, its caption, and where the row stands.

    Raises:
        SourceError: it cannot be read or parsed, or has no column `file_name`.
    """
    path = root / name
    folder = name.rpartition("/")[0]
    try:
        for line, row in read_rows(path):
            image = row.get("file_name")
            if not isinstance(image, str) or not image:
                raise TableError("no file_name; each row needs the image's path in the column file_name", line)
            image = os.path.join(folder, image)  # noqa: PTH118  (see below_root)
            inside = below_root(root, image)
            yield os.path.relpath(root / image, root) if inside is None else inside, row.get(caption_column), f"{plain_text(name)}, line {line}"
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    except NotTextError as error:
        raise SourceError(f"{path}: {error}") from error
    except TableError as error:
        raise SourceError(error.describe(path)) from error


def read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and row of each row of a metadata file.

    Raises:
        OSError, NotTextError, TableError: it cannot be read.
    """
    text = decode_text(path.read_bytes(), keep_bad_bytes=True)
    if path.suffix.lower() == ".jsonl":
        return read_json_lines(text)
    return ((row.line, row.cells) for row in read_csv(text, ("file_name",)))


def place_rows(image: str, root: Path, given: Sequence[tuple[Any, str]]) -> Entry:
    """The entry of an image that metadata lists, from each of its rows' captions and where it stands; one outside is refused."""
    key = plain_text(image)
    inside = below_root(root, image)
    if inside is None:
        return Entry(key, None, reason="missing", error=f"image {key} lies outside of the folder")
    values = [value for value, _ in given]
    first, several, error = check_captions(values[0] if len(values) == 1 else flatten(values), key)
    if error is not None and error.endswith("not UTF-8"):
        error += f" ({next(where for value, where in given if check_captions(value, key).error == error)})"
    if refused := refuse_type(inside):
        return Entry(key, inside, first, reason="unreadable", error=refused, captions=several)
    return Entry(key, inside, first, reason=CAPTION if error else "", error=error, captions=several)


def flatten(values: Sequence[Any]) -> list[Any]:
    """Values, and what lists among them hold."""
    return [inner for value in values for inner in (value if isinstance(value, list) else [value])]
