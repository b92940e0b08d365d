import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.index.parquet import write_table
from glideslope.data_filter.index.read import read_index
from glideslope.data_filter.index.stage import build_index
from glideslope.data_filter.index.withheld import withhold_secrets
from glideslope.data_filter.labels.csv_files import read_label_csv
from glideslope.data_filter.sources.folder import FolderSource
from glideslope.errors import LabelError
from glideslope.recipe.filters import ClipConfig, IndexConfig
from glideslope.release.vetting.secret_files import scan_file

from ..conftest import TinyClip, World, draw

# Written in two parts, so that no scanner takes this file for a leak.
MAIL, TOKEN = "ann" + "@uni-bonn.de", "hf" + "_" + "a1B2" * 8
SECRETS = (MAIL, TOKEN, "-----BEGIN " + "PRIVATE KEY-----", "https://ann:secret" + "@uni-bonn.de/x")


def a_row(**changes: Any) -> dict[str, Any]:
    row = {"key": "a.png", "concept": "a.png", "caption": "a cat", "captions": None, "reason": "", "error": None, "status": "ok",
           "width": 4, "height": 4}
    return row | changes


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_a_caption_drops_the_input_and_is_shown_nowhere(secret: str) -> None:
    row = a_row(caption=f"a cat, photo by {secret}")
    withhold_secrets(row)
    assert (row["status"], row["reason"], row["caption"], row["key"]) == ("bad", "secret", None, "a.png")
    assert row["error"].startswith("the caption of a.png holds a") and secret not in str(row)


def test_captions_may_speak_of_anything_else() -> None:
    for caption in ("a screenshot of /home/ann/pictures", "mail me at someone@example.com", "password: hunter2hunter2", "an icon: a@2x.png"):
        row = a_row(caption=caption)
        withhold_secrets(row)
        assert row == a_row(caption=caption)


@pytest.mark.parametrize("key", [f"{MAIL}/1.png", f"{TOKEN}.png", "/home/ann/pictures/1.png", "C:\\pictures\\1.png"])
def test_a_secret_in_a_name_gives_way_to_a_digest(key: str) -> None:
    rows = [a_row(key=key, concept=key), a_row(key=key, concept=key, status="bad", reason="missing", error=f"image {key} is missing")]
    for row in rows:
        withhold_secrets(row)
        assert key not in str(row) and row["key"] == row["concept"] and row["key"].startswith("withheld-")
    assert [row["reason"] for row in rows] == ["secret", "missing"]
    assert rows[1]["error"] == "missing; the rest of the message quotes what must not be published"


@given(st.sampled_from(["key", "concept", "caption", "error"]), st.sampled_from([*SECRETS, "/home/ann/pictures/1.png"]), st.text(max_size=8))
def test_no_search_of_a_release_finds_anything_in_what_an_index_holds(tmp_path_factory: pytest.TempPathFactory, field: str, secret: str,
                                                                       more: str) -> None:
    text = f"{more.encode('utf-8', 'replace').decode()} {secret}"
    row = a_row(**{field: text}, **({"status": "bad", "reason": "missing"} if field == "error" else {}))
    withhold_secrets(row)
    folder = tmp_path_factory.mktemp("release")
    write_table(folder / "a.parquet", pa.table({"key": [row["key"]], "caption": [row["caption"]], "detail": [row["error"]]}))
    (folder / "a.json").write_text(json.dumps({"images": [{"key": row["key"], "concept": row["concept"]}]}))
    assert scan_file(folder / "a.parquet") == [] and scan_file(folder / "a.json") == []


def test_an_index_drops_what_a_release_must_not_publish_and_says_so(tmp_path: Path, tiny_clip: TinyClip,
                                                                           caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "b.png", f"{MAIL}.png"):
        draw(tmp_path / "images" / name, (1, 2, 3))
    (tmp_path / "images" / "metadata.csv").write_text(f"file_name,text\na.png,write to {MAIL}\nb.png,a cat\n{MAIL}.png,a dog\n")
    record = build_index(FolderSource(path=str(tmp_path / "images")), ClipConfig(), IndexConfig(), tmp_path / "index")
    assert record.summary["num_ok"] == 1 and record.summary["num_bad"] == {"secret": 2}
    rows = [row for _, table in read_index(tmp_path / "index") for row in table.to_pylist()]
    assert [(row["status"], row["embedding"] is None) for row in rows] == [("bad", True), ("ok", False), ("bad", True)]
    assert MAIL not in str(rows)
    assert "index: 2 inputs hold a token, key, mail address or path of a machine" in caplog.text


def test_a_ledger_says_secret_and_a_search_finds_nothing_in_it(fitted: World) -> None:
    text = (fitted.root / "images" / "metadata.csv").read_text().replace("green thing 1\n", f"green thing of {MAIL}\n")
    text = text.replace("green thing 1\r\n", f"green thing of {MAIL}\r\n")
    (fitted.root / "images" / "metadata.csv").write_text(text)
    fitted.index()
    fitted.label()
    fitted.fit()
    summary = fitted.curate().summary
    assert summary["dropped"]["secret"] == 1 and summary["seen"] == 60
    for path in (fitted.root / "curated" / "ledger").glob("*.parquet"):
        assert scan_file(path) == []


@pytest.mark.parametrize(("header", "cells"), [("concept", MAIL), ("group:age", TOKEN)])
def test_labels_that_would_publish_a_secret_are_refused(tmp_path: Path, header: str, cells: str) -> None:
    (tmp_path / "l.csv").write_text(f"key,category,label,{header}\na,red,1,{cells}\n")
    with pytest.raises(LabelError, match=r"l.csv, line 2: .* holds a .*, which a release must not publish"):
        read_label_csv(tmp_path / "l.csv")
