"""What a reviewer gets and gives back: a CSV file to fill in, and contact sheets with the same numbers."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageFilter

from ...errors import LabelError
from ...pictures.decode import decode_image
from ...pictures.refusals import Refusal
from ...pictures.sheets import CELL_SIZE, labelled_sheet, png_bytes
from ...store.digests import sha256_bytes
from ...store.whole_files import write_bytes
from ..index.read import find_shards, read_images
from ..labels.csv_files import CsvRow, Verdict, read_csv, read_label
from ..sources.source import Source

COLUMNS = ("audit", "number", "key", "caption", "label", "who")
NEEDED = ("audit", "number", "key", "label")
NUM_PER_SHEET = 60
MAX_CAPTION = 300
BLUR_RADIUS = CELL_SIZE / 12
MAX_PIXELS = 10**9


@dataclass(frozen=True)
class Picture:
    """One image to look at: its number in the sample, its key, the SHA-256 of its bytes, and its caption."""

    number: int
    key: str
    sha256: str
    caption: str


def write_review_csv(path: Path, audit_id: str, pictures: Sequence[Picture]) -> bool:
    """Write a CSV file to fill in, unless there is one: what somebody has filled in is never overwritten.

    Returns:
        Whether it was written.
    """
    if path.exists():
        return False
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([audit_id, picture.number, quote_key(picture.key), disarm(picture.caption), "", ""] for picture in pictures)
    write_bytes(path, sink.getvalue().encode("utf-8", "replace"))
    return True


def disarm(caption: str) -> str:
    """A caption on one line of bounded length that no spreadsheet takes for a formula."""
    text = " ".join("".join(char if char.isprintable() else " " for char in caption).split())[:MAX_CAPTION]
    return f"' {text}" if text[:1] in ("=", "+", "-", "@") else text


def quote_key(key: str) -> str:
    """A key that no spreadsheet takes for a formula; `check_row` knows both."""
    return f"'{key}" if key.lstrip()[:1] in ("=", "+", "-", "@") or key[:1] in ("\t", "\r", "\n") else key


def read_review_csv(path: Path, *, category_of: Mapping[str, str], keys_of: Mapping[str, Sequence[str]],
                    who: str) -> tuple[str, list[Verdict]]:
    """Read a filled-in file; rows with an empty label are not judged yet.

    Args:
        path: the file; columns may have been moved, added, or rows left out.
        category_of: audit -> its category, for all audits of the run.
        keys_of: audit -> keys in drawn order.
        who: stands behind labels whose `who` is empty.

    Returns:
        The audit that the file belongs to, and the judgements.

    Raises:
        LabelError: not such a file, labels of several audits, a row whose number and key do not belong together in the
            sample, or two rows for one image by the same person.
    """
    rows = list(read_csv(path, NEEDED))
    names = sorted({row.cells["audit"] for row in rows})
    if len(names) != 1 or names[0] not in category_of:
        raise LabelError(f"{path}: column `audit` names {', '.join(map(repr, names)) or 'nothing'}, expected one audit of this run "
                         f"({', '.join(sorted(category_of)) or 'none has been drawn'})")
    audit_id, verdicts = names[0], []
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        key = check_row(row, audit_id, keys_of[audit_id])
        label, name = read_label(row), row.cells.get("who", "").strip() or who
        if (key, name) in seen:
            raise LabelError(f"{row.where}: {key} stands twice for {name or 'the same unnamed person'}, first in {seen[key, name]}; keep one "
                             "row, or name in the column `who` which different people judged")
        seen[key, name] = row.where
        if label is not None:
            verdicts.append(Verdict(key, category_of[audit_id], label, name, "", row.where))
    return audit_id, verdicts


def check_row(row: CsvRow, audit_id: str, keys: Sequence[str]) -> str:
    """The key of a row, which must stand at its number in the sample."""
    key, number = row.cells["key"], row.cells["number"].strip()
    index = int(number) - 1 if number.isascii() and number.isdigit() and len(number) < 12 else -1
    if not 0 <= index < len(keys):
        raise LabelError(f"{row.where}: number is {number!r}, audit {audit_id} has the numbers 1 to {len(keys)}; "
                         "do not edit the columns number and key")
    if key == quote_key(keys[index]):
        key = keys[index]
    if keys[index] != key:
        raise LabelError(f"{row.where}: key is {key!r}, number {number} of audit {audit_id} is {keys[index]!r}; "
                         "do not edit or sort single columns: start again from the exported file")
    return key


def write_sheets(directory: Path, source: Source, index_dir: Path, pictures: Sequence[Picture], *, blur: bool) -> list[Path]:
    """Draw contact sheets of `NUM_PER_SHEET` pictures each.

    Args:
        directory: where the PNG files go; sheets of the same numbers are replaced.
        source: read for the pictures' bytes.
        index_dir: the finished index, which knows the shard of each key.
        pictures: what to show, in order.
        blur: make the pictures too blurred to harm whoever looks at them.

    Returns:
        The files.
    """
    thumbnails = read_thumbnails(source, index_dir, {picture.key: picture.sha256 for picture in pictures}, blur=blur)
    missing = encode(Image.new("RGB", (64, 64), "#d0d7de"))
    paths = []
    for start in range(0, len(pictures), NUM_PER_SHEET):
        page = pictures[start:start + NUM_PER_SHEET]
        cells = [(Image.open(io.BytesIO(thumbnails.get(picture.key, missing))).convert("RGB"), f"{picture.number}  {picture.caption}",
                  picture.key) for picture in page]
        path = directory / f"sheet-{page[0].number:06d}-{page[-1].number:06d}.png"
        write_bytes(path, png_bytes(labelled_sheet(cells), optimize=False))
        paths.append(path)
    return paths


def read_thumbnails(source: Source, index_dir: Path, sha256_of: Mapping[str, str], *, blur: bool) -> dict[str, bytes]:
    """Small PNG pictures by key; what can't be read, or is not the image that was drawn, is left out."""
    thumbnails: dict[str, bytes] = {}
    for key, image in read_images(source, find_shards(index_dir, sha256_of)):
        if sha256_bytes(image) == sha256_of[key]:
            try:
                picture = Image.fromarray(decode_image(image, max_pixels=MAX_PIXELS))
            except Refusal:
                continue
            picture.thumbnail((CELL_SIZE, CELL_SIZE), Image.Resampling.BICUBIC)
            thumbnails[key] = encode(picture.filter(ImageFilter.GaussianBlur(BLUR_RADIUS)) if blur else picture)
    return thumbnails


def encode(picture: Image.Image) -> bytes:
    """PNG bytes."""
    sink = io.BytesIO()
    picture.save(sink, format="PNG")
    return sink.getvalue()
