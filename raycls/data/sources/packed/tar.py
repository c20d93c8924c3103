"""The members of a tar archive and where their bytes lie, from one pass over its headers; nothing is extracted.

The reader is stricter than `tarfile`, which takes a damaged header after the first one for the end of the archive and
so loses what follows: here an archive has its end marker and nothing but zeros after it, or it is refused. ustar, pax
and GNU long names (POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from raycls.data.sources.packed.ranges import Ranges, open_ranges
from raycls.data.sources.remote.stored import Stored
from raycls.errors import DataError
from raycls.quantities import bytes_text

__all__ = ["Member", "members"]

_BLOCK = 512
_KEPT = 1 << 14
"""Bytes of a member that may be kept while its header is passed."""
_LONGEST = 1 << 20
"""Bytes that the long name of a member may take."""
_FILES, _FOLDER = (b"0", b"\0", b"7"), b"5"
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
}
_COMPRESSED = {b"\x1f\x8b": "gzip -d", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    """Its path, without `./` before it."""
    offset: int
    """Where its bytes begin in the archive."""
    size: int
    content: bytes | None = None
    """Its bytes, where they were asked for and are few."""


def members(files: Stored, number: int, keep: Callable[[str], bool] = lambda name: False) -> Iterator[Member]:
    """The files in one archive, in its order; with the content of small ones whose names are to be kept.

    OutageError where a store is away. DataError where it cannot be read, is compressed, damaged or cut short, or has a
    member that is no file or folder, or whose name is absolute or leads out through `..`.
    """
    path = files.locate(number)
    try:
        yield from _Archive(path, open_ranges(files, number)).members(keep)
    except OSError as error:
        raise DataError(
            "cannot read a tar archive", where=path, found=error.strerror or str(error), fix="check data.source.path"
        ) from error


class _Archive:
    def __init__(self, path: str, file: Ranges) -> None:
        self.path, self._file, self.size = path, file, file.size
        self._start, self._buffer = 0, b""

    def members(self, keep: Callable[[str], bool]) -> Iterator[Member]:
        if self.size == 0:
            self._refuse(0, "it is empty: not even an end marker")
        for magic, command in _COMPRESSED.items():
            if self._at(0, 6).startswith(magic):
                raise DataError(
                    "a compressed tar archive cannot be read at random places",
                    where=self.path,
                    found="a compressed file",
                    valid="a plain .tar; images gain nothing by compression",
                    fix=f"decompress the shards once with {command}, and name the .tar files in data.source.path",
                )
        place, more = 0, dict[str, bytes]()
        while True:
            header = self._at(place, _BLOCK)
            if len(header) < _BLOCK:
                self._refuse(place, "the archive ends without its end marker")
            if not any(header):
                if more:
                    self._refuse(place, "the archive ends after a long name")
                return self._check_end(place)
            size = self._size(place, header, more)
            kind, data = header[156:157], place + _BLOCK
            after = data + -(-size // _BLOCK) * _BLOCK
            if data + size > self.size:
                self._refuse(place, f"a member of {bytes_text(size)} is cut off")
            if kind in (b"x", b"g", b"L", b"K"):
                self._extend(place, kind, size, more)
            else:
                name = self._name(header, more)
                self._check(place, name, kind, more)
                if kind != _FOLDER and not (name.endswith("/") and size == 0):  # as archives before ustar had folders
                    yield Member(name, data, size, self._at(data, size) if size <= _KEPT and keep(name) else None)
                more = {}
            place = after

    def _at(self, place: int, count: int) -> bytes:
        start = place - self._start
        if start < 0 or start + count > len(self._buffer):
            self._start, self._buffer, start = place, self._file.read(max(count, self._file.block), place), 0
        return self._buffer[start : start + count]

    def _size(self, place: int, header: bytes, more: dict[str, bytes]) -> int:
        stated, total = _octal(header[148:156]), sum(header) - sum(header[148:156]) + 8 * 32
        if stated != total and stated != total - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):
            self._refuse(place, "the header of a member has another checksum")
        raw = header[124:136]
        size = int.from_bytes(raw[1:], "big") if raw[0] == 0x80 else _octal(raw)
        if header[156:157] not in (b"x", b"g", b"L", b"K") and "size" in more:
            size = int(more["size"]) if re.fullmatch(rb"[0-9]{1,18}", more["size"]) else None
        if size is None:
            self._refuse(place, "the header of a member has no valid size")
        return 0 if header[156:157] == _FOLDER else size

    def _extend(self, place: int, kind: bytes, size: int, more: dict[str, bytes]) -> None:
        """Take what is said of the next member: its long name, or pax records."""
        if size > _LONGEST:
            self._refuse(place, f"a name of {bytes_text(size)}")
        data = self._at(place + _BLOCK, size)
        if kind == b"L":
            more["path"] = data.split(b"\0", 1)[0]
        while kind in b"xg" and data.strip(b"\0"):
            length, space, _ = data.partition(b" ")
            count = int(length) if space and re.fullmatch(rb"[0-9]{1,7}", length) else 0
            name, equals, value = data[len(length) + 1 : count - 1].partition(b"=")
            if not equals or count > len(data) or data[count - 1 : count] != b"\n":
                self._refuse(place, "a pax record that is none")
            if kind == b"g" and name in (b"path", b"size", b"linkpath"):
                self._refuse(place, f"a global pax header with the {name.decode()} of members")
            if kind == b"x":
                more[name.decode("utf-8", "surrogateescape")] = value
            data = data[count:]

    def _name(self, header: bytes, more: dict[str, bytes]) -> str:
        name = header[:100].split(b"\0", 1)[0]
        if header[257:263] == b"ustar\0" and (prefix := header[345:500].split(b"\0", 1)[0]):
            name = prefix + b"/" + name
        found = more.get("path", name).decode("utf-8", "surrogateescape")
        while found.startswith("./"):
            found = found[2:].lstrip("/")
        return found

    def _check(self, place: int, name: str, kind: bytes, more: dict[str, bytes]) -> None:
        """DataError about a member that is no plain file or folder inside of where it would be extracted."""
        parts = name.replace("\\", "/").split("/")
        found = None
        if name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name):
            found = "an absolute name"
        elif ".." in parts or "\0" in name:
            found = "a name that leads out of the archive"
        elif any(key.startswith("GNU.sparse") for key in more):
            found = _KINDS[b"S"]
        elif kind not in (*_FILES, _FOLDER):
            found = _KINDS.get(kind, f"a member of the type {kind!r}")
        if found is not None:
            raise DataError(
                "a member of a tar archive is refused",
                where=f"{self.path}: {name}",
                found=f"{found} (byte {place:,})",
                valid="plain files, under relative names without ..",
                fix="write the archive again without it",
            )

    def _check_end(self, place: int) -> None:
        if self.size < place + 2 * _BLOCK:
            self._refuse(place, "half of an end marker")
        while data := self._at(place, min(1 << 20, self.size - place)):
            if any(data):
                at = place + len(data) - len(data.lstrip(b"\0"))
                self._refuse(at, "data after the end marker, as of archives that were written one after the other")
            place += len(data)

    def _refuse(self, place: int, found: str) -> NoReturn:
        raise DataError(
            "a tar archive is damaged or not complete",
            where=self.path,
            found=f"{found} (byte {place:,} of {self.size:,})",
            valid="a plain tar archive up to its end marker",
            fix="copy or write this shard again",
        )


def _octal(field: bytes) -> int | None:
    found = _OCTAL.fullmatch(field)
    return None if found is None else int(found[1] or b"0", 8)
