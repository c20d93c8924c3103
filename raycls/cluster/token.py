"""The token of a Ray cluster: where it is found, and that nobody else can read it. It is never shown."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from raycls.errors import ConfigError

__all__ = ["Token", "find_token", "token_file"]


@dataclass(frozen=True)
class Token:
    """A token and where it was found."""

    value: str = field(repr=False)
    origin: str


def token_file() -> Path | None:
    """The file in which Ray would look for the token; None where `RAY_AUTH_TOKEN` is the token."""
    if os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return None
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def find_token(say: Callable[[str], None]) -> Token | None:
    """The token that Ray would use: `RAY_AUTH_TOKEN`, the file of `RAY_AUTH_TOKEN_PATH`, or `~/.ray/auth_token`.

    A file that others can read is closed to them, which `say` is told. None where there is no token; ConfigError
    where `RAY_AUTH_TOKEN_PATH` names a file that cannot be read.
    """
    path = token_file()
    if path is None:
        return Token(os.environ["RAY_AUTH_TOKEN"].strip(), "RAY_AUTH_TOKEN")
    try:
        value = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        if os.environ.get("RAY_AUTH_TOKEN_PATH"):
            raise _unreadable(path, "there is no such file") from error
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or "it is no text") from error
    _close(path, say)
    return Token(value, str(path)) if value else None


def _close(path: Path, say: Callable[[str], None]) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o077:
        return
    try:
        path.chmod(0o600)
    except OSError:  # a mounted secret, or somebody else's file
        say(f"warning: the token file {path} has mode {mode:04o}: others can read it, and run anything on the cluster")
    else:
        say(f"the token file {path} had mode {mode:04o} and could be read by others: it has 0600 now")


def _unreadable(path: Path, found: str) -> ConfigError:
    return ConfigError(
        "the token file of the cluster cannot be read",
        where=f"{path} (RAY_AUTH_TOKEN_PATH)",
        found=found,
        fix="name the file that holds the token, or unset RAY_AUTH_TOKEN_PATH to use ~/.ray/auth_token",
    )
