"""What was typed after `raycls doctor`: perhaps a config, and options that replace those of the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raycls.config.load import load, load_text
from raycls.config.sections.run import Run
from raycls.config.write import word
from raycls.errors import ConfigError
from raycls.names import name_problems

__all__ = ["Asked", "read", "refuse_dashboard"]


@dataclass(frozen=True)
class Asked:
    """What is to be examined: the cluster, and where a config or its storage is given, a run."""

    run: Run | None = None
    storage: str | None = None
    """Without a config it is known where `run.storage=...` was typed."""
    seconds: float = 60.0
    """Deadline of each question to a node."""


def read(words: Sequence[str], seconds: float = 60.0) -> Asked:
    """Raises `ConfigProblemsError`."""
    file = config_of(words)
    if file is not None:
        run = load(file, words[1:], names=name_problems).run
        return Asked(run, run.run.storage, seconds)
    run = load_text("", "command line", words).run
    named = any(word.partition("=")[0].strip() in ("run.storage", "run") for word in words)
    return Asked(None, run.run.storage if named else None, seconds)


def config_of(words: Sequence[str]) -> str | None:
    """The config that was typed, if any."""
    return words[0] if words and "=" not in words[0] else None


def refuse_dashboard(address: str | None, words: Sequence[str], say: Callable[[str], None]) -> None:
    """Refuse the URL of a dashboard, which takes jobs; the doctor joins Ray itself. Raises ConfigError.

    `say` gets a note where only Ray's variable for jobs names a cluster, and so this machine is examined.
    """
    origin, named = ("--address", address) if address else ("RAY_ADDRESS", os.environ.get("RAY_ADDRESS", ""))
    there = " ".join(["doctor", *map(word, words)])
    if named.lower().startswith(("http://", "https://")):
        option = f" --address {word(named)}" if address else ""
        raise ConfigError(
            "a dashboard takes jobs, and the doctor joins Ray itself",
            where=origin,
            found=named,
            valid="host:port of a Ray, usually port 6379 of its head",
            fix=f"raycls submit{option} -- {there}",
        )
    if not named and os.environ.get("RAY_API_SERVER_ADDRESS"):
        say(f"note: this examines this machine; the cluster of RAY_API_SERVER_ADDRESS: raycls submit -- {there}")
