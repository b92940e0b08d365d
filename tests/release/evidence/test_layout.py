import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glideslope.errors import ReleaseError, VerificationError
from glideslope.release.evidence.layout import check_content, check_name, find_danger, rule_of
from glideslope.release.verify import verify
from glideslope.store.file_lists import MAX_FOLDERS_DEEP, list_files
from glideslope.store.strict_json import load_lines, load_object


@pytest.mark.parametrize("path", ["README.md", "base/diffusion_pytorch_model.safetensors", "evidence/ledger/shard-00012.parquet",
                                  "evidence/records/filters__person.json", "figures/person_missed.png", "upsampler/config.json",
                                  "base_inpaint/config.json", "upsampler_inpaint/diffusion_pytorch_model.safetensors",
                                  "upsampler_scheduler/scheduler_config.json", "clip_tokenizer/tokenizer.json"])
def test_places_of_a_release_have_a_rule(path: str) -> None:
    assert rule_of(path) is not None


@pytest.mark.parametrize("path", ["pipeline.py", "base/pytorch_model.bin", "base/model.safetensors", "readme.md",
                                  "evidence/ledger/shard-1.parquet", "README.md\n",
                                  "evidence/../README.md", "base_scheduler/scheduler_config.json", "evidence/training/tokenizer/metrics.jsonl",
                                  "evidence/filters/a/b/filter.json", "figures/a.svg", ".gitattributes"])
def test_other_places_have_none(path: str) -> None:
    assert rule_of(path) is None


@pytest.mark.parametrize("path", ["C:\\x", "a/../b", "a//b", "/a", "nul.json", "COM1", "a.", "a b", "cafe\u0301", "x" * 201,
                                  "a:b", "-rf", ".hidden"])
def test_names_that_some_machine_cannot_hold_are_refused(path: str) -> None:
    with pytest.raises(ReleaseError, match="remove the file"):
        check_name(path)


def test_portable_names_pass() -> None:
    for path in ("README.md", "evidence/records/training__noised_clip.json", "base/diffusion_pytorch_model-00001-of-00003.safetensors"):
        check_name(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_known_by_its_first_bytes(protocol: int) -> None:
    assert find_danger(pickle.dumps({"a": [1]}, protocol=protocol)) == "a pickle"


def test_a_safetensors_file_whose_length_begins_like_a_pickle_is_none() -> None:
    from safetensors.numpy import save

    for length in (384, 640, 896, 1152, 1408):
        data = next(data for size in range(1500) if (data := save({"a" * size: np.zeros(1)}))[:8] == length.to_bytes(8, "little"))
        assert data[0] == 0x80
        assert find_danger(data[:512]) is None


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x7fELF", b"MZ\x90", b"#!/bin/sh", b"\x93NUMPY\x01", b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b\x08",
                                   b"\0" * 257 + b"ustar\0"])
def test_archives_executables_and_scripts_are_known_by_their_first_bytes(start: bytes) -> None:
    assert find_danger(start) is not None


@pytest.mark.parametrize("start", [b"{", b"PAR1", b"\x89PNG\r\n\x1a\n", b"# Card", b"", b"\x80\x00\x00\x00\x00\x00\x00\x00{"])
def test_what_a_release_holds_is_not_taken_for_danger(start: bytes) -> None:
    assert find_danger(start) is None


@pytest.mark.parametrize("text", ["[1]", '{"a": 1, "a": 1}', '{"a": NaN}', '{"a": Infinity}', "{", "", '{"a": {"b": 1, "b": 2}}'])
def test_json_that_two_readers_could_read_differently_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        load_object(text)


def test_lines_of_json_are_named_when_they_are_wrong() -> None:
    assert load_lines(b'{"a": 1}\n{"a": 2}\n') == [{"a": 1}, {"a": 2}]
    with pytest.raises(ValueError, match="line 2"):
        load_lines(b'{"a": 1}\n[]\n')
    with pytest.raises(ValueError, match="not ended"):
        load_lines(b'{"a": 1}')


def test_folders_may_lie_as_deep_as_is_allowed_and_no_deeper(tmp_path: Path) -> None:
    deepest = tmp_path.joinpath(*"d" * MAX_FOLDERS_DEEP)
    deepest.mkdir(parents=True)
    (deepest / "x").touch()
    assert [Path(path).name for path in list_files(tmp_path)] == ["x"]
    (deepest / "one").mkdir()
    with pytest.raises(VerificationError, match=f"d/d/d/…: folders lie more than {MAX_FOLDERS_DEEP} deep; remove them"):
        list_files(tmp_path)


def test_more_folders_in_one_another_than_a_program_can_follow_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "release"
    place.mkdir()
    try:
        subprocess.run(["mkdir", "-p", "/".join("d" * 1_500)], cwd=place, check=True)
        with pytest.raises(VerificationError, match="deep"):
            list_files(place)
        with pytest.raises(VerificationError, match="folders lie more than"):
            verify(place)
    finally:
        subprocess.run(["rm", "-rf", str(place)], check=True)  # the standard library's own rmtree gives up here


@pytest.mark.parametrize(("text", "told"), [
    ('{"a": ' + "[" * 40 + "]" * 40 + "}", "41 deep, at most 32"), ('{"a": ' + "9" * 30 + "}", "an integer of 30 digits"),
    ('{"a": 1e999}', "beyond what a float holds"), ('{"a": NaN}', "NaN is not a JSON number"), ('{"a": -Infinity}', "not a JSON number"),
    ('{"a": 1, "a": 2}', "occurs twice"), ('{"a": [' + "[]," * 1_000_001 + "[]]}", "at most 1000000 are read"),
    ("[1]", "expected a JSON object"), ('{"a": "\\ud800"}', "surrogate")])
def test_json_that_would_take_or_say_too_much_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_object(text)


def test_json_lines_without_end_are_refused_before_they_are_split() -> None:
    with pytest.raises(ValueError, match="1000001 lines, at most 1000000"):
        load_lines(b"{}\n" * 1_000_001)


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (0, 5), (2**31, 2**31)])
def test_a_picture_that_would_unfold_without_end_is_refused_before_it_is_decoded(tmp_path: Path, width: int, height: int) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(picture)
    data = picture.read_bytes()
    picture.write_bytes(data[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + data[24:])
    with pytest.raises(ReleaseError, match="pixels, at most 50000000"):
        check_content(picture, "figures/a.png")
