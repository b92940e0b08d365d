import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glideslope.data_filter.index.read import read_index
from glideslope.data_filter.index.stage import build_index
from glideslope.data_filter.sources.folder import FolderSource
from glideslope.data_filter.sources.parquet import ParquetSource
from glideslope.data_filter.sources.webdataset import WebDatasetSource
from glideslope.errors import StageError, StorageError
from glideslope.recipe.filters import ClipConfig, IndexConfig

from ..conftest import TinyClip, World, draw, fill_folder
from ..pairs import encode, write_tar
from ..real_runs import NUM_SHARDS, num_finished, write_clip, write_pictures
from ..real_runs import build as build_real


def index_rows(directory: Path) -> list[dict[str, object]]:
    return [row for _, table in read_index(directory) for row in table.to_pylist()]


def build(root: Path, **settings: int) -> list[dict[str, object]]:
    build_index(FolderSource(path=str(root / "images")), ClipConfig(), IndexConfig(**{"shard_size": 3, **settings}), root / "index")
    return index_rows(root / "index")




def test_an_interrupted_index_goes_on_and_ends_with_the_same_digest(tmp_path: Path, world: World, tiny_clip: TinyClip) -> None:
    undisturbed = world.index()
    num_images = tiny_clip.num_images
    again = World(tmp_path / "again")
    fill_folder(again.root / "images", 60)
    tiny_clip.num_images_left, tiny_clip.num_images = 40, 0
    with pytest.raises(KeyboardInterrupt):
        again.index()
    assert not (again.root / "index").exists()
    assert len(list((again.root / "index.partial").glob("shard-*.parquet"))) == 2
    tiny_clip.num_images_left, tiny_clip.num_images = 10**9, 0
    assert again.index().digest == undisturbed.digest
    assert tiny_clip.num_images == num_images - 32, "the two finished shards of 16 are not embedded again"


@pytest.mark.parametrize("length", [0, 4, -20])
def test_a_damaged_piece_of_a_killed_run_is_made_again(length: int, world: World, tiny_clip: TinyClip) -> None:
    tiny_clip.num_images_left = 40
    with pytest.raises(KeyboardInterrupt):
        world.index()
    piece = world.root / "index.partial" / "shard-00000.parquet"
    piece.write_bytes(piece.read_bytes()[:length])
    tiny_clip.num_images_left = 10**9
    assert world.index().summary == {"num_inputs": 60, "num_ok": 60, "num_without_caption": 0, "num_bad": {}}


def test_a_finished_index_is_not_made_again_unless_the_source_changed(world: World, tiny_clip: TinyClip) -> None:
    first = world.index()
    tiny_clip.num_images = 0
    assert world.index().digest == first.digest
    assert tiny_clip.num_images == 0
    draw(world.root / "images" / "000.png", (1, 2, 3))
    assert world.index().digest != first.digest


def test_duplicates_are_refused_across_shards_wherever_a_run_resumes(tmp_path: Path, tiny_clip: TinyClip) -> None:
    draw(tmp_path / "a.png", (0, 0, 0))
    names = ["a", "b", "c", "d", "a"]
    table = pa.table({"image": [(tmp_path / "a.png").read_bytes()] * 5, "text": names, "key": names})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    source = ParquetSource(path=str(tmp_path / "a.parquet"), key_column="key")
    tiny_clip.num_images_left = 3
    with pytest.raises(KeyboardInterrupt):
        build_index(source, ClipConfig(), IndexConfig(shard_size=3), tmp_path / "index")
    tiny_clip.num_images_left = 10**9
    build_index(source, ClipConfig(), IndexConfig(shard_size=3), tmp_path / "index")
    rows = index_rows(tmp_path / "index")
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "ok", "bad"]
    assert (rows[4]["reason"], rows[4]["error"]) == ("duplicate key", "duplicate key a: an earlier input has the same one")






def test_an_unwritable_directory_is_one_clear_error(world: World) -> None:
    blocked = world.root / "file"
    blocked.write_text("not a folder")
    with pytest.raises(StorageError, match=r"cannot write .*Not a directory"):
        build_index(FolderSource(path=str(world.root / "images")), ClipConfig(), IndexConfig(), blocked / "index")


def test_a_full_disk_is_one_clear_error_and_finished_shards_are_kept(world: World, tiny_clip: TinyClip,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 6:  # the intent and two shards, each with its directory
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="No space left on device; free space"):
        world.index()
    monkeypatch.setattr(os, "fsync", real)
    tiny_clip.num_images = 0
    assert world.index().summary["num_ok"] == 60
    assert tiny_clip.num_images == 60 - 32


def test_killed_workers_and_a_killed_run_with_several_workers_end_with_the_same_bytes(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    write_pictures(tmp_path / "pictures")
    undisturbed = build_real(tmp_path, "undisturbed")
    script = tmp_path / "owner.py"
    script.write_text(f"from pathlib import Path\nfrom tests.data_filter.real_runs import build\n"
                      f"if __name__ == '__main__':\n    build(Path({str(tmp_path)!r}), 'killed', workers=2)\n")
    repository = Path(__file__).parents[3]
    owner = subprocess.Popen([sys.executable, str(script)], cwd=repository, env=os.environ | {"PYTHONPATH": str(repository)})
    try:
        wait_for(lambda: num_finished(tmp_path, "killed") >= 2, owner)
        workers = [process for process in psutil.Process(owner.pid).children() if "spawn_main" in " ".join(process.cmdline())]
        assert len(workers) == 2
        workers[0].kill()
        num_before = num_finished(tmp_path, "killed")
        wait_for(lambda: num_finished(tmp_path, "killed") >= num_before + 2, owner)
    finally:
        owner.kill()
        owner.wait()
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    pieces = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed.partial").glob("shard-*.parquet")}
    assert 4 <= len(pieces) < NUM_SHARDS, "it was killed in mid-run"
    assert build_real(tmp_path, "killed").digest == undisturbed.digest
    assert {tmp_path / "killed" / path.name: time_ns for path, time_ns in pieces.items()} == {
        tmp_path / "killed" / path.name: (tmp_path / "killed" / path.name).stat().st_mtime_ns for path in pieces}, "none was made again"


def wait_for(condition, process) -> None:  # type: ignore[no-untyped-def]  # a function and a process
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the condition was never reached"
        time.sleep(0.005)


def test_unchanged_shards_of_a_changed_source_are_taken_over(world: World, tiny_clip: TinyClip) -> None:
    world.index()
    draw(world.root / "images" / "020.png", (1, 2, 3))
    tiny_clip.num_images = 0
    assert world.index().summary["num_ok"] == 60
    assert tiny_clip.num_images == 16, "only the shard of the changed picture"


def test_a_stopped_run_keeps_its_shards_when_the_source_or_the_recipe_changes(world: World, tiny_clip: TinyClip) -> None:
    tiny_clip.num_images_left = 40
    with pytest.raises(KeyboardInterrupt):
        world.index()
    draw(world.root / "images" / "003.png", (1, 2, 3))
    tiny_clip.num_images_left, tiny_clip.num_images = 10**9, 0
    record = world.index()
    assert tiny_clip.num_images == 60 - 16, "the second shard was finished and has not changed"
    for name in ("index", "index.partial"):
        shutil.rmtree(world.root / name, ignore_errors=True)
    assert world.index().digest == record.digest


def test_shards_that_a_source_no_longer_has_are_left_out(world: World) -> None:
    world.index()
    rows = (world.root / "images" / "metadata.csv").read_text().splitlines()
    (world.root / "images" / "metadata.csv").write_text("\n".join(rows[:11]) + "\n")
    for number in range(10, 60):
        (world.root / "images" / f"{number:03d}.png").unlink()
    partial = world.root / "index.partial"
    shutil.copytree(world.root / "index", partial)
    (partial / "intent.json").write_text("{}")
    assert world.index().summary["num_inputs"] == 10
    assert sorted(path.name for path in (world.root / "index").glob("*.parquet")) == ["duplicates.parquet", "shard-00000.parquet"]


def test_rows_of_another_format_or_setting_are_made_again(world: World, tiny_clip: TinyClip, monkeypatch: pytest.MonkeyPatch) -> None:
    world.index()
    for change in ({"INDEX_FORMAT": "another"}, {"image_settings": lambda clip: {"model": "another"}}):
        for name, value in change.items():
            for module in ("embed", "stage"):
                monkeypatch.setattr(f"glideslope.data_filter.index.{module}.{name}", value)
        tiny_clip.num_images = 0
        world.index()
        assert tiny_clip.num_images == 60






def test_an_edited_index_is_refused(world: World) -> None:
    world.index()
    shard = world.root / "index" / "shard-00001.parquet"
    shard.write_bytes(shard.read_bytes() + b"x")
    with pytest.raises(StageError, match=r"shard-00001.parquet: size is"):
        world.index()




def test_a_folder_without_captions_is_embedded_like_any_other(tmp_path: Path, world: World, tiny_clip: TinyClip) -> None:
    world.index()
    described = {row["key"]: row["embedding"] for row in index_rows(world.root / "index")}
    bare = World(tmp_path / "bare")
    fill_folder(bare.root / "images", 60)
    (bare.root / "images" / "metadata.csv").unlink()
    (bare.root / "images" / "broken.png").write_bytes(b"no image")
    assert bare.index().summary == {"num_inputs": 61, "num_ok": 60, "num_without_caption": 60, "num_bad": {"unreadable": 1}}
    rows = {row["key"]: row for row in index_rows(bare.root / "index")}
    assert (rows["broken.png"]["status"], rows["broken.png"]["embedding"]) == ("bad", None)
    del rows["broken.png"]
    assert {(row["status"], row["reason"], row["caption"]) for row in rows.values()} == {("ok", "caption", None)}
    assert {key: row["embedding"] for key, row in rows.items()} == described


def test_what_is_no_image_by_its_name_is_counted_once_and_pictures_of_other_types_are_rows(
        world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.index()
    assert caplog.messages == []
    images = world.root / "images"
    for name in ("film.mp4", "more/film.MP4", "README", "photo.heic", ".hidden.mp4"):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_bytes(b"x")
    assert world.index().summary["num_bad"] == {"unreadable": 1}
    told, example = caplog.messages
    assert example == ("index: 1 of 61 inputs have the reason 'unreadable', for example: image photo.heic: .heic files are not read; "
                       "convert it to "
                       "PNG or JPEG")
    assert told.startswith(f"{images}: 3 files are neither images nor captions") and "(1 x no ending, 2 x .mp4)" in told
    (row,) = (row for row in index_rows(world.root / "index") if row["key"] == "photo.heic")
    assert (row["status"], row["reason"], row["size_bytes"]) == ("bad", "unreadable", 1)
    assert row["error"] == "image photo.heic: .heic files are not read; convert it to PNG or JPEG"


def restarting_tars(root: Path, num_tars: int) -> WebDatasetSource:
    for number in range(num_tars):
        write_tar(root / f"{number:02d}.tar", [(f"{place}.png", encode((number, place, 0))) for place in range(4)])
    return WebDatasetSource(path=str(root))


@pytest.mark.parametrize("workers", [1, None])
def test_keys_that_start_again_stop_an_index_soon_and_are_refused_again_when_it_goes_on(
        tmp_path: Path, tiny_clip: TinyClip, workers: int | None) -> None:
    source = restarting_tars(tmp_path / "tars", 9)
    clip, index = ClipConfig(model="lite0"), IndexConfig()
    with pytest.raises(StageError, match=r"4 of the first 8 inputs have the key of an earlier one.*Set source\.keys to tar/member"):
        build_index(source, clip, index, tmp_path / "index", workers=workers)
    assert tiny_clip.num_images == 8, "two tars of nine"
    with pytest.raises(StageError, match="have the key of an earlier one"):
        build_index(source, clip, index, tmp_path / "index", workers=workers)
    record = build_index(source.model_copy(update={"keys": "tar/member"}), clip, index, tmp_path / "index", workers=workers)
    assert record.summary["num_inputs"] == 36 and record.summary["num_bad"] == {}


def test_an_index_whose_last_shards_repeat_the_keys_is_refused_at_its_end(tmp_path: Path, tiny_clip: TinyClip) -> None:
    source = restarting_tars(tmp_path / "tars", 3)
    (tmp_path / "tars" / "01.tar").rename(tmp_path / "01.tar")
    write_tar(tmp_path / "tars" / "01.tar", [(f"other {place}.png", encode((1, place, 0))) for place in range(4)])
    for _ in range(2):
        with pytest.raises(StageError, match="4 of the first 12 inputs have the key of an earlier one"):
            build_index(source, ClipConfig(model="lite0"), IndexConfig(), tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_the_lost_tail_of_a_tar_is_said_and_captions_that_a_source_never_has_are_not(
        tmp_path: Path, tiny_clip: TinyClip, caplog: pytest.LogCaptureFixture) -> None:
    source = restarting_tars(tmp_path / "tars", 1)
    build_index(source, ClipConfig(model="lite0"), IndexConfig(), tmp_path / "index")
    assert caplog.messages == []
    (tmp_path / "tars" / "00.tar").write_bytes((tmp_path / "tars" / "00.tar").read_bytes()[:2100])
    build_index(source, ClipConfig(model="lite0"), IndexConfig(), tmp_path / "index")
    (told,) = [message for message in caplog.messages if "unreadable" in message]
    assert told.startswith("index: 1 of 3 inputs have the reason 'unreadable', for example: tar 00.tar ends at byte 2100 ")
    assert told.endswith("whatever followed is lost")
