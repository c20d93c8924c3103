"""`recipe:NAME`: a config of `configs/` that comes with the installation, wherever one stands."""

from __future__ import annotations

import os
from pathlib import Path

from raycls.config.names.suggest import suggest
from raycls.config.paths import expand
from raycls.errors import ConfigError

__all__ = ["PREFIX", "file_of", "names"]

PREFIX = "recipe:"


def names() -> list[str]:
    """What may stand after `recipe:`."""
    return sorted(file.stem for file in _folder().glob("*.yaml"))


def file_of(config: str | os.PathLike[str], *, where: str | None = None) -> Path:
    """The file that a CONFIG of the command line, or an `extends`, names. ConfigError where there is no such recipe."""
    text = os.fspath(config)
    if not text.startswith(PREFIX):
        return Path(expand(text, where=where))
    name, known = text.removeprefix(PREFIX), names()
    if name not in known:
        near = suggest(name, known)
        raise ConfigError(
            "there is no such recipe",
            where=where or "CONFIG",
            found=text,
            valid=", ".join(known),
            fix=None if near is None else f"did you mean {PREFIX}{near}?",
        )
    return _folder() / f"{name}.yaml"


def _folder() -> Path:
    """`configs/` inside of an installed package, or beside that of a checkout."""
    package = Path(__file__).parents[2]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
