"""`raycls report` and `curves`: what a run was and what came of it, for people who look at it."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raycls.cli.command import display, prepare, say
from raycls.cli.run_argument import RunArgument, run_folder
from raycls.config.write import word
from raycls.errors import ConfigError, DataError, RayclsError
from raycls.run.folder import RunFolder
from raycls.run.storage.store import Store

if TYPE_CHECKING:
    from raycls.report.evaluated import Evaluated
    from raycls.report.runs import Told

__all__ = ["register"]

_CURVE_LINES = 10
_COMPARISON = "comparison.html"


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(report)
    app.command()(curves)


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Run folders, or names below runs/. Several are compared with the first."
        ),
    ],
    split: Annotated[str | None, typer.Option(help="train, val or test. Default: test where the data has it.")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help=f"The page. Default: {RunFolder.REPORT} in the run folder, {_COMPARISON} of several."
        ),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help=f"Write a model card in Markdown too, {RunFolder.CARD} beside the page.")
    ] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Serve the curves on this machine while the run trains, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --live. Default: a free one.")] = 0,
) -> None:
    """Write one HTML page about a run: its curves, results, errors with pictures, and config. Or compare several runs.

    What `raycls eval` has not measured yet is evaluated first.
    """
    folders = [run_folder(run) for run in runs]
    if live:
        return _live(folders, port)
    prepare()
    if len(folders) > 1:
        return _compare(folders, split, out or _COMPARISON)
    from raycls.report.page.report import report as page
    from raycls.screen.working import Working

    told, evaluated, why = _evaluated(folders[0], split)
    with Working("writing the report"):
        from raycls.report.evaluated import read_samples
        from raycls.session.trained.pictures import pictures

        samples = read_samples(told.folder, evaluated) if evaluated else None
        text = page(told, evaluated, samples, partial(pictures, told.config.data), why_none=why)
        where = _write(told.folder, out, RunFolder.REPORT, text)
        lines = [f"wrote {where}", *([_card(told, evaluated, out)] if card else [])]
    typer.echo("\n".join(lines))
    return None


def _card(told: Told, evaluated: Evaluated | None, out: str | None) -> str:
    """Write the model card, unless there is one: people add to it. A line about it."""
    from raycls.report.card import card

    beside = None if out is None else str(Path(out).with_name(RunFolder.CARD))
    there = told.folder.store.exists(RunFolder.CARD) if beside is None else Path(beside).exists()
    if there:
        where = beside or told.folder.store.describe(RunFolder.CARD)
        return f"kept  {where}, which may have been edited: move it away to have it written anew"
    return f"wrote {_write(told.folder, beside, RunFolder.CARD, card(told, evaluated))}"


def _compare(folders: list[str], split: str | None, out: str) -> None:
    from raycls.report.evaluated import read_samples
    from raycls.report.page.comparison import Candidate, comparison, verdicts
    from raycls.screen.working import Working

    candidates: list[Candidate] = []
    for folder in folders:
        told, evaluated, why = _evaluated(folder, split)
        samples = read_samples(told.folder, evaluated) if evaluated else None
        if evaluated is None or samples is None:
            raise DataError(
                "a run without an evaluation cannot be compared",
                where=folder,
                found=why or "no predictions of its images",
                fix=f"evaluate it: raycls eval {word(folder)}",
            )
        split = evaluated.split
        candidates.append(Candidate(told, told.name, dict(evaluated.summary), samples))
    if len({each.label for each in candidates}) < len(candidates):
        candidates = [replace(each, label=each.told.folder.store.describe()) for each in candidates]
    with Working("comparing"):
        from raycls.session.trained.pictures import pictures

        found = verdicts(candidates)
        data = candidates[0].told.config.data
        where = _write(candidates[0].told.folder, out, "", comparison(candidates, found, partial(pictures, data)))
    typer.echo("\n".join([*(verdict.sentence for verdict in found), f"wrote {where}"]))


def _evaluated(folder: str, split: str | None) -> tuple[Told, Evaluated | None, str]:
    """The run, the evaluation that is there or is made now, and why there is none."""
    from raycls.config.sections.track import TrackConfig
    from raycls.report.evaluated import find_evaluated
    from raycls.report.runs import tell

    told = tell(RunFolder(folder))
    found = find_evaluated(told, split)
    if found is not None:
        return told, found, ""
    with display(TrackConfig(), sys.stderr) as shown:
        from raycls.launch import trainer
        from raycls.session.scoring.options import Scoring

        try:
            trainer.evaluate(folder, split=split, scoring=Scoring(), display=shown)
        except RayclsError as error:
            if split is not None:
                raise
            say(f"raycls: not evaluated: {error}")
            where = f" ({error.where})" if error.where else ""
            return told, None, f"Not evaluated: {error.what}{where}."
    return told, find_evaluated(told, split), ""


def _write(folder: RunFolder, out: str | None, name: str, data: bytes) -> str:
    """Write into the run folder, or where `out` says; where that is."""
    if out is None:
        folder.store.write_bytes(name, data)
        return folder.store.describe(name)
    store = Store(Path(out).absolute().parent)
    store.write_bytes(Path(out).name, data)
    return out


def _live(folders: list[str], port: int) -> None:
    if len(folders) > 1:
        raise ConfigError("one run at a time is followed", where="--live", found=f"{len(folders)} runs")
    from raycls.report.live import LiveServer

    server = LiveServer(RunFolder(folders[0]), port)
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
