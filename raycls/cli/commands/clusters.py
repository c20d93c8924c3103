"""`raycls cluster up`, `down` and `show`: thin words over `ray up` and `ray down`, which say first what they will do.

Nothing heavy is imported before one of them runs.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from raycls.errors import EXIT_DONE, EXIT_FAILED, ConfigError

__all__ = ["register"]

File = Annotated[str, typer.Argument(metavar="FILE", help="A cluster file of `ray up`, see cluster/.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    cluster = typer.Typer(
        help="Start, end and describe the cluster of a file.", no_args_is_help=True, rich_markup_mode=None
    )
    for command in (show, up, down):
        cluster.command()(command)
    app.add_typer(cluster, name="cluster")


def show(file: File) -> None:
    """Check FILE and say what its cluster would be: machines at most, spot or not, GPUs, what is open."""
    from raycls.cluster.files import up as cluster_up
    from raycls.cluster.files.check import check

    typer.echo("\n".join(cluster_up.plan_lines(check(file))))


def up(file: File, yes: Yes = False) -> None:
    """Start the cluster of FILE with `ray up`, or bring a running one to what FILE says."""
    from raycls.cluster.files import up as cluster_up
    from raycls.cluster.files.check import check

    checked = check(file)
    cluster_up.ready(checked)
    typer.echo("\n".join(cluster_up.plan_lines(checked)))
    _confirm("start it?", yes)
    raise typer.Exit(EXIT_DONE if cluster_up.up(checked) == 0 else EXIT_FAILED)


def down(file: File, yes: Yes = False) -> None:
    """End the cluster of FILE with `ray down`, and whatever runs on it."""
    from raycls.cluster.files import up as cluster_up
    from raycls.cluster.files.check import check
    from raycls.screen.working import Working

    checked = check(file)
    typer.echo(cluster_up.plan_lines(checked)[0])
    _confirm("end it, and whatever runs on it?", yes)
    with Working("ending the cluster"):
        code = cluster_up.down(checked)
    raise typer.Exit(EXIT_DONE if code == 0 else EXIT_FAILED)


def _confirm(question: str, yes: bool) -> None:
    """Go on where the user says so; without a terminal to ask on, the command line must say it."""
    sys.stdout.flush()  # before what Ray prints
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("cannot prompt: stdin is not a terminal", fix="--yes skips the question")
    if not typer.confirm(question):
        raise typer.Exit(EXIT_FAILED)
