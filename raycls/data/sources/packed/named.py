"""Which files of a folder are shards, and of which split each is: by their names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from raycls.config.write import override
from raycls.data.names import shared_splits, split_of
from raycls.data.sources.layout import NO_SPLITS
from raycls.data.sources.remote.places import Local, Place, Remote, file_of, place_of
from raycls.data.sources.shards import Shards
from raycls.errors import DataError

__all__ = ["by_split", "expanded", "found_shards", "split_rows"]

_SPLITS = "data.source.args.splits"
_NUMBERED = re.compile(r"[-_.]?\d+(?:-of-\d+)?$")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_NAMES = 1_000_000


def found_shards(path: str, suffixes: Sequence[str | tuple[str, ...]]) -> tuple[Place, list[str]]:
    """The place of the shards that `path` names, and their names there, in their order.

    `path` is a file, a pattern, or a folder: of that the files to any depth with the first of the suffixes that any
    has; hidden ones are left out. DataError where a shard of a pattern does not exist.
    """
    place, (folder, name) = place_of(path), file_of(path)
    pattern = place.address.path if isinstance(place, Remote) else place.locate("")
    if not _BRACES.search(pattern) or os.path.isdir(pattern) or not folder.missing([name]):
        if not place.is_folder():
            return folder, [name]
        return place, next(filter(None, map(place.files, suffixes)), [])
    files = expanded(pattern)
    root = os.path.commonpath([os.path.dirname(file) for file in files])
    place = Remote(replace(place.address, path=root)) if isinstance(place, Remote) else Local(root)
    names = [os.path.relpath(file, root) if root else file for file in files]
    lost = [place.locate(names[row]) for row in place.missing(names)]
    if lost:
        raise DataError(
            f"{len(lost)} of the {len(files)} shards of a pattern do not exist",
            where=path.partition("?")[0],
            found=", ".join(lost[:5]),
            fix="restore them, or correct data.source.path",
        )
    return place, names


def expanded(pattern: str) -> list[str]:
    """The names that a pattern such as `train-{0000..0009}.tar` or `{train,val}.tar` stands for, in its order."""
    parts = _BRACES.split(pattern)
    choices = [[part] if at % 2 == 0 else list(_choices(pattern, part)) for at, part in enumerate(parts)]
    count = 1
    for each in choices:
        count *= len(each)
    if count > _MOST_NAMES:
        raise DataError("the pattern stands for too many names", where=pattern, found=f"{count:,}")
    return ["".join(each) for each in product(*choices)]


def _choices(pattern: str, part: str) -> Iterator[str]:
    found = _RANGE.fullmatch(part)
    if found is None:
        if "," not in part:
            raise DataError(
                "braces hold a range or a list", where=pattern, found=f"{{{part}}}", valid="{0000..0009} or {train,val}"
            )
        yield from part.split(",")
        return
    first, last = map(int, found.groups())
    if last - first >= _MOST_NAMES:
        raise DataError("the pattern stands for too many names", where=pattern, found=part)
    yield from (str(number).zfill(len(found[1])) for number in range(first, last + 1))


def by_split(
    root: str, names: Sequence[str], given: Mapping[str, str] | str | None, suffix: str
) -> tuple[dict[str, str | None], Mapping[str, str] | None]:
    """The split of each file, by the first part of its path in which the files differ, and what the parts stand for."""
    parts = {name: Path(name).parts for name in names}
    depth = 0
    while all(len(each) > depth + 1 for each in parts.values()) and len({each[depth] for each in parts.values()}) == 1:
        depth += 1
    words = {name: _word(each[depth:], suffix) or (each[depth - 1] if depth else "") for name, each in parts.items()}
    if given == NO_SPLITS or (given is None and len(set(words.values())) == 1 and split_of(words[names[0]]) is None):
        return dict.fromkeys(names), None
    known = given if isinstance(given, Mapping) else {}
    found = {word: split_of(known.get(word, word)) for word in dict.fromkeys(words.values())}
    if None in found.values() and not known:
        found = {**found, **(shared_splits(list(found)) or {})}
    unknown = [word for word, split in found.items() if split is None]
    if unknown or isinstance(given, str):
        example = {word: split or "train" for word, split in found.items()}
        raise DataError(
            "the names of these files do not say which split they are",
            where=root,
            found=", ".join(map(repr, unknown[:6])) or str(given),
            valid="train, val and test, under any usual name",
            fix=f"say what is meant, such as {override(_SPLITS, example)} or, if all are one, {_SPLITS}={NO_SPLITS}",
        )
    return {name: found[word] for name, word in words.items()}, {w: s for w, s in found.items() if s}


def split_rows(shards: Shards, splits: Iterable[str | None]) -> dict[str, np.ndarray]:
    """The samples of each split, `[n] int64`, where `splits` is that of each shard."""
    rows: dict[str, list[np.ndarray]] = {}
    for at, split in enumerate(splits):
        if split is not None:
            rows.setdefault(split, []).append(shards.rows(at, at + 1))
    return {split: np.concatenate(parts) for split, parts in rows.items()}


def _word(parts: Sequence[str], suffix: str) -> str:
    return parts[0] if len(parts) > 1 else _NUMBERED.sub("", parts[0].removesuffix(suffix))
