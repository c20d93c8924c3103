"""The members of tar archives against `tarfile`, and archives that are refused."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raycls.data.sources.packed.tar import Member, members
from raycls.data.sources.remote.places import Local
from raycls.data.sources.remote.stored import Stored
from raycls.errors import DataError

_NAMES = ("a.jpg", "deep/" * 30 + "b.jpg", "x" * 180 + ".png", "über/c.cls", "./d.txt", "e/" + "y" * 120 + ".cls")


def _archive(file: Path, form: int = tarfile.PAX_FORMAT, names: tuple[str, ...] = _NAMES) -> bytes:
    with tarfile.open(file, "w", format=form) as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = 700 * number + number % 2
            member.mtime = 1.25 if form == tarfile.PAX_FORMAT else 1  # pyright: ignore[reportAttributeAccessIssue]
            archive.addfile(member, io.BytesIO(bytes([number]) * member.size))
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    return file.read_bytes()


def _members(file: Path, **options: Any) -> Iterator[Member]:
    return members(Stored.of(Local(str(file.parent)), [file.name]), 0, **options)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_are_those_of_tarfile(tmp_path: Path, form: int) -> None:
    data = _archive(tmp_path / "a.tar", form)
    with tarfile.open(tmp_path / "a.tar") as archive:
        expected = [
            Member(each.name.removeprefix("./"), each.offset_data, each.size) for each in archive if each.isreg()
        ]
    found = list(_members(tmp_path / "a.tar"))
    assert found == expected
    for number, member in enumerate(found):
        assert data[member.offset : member.offset + member.size] == bytes([number]) * member.size


def test_ustar_names_of_two_parts_are_put_together(tmp_path: Path) -> None:
    name = "p" * 90 + "/" + "q" * 95 + ".jpg"
    _archive(tmp_path / "a.tar", tarfile.USTAR_FORMAT, (name,))
    assert [each.name for each in _members(tmp_path / "a.tar")] == [name]


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("/etc/passwd", tarfile.REGTYPE, "an absolute name"),
        ("C:\\a.jpg", tarfile.REGTYPE, "an absolute name"),
        ("a/../../b.jpg", tarfile.REGTYPE, "a name that leads out of the archive"),
        ("a\\..\\b.jpg", tarfile.REGTYPE, "a name that leads out of the archive"),
        ("a.jpg", tarfile.SYMTYPE, "a symbolic link"),
        ("a.jpg", tarfile.LNKTYPE, "a hard link"),
        ("a.jpg", tarfile.CHRTYPE, "a device"),
        ("a.jpg", tarfile.BLKTYPE, "a device"),
        ("a.jpg", tarfile.FIFOTYPE, "a pipe"),
    ],
)
def test_members_that_are_no_files_inside_are_refused_by_name(
    tmp_path: Path, name: str, kind: bytes, found: str
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("first.jpg"))
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "first.jpg"
        archive.addfile(member)
    with pytest.raises(DataError) as caught:
        list(_members(tmp_path / "a.tar"))
    assert caught.value.found == f"{found} (byte 512)"
    assert caught.value.where == f"{tmp_path}/a.tar: {name}"


def _with_checksum(data: bytearray, start: int) -> bytes:
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    return bytes(data)


def _sized(data: bytes, size: bytes) -> bytes:
    changed = bytearray(data)
    changed[124:136] = size
    return _with_checksum(changed, 0)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda data: b"", "it is empty"),
        (lambda data: data[:200], "without its end marker"),
        (lambda data: data[:1024], "without its end marker"),  # where one member ends and the next would begin
        (lambda data: data[:1100], "without its end marker"),
        (lambda data: data[:2048], "without its end marker"),
        (lambda data: data[:1536], "cut off"),
        (lambda data: data[:1540], "cut off"),
        (lambda data: data[:1100] + b"\1" + data[1101:], "another checksum"),
        (lambda data: data[:2560], "half of an end marker"),
        (lambda data: data + data, "data after the end marker"),
        (lambda data: _sized(data, b"\xff" * 12), "no valid size"),
        (lambda data: _sized(data, b"\x80" + b"\xff" * 11), "cut off"),
        (lambda data: _sized(data, b"77777777777\0"), "cut off"),
        (lambda data: _sized(data, b"-1         \0"), "no valid size"),
    ],
)
def test_damaged_archives_are_refused_where_tarfile_may_see_their_end(
    tmp_path: Path, damage: Callable[[bytes], bytes], found: str
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("a.jpg", "b.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 100
            archive.addfile(member, io.BytesIO(b"i" * 100))
    assert len(list(_members(tmp_path / "a.tar"))) == 2
    (tmp_path / "a.tar").write_bytes(damage((tmp_path / "a.tar").read_bytes()))
    with pytest.raises(DataError) as caught:
        list(_members(tmp_path / "a.tar"))
    assert found in (caught.value.found or "")


def test_compressed_archives_are_refused_with_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(gzip.compress(_archive(tmp_path / "b.tar")))
    with pytest.raises(DataError) as caught:
        list(_members(tmp_path / "a.tar"))
    assert "gzip -d" in (caught.value.fix or "")


@pytest.mark.parametrize("records", [b"5 path=a\n", b"999999 path=a\n", b"path\n", b"9 nonono\n", b"9 size=-\n"])
def test_damaged_pax_records_are_refused(tmp_path: Path, records: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, kind, data in (("x", tarfile.XHDTYPE, records), ("a.jpg", tarfile.REGTYPE, b"12")):
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(DataError):
        list(_members(tmp_path / "a.tar"))
