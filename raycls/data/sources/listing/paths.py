"""The paths that a manifest lists, found on this machine: those of Windows too, and those below another folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from raycls.config.write import override
from raycls.data.sources.listing.columns import at
from raycls.data.sources.remote.address import is_remote
from raycls.data.sources.remote.places import Place
from raycls.errors import DataError
from raycls.quantities import first_names

__all__ = ["Listing", "find_files", "key_of", "prefixes_of"]

_WINDOWS = re.compile(r"[A-Za-z]:|\\")
"""How an absolute path of Windows begins: with a drive, a share (two backslashes) or a backslash."""
_TRIED = 1000
"""Paths with which a remedy is tried before it is proposed."""


class Listing(NamedTuple):
    """Paths as the manifest has them."""

    paths: Sequence[str]
    place: Callable[[int], str]
    """Where in the manifest the path of a row is."""


def prefixes_of(strip: str | Sequence[str] | None) -> tuple[str, ...]:
    """The prefixes that the argument `strip` stands for."""
    return () if strip is None else (strip,) if isinstance(strip, str) else tuple(strip)


def key_of(path: str, folder: str, prefixes: Sequence[str]) -> str | None:
    """The path below `folder` of the file that is meant, whether it is there or not; None for one of Windows alone.

    A file of the very name that is written wins over one whose folders a backslash divides.
    """
    path = _stripped(path, prefixes)
    if is_remote(path):
        return path
    if "\\" not in path and not _WINDOWS.match(path):
        normal = os.path.normpath(path)
        return path if normal == path else normal  # one text and not two, of a million paths
    if os.path.isfile(os.path.join(folder, path)):
        return os.path.normpath(path)
    return None if _WINDOWS.match(path) else os.path.normpath(path.replace("\\", "/"))


def find_files(
    file: str, place: Place, listed: Listing, keys: Sequence[str | None], leave_out: Callable[[Sequence[int]], str]
) -> list[str]:
    """The path of each file below `place`. DataError where files are not there, with the option that finds them.

    `keys` are those of `key_of`; `leave_out` says how some of `listed`, by their positions, are left out.
    """
    folder = place.locate("")
    windows = [row for row, key in enumerate(keys) if key is None]
    if windows:
        paths = [listed.paths[row] for row in windows]
        raise DataError(
            f"{len(windows):,} of {len(keys):,} listed paths are absolute Windows paths of a drive that is not here",
            where=at(file, listed.place(windows[0])),
            found=_shown(listed, windows),
            valid=f"paths relative to {folder}, with / or \\ between folders",
            fix=_remedy(paths, folder) or _anywhere(paths),
        )
    found = [key for key in keys if key is not None]
    rows = place.missing(found)
    if rows:
        missing = [listed.paths[row] for row in rows]
        found_by = _remedy(missing, folder)
        single = f"{found_by or 'restore them'}; or {leave_out(rows)}"
        raise DataError(
            f"{len(rows):,} of {len(keys):,} listed images do not exist",
            where=at(file, listed.place(rows[0])),
            found=_shown(listed, rows),
            valid=f"files under {folder}",
            fix=single if len(rows) <= len(keys) // 2 else found_by or _anywhere(missing),  # or it is the folder
        )
    return found


def _stripped(path: str, prefixes: Sequence[str]) -> str:
    plain = path.replace("\\", "/")
    for prefix in prefixes:
        start = prefix.replace("\\", "/").rstrip("/") + "/"
        head = plain[: len(start)]
        if head == start or (_WINDOWS.match(prefix) and head.casefold() == start.casefold()):
            return path[len(start) :]
    return path


def _shown(listed: Listing, rows: Sequence[int]) -> str:
    return first_names([f"{listed.paths[row]} ({listed.place(row)})" for row in rows[:5]], len(rows))


def _remedy(lost: Sequence[str], folder: str) -> str | None:
    """The option with which all lost files are found, if there is one."""
    if is_remote(folder):
        return None  # each try is a request
    paths = _some(lost)
    for root in (os.getcwd(), *_parents(folder)):
        if all(_is_there(path, root, ()) for path in paths):
            return f"the paths start from another folder: {override('data.source.args.root', root)}"
    prefixes = _common(paths, folder)
    if prefixes is not None:
        value = prefixes[0] if len(prefixes) == 1 else prefixes
        return f"leave out the part that is not the same here: {override('data.source.args.strip', value)}"
    return None


def _anywhere(lost: Sequence[str]) -> str:
    """What to set where the lost files may be anywhere."""
    paths = _some(lost)
    if any(_WINDOWS.match(path) or os.path.isabs(path) for path in paths):  # which no root is put before
        prefix = _folder_of(paths)
        return (
            f"leave out what is not the same here, such as {override('data.source.args.strip', prefix)} , and set "
            f"data.source.args.root to the folder here that holds {_stripped(paths[0], [prefix])}"
        )
    return "set data.source.args.root to the folder that the paths start from"


def _some(lost: Sequence[str]) -> list[str]:
    return list(lost[:: max(1, len(lost) // _TRIED)])


def _is_there(path: str, folder: str, prefixes: Sequence[str]) -> bool:
    key = key_of(path, folder, prefixes)
    return key is not None and os.path.isfile(os.path.join(folder, key))


def _parents(folder: str) -> list[str]:
    parents: list[str] = []
    while os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
        parents.append(folder)
    return parents


def _common(paths: Sequence[str], folder: str) -> list[str] | None:
    """Prefixes without which every path is one of a file below `folder`, the shortest that will do."""
    prefixes: list[str] = []
    for path in paths:
        if _is_there(path, folder, prefixes):
            continue
        prefix = next((each for each in _starts(path) if _is_there(path, folder, [each])), None)
        if prefix is None or len(prefixes) == 3:
            return None
        prefixes.append(prefix)
    return prefixes


def _starts(path: str) -> list[str]:
    """The folders around a path, from the outermost."""
    return [path[: match.start()] for match in re.finditer(r"[/\\]+", path) if match.start() > 0]


def _folder_of(paths: Sequence[str]) -> str:
    """The innermost folder that is common to the paths of the first one's drive, but for that of the image itself."""
    first = _starts(paths[0])
    drive = [path for path in paths if path[:2].casefold() == paths[0][:2].casefold()]
    shared = [each for each in first if all(_stripped(path, [each]) != path for path in drive)]
    return shared[-1] if shared else first[0] if first else paths[0][:2]
