from pathlib import Path

import pytest

from glideslope.data_filter.index import parts as index_parts
from glideslope.data_filter.index.parts import build_part
from glideslope.data_filter.index.stage import build_index
from glideslope.data_filter.sources.folder import FolderSource
from glideslope.errors import SourceError, StageError, StorageError
from glideslope.recipe.filters import ClipConfig, IndexConfig

from ..conftest import TinyClip, World, draw


def test_parts_done_beside_each_other_make_the_index_that_one_run_makes(tmp_path: Path, tiny_clip: TinyClip, world: World) -> None:
    whole = world.index()
    settings = FolderSource(path=str(world.root / "images")), ClipConfig(), IndexConfig(shard_size=16)
    assert build_part(*settings, tmp_path / "shared", part=1, num_parts=3) == {"num_shards": 1, "num_inputs": 16}
    assert build_part(*settings, tmp_path / "shared", part=0, num_parts=3) == {"num_shards": 2, "num_inputs": 16 + 12}
    assert build_part(*settings, tmp_path / "shared", part=2, num_parts=3) == {"num_shards": 1, "num_inputs": 16}
    assert not (tmp_path / "shared").exists()
    tiny_clip.num_images = 0
    assert build_index(*settings, tmp_path / "shared").digest == whole.digest
    assert tiny_clip.num_images == 0, "ending the stage embeds nothing again"
    assert build_part(*settings, tmp_path / "shared", part=2, num_parts=3) == {"num_shards": 0, "num_inputs": 0}
    with pytest.raises(StageError, match="part is 3, expected 0 to 2 with 3 parts"):
        build_part(*settings, tmp_path / "shared", part=3, num_parts=3)


def test_the_source_is_listed_by_the_first_job_alone(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = FolderSource(path=str(world.root / "images")), ClipConfig(), IndexConfig(shard_size=16)
    build_part(*settings, tmp_path / "shared", part=0, num_parts=2)
    monkeypatch.setattr(index_parts, "open_source", lambda *_, **__: pytest.fail("listed again"))
    assert build_part(*settings, tmp_path / "shared", part=1, num_parts=2) == {"num_shards": 2, "num_inputs": 28}


def test_a_source_that_changed_since_it_was_listed_is_an_error_and_listed_again_next_time(tmp_path: Path, world: World) -> None:
    settings = FolderSource(path=str(world.root / "images")), ClipConfig(), IndexConfig(shard_size=16)
    build_part(*settings, tmp_path / "shared", part=0, num_parts=2)
    draw(world.root / "images" / "020.png", (1, 2, 3))
    with pytest.raises(SourceError, match="chang"):
        build_part(*settings, tmp_path / "shared", part=1, num_parts=2)
    assert build_part(*settings, tmp_path / "shared", part=1, num_parts=2) == {"num_shards": 2, "num_inputs": 28}
    assert build_index(*settings, tmp_path / "shared").digest == world.index().digest


def test_a_part_that_cannot_write_is_one_clear_error(world: World) -> None:
    (world.root / "file").write_text("")
    settings = FolderSource(path=str(world.root / "images")), ClipConfig(), IndexConfig()
    with pytest.raises(StorageError, match="cannot write"):
        build_part(*settings, world.root / "file" / "index", part=0, num_parts=1)
