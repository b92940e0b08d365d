"""The index in parts: jobs of a queue (Slurm, say) that share a run directory, each with every N-th shard.

The first job lists the source's shards and takes their digests while the others wait for it; `build_index` ends the stage
when all parts are done, and looks at the whole source itself.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import SourceError, StageError
from ...progress import Progress
from ...recipe.filters import ClipConfig, IndexConfig
from ...recipe.sources import SourceSettings
from ...store.locks import locked
from ...store.records import finished_record, prepare_partial
from ...store.stage_places import StagePlaces
from ...store.whole_files import read_json, storage_error, write_json
from ..sources.kind import open_source
from ..sources.source import Shard, digest_shards
from .embed import ShardTask
from .stage import adopt_partial, identify, index_shards

FORMAT = "glideslope.shards/1"


def build_part(source: SourceSettings, clip: ClipConfig, index: IndexConfig, directory: Path, *, part: int, num_parts: int,
               engine: str = "local", workers: int | None = None, progress: Progress | None = None) -> dict[str, int]:
    """Work on every `num_parts`-th shard of the stage `index`; `build_index` ends the stage once every part is done.

    Several machines may do this at the same time on storage that they share, each another part.

    Args:
        source, clip, index, directory, engine, workers, progress: as in `build_index`.
        part: which part, from 0.
        num_parts: how many there are.

    Returns:
        `num_shards` and `num_inputs` of this part.

    Raises:
        StageError: no such part; and as `build_index` does.
        SourceError: the source cannot be opened, or has changed since its shards were listed: they are listed again next time.
        StorageError: the run directory cannot be written.
    """
    if not 0 <= part < num_parts:
        raise StageError(f"index: part is {part}, expected 0 to {num_parts - 1} with {num_parts} parts")
    shard_list, places = list_path(directory), StagePlaces.of(directory, is_costly=True)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(directory.parent, error) from error
    with locked(directory.with_name(f".{directory.name}.lock"), waits=True):
        shards = read_or_list(shard_list, source, index.shard_size)
        identity = identify(digest_shards(shards), source, clip, index)
        if finished_record(places, identity) is not None:
            return {"num_shards": 0, "num_inputs": 0}
        adopt_partial(places, identity)
        if places.read_identity(places.partial) != identity:  # the first job: another may read the finished index in the moment of the trial
            places.try_exchange()
        prepare_partial(places, identity)
    tasks = [ShardTask(source, clip, index, shard, places.partial / f"{shard.name}.parquet") for shard in shards[part::num_parts]]
    try:
        return {"num_shards": len(tasks), "num_inputs": index_shards(tasks, directory, engine, workers, progress)}
    except SourceError:
        shard_list.unlink(missing_ok=True)
        raise


def list_path(directory: Path) -> Path:
    """Where the shards of a stage in parts are listed."""
    return directory.with_name(f".{directory.name}.shards.json")


def read_or_list(path: Path, source: SourceSettings, shard_size: int) -> list[Shard]:
    """The shards of a source as a job before this one has listed them; else they are listed, and written down."""
    settings: Mapping[str, Any] = {"format": FORMAT, "source": source.model_dump(mode="json"), "shard_size": shard_size}
    if path.is_file():
        listed = read_json(path)
        if {name: listed.get(name) for name in settings} == settings:
            return [Shard(**shard) for shard in listed["shards"]]
    shards = list(open_source(source, shard_size=shard_size).shards())
    write_json(path, {**settings, "shards": [asdict(shard) for shard in shards]})
    return shards
