"""`~` at the beginning of a path that a user writes: every option that takes a path goes through here."""

from __future__ import annotations

import os

from raycls.errors import ConfigError

__all__ = ["expand"]


def expand(path: str | os.PathLike[str], *, where: str | None = None) -> str:
    """`path` with `~` and `~user` at its beginning as the home folders they stand for; all else stays as it is.

    A file that is really named `~` is `./~`. ConfigError where there is no such user and no file of that name.
    """
    text = os.fspath(path)
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text and not os.path.lexists(text):
        user = text.split("/", 1)[0]
        raise ConfigError(
            f"there is no home folder {user}",
            where=where,
            found=text,
            valid="~ for your own home folder, ~USER for that of a user of this machine",
            fix=f"write the whole path, or ./{text} for a file of that name",
        )
    return expanded
