import pytest

from glideslope.store.litter import who_left


@pytest.mark.parametrize(("name", "who"), [
    (".DS_Store", "macOS"), ("._shard-0.txt", "macOS"), ("__MACOSX", "macOS"), ("Thumbs.db", "Windows"), ("THUMBS.DB", "Windows"),
    ("ehthumbs.db", "Windows"), ("desktop.ini", "Windows"), ("$RECYCLE.BIN", "Windows"), ("System Volume Information", "Windows"),
    ("notes.txt~", "a file manager, editor or network drive"), (".nfs00a1", "a file manager, editor or network drive"),
    ("@eaDir", "a file manager, editor or network drive"), ("lost+found", "a file manager, editor or network drive")])
def test_what_systems_leave_behind_is_told_by_its_name(name: str, who: str) -> None:
    assert who_left(name) == who


@pytest.mark.parametrize("name", ["a.png", "thumbs", "thumbs.db.png", "shard-00000.parquet", ".gitattributes", "~", "found"])
def test_what_is_somebodys_own_is_left_alone(name: str) -> None:
    assert who_left(name) is None
