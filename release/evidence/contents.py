"""A release directory read as data: each piece of evidence by name, read once, with clear refusals."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ...data_filter.sources.kinds import read_source
from ...errors import GlideslopeError, RecipeError, ReleaseError, VerificationError
from ...recipe.filters import Category
from ...recipe.load import parse_recipe
from ...recipe.policy import Policy, parse_policy
from ...recipe.recipe import Recipe
from ...store.digests import sha256_bytes
from ...store.file_lists import MANIFEST_NAME, FileEntry
from ...store.parquet_pages import Budget, open_bounded
from ...store.records import Record
from ...store.stage_manifest import Manifest
from ...store.strict_json import load_lines, load_object, read_bounded
from ...store.strict_yaml import load_yaml
from ...store.weight_files import TensorHeader, WeightFiles
from ...text.one_line import one_line
from ...trust.hashed_files import Hashed, hash_one
from ...trust.opening import OpenRelease, Trust, open_release
from ...trust.release_manifest import ReleaseManifest
from ...trust.signatures import Signers
from ...trust.signers import SignerRule
from ..weights import read_weights
from .layout import rule_of
from .plan import components, networks, record_path

RECORDS_FOLDER = "evidence/records"
CLAIMS_PATH = "evidence/claims.json"
POLICY_PATH = "evidence/policy.yaml"
CARD_PATH = "README.md"
DATASET_CARD_PATH = "DATASET_CARD.md"

# Rows and bytes that a parquet file may unfold to. A row names an image by digest or key, and a file of many rows holds some
# 14 bytes and more for each: far less is a file made to fill the memory of whoever reads it.
FREE_ROWS, MIN_BYTES_OF_ROW = 100_000, 4
FREE_BYTES, MAX_EXPANSION = 64_000_000, 100
BATCH_ROWS = 8_192
VALUES_OF_ROW = 8  # items of its lists and maps, nulls included

T = TypeVar("T")


def open_evidence(place: Path, *, signer: SignerRule | None = None, ignores_signature: bool = False) -> "Release":
    """Open a release to read its evidence, which is as true as before when the release's status has expired.

    Args:
        place: its directory, packed or downloaded.
        signer: who must have signed it; `None` takes any valid signature, or none.
        ignores_signature: look at it as if nobody had signed it yet.

    Raises:
        VerificationError, CheckpointError, ReleaseError: see `open_release`.
    """
    return Release(open_release(place, Trust("required", signer, status="of any age", ignores_signature=ignores_signature)))


def open_unsealed(directory: Path) -> "Release":
    """A release that is being packed, so that nothing vouches for it yet."""
    return Release(open_release(directory, Trust("off", status="ignored")))


class Release:
    """The pieces of a release that was opened.

    Everything is read when it is first asked for, and raises `ReleaseError` when it is missing or malformed.
    """

    def __init__(self, opened: OpenRelease) -> None:
        """Remember the release that was opened."""
        self.opened = opened
        self._weights: dict[tuple[str, str | None], WeightFiles] = {}
        self._scores: dict[str, Any] = {}

    @property
    def directory(self) -> Path:
        """Where its files lie."""
        return self.opened.directory

    @property
    def paths(self) -> tuple[str, ...]:
        """Relative POSIX paths of its files, sorted; what a hub or git put beside them is left out."""
        return self.opened.paths

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe of the run."""
        if isinstance(self._recipe, ReleaseError):
            raise self._recipe
        return self._recipe

    @cached_property
    def _recipe(self) -> Recipe | ReleaseError:
        """The recipe, or why there is none: every check asks, and a text made to take long is read once."""
        try:
            return self._read_recipe()
        except ReleaseError as error:
            return error

    def _read_recipe(self) -> Recipe:
        try:
            value = self.read("evidence/recipe.yaml", load_yaml)
        except yaml.YAMLError as error:
            raise ReleaseError(f"evidence/recipe.yaml: not readable as YAML ({one_line(error, None)}); pack again") from error
        try:
            return parse_recipe(value, read_source, where="evidence/recipe.yaml")
        except RecipeError as error:
            raise ReleaseError(str(error)) from error

    @cached_property
    def policy(self) -> Policy:
        """The policy that was packed.

        Raises:
            ReleaseError: it is missing, malformed, or not in the form that pack writes.
        """
        data = self.read(POLICY_PATH, bytes)
        policy = parse_policy(data, where=POLICY_PATH)
        if policy.text.encode() != data:
            raise ReleaseError(f"{POLICY_PATH}: is not in the form that pack writes; pack the release again")
        return policy

    @cached_property
    def categories(self) -> tuple[Category, ...]:
        """The categories of the recipe, in its order."""
        return self.recipe.categories

    @cached_property
    def records(self) -> dict[str, Record]:
        """Stage name -> record, every digest checked against the record's content."""
        folder = self.directory / RECORDS_FOLDER
        records = {}
        for path in sorted(folder.glob("*.json")):
            where = f"{RECORDS_FOLDER}/{path.name}"
            try:
                record = Record.from_json(self.read(where, load_object), where=where)
            except ReleaseError:
                raise
            except GlideslopeError as error:
                raise ReleaseError(str(error)) from error
            if record_path(record.stage) != where:
                raise ReleaseError(f"{where}: holds the record of stage {record.stage!r}; pack the release again")
            records[record.stage] = record
        return records

    def record(self, stage: str) -> Record:
        """The record of one stage."""
        if stage not in self.records:
            raise ReleaseError(f"{record_path(stage)}: the record of stage {stage!r} is missing; pack the release again")
        return self.records[stage]

    @cached_property
    def curated(self) -> dict[str, Any]:
        """Counts and thresholds that curation reported."""
        return self.read("evidence/curated.json", load_object)

    @cached_property
    def ledger(self) -> dict[str, list[Any]]:
        """The ledger's columns, one entry for every input that the run has seen."""
        folder = self.directory / "evidence/ledger"
        paths = sorted(folder.glob("shard-*.parquet"))
        if not paths:
            raise ReleaseError("evidence/ledger: no shard is there; pack the release again")
        columns: dict[str, list[Any]] = {}
        num_rows = num_bytes = size_bytes = 0
        for path in paths:
            table = self.read_parquet(f"evidence/ledger/{path.name}")
            num_rows, num_bytes, size_bytes = num_rows + table.num_rows, num_bytes + table.nbytes, size_bytes + path.stat().st_size
            budget = evidence_budget(size_bytes)
            if num_rows > budget.max_rows or num_bytes > budget.max_bytes:  # of many small shards, too
                raise ReleaseError(f"evidence/ledger: {num_rows} rows in {size_bytes} bytes, at most {budget.max_rows} are read; they unfold "
                                   f"to {num_bytes} bytes, at most {budget.max_bytes}; fetch or pack the release again")
            for name in table.column_names:
                columns.setdefault(name, []).extend(table[name].to_pylist())
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ReleaseError(f"evidence/ledger: the shards' columns differ ({lengths}); pack the release again")
        needed = {"key", "sha256", "decision", "reason", "split", "caption"}
        needed |= {f"{column}_{category.name}" for category in self.categories for column in ("score", "flags", "classifier")}
        if needed - set(columns):
            raise ReleaseError(f"evidence/ledger: columns are missing: {sorted(needed - set(columns))}; curate again")
        return columns

    @property
    def curated_files(self) -> list[FileEntry]:
        """The files of the curated set with size and digest, as curation recorded them; the release does not hold them."""
        return [entry for entry in self.record("curated").outputs.files if entry.path.startswith("data/")]

    @property
    def curated_root(self) -> str:
        """One digest that names the curated set: the root of the flat manifest of its files."""
        return Manifest(tuple(sorted(self.curated_files))).root

    def filter(self, category: str) -> dict[str, Any]:
        """What a category's filter reported: threshold, counts, bounds."""
        return self.read(f"evidence/filters/{category}/filter.json", load_object)

    def scores(self, category: str) -> Any:
        """A category's table of labelled keys with label, role, groups and score (a `pyarrow.Table`), read once."""
        if category not in self._scores:
            self._scores[category] = self.read_parquet(f"evidence/filters/{category}/scores.parquet")
        return self._scores[category]

    def metrics(self, model: str) -> list[dict[str, Any]]:
        """A model's training metrics, one row a step."""
        return self.read(f"evidence/training/{model}/metrics.jsonl", load_lines)

    def held_back_losses(self, model: str) -> list[dict[str, Any]]:
        """A model's loss on held-back images, one row a measurement; none where it was not measured."""
        path = f"evidence/training/{model}/held_back.jsonl"
        return self.read(path, load_lines) if (self.directory / path).is_file() else []

    @cached_property
    def pairs(self) -> list[dict[str, Any]]:
        """The prompt-seed pairs of the evaluation with their CLIP scores."""
        return self.read("evidence/evaluation/pairs.jsonl", load_lines)

    @cached_property
    def claims(self) -> dict[str, Any]:
        """The claims as the release states them."""
        return self.read(CLAIMS_PATH, load_object)

    def component_config(self, model: str) -> dict[str, Any]:
        """A model's configuration."""
        return self.read(f"{model}/config.json", load_object)

    def weights(self, network: str, variant: str | None = None) -> WeightFiles:
        """A network's weight files and what their headers say; they are looked for once."""
        if (network, variant) not in self._weights:
            try:
                self._weights[network, variant] = read_weights(self.directory / network, variant)
            except ReleaseError as error:
                raise ReleaseError(str(error).replace(f"{self.directory}/", "")) from error
        return self._weights[network, variant]

    def weights_header(self, model: str) -> Mapping[str, TensorHeader]:
        """The headers of a network's tensors."""
        return self.weights(model).headers

    @property
    def manifest(self) -> ReleaseManifest:
        """The manifest as the release states it.

        Raises:
            VerificationError: it is missing.
        """
        if self.opened.manifest is None:
            raise VerificationError(MANIFEST_NAME, ["file is missing; pack the release again"])
        return self.opened.manifest

    @property
    def guards(self) -> Mapping[str, bytes]:
        """The content of manifest and signature, of those that are there."""
        return self.opened.guards

    @property
    def signers(self) -> Signers | None:
        """Who signed the very bytes that `manifest` was parsed from; `None` when nobody did."""
        return self.opened.signers

    @cached_property
    def hashed(self) -> dict[str, Hashed]:
        """Relative path -> digests, of every file; each is read once."""
        return self.opened.hashed

    def digest(self, path: str) -> str:
        """Hex SHA-256 of a file.

        Raises:
            ReleaseError: it is missing.
        """
        self.path(path)
        return self.hashed[path].entry.sha256 if "hashed" in self.__dict__ else hash_one(self.directory, path).entry.sha256

    @cached_property
    def figures(self) -> list[str]:
        """Names of the figures, without folder and extension, sorted."""
        return sorted(path.stem for path in (self.directory / "figures").glob("*.png"))

    @property
    def trained_networks(self) -> list[str]:
        """Names of the networks that the run trained."""
        return list(self.recipe.trainings)

    @property
    def brought_in_networks(self) -> list[str]:
        """Names of the networks that the run did not train."""
        return [name for name in self.networks if name not in self.trained_networks]

    @property
    def networks(self) -> Sequence[str]:
        """Names of all networks."""
        return networks(self.recipe, self.records)

    @property
    def components(self) -> Sequence[str]:
        """Names of everything that model_index.json lists."""
        return components(self.recipe, self.records)

    def path(self, relative: str) -> Path:
        """Where a file lies.

        Raises:
            ReleaseError: it is missing.
        """
        path = self.directory / relative
        if not path.is_file():
            raise ReleaseError(f"{relative}: file is missing; pack the release again")
        return path

    def read(self, relative: str, parse: Callable[[bytes], T]) -> T:
        """Read a file and parse its bytes.

        Raises:
            ReleaseError: it is missing, larger than such a file may be, or the parser raised a ValueError.
        """
        rule = rule_of(relative)
        try:
            data = self.path(relative).read_bytes() if rule is None else read_bounded(self.path(relative), rule.max_bytes)
            self._refuse_exchanged(relative, data)
            return parse(data)
        except (OSError, ValueError, RecursionError, VerificationError) as error:
            raise ReleaseError(f"{relative}: not readable ({error}); pack the release again") from error

    def _refuse_exchanged(self, relative: str, data: bytes) -> None:
        """Refuse bytes that are not those that were hashed, where the files were hashed before."""
        hashed = self.__dict__.get("hashed", {}).get(relative)
        if hashed is not None and hashed.entry.sha256 != sha256_bytes(data):
            raise ReleaseError(f"{relative}: was exchanged while the release was read; let nothing write there, then run the command again")

    def read_parquet(self, relative: str) -> Any:
        """Read a parquet file as a `pyarrow.Table`.

        Raises:
            ReleaseError: it is missing, not readable, or holds more rows or data than a file of its size has room for.
        """
        import pyarrow

        path = self.path(relative)
        try:
            file = open_bounded(path, evidence_budget(path.stat().st_size))
            return pyarrow.Table.from_batches(file.iter_batches(batch_size=BATCH_ROWS), schema=file.schema_arrow)
        except ValueError as error:  # pyarrow's own errors about content are ValueErrors too
            raise ReleaseError(f"{relative}: {one_line(error, None)}; fetch or pack the release again") from error
        except (OSError, pyarrow.ArrowException) as error:
            raise ReleaseError(f"{relative}: not readable as parquet ({error}); pack the release again") from error


def evidence_budget(size_bytes: int) -> Budget:
    """What reading a parquet file of a release may take, by its size."""
    return Budget(FREE_BYTES + MAX_EXPANSION * size_bytes, VALUES_OF_ROW * allowed_rows(size_bytes), allowed_rows(size_bytes))


def allowed_rows(size_bytes: int) -> int:
    """How many rows of a parquet file of such a size are read."""
    return FREE_ROWS + size_bytes // MIN_BYTES_OF_ROW


def need(value: Mapping[str, Any], key: str, *, where: str) -> Any:
    """A value of a mapping that evidence must hold.

    Raises:
        ReleaseError: the key is missing.
    """
    if key not in value:
        raise ReleaseError(f"{where}: {key!r} is missing; run the stage that writes it again, then pack")
    return value[key]
