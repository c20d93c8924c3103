"""RUN on the command line: the folder of a run, or its name; and the overrides among the words that follow it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from raycls.config.names.suggest import suggest
from raycls.config.paths import expand
from raycls.errors import ConfigError

__all__ = ["RunArgument", "Threshold", "ThresholdsFile", "parted", "run_folder"]

_OVERRIDE = re.compile(r"[a-z_]+(?:\.\w+)+=")

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or the name of one under runs/.")]
Threshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Of any number of classes per image: the least probability of each. Default: 0.5"),
]
ThresholdsFile = Annotated[
    str | None,
    typer.Option(
        "--thresholds",
        metavar="FILE",
        help="One for each class, as JSON; stored: those of raycls eval RUN --split val.",
    ),
]


def run_folder(run: str) -> str:
    """The folder or URI that RUN names; ConfigError with the runs that are there."""
    if "://" in run:
        return run
    run, storage = expand(run, where="RUN"), Path("runs")
    bare = Path(run).name == run  # a name means the run of that name, whatever else is called so
    for folder in (storage / run, Path(run)) if bare else (Path(run), storage / run):
        if (folder / "config.yaml").is_file():
            return str(folder)
    known = sorted(path.parent.name for path in storage.glob("*/config.yaml"))
    near = suggest(run, known)
    raise ConfigError(
        f"there is no run {run}",
        where=str(Path.cwd()),
        found=f"{run} is a folder without config.yaml, so it is no run" if Path(run).is_dir() else None,
        valid=", ".join(known[:20]) or "no run in the folder runs yet",
        fix=f"did you mean {near}?" if near else "give the path of the run folder",
    )


def parted(words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The words that are names, and the overrides among them (`scale.workers=0`); a file of such a name is a name."""
    names: list[str] = []
    overrides: list[str] = []
    for word in words:
        (overrides if _OVERRIDE.match(word) and not os.path.exists(word) else names).append(word)
    return names, tuple(overrides)
