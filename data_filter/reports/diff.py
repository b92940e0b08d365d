"""What changes between two runs: which images enter and which leave, why, and whom it concerns.

Works on ledgers and labels alone: no image is read and nothing is scored again.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray

from ...errors import StageError
from ...progress import Progress
from ...store.records import read_record
from ...store.run_layout import INDEX, LABELS, RunLayout
from ...store.stage_places import RECORD_NAME
from ...store.strict_yaml import load_yaml
from ...store.vocabulary import Cause
from ...store.whole_files import write_bytes, write_json
from ...text.caption_words import CaptionTokens, Phrase, split_phrase
from ...text.one_line import one_line
from ..deciding.ledger import Ledger, open_ledger
from ..labels.index_rows import sort_labels
from ..labels.store import consensus, read_labels
from .balance import combine

FORMAT = "glideslope.diff/2"
SETTING_PARTS = ("source", "clip", "index", "labels", "categories", "curate")
ROW_COLUMNS = ("key", "sha256", "reason", "caption")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass
class GroupChange:
    """Inputs of a group in both runs: how many there are, were kept, are kept, enter and leave."""

    num_inputs: int = 0
    num_kept_a: int = 0
    num_kept_b: int = 0
    num_entering: int = 0
    num_leaving: int = 0

    def add(self, kept_a: NDArray[np.bool_], kept_b: NDArray[np.bool_]) -> None:
        """Count rows of the group, bool (N,) each."""
        self.num_inputs += len(kept_a)
        self.num_kept_a += int(kept_a.sum())
        self.num_kept_b += int(kept_b.sum())
        self.num_entering += int((kept_b & ~kept_a).sum())
        self.num_leaving += int((kept_a & ~kept_b).sum())

    def add_one(self, was_kept: bool, is_kept: bool) -> None:
        """Count one row of the group."""
        self.num_inputs += 1
        self.num_kept_a += was_kept
        self.num_kept_b += is_kept
        self.num_entering += is_kept and not was_kept
        self.num_leaving += was_kept and not is_kept


@dataclass
class Difference:
    """What differs between run A and run B.

    Attributes:
        run_a, run_b: their directories.
        settings: what differs in recipes, thresholds, classifiers and labels: what, a, b.
        everyone: inputs that both runs have seen.
        only_in_a, only_in_b: inputs of one run alone, by ledger reason ("" is kept).
        num_unmatched: rows that repeat a key within a run and could not be told apart: A's, B's.
        num_other_content: inputs whose bytes differ between the runs under the same key.
        reasons: (reason in A, reason in B) -> inputs of both runs, where the two differ.
        groups: caption group -> its inputs.
        labelled: (category, label as text: `1`, `0` or `disputed`) -> labelled inputs.
        label_groups: (group, value) of the labels -> labelled inputs.
        changes: one row per input that enters or leaves: key, change (`enters` or `leaves`), reason_a, reason_b, caption,
            score_a_<category> and score_b_<category>.
    """

    run_a: Path
    run_b: Path
    settings: list[dict[str, Any]]
    everyone: GroupChange = field(default_factory=GroupChange)
    only_in_a: Counter[str] = field(default_factory=Counter)
    only_in_b: Counter[str] = field(default_factory=Counter)
    num_unmatched: list[int] = field(default_factory=lambda: [0, 0])
    num_other_content: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    groups: dict[str, GroupChange] = field(default_factory=dict)
    labelled: dict[tuple[str, str], GroupChange] = field(default_factory=dict)
    label_groups: dict[tuple[str, str], GroupChange] = field(default_factory=dict)
    changes: pa.Table = field(default_factory=lambda: pa.table({}))

    def to_json(self, *, with_rows: bool = False) -> dict[str, Any]:
        """The difference as plain data; `with_rows` adds the list of changed inputs."""
        figures = {
            "format": FORMAT, "run_a": str(self.run_a), "run_b": str(self.run_b), "settings": self.settings, **vars(self.everyone),
            "only_in_a": dict(sorted(self.only_in_a.items())), "only_in_b": dict(sorted(self.only_in_b.items())),
            "num_unmatched": {"a": self.num_unmatched[0], "b": self.num_unmatched[1]}, "num_other_content": self.num_other_content,
            "reasons": [{"reason_a": a, "reason_b": b, "num_inputs": number} for (a, b), number in sorted(self.reasons.items())],
            "groups": [{"group": name, **vars(change)} for name, change in self.groups.items() if change.num_inputs],
            "labelled": [{"category": category, "label": label, **vars(change)} for (category, label), change in sorted(self.labelled.items())],
            "label_groups": [{"group": group, "value": value, **vars(change)}
                             for (group, value), change in sorted(self.label_groups.items())]}
        return figures | ({"changes": self.changes.to_pylist()} if with_rows else {})


def compare_runs(run_a: Path, run_b: Path, groups: Mapping[str, Sequence[str]], *, progress: Progress | None = None) -> Difference:
    """Compare what two runs keep.

    Inputs are matched by key. Where both runs have the same shards with the same keys, as they do on one index, this takes
    memory for a shard; other inputs are matched over all shards at once.

    Args:
        run_a, run_b: run directories with a finished stage `curated`.
        groups: name -> caption words, see `balance.WORD_GROUPS`.
        progress: told how many rows are done.

    Raises:
        StageError: a run has no finished ledger, or it was changed since.
    """
    ledgers = open_ledger(RunLayout(run_a).curated), open_ledger(RunLayout(run_b).curated)
    difference = Difference(run_a, run_b, compare_settings(run_a, run_b), groups={name: GroupChange() for name in groups})
    judgements = read_judgements(run_a, run_b)
    phrases = {name: [split_phrase(word) for word in words] for name, words in groups.items()}
    changes = []
    done, total = 0, int(ledgers[0].curated["seen"])
    for a, b in match_ledgers(*ledgers, difference):
        count_pairs(difference, a, b, phrases)
        count_labelled(difference, a, b, judgements)
        changes.append(list_changes(a, b))
        done += len(a)
        if progress is not None:
            progress(min(done, total), total, "inputs compared")
    difference.changes = pa.concat_tables(changes, promote_options="default") if changes else pa.table({})
    return difference


def match_ledgers(a: Ledger, b: Ledger, difference: Difference) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Rows of both ledgers that belong to the same inputs, in pieces; what has no partner is counted."""
    loose: tuple[list[pa.Table], list[pa.Table]] = ([], [])
    for name in [*a.shards, *(shard for shard in b.shards if shard not in a.shards)]:
        tables = [with_scores(ledger, name) if name in ledger.shards else None for ledger in (a, b)]
        if tables[0] is not None and tables[1] is not None and tables[0]["key"].equals(tables[1]["key"]):
            yield tables[0], tables[1]
            continue
        for side, table in zip(loose, tables, strict=True):
            if table is not None:
                side.append(table)
    if loose[0] or loose[1]:
        yield from match_loose(loose, difference)


def with_scores(ledger: Ledger, shard: str) -> pa.Table:
    """The columns that a comparison needs."""
    return ledger.read(shard, columns=[*ROW_COLUMNS, *(f"score_{category}" for category in ledger.categories)])


def match_loose(loose: tuple[list[pa.Table], list[pa.Table]], difference: Difference) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Match rows by key over all shards."""
    sides = []
    for number, tables in enumerate(loose):
        if not tables:
            continue
        table = pa.concat_tables(tables).combine_chunks()
        repeated = pc.equal(table["reason"], Cause.DUPLICATE_KEY)
        difference.num_unmatched[number] = pc.sum(repeated).as_py() or 0
        sides.append(table.filter(pc.invert(repeated)))
    if not loose[0] or not loose[1]:
        only = difference.only_in_a if loose[0] else difference.only_in_b
        only.update(sides[0]["reason"].to_pylist())
        return
    a, b = sides
    partner = pc.index_in(b["key"], value_set=combine(a["key"]))
    matched = pc.is_valid(partner)
    difference.only_in_b.update(b.filter(pc.invert(matched))["reason"].to_pylist())
    numbers = combine(pc.drop_null(partner))
    has_partner = np.zeros(len(a), dtype=bool)
    has_partner[numbers.to_numpy()] = True
    difference.only_in_a.update(a.filter(pa.array(~has_partner))["reason"].to_pylist())
    if len(numbers):
        yield a.take(numbers), b.filter(matched)


def count_pairs(difference: Difference, a: pa.Table, b: pa.Table, phrases: Mapping[str, Sequence[Phrase]]) -> None:
    """Count matched rows: kept and dropped, reasons, caption groups."""
    kept_a, kept_b = is_kept(a), is_kept(b)
    difference.everyone.add(kept_a, kept_b)
    differ = pc.not_equal(a["reason"], b["reason"])
    pairs = zip(a["reason"].filter(differ).to_pylist(), b["reason"].filter(differ).to_pylist(), strict=True)
    difference.reasons.update(pairs)
    same = pc.fill_null(pc.equal(a["sha256"], b["sha256"]), False)
    both_missing = pc.and_(pc.is_null(a["sha256"]), pc.is_null(b["sha256"]))
    difference.num_other_content += len(a) - (pc.sum(pc.or_(same, both_missing)).as_py() or 0)
    tokens = CaptionTokens.of(b["caption"].to_pylist())
    for name, change in difference.groups.items():
        rows = tokens.have(phrases[name])
        change.add(kept_a[rows], kept_b[rows])


def is_kept(table: pa.Table) -> NDArray[np.bool_]:
    """Which ledger rows are kept: bool (N,)."""
    return np.asarray(pc.equal(table["reason"], Cause.NOTHING).to_numpy())


def count_labelled(difference: Difference, a: pa.Table, b: pa.Table,
                   judgements: Mapping[str, Sequence[tuple[str, str, Mapping[str, str]]]]) -> None:
    """Count matched rows that have labels, by category and label, and by the groups that came with the labels."""
    if not judgements:
        return
    known = pc.is_in(b["key"], value_set=pa.array(list(judgements)))
    keys, kept_a, kept_b = b["key"].filter(known).to_pylist(), is_kept(a.filter(known)), is_kept(b.filter(known))
    for key, was, now in zip(keys, kept_a.tolist(), kept_b.tolist(), strict=True):
        for category, label, _ in judgements[key]:
            difference.labelled.setdefault((category, label), GroupChange()).add_one(was, now)
        for group_value in {item for _, _, groups in judgements[key] for item in groups.items() if item[1]}:
            difference.label_groups.setdefault(group_value, GroupChange()).add_one(was, now)


def list_changes(a: pa.Table, b: pa.Table) -> pa.Table:
    """The rows that enter or leave; see `Difference.changes`."""
    kept_a, kept_b = is_kept(a), is_kept(b)
    changed = pa.array(kept_a != kept_b)
    a, b = a.filter(changed), b.filter(changed)
    columns = {"key": b["key"], "change": pa.array(np.where(is_kept(b), "enters", "leaves"), type=pa.string()),
               "reason_a": a["reason"], "reason_b": b["reason"], "caption": b["caption"]}
    for side, table in (("a", a), ("b", b)):
        columns |= {name.replace("score_", f"score_{side}_", 1): table[name] for name in table.column_names if name.startswith("score_")}
    return pa.table(columns)


def read_judgements(run_a: Path, run_b: Path) -> dict[str, list[tuple[str, str, Mapping[str, str]]]]:
    """Key -> category, label and groups of every labelled input: those of run B, and those of run A that B does not have."""
    by_key: dict[str, dict[str, tuple[str, str, Mapping[str, str]]]] = {}
    for layout in (RunLayout(run_a), RunLayout(run_b)):
        if (layout.labels / RECORD_NAME).is_file():
            for judgement in consensus(sort_labels(read_labels(layout.labels), layout.index).current):
                text = "disputed" if judgement.label is None else str(judgement.label)
                by_key.setdefault(judgement.key, {})[judgement.category] = (judgement.category, text, judgement.groups)
    return {key: list(by_category.values()) for key, by_category in by_key.items()}


def compare_settings(run_a: Path, run_b: Path) -> list[dict[str, Any]]:
    """What differs in the recipes, the thresholds, the classifiers, the index and the labels: what, a, b."""
    a, b = describe_settings(RunLayout(run_a)), describe_settings(RunLayout(run_b))
    return [{"what": name, "a": a.get(name), "b": b.get(name)} for name in sorted({*a, *b}) if a.get(name) != b.get(name)]


def describe_settings(layout: RunLayout) -> dict[str, Any]:
    """Everything that decides what a run keeps, by dotted name."""
    try:
        recipe = load_yaml(layout.recipe.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise StageError(f"{layout.recipe}: cannot be read ({one_line(error)}); restore it") from error
    if not isinstance(recipe, dict):
        raise StageError(f"{layout.recipe}: holds no recipe; restore it")
    parts = {part: recipe.get(part) for part in SETTING_PARTS}
    listed = parts.pop("categories") or []
    parts["categories"] = {item.get("name", number): item for number, item in enumerate(listed)} if isinstance(listed, list) else listed
    settings = flatten("", parts)
    curated = open_ledger(layout.curated).curated
    for category, figures in curated.get("categories", {}).items():
        settings |= flatten(f"filters.{category}", figures)
    for stage in (INDEX, LABELS):
        if (layout.stage(stage) / RECORD_NAME).is_file():
            settings[f"{stage} (digest)"] = read_record(layout.stage(stage)).digest
    return settings


def flatten(prefix: str, value: Any) -> dict[str, Any]:
    """Nested mappings as dotted names."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= flatten(f"{prefix}.{name}" if prefix else str(name), inner)
    return flat


def write_difference(difference: Difference, path: Path) -> None:
    """Write a difference: `.csv` lists the changed inputs, `.json` holds everything.

    Raises:
        StageError: another ending.
        StorageError: the file cannot be written.
    """
    check_ending(path)
    if path.suffix == ".csv":
        write_bytes(path, changes_as_csv(difference.changes).encode("utf-8", "surrogatepass"))
    else:
        write_json(path, difference.to_json(with_rows=True))


def check_ending(path: Path) -> None:
    """Refuse a file that no form of a difference has.

    Raises:
        StageError: its ending is not .csv, .json or .html.
    """
    if path.suffix not in (".csv", ".json", ".html"):
        raise StageError(f"{path}: must end in .csv (the changed inputs), .json (everything) or .html (a page with pictures)")


def changes_as_csv(changes: pa.Table) -> str:
    """The changed inputs as CSV; a caption that a spreadsheet would run as a formula gets an apostrophe in front."""
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, changes.column_names or ["key", "change"], lineterminator="\n")
    writer.writeheader()
    for row in changes.to_pylist():
        if str(row["caption"] or "").startswith(FORMULA_STARTS):
            row["caption"] = f"'{row['caption']}"
        writer.writerow(row)
    return sink.getvalue()
