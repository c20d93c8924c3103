"""The images that a manifest lists, whatever it says or does not say about their classes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from raycls.data.sources.listing.annotations import read_json, record_of
from raycls.data.sources.listing.columns import Columns
from raycls.data.sources.listing.manifest import path_of
from raycls.data.sources.listing.paths import key_of
from raycls.data.sources.listing.tables import Record, read_csv, read_jsonl, read_text
from raycls.errors import DataError

__all__ = ["listed_paths"]


def listed_paths(file: str) -> list[tuple[str, str]]:
    """Each path in `file`, in its order: as it is written, and where it leads, an absolute path or an address.

    Of `source: manifest` only the column of the paths is read. What is listed twice comes twice, and no image is
    looked for. DataError names the line of a row without a path.
    """
    names = Columns(None)
    folder = os.path.dirname(os.path.abspath(file))
    try:
        written = [path_of(file, record, names) for record in _records(file, names)]
    except DataError as error:
        if "data.source.args" in (error.fix or ""):
            error.fix = "correct the file; or name a config (.yaml) whose data.source.args say how it is read"
        raise
    if not written:
        raise DataError("the manifest lists no image", where=file)
    return [(path, _leads_to(path, folder)) for path in written]


def _leads_to(path: str, folder: str) -> str:
    return path if "://" in path else os.path.join(folder, key_of(path, folder, ()) or path)


def _records(file: str, names: Columns) -> Iterator[Record]:
    suffix, text = os.path.splitext(file)[1].lower(), read_text(file, None)
    if suffix == ".json":
        yield from read_json(file, text)[0]
    elif suffix in (".csv", ".tsv"):
        yield from read_csv(file, text, names)
    else:
        yield from (record_of(file, place, record) for place, record in read_jsonl(file, text))
