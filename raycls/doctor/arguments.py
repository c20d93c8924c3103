"""What was typed after `raycls doctor`: perhaps a config, and options that replace those of the file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from raycls.config.load import load, load_text
from raycls.config.sections.run import Run
from raycls.names import name_problems

__all__ = ["Given", "read"]


@dataclass(frozen=True)
class Given:
    """`run` is None without a config; `storage` is then known where `run.storage=...` was typed."""

    words: tuple[str, ...] = ()
    run: Run | None = None
    storage: str | None = None
    directory: str | None = None
    """The working directory, where a config of it is needed."""


def read(words: Sequence[str]) -> Given:
    """Raises `ConfigProblemsError`."""
    if words and "=" not in words[0]:
        run = load(words[0], words[1:], names=name_problems).run
        return Given(tuple(words), run, run.run.storage, os.getcwd())
    run = load_text("", "command line", words).run
    named = any(word.partition("=")[0].strip() in ("run.storage", "run") for word in words)
    return Given(tuple(words), None, run.run.storage if named else None)
