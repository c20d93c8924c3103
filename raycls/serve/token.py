"""The token that requests have to carry: from the environment, from a file that nobody else can read, or made anew."""

from __future__ import annotations

import ipaddress
import os
import secrets
import shlex
import stat
from dataclasses import dataclass, field
from pathlib import Path

from raycls.errors import ConfigError

__all__ = ["VARIABLE", "Access", "choose"]

VARIABLE = "RAYCLS_SERVE_TOKEN"

_LENGTH = 16
"""Characters that a token has at least."""


@dataclass(frozen=True)
class Access:
    """Who may ask."""

    token: str | None = field(repr=False)
    """None where everybody on this machine may."""
    origin: str
    """Where it is from; empty where it was made now, and has to be shown once."""


def choose(*, host: str, file: str | None, off: bool) -> Access:
    """The token: that of `file`, of RAYCLS_SERVE_TOKEN, or a new one. ConfigError where it cannot be used, or where
    none is wanted (`off`) although other machines can reach the server."""
    if off:
        if file is not None:
            raise ConfigError("a token file and no token at all cannot both be meant", where="--no-token, --token-file")
        if not _is_loopback(host):
            raise ConfigError(
                "a server that other machines can reach must have a token",
                where="--no-token",
                found=f"--host {host}",
                valid="without a token only 127.0.0.1",
                fix="leave out --no-token",
            )
        return Access(None, "off")
    if file is not None:
        return Access(_checked(_read(Path(file)), file), file)
    if VARIABLE in os.environ:
        return Access(_checked(os.environ[VARIABLE].strip(), VARIABLE), VARIABLE)
    return Access(secrets.token_urlsafe(24), "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may lead anywhere
        return host == "localhost"


def _read(path: Path) -> str:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError("the token file cannot be read", where=str(path), found=found) from error
    if mode & 0o077:
        raise ConfigError(
            "the token file can be read by others",
            where=str(path),
            found=f"mode {mode:04o}",
            valid="mode 0600",
            fix=f"chmod 600 {shlex.quote(str(path))}",
        )
    return text


def _checked(token: str, origin: str) -> str:
    if len(token) < _LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            "the token cannot be used",
            where=origin,
            found=f"{len(token)} characters" if len(token) < _LENGTH else "characters that a header does not carry",
            valid=f"at least {_LENGTH} printable ASCII characters without spaces",
            fix="leave it out: raycls makes one and prints it",
        )
    return token
