import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glideslope.data_filter.index.stage import build_index
from glideslope.recipe.filters import ClipConfig, IndexConfig
from glideslope.store.digests import sha256_file

from ..conftest import TinyClip, draw
from .test_stage import build, index_rows


def test_every_bad_input_is_one_row_with_its_reason_and_the_rest_goes_on(tmp_path: Path, tiny_clip: TinyClip) -> None:
    images = tmp_path / "images"
    draw(images / "good.png", (10, 20, 30), size=(20, 10))
    data = (images / "good.png").read_bytes()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    noise.save(images / "full.png")
    files = {"truncated.png": (images / "full.png").read_bytes()[:400], "zero.png": b"", "words.png": b"these are words",
             "really_png.jpg": data}
    for name, content in files.items():
        (images / name).write_bytes(content)
    noise.convert("CMYK").save(images / "cmyk.jpg")
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(images / "sixteen.png")
    noise.save(images / "moving.gif", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    draw(images / "huge.png", (0, 0, 0), size=(300, 300))
    draw(images / "undescribed.png", (0, 0, 0))
    names = ["good.png", "full.png", *files, "cmyk.jpg", "sixteen.png", "moving.gif", "huge.png", "gone.png"]
    captions = "".join(f"{name},{name}\n" for name in [*names, "good.png"]).encode()
    (images / "metadata.csv").write_bytes(b"file_name,text\n" + captions + b"undescribed.png,caf\xe9\n")

    rows = build(tmp_path, max_pixels=10_000)
    assert [row["key"] for row in rows] == [*names, "undescribed.png"], "a row that stands twice is one input"
    found = {row["key"]: (row["reason"], row["error"]) for row in rows if row["reason"]}
    assert found == {
        "truncated.png": ("unreadable", found["truncated.png"][1]),
        "zero.png": ("unreadable", "file is empty (0 bytes)"),
        "words.png": ("unreadable", "not an image of a known format (15 bytes, starting with b'these ar')"),
        "moving.gif": ("unreadable", "animated image with 2 frames; only still images are accepted"),
        "huge.png": ("too large", "image is too large: 300 x 300 pixels, at most 10000 are accepted; "
                     "index.max_pixels in the recipe sets the limit"),
        "gone.png": ("missing", "image gone.png is missing"),
        "undescribed.png": ("caption", "caption of undescribed.png is not UTF-8 (metadata.csv, line 14)"),
    }
    assert found["truncated.png"][1].startswith("image is truncated or damaged")
    assert all((row["embedding"] is None) == (row["status"] == "bad") for row in rows)
    assert [row["key"] for row in rows if row["reason"] and row["status"] == "ok"] == ["undescribed.png"], "its image is sound"
    first = rows[0]
    assert (first["status"], first["width"], first["height"], first["size_bytes"]) == ("ok", 20, 10, len(data))
    assert first["sha256"] == sha256_file(images / "good.png")


def test_several_captions_stand_in_the_index_beside_the_first(tmp_path: Path, tiny_clip: TinyClip) -> None:
    draw(tmp_path / "images" / "a.png", (0, 0, 0))
    draw(tmp_path / "images" / "b.png", (0, 0, 0))
    (tmp_path / "images" / "metadata.csv").write_text("file_name,text\na.png,one\nb.png,other\na.png,two\n")
    assert [(row["key"], row["caption"], row["captions"]) for row in build(tmp_path)] == [
        ("a.png", "one", ["one", "two"]), ("b.png", "other", None)]


def test_an_embedding_that_is_not_finite_is_left_out(tmp_path: Path, tiny_clip: TinyClip, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "images" / "a.png", (0, 0, 0))
    (tmp_path / "images" / "a.txt").write_text("x")
    monkeypatch.setattr(TinyClip, "embed_crops", lambda self, images: np.full((len(images), 8), np.nan, dtype=np.float32))
    assert [row["embedding"] for row in build(tmp_path)] == [None]


def test_photographs_are_decoded_small_and_keep_their_size_and_orientation_in_the_index(tmp_path: Path, tiny_clip: TinyClip) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.new("RGB", (640, 480), (200, 30, 30)).save(tmp_path / "images" / "turned.jpg", exif=exif)
    (tmp_path / "images" / "turned.txt").write_text("turned")
    row, = build(tmp_path)
    assert (row["width"], row["height"], row["status"]) == (480, 640, "ok")
    assert tiny_clip.largest_side <= 2 * 640 / 16, "640 x 480 at an eighth, cut to 16 x 16"


def test_rendered_pngs_are_the_original_bytes(tmp_path: Path, tiny_clip: TinyClip) -> None:
    from glideslope.data_filter.sources.kind import open_source
    from glideslope.data_filter.sources.openmoji import OpenMojiSource

    config = OpenMojiSource(image_size=32, limit=4)
    build_index(config, ClipConfig(), IndexConfig(), tmp_path / "index")
    source = open_source(config, shard_size=256)
    items = {item.key: item for shard in source.shards() for item in source.read(shard)}
    rows = index_rows(tmp_path / "index")
    assert len(rows) == len(items) >= 4
    for row in rows:
        image = items[str(row["key"])].image or b""
        with Image.open(io.BytesIO(image)) as picture:
            assert picture.size == (32, 32)
        assert row["size_bytes"] == len(image)
