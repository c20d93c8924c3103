"""What every command needs: its config, its screen, the words that were typed, and what must be set before Ray.

Nothing heavy is imported before a command needs it, so `--help` and `config` answer at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from raycls.config.paths import expand
from raycls.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from raycls.config.load import Loaded
    from raycls.config.sections.run import Run
    from raycls.config.sections.track import TrackConfig
    from raycls.launch.predictions.on_ray import OnRay
    from raycls.screen.run import Display

__all__ = [
    "AsJson",
    "Overrides",
    "asks_for_ray",
    "display",
    "join",
    "load_config",
    "out_file",
    "prepare",
    "say",
    "screen",
    "typed",
]

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PATH=VALUE]...", help="Options that replace those of the file, such as optim.lr=3e-4."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def load_config(file: str, overrides: list[str] | None) -> Loaded:
    """The config with every error reported at once: of the schema, and in the names that it holds.

    `file` is a file, or the URI of one that a run folder keeps, such as `s3://bucket/runs/pets/config.yaml`.
    """
    from raycls.config.load import load, load_text
    from raycls.names import name_problems

    if "://" in file:
        from raycls.run.storage.store import Store

        store, name = Store.around(file)
        store.check()
        data = store.find_bytes(name)
        if data is None:
            raise ConfigError("there is no such config", where=store.describe(name), found="no such file")
        return load_text(data.decode(), store.describe(name), overrides or (), names=name_problems)
    return load(file, overrides or (), names=name_problems)


def out_file(out: str, suffix: str, what: str, option: str = "--out") -> Path:
    """The file that `option` names, looked at before any work is done for it. `what` says why it ends in `suffix`.

    ConfigError where it does not, or where no file of that name can be written.
    """
    file = Path(expand(out, where=option))
    problem = None
    if file.suffix.lower() != suffix:
        problem = what, f"a name that ends in {suffix}"
    elif not file.parent.is_dir():
        problem = f"there is no folder {file.parent}", "a file in a folder that is there"
    elif file.is_dir():
        problem = "there is a folder of this name", "a file that is new or may be replaced"
    if problem is not None:
        raise ConfigError(problem[0], where=option, found=str(file), valid=problem[1])
    return file


def prepare() -> None:
    """Set what must be set before torch and Ray are imported; a job first compares itself with its submission."""
    from raycls.cluster.environment import prepare_environment
    from raycls.jobs import note as submitted

    submitted.check(say)
    prepare_environment()


def asks_for_ray(run: Run, overrides: Sequence[str] | None) -> bool:
    """Whether a command that needs no Ray is to compute there: `scale.workers` was typed, and is more than 0."""
    return any(each.startswith("scale.workers=") for each in overrides or ()) and run.scale.max_workers > 0


def join(run: Run, say: Callable[[str], None]) -> AbstractContextManager[OnRay]:
    """Join or start the Ray that computes parts, for the length of the block."""
    from raycls.launch.predictions.on_ray import on_ray  # imports Ray

    return on_ray(run, say)


def display(track: TrackConfig, stream: IO[str] | None = None) -> Display:
    """The display of a run on `stream`, or where `screen` says."""
    from raycls.screen.run import Display

    return Display(screen() if stream is None else stream, track.print_every.seconds or 0.0)


def screen() -> IO[str]:
    """A live display belongs on the terminal (stderr); plain lines are what the command prints (stdout)."""
    return sys.stderr if sys.stdout.isatty() and sys.stderr.isatty() else sys.stdout


def typed() -> list[str]:
    """The words that were typed, for the run folder and for the line that says how to resume."""
    program = Path(sys.argv[0]).name
    start = ["python", "-m", "raycls"] if program == "__main__.py" else [program]
    return [*start, *sys.argv[1:]]


def say(text: str) -> None:
    """A line on stderr. Where nobody reads any more, the exit code still tells."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        return
