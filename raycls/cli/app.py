"""The command line: its groups of commands, and every error as one block with its exit code.

A new group is a file in `commands/` with a function `register`, and a name in the tuple below.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from typing import Annotated, Any

import typer

from raycls import __version__
from raycls.cli.command import say
from raycls.cli.commands import (
    bench,
    clusters,
    config,
    doctor,
    export,
    jobs,
    pack,
    reports,
    runs,
    searches,
    serve,
    starts,
)
from raycls.cli.commands.planned import augment, data, lr_find, model
from raycls.cli.commands.trained import average, evaluate, folds, predict, probe, prune
from raycls.errors import EXIT_DONE, EXIT_FAILED, RayclsError

__all__ = ["app", "main"]

app = typer.Typer(
    name="raycls",
    help="Train image classifiers on Ray: the same weights, to the bit, on any number of workers.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line and leave with its exit code; an unexpected error leaves a file with its traceback."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail_on_text(stream)
    try:
        typer.main.get_command(app)(prog_name="raycls")
    except RayclsError as error:
        if error.fix and "--new" in sys.argv:  # which would start anew once more
            error.fix = error.fix.replace("rerun the command", "rerun the command without --new")
        say(f"raycls: {error}")
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except Exception as error:  # noqa: BLE001 - the last resort: the user gets one line, the file all of it
        say(f"raycls: unexpected {type(error).__name__}: {error}\n  trace: {_write_traceback(error)}")
        code = EXIT_FAILED
    else:
        code = EXIT_DONE
    sys.exit(_flushed(code))


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"raycls {__version__}")
        raise typer.Exit


for group in (
    *(runs, evaluate, predict, export, prune, average, probe, bench, serve, reports, folds),
    *(lr_find, searches, config, augment, model, starts, data, pack, doctor, jobs, clusters),
):
    group.register(app)


def _write_traceback(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="raycls-", suffix=".traceback.txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
    except OSError as problem:  # no room for the file: the traceback itself is the last resort
        return f"no file could be written ({problem}):\n{text}"
    return file.name


def _never_fail_on_text(stream: Any) -> None:
    """A class name that the terminal's encoding lacks is shown escaped instead of ending the command."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _flushed(code: int) -> int:
    """Flush what is left; where the reader went away early, as `head` does, leave without a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
