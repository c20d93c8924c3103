"""Which source reads what a path names, by names alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice

from raycls.data.sources.packed.layout import MANIFEST
from raycls.data.sources.remote.address import is_remote
from raycls.data.sources.remote.places import place_of

__all__ = ["METADATA", "SUFFIXES", "recognised"]

SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".jsonl", ".ndjson", ".json"), "manifest"),
    ".npz": "arrays",
    ".parquet": "parquet",
    ".tar": "webdataset",
}
"""How the name of a file ends -> the source that reads it."""
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""What a file is called that lists the images of its folder, as Hugging Face `datasets` has it."""
_SHARDS = (".parquet", ".tar", ".tar.gz", ".tgz")
_LOOKED_AT = 32
"""Entries of a folder, and of the first few folders in it, whose names decide."""


def recognised(path: str) -> str | None:
    """The name of the source for a file, a pattern of shards or a folder; None where there is nothing it could be."""
    if is_remote(path):
        place = place_of(path)
        return SUFFIXES.get(os.path.splitext(place.locate(""))[1].lower()) or _by_names(place.names())
    if os.path.isdir(path):
        return _folder(path)
    suffix = os.path.splitext(path)[1].lower()
    if os.path.isfile(path) or (suffix == ".tar" and "{" in path):
        return SUFFIXES.get(suffix)
    return None


def _folder(path: str) -> str:
    return "packed" if os.path.isfile(os.path.join(path, MANIFEST)) else _by_names(_names(path))


def _by_names(names: Iterable[str]) -> str:
    for name in names:
        if name == MANIFEST:
            return "packed"
        if name in METADATA:
            return "hf_folder"
        suffix = next((suffix for suffix in _SHARDS if name.endswith(suffix)), None)
        if suffix is not None:
            return SUFFIXES.get(suffix, "webdataset")
    return "folder"


def _names(path: str) -> Iterator[str]:
    """Names of files in a folder, and in the folders directly in it."""
    inner: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir():
                    inner.append(entry.path)
                elif not entry.name.startswith("."):
                    yield entry.name
        for folder in sorted(inner)[:_LOOKED_AT]:
            with os.scandir(folder) as entries:
                yield from (entry.name for entry in islice(entries, _LOOKED_AT) if not entry.name.startswith("."))
    except OSError:
        return  # the source says what is wrong
