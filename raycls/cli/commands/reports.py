"""`raycls report` and `curves`: what a run was and what came of it, for people who look at it."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Annotated

import typer

from raycls.cli.run_argument import RunArgument, run_folder

__all__ = ["register"]

_CURVE_LINES = 10


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(report)
    app.command()(curves)


def report(
    run: RunArgument,
    live: Annotated[
        bool, typer.Option("--live", help="Serve the curves on this machine while the run trains, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --live. Default: a free one.")] = 0,
) -> None:
    """Write report.html into the run folder: one file with its curves, results, errors and config."""
    folder = run_folder(run)
    if live:
        return _live(folder, port)
    from raycls.report.page.report import report as page
    from raycls.report.runs import tell
    from raycls.run.folder import RunFolder
    from raycls.screen.working import Working

    with Working("writing the report"):
        opened = RunFolder(folder)
        opened.store.write_bytes(RunFolder.REPORT, page(tell(opened), None, None, lambda wanted: ({}, "")))
    typer.echo(f"wrote {opened.store.describe(RunFolder.REPORT)}")
    return None


def _live(folder: str, port: int) -> None:
    from raycls.report.live import LiveServer
    from raycls.run.folder import RunFolder

    server = LiveServer(RunFolder(folder), port)
    typer.echo(f"live at {server.url}    (Ctrl-C ends it)")
    sys.stdout.flush()
    try:
        server.serve()
    except KeyboardInterrupt:
        typer.echo("ended", err=True)
    finally:
        server.release()


def curves(
    run: RunArgument,
    width: Annotated[
        int | None, typer.Option(min=40, max=400, help="Columns. Default: those of the terminal, at most 120.")
    ] = None,
    height: Annotated[int, typer.Option(min=4, max=60, help="Lines of each chart.")] = _CURVE_LINES,
    every: Annotated[bool, typer.Option("--all", help="Speed, learning rate and gradient norm too.")] = False,
) -> None:
    """Draw the curves of a run in the terminal: its loss, and what it measured, over the epochs."""
    from raycls.report.runs import tell
    from raycls.report.terminal import draw
    from raycls.run.folder import RunFolder

    folder = run_folder(run)
    told = tell(RunFolder(folder))
    columns = width or min(120, shutil.get_terminal_size((100, 24)).columns)
    braille = "utf" in (sys.stdout.encoding or "").lower()
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    chosen = [
        panel for panel in told.panels if every or any(line.marked for line in panel.lines) or panel.key == "loss"
    ]
    lines = [f"{told.name}: {told.state}"]
    for panel in chosen:
        lines += ["", *draw(panel, width=columns, height=height, colour=colour, braille=braille)]
    typer.echo("\n".join([*lines, *([] if chosen else ["nothing was measured yet"])]))
