import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glideslope.data_filter.sources.tars import LINK, TarContents, list_members

from ..pairs import write_tar

WORDS = st.text("ab é中", min_size=1, max_size=9)
NAMES = st.tuples(WORDS, st.sampled_from([1, 12, 40])).map(lambda parts: "/".join([parts[0]] * parts[1]) + ".x")


def contents_of(path: Path) -> TarContents:
    with path.open("rb") as file:
        return list_members(file, path.stat().st_size)


def write_mixed(path: Path) -> bytes:
    """A tar of every format and kind of header, folders among them; returns its bytes."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "a global header"}) as archive:
        names = [("a.jpg", 0), ("a.txt", 0.5), ("folder", 0), ("folder/" + "x" * 200 + ".jpg", 0), ("ü.png", 1.25)]
        for number, (name, time) in enumerate(names):
            info = tarfile.TarInfo(name)
            info.mtime = time
            info.type = tarfile.DIRTYPE if name == "folder" else tarfile.REGTYPE
            info.size = 0 if name == "folder" else 700 * number
            archive.addfile(info, io.BytesIO(bytes([number]) * 5000))
    path.write_bytes(target.getvalue())
    return target.getvalue()


@settings(max_examples=20)
@given(st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=6), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
       st.sampled_from([0, 1.5]))
def test_every_member_is_found_where_tarfile_finds_it(tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes]],
                                                      kind: int, time: float) -> None:
    path = tmp_path_factory.mktemp("tars") / "a.tar"
    with tarfile.open(path, "w", format=kind) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), time
            archive.addfile(info, io.BytesIO(data))
    with tarfile.open(path) as archive:
        expected = [(info.name, info.offset_data, info.size) for info in archive]
    found = contents_of(path)
    assert (found.damage, found.has_end_mark) == ("", True)
    assert [(member.name, member.offset, member.size) for member in found.members] == expected
    data = path.read_bytes()
    assert [data[m.offset:m.offset + m.size] for m in found.members] == [data for _, data in members]


def test_long_names_folders_times_and_global_headers_are_understood(tmp_path: Path) -> None:
    write_mixed(tmp_path / "a.tar")
    found = contents_of(tmp_path / "a.tar")
    assert [(member.name, member.size) for member in found.members] == [
        ("a.jpg", 0), ("a.txt", 700), ("folder/" + "x" * 200 + ".jpg", 2100), ("ü.png", 2800)]
    assert found.damage == ""


def test_a_tar_cut_at_any_byte_gives_the_members_before_the_cut_and_says_so(tmp_path: Path) -> None:
    whole = write_mixed(tmp_path / "a.tar")
    members = contents_of(tmp_path / "a.tar").members
    end = max(member.offset + -(-member.size // 512) * 512 for member in members)
    for place in [*range(0, end, 97), end]:
        (tmp_path / "cut.tar").write_bytes(whole[:place])
        found = contents_of(tmp_path / "cut.tar")
        assert found.members == [member for member in members if member.offset + member.size <= place][:len(found.members)]
        assert len(found.members) >= sum(member.offset + member.size + 512 <= place for member in members)
        assert found.damage != "" and not found.has_end_mark
        assert found.cut is None or found.cut in members


def test_the_place_of_the_damage_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"x" * 600), ("b.jpg", b"y" * 600)])
    whole = path.read_bytes()  # headers at 0 and 1536, contents at 512 and 2048, end mark at 3072
    for data, damage in [
        (whole[:900], "ends at byte 900 in the middle of a.jpg"),
        (whole[:1536], "ends at byte 1536 without an end mark"),
        (whole[:1600], "ends at byte 1600 in the middle of a header"),
        (whole[:3072 + 100], "ends at byte 3172 in the middle of its end mark"),
        (whole[:1536] + b"?" * 512 + whole[2048:], "is damaged at byte 1536: no tar header there"),
        (whole + whole[:2048], f"goes on at byte {len(whole)} after its end mark"),
        (b"", "is empty (0 bytes)"),
        (b"\x1f\x8b" + whole[2:], "is compressed with gzip; unpack it first with gunzip"),
    ]:
        path.write_bytes(data)
        assert contents_of(path).damage == damage
    path.write_bytes(b"<html>not found</html>" * 100)
    assert contents_of(path).damage.startswith("is not a tar: no header at byte 0")


def test_what_is_no_plain_file_of_the_archive_gets_a_problem(tmp_path: Path) -> None:
    infos = []
    for name, kind in (("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE), ("/abs", tarfile.REGTYPE),
                       ("../out", tarfile.REGTYPE), ("a/../../out", tarfile.REGTYPE), ("./in", tarfile.REGTYPE), ("a..b", tarfile.REGTYPE)):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        infos.append((info, b"x"))
    found = contents_of(write_tar(tmp_path / "a.tar", infos))
    assert [(member.name, member.problem) for member in found.members] == [
        ("soft", LINK), ("hard", LINK), ("pipe", "is no plain file"), ("/abs", "has an absolute path"),
        ("../out", "leads out of the archive"), ("a/../../out", "leads out of the archive"), ("in", ""), ("a..b", "")]


def test_a_negative_size_is_damage_and_not_an_endless_loop(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"x")])
    data = bytearray(path.read_bytes())
    data[124:136] = b"\xff" * 12  # minus one in the binary form
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    assert contents_of(path).damage == "is damaged at byte 0: a.jpg has an impossible size"


@given(st.data())
def test_no_damage_whatever_raises_or_runs_on(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("tars")
    damaged = bytearray(write_mixed(folder / "a.tar"))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, 12_000))] = data.draw(st.integers(0, 255))
    (folder / "b.tar").write_bytes(damaged)
    found = contents_of(folder / "b.tar")
    assert all(m.offset >= 0 and m.offset + m.size <= len(damaged) for m in found.members)
