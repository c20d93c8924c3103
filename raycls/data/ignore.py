"""Files of the data that are left out: patterns, and files that list patterns."""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate

from raycls.config.paths import expand
from raycls.config.write import override
from raycls.config.yaml_text import parse_value
from raycls.errors import DataError

__all__ = ["as_options", "ignorer", "leaving_out", "pattern_of", "patterns_of", "read_patterns", "write_patterns"]

_OPTION = "data.source.args.ignore"
_LONGEST = 400
"""Characters of an override that can still be read."""


_HALF = re.compile("[\ud800-\udfff]")
_ANY_HALF = "[!\x01-\ud7ff\ue000-\U0010ffff]"
"""A byte of a file name that is not UTF-8, which no config can hold: a character that is in no valid name."""


def pattern_of(key: str) -> str:
    """The pattern of `data.source.args.ignore` that matches the sample `key` and nothing else."""
    pattern = _HALF.sub(_ANY_HALF, glob.escape(key))
    return pattern if "/" in key else f"/{pattern}"  # a bare name would match files of that name in every folder


def ignorer(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether one of `patterns` matches a path or its last part; one that begins with `/`, the whole path alone.

    A list of a thousand damaged files is looked up, not tried one by one for each of a million images.
    """
    anywhere = _any(pattern for pattern in patterns if not pattern.startswith("/"))
    whole = _any(pattern for pattern in patterns if pattern.startswith("/"))

    def ignored(path: str) -> bool:
        return anywhere(path) or anywhere(path.rpartition("/")[2]) or whole(path) or whole(f"/{path}")

    return ignored


def _any(patterns: Iterable[str]) -> Callable[[str], bool]:
    literal: set[str] = set()
    others: list[str] = []
    for pattern in patterns:
        plain = re.sub(r"\[([*?[])\]", r"\1", pattern)
        if glob.escape(plain) == pattern:
            literal.add(plain)
        else:
            others.append(translate(pattern))
    match = re.compile("|".join(others)).match if others else None
    return lambda path: path in literal or (match is not None and match(path) is not None)


def patterns_of(ignore: str | Sequence[str], ignore_file: str | None = None) -> tuple[str, ...]:
    """The patterns that the arguments `ignore` and `ignore_file` of a source stand for."""
    patterns = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    return patterns if ignore_file is None else (*patterns, *read_patterns(ignore_file))


def read_patterns(file: str) -> tuple[str, ...]:
    """The patterns in `file`, one a line; a line that begins with a double quote is a JSON string.

    Blank lines and those that begin with `#` say nothing. DataError where the file cannot be read.
    """
    path = os.path.abspath(expand(file, where="data.source.args.ignore_file"))
    try:
        with open(path, encoding="utf-8-sig") as stream:
            lines = stream.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "cannot read the list of files to leave out",
            where=path,
            found=getattr(error, "strerror", None) or str(error),
            valid="UTF-8 text with one pattern per line",
            fix="check data.source.args.ignore_file",
        ) from error
    return tuple(_pattern(path, number, line) for number, line in enumerate(lines, 1) if line and line[0] != "#")


def _pattern(path: str, number: int, line: str) -> str:
    if not line.startswith('"'):
        return line
    try:
        return json.loads(line)
    except ValueError as error:
        raise DataError(
            "a line of the list of files to leave out is not a JSON string",
            where=f"{path}:{number}",
            found=line,
            valid='a pattern such as cat/1.jpg, or one in double quotes as JSON has it: "cat/1.jpg"',
        ) from error


def write_patterns(patterns: Sequence[str], title: str) -> str:
    """The text of a file that `read_patterns` reads; `title` becomes a comment in its first line."""
    return "".join([f"# {title}\n", *(f"{_line(pattern)}\n" for pattern in patterns)])


def _line(pattern: str) -> str:
    plain = pattern.isprintable() and not pattern.startswith(('"', "#"))
    return pattern if plain else json.dumps(pattern)


def leaving_out(
    paths: Sequence[str], images: Sequence[str], given: Sequence[str] = (), others: Sequence[str] = ()
) -> str:
    """The remedy that leaves out `paths`, and none of `images`, beside the patterns that are `given` already.

    Where they are too many to be named, it is a pattern for each suffix, and says how many files that leaves out:
    perhaps some of `others`, which are no images either.
    """
    exact = override(_OPTION, [*given, *map(pattern_of, paths)])
    if len(exact) <= _LONGEST:
        return f"leave them out with {exact}"
    patterns = sorted({f"*{glob.escape(os.path.splitext(path)[1])}" for path in paths})
    ignored = ignorer(patterns)
    short = override(_OPTION, [*given, *patterns])
    if "*" in patterns or len(short) > _LONGEST or any(map(ignored, _and_folders(images))):
        return f"list them in a file, one a line, and set {_OPTION}_file to its path"
    count = sum(map(ignored, {*paths, *others}))
    return f"leave out these {count:,} files, and no image of a class, with {short}"


def as_options(remedy: str) -> str:
    """`remedy`, which may name the override of `leaving_out`, with options of `raycls init` in its place."""
    found = re.search(rf"'?{re.escape(_OPTION)}=.*", remedy, re.DOTALL)
    if found is None:
        return remedy.partition(", or list them in a file")[0]
    patterns: list[str] = parse_value(shlex.split(found[0])[0].partition("=")[2])
    return remedy[: found.start()] + shlex.join(f"--ignore={pattern}" for pattern in patterns)


def _and_folders(paths: Iterable[str]) -> set[str]:
    """`paths` and every folder around them: a pattern that matches a folder leaves out all in it."""
    found: set[str] = set()
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return found
