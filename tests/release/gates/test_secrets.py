import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from glideslope.release.evidence.contents import open_evidence
from glideslope.release.vetting.secret_files import find_secrets, scan_file
from glideslope.text.secrets import KINDS, Finding, private_words, scan_lines

# Written in two parts, so that no scanner takes this file for a leak.
TOKEN = "hf" + "_AbCdEfGhIjKlMnOpQrStUvWxYz0123"
SECRETS = {
    "a Hugging Face token": TOKEN,
    "a GitHub token": "gh" + "p_0123456789abcdefghijABCDEFGHIJ012345",
    "a GitLab token": "glpat" + "-0123456789abcdefghij",
    "an AWS key id": "AKIA" + "ABCDEFGHIJ234567",
    "a Google API key": "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
    "a Slack token": "xoxb" + "-1234567890-abcdef",
    "an API key": "sk" + "-proj-0123456789abcdefghijkl",
    "the address of a webhook": "https://hooks.slack" + ".com/services/T000AAA/B000BBB/abcdefgh",
    "a key of cloud storage": "Account" + "Key=Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6==;x",
    "a header with a token": "Authorization" + ": Bearer abcdef123456",
    "a private key": "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
    "a JSON web token": "eyJhbGciOiJI" + ".eyJzdWIiOiIx.SflKxwRJSMeKKF2QT4",
    "an address with a password": "https://anna:geheim" + "@host.org/x",
    "a mail address": "anna.b" + "@uni-wien.ac.at",
}
NOT_IN_CAPTIONS_ONLY = {
    "a password or key": "API_KEY = 'q7Zp0aLk29dMx81vTb'",
    "a path of a machine": "see /home/anna/data/x.png",
    "the name of an inner host": "http://artifactory.firm.net/pypi",
    "a proxy or package index": "PIP_INDEX_URL=https://pypi.org/simple",
}


def scan_text(text: str, *, is_caption: bool = False) -> list[Finding]:
    return list(scan_lines(text, KINDS, is_caption=is_caption))


def kinds(findings: list) -> set[str]:
    return {finding.kind for finding in findings}


@pytest.mark.parametrize(("kind", "secret"), [*SECRETS.items(), *NOT_IN_CAPTIONS_ONLY.items()])
def test_each_kind_of_secret_is_found_and_never_shown_whole(kind: str, secret: str) -> None:
    findings = scan_text(f"some words\nand here: {secret} and more\n")
    assert kind in kinds(findings)
    assert all(finding.place == "line 2" and secret not in str(finding) for finding in findings)


@pytest.mark.parametrize("secret", SECRETS.values())
def test_captions_are_searched_for_tokens_keys_and_mail_addresses(secret: str) -> None:
    assert scan_text(f"a photo of {secret}", is_caption=True)


@pytest.mark.parametrize("text", NOT_IN_CAPTIONS_ONLY.values())
def test_captions_may_speak_of_paths_hosts_and_passwords(text: str) -> None:
    assert scan_text(f"a screenshot with {text}", is_caption=True) == []


@pytest.mark.parametrize("path", [
    "/home/anna/x", "/root/.cache/x", "/Users/anna/Documents", "/tmp/run", "/work/main/recipe.yaml", "C:\\Users\\anna", "D:/data/images",
    "\\\\server\\share\\images", "file:///home/anna/x", "local-dir:/mnt/models/clip", "/scratch/a b"])
def test_paths_of_machines_are_found(path: str) -> None:
    assert "a path of a machine" in kinds(scan_text(f"source: {path}\n"))
    assert "a path of a machine" in kinds(scan_text(json.dumps({"path": path})))


@pytest.mark.parametrize("address", ["http://localhost:8080/x", "http://127.0.0.1:9000", "https://10.1.2.3/simple", "http://192.168.0.7/",
                                     "https://pypi.corp.internal/simple", "http://proxy.firm.org:3128", "http://buildhost:5000/v2"])
def test_inner_hosts_are_found(address: str) -> None:
    assert "the name of an inner host" in kinds(scan_text(f"from {address}"))


@pytest.mark.parametrize("text", [
    "https://huggingface.co/datasets/org/name/tree/main/data/train-00000.parquet", "https://arxiv.org/abs/2112.10741",
    "data/train-00000.parquet", "../images/home/x.png", "a/tmp/b", "either/or", "images@2x.png", "somebody@example.org",
    "pkg:pypi/torch@2.15.0", "@misc{glide, title={x}}", "tokenizer: c7c3e1b772f09c9f8c23f0ce7b34fc8bfbb99508bc33ed7c7e60dba001791ffd",
    "token: a-token-in-words-only", "hf_short", "10:30 / 11:45", "1:1 C: D:", "task-1234567890123456789012345", "see /etc and /tmp",
    "sha256: 02f7ad699fb2980a23174e76abc3df756d7e0d895b887879d507a6b60ed27402"])
def test_ordinary_text_passes(text: str) -> None:
    assert scan_text(text) == []


@settings(max_examples=60, deadline=None)
@given(before=st.text(max_size=30), after=st.text(max_size=30), kind=st.sampled_from(sorted(SECRETS)))
def test_a_secret_between_any_words_is_found(before: str, after: str, kind: str) -> None:
    findings = scan_text(f"{before} {SECRETS[kind]} {after}")
    assert kind in kinds(findings)
    assert not any(SECRETS[kind] in str(finding) for finding in findings)


def test_json_is_searched_through_its_escapes_with_the_way_to_the_value(tmp_path: Path) -> None:
    hidden = "".join(f"\\u{ord(letter):04x}" for letter in TOKEN)
    (tmp_path / "a.json").write_text(f'{{"deep": [{{"note": "{hidden}"}}]}}')
    finding, = scan_file(tmp_path / "a.json")
    assert (finding.place, finding.kind) == ("deep[0].note", "a Hugging Face token")


def test_a_secret_in_a_json_key_or_under_a_telling_key_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": {TOKEN: 1}, "wandb_api_key": "0f3a9c1b77de4526a8c0"}))
    assert [(finding.place, finding.kind) for finding in scan_file(tmp_path / "a.json")] == [
        ("key in a", "a Hugging Face token"), ("wandb_api_key", "a password or key")]


def test_a_name_that_is_a_secret_is_not_shown_as_a_place_either(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({TOKEN: {"deep": TOKEN}}))
    assert [finding.place for finding in scan_file(tmp_path / "a.json")] == ["key in the top", "….deep"]
    (tmp_path / "a.yaml").write_text(f"{TOKEN}: [")
    pq.write_table(pa.table({"key": [TOKEN], "detail": [f"no file {TOKEN}"]}), tmp_path / "a.parquet", use_dictionary=False)
    assert [finding.place for finding in scan_file(tmp_path / "a.parquet")] == ["key of row 0", "detail of row 0"]
    assert not any(TOKEN in str(finding) for name in ("a.json", "a.yaml", "a.parquet") for finding in scan_file(tmp_path / name))


def test_captions_in_json_lines_are_captions(tmp_path: Path) -> None:
    rows = [{"prompt": "a sign that says /home/anna/x"}, {"prompt": f"mail {TOKEN}"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    finding, = scan_file(tmp_path / "pairs.jsonl")
    assert finding.place == "line 2, prompt"


def test_comments_of_yaml_are_searched(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"name: x  # {TOKEN}\n")
    assert kinds(scan_file(tmp_path / "a.yaml")) == {"a Hugging Face token"}


def test_outputs_of_a_notebook_are_found(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": ["1"], "outputs": []}, {"cell_type": "code", "source": ["x"], "outputs": [{"text": ["1"]}]}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"nbformat": 4, "cells": cells}))
    assert [str(finding) for finding in scan_file(tmp_path / "a.ipynb")] == ["cell 2: the output of a notebook"]


def test_parquet_columns_are_searched_whatever_their_type_and_captions_named_by_key(tmp_path: Path) -> None:
    columns = {"key": ["k0", "k1"], "caption": ["/home/anna/x", f"write to {SECRETS['a mail address']}"],
               "detail": [None, "no file /home/anna/x"], "flags": [[TOKEN], []], "raw": [b"", b"\xff" + TOKEN.encode()],
               "more": [{"a": "x"}, {"a": TOKEN}]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", use_dictionary=False)
    assert {(finding.place, finding.kind) for finding in scan_file(tmp_path / "a.parquet")} == {
        ("caption of k1", "a mail address"), ("detail of k1", "a path of a machine"), ("flags of k0", "a Hugging Face token"),
        ("raw of k1", "a Hugging Face token"), ("more of k1", "a Hugging Face token")}


def test_metadata_of_parquet_is_searched(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"source": "/home/anna/x"}), tmp_path / "a.parquet", use_dictionary=False)
    finding, = scan_file(tmp_path / "a.parquet")
    assert (finding.place, finding.kind) == ("metadata source", "a path of a machine")


def test_metadata_of_safetensors_is_searched_and_its_tensors_are_not_read(tmp_path: Path) -> None:
    tensor = {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}
    header = json.dumps({"__metadata__": {"trained_in": "/home/anna/runs"}, "w": tensor}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"abc")
    assert [finding.place for finding in scan_file(tmp_path / "a.safetensors")] == ["__metadata__.trained_in"]


def encode(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, format=kind, **options)
    return buffer.getvalue()


def exif() -> bytes:
    tags = Image.Exif()
    tags[0x010F] = "Camera of Anna"
    return tags.tobytes()


def text_chunk() -> PngInfo:
    info = PngInfo()
    info.add_text("Author", "/home/anna/x", zip=True)
    return info


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_plain_pictures_pass(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(encode(kind))
    assert scan_file(tmp_path / "a") == []


@pytest.mark.parametrize(("kind", "options"), [("png", {"exif": exif()}), ("jpeg", {"exif": exif()}), ("webp", {"exif": exif()}),
                                               ("png", {"pnginfo": text_chunk()}), ("jpeg", {"comment": b"drawn by Anna"}),
                                               ("jpeg", {"xmp": b"<x:xmpmeta/>"}), ("webp", {"xmp": b"<x:xmpmeta/>"})])
def test_pictures_with_exif_xmp_text_or_comments_are_found(tmp_path: Path, kind: str, options: dict[str, object]) -> None:
    (tmp_path / "a").write_bytes(encode(kind, **options))
    assert "data hidden in a picture" in kinds(scan_file(tmp_path / "a"))


def test_what_compressed_text_in_a_picture_says_is_searched(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode("png", pnginfo=text_chunk()))
    assert "a path of a machine" in kinds(scan_file(tmp_path / "a.png"))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_bytes_after_the_end_of_a_picture_are_found(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(encode(kind) + b"secret")
    finding, = scan_file(tmp_path / "a")
    assert finding.place == "bytes after the end"


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@settings(max_examples=30, deadline=None)
@given(share=st.floats(0, 0.99))
def test_cut_pictures_are_no_pass(tmp_path_factory: pytest.TempPathFactory, kind: str, share: float) -> None:
    data = encode(kind)
    path = tmp_path_factory.mktemp("cut") / "a.png"
    path.write_bytes(data[:max(16, int(len(data) * share))])
    assert scan_file(path)


@pytest.mark.parametrize("data", [b"\x00\x01\xff\xfe", b"GIF89a\xff", b"PAR1nonsense"])
def test_what_cannot_be_searched_is_a_finding(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(data)
    assert kinds(scan_file(tmp_path / "a.bin")) == {"content that cannot be searched"}


def test_broken_json_with_a_hint_of_a_secret_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'{{"a": "{TOKEN}"')
    assert kinds(scan_file(tmp_path / "a.json")) == {"content that cannot be searched"}


def test_the_name_of_this_machine_is_found_as_a_word(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("built on build-node-17 by nobody\nmy-build-node-17x is another\n")
    finding, = scan_file(tmp_path / "a.txt", words=["build-node-17"])
    assert (finding.place, finding.kind) == ("line 1", "the name of this machine")
    assert all(len(word) >= 6 for word in private_words())


def test_a_packed_release_holds_no_secrets(packed_run: Path) -> None:
    assert find_secrets(open_evidence(packed_run / "release"), words=private_words()) == []


def test_secrets_in_a_release_are_named_by_file_kind_and_place_with_what_to_do(packed_run: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(packed_run / "release", tmp_path / "release"))
    path = next(iter(sorted((directory / "evidence/ledger").glob("*.parquet"))))
    table = pq.read_table(path)
    captions = [f"mail number{row}{SECRETS['a mail address']}" if row < 9 else text for row, text in enumerate(table["caption"].to_pylist())]
    place = table.schema.get_field_index("caption")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(captions)), path, use_dictionary=False)
    (directory / "LICENSE").write_text(f"ask {SECRETS['a mail address']}\n")
    first, second = find_secrets(open_evidence(directory))
    assert first.startswith("LICENSE: holds a mail address, at line 1 (a…, 21 characters)")
    assert f"{path.name}: holds a mail address, at caption of {table['key'][0]}" in second
    assert "and 6 more places; captions are published with the ledger" in second
    assert SECRETS["a mail address"] not in first + second


@pytest.mark.parametrize("token", ["sk" + "_live_0123456789abcdefghij", "SG" + ".0123456789abcdefghij.0123456789abcdefghij",
                                   "ya" + "29.a0AfH6SMB0123456789abc",
                                   "dckr" + "_pat_0123456789abcdefghij-klm"])
def test_tokens_of_more_services_are_found(token: str) -> None:
    assert kinds(scan_text(f"use {token} here")) == {"an API key"}


def test_a_webhook_of_discord_is_found() -> None:
    assert kinds(scan_text("https://discord" + ".com/api/webhooks/123456789/abcdefghIJK")) == {"the address of a webhook"}


@pytest.mark.parametrize("text", ["password: hunter22", "passwd=geheim1", "PWD = 's3cret!'"])
def test_plain_passwords_are_found(text: str) -> None:
    assert kinds(scan_text(text)) == {"a password or key"}


@pytest.mark.parametrize("text", ["password: none", "password: <yours>", "passwd=${SECRET_PASSWD}", "password: ******",
                                  "Authorization: Bearer <token>"])
def test_placeholders_of_passwords_pass(text: str) -> None:
    assert scan_text(text) == []


@pytest.mark.parametrize("path", ["/project/alice/clip", "/users/alice/x", "/cluster/home/alice", "/export/home/alice/x", "D:/alice/clip",
                                  "D:\\alice\\clip",
                                  "~/secret/x", "~alice/x", "/p/alice", "/n/holylabs/a b/c", "/gpfs01/alice/x"])
@pytest.mark.parametrize("prefix", ["", "local-dir:", "file:"])
@pytest.mark.parametrize("suffix", [".json", ".yaml", ".jsonl"])
def test_a_value_that_is_a_place_anywhere_on_a_machine_is_found(tmp_path: Path, path: str, prefix: str, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_text(json.dumps({"clip": [{"model": prefix + path}]}))
    (finding,) = scan_file(tmp_path / f"a{suffix}")
    assert finding.place.removeprefix("line 1, ") == "clip[0].model"
    assert finding.kind == "a path of a machine"
    assert prefix + path not in str(finding)


@pytest.mark.parametrize("value", ["https://host.org/a/b", "hf-hub:org/name", "org/name", "figures/a.png", "/commit/main", "/api/models/x",
                                   "and/or", "/", "text/plain", "a: /b", "~ 3/4", "pkg:pypi/torch", "1:1"])
def test_a_value_that_is_no_place_passes(tmp_path: Path, value: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"path": value, "/a/b": 1}))
    assert scan_file(tmp_path / "a.json") == []


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


SMALL = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
ROWS = bytes(2 * (1 + 2 * 3))


def png_of(*chunks: bytes, header: bytes = SMALL, packed: bytes = zlib.compress(ROWS)) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("data", "place"), [
    (png_of(chunk(b"gAMA", b"/home/anna/secret")), "gAMA chunk of a wrong length"), (png_of(chunk(b"bKGD", b"a text of mine")), "bKGD chunk"),
    (png_of(chunk(b"PLTE", b"abc" * 200)), "PLTE chunk"), (png_of(chunk(b"gAMA", b"abcd"), chunk(b"gAMA", b"efgh")), "gAMA chunk"),
    (png_of(chunk(b"tRNS", b"1234567")), "tRNS chunk"), (png_of(chunk(b"sBIT", b"1234")), "sBIT chunk"),
    (png_of(chunk(b"cHRM", b"x" * 33)), "cHRM chunk"),
    (png_of(chunk(b"pHYs", b"x" * 10)), "pHYs chunk"), (png_of(chunk(b"sRGB", b"xx")), "sRGB chunk"),
    (png_of(packed=zlib.compress(ROWS) + b"more of it"), "bytes after the pixels"),
    (png_of(packed=zlib.compress(ROWS + b"more of it")), "bytes after the last row"),
])
def test_text_in_the_side_chunks_of_a_png_or_behind_its_pixels_is_found(tmp_path: Path, data: bytes, place: str) -> None:
    (tmp_path / "a.png").write_bytes(data)
    assert any(finding.kind == "data hidden in a picture" and finding.place.startswith(place) for finding in scan_file(tmp_path / "a.png"))


@pytest.mark.parametrize("data", [
    png_of(), png_of(chunk(b"gAMA", b"\0\0\xb1\x8f"), chunk(b"bKGD", bytes(6)), chunk(b"tRNS", bytes(6)), chunk(b"pHYs", bytes(9)))])
def test_side_chunks_of_their_proper_length_pass(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.png").write_bytes(data)
    assert scan_file(tmp_path / "a.png") == []


@pytest.mark.parametrize("data", [png_of(packed=zlib.compress(ROWS[:-1])), png_of(packed=b"no stream"), png_of(header=SMALL + b"more")])
def test_a_png_whose_pixels_cannot_be_unpacked_counts_as_a_finding(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.png").write_bytes(data)
    assert kinds(scan_file(tmp_path / "a.png"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pictures_of_every_mode_pass(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (13, 7)).save(tmp_path / "a.png")
    assert scan_file(tmp_path / "a.png") == []
