"""`raycls report` and `curves`: what a run was and what came of it, for people who look at it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raycls.cli.command import display, prepare
from raycls.cli.run_argument import parted, run_folder
from raycls.config.write import word
from raycls.errors import CheckpointError, ConfigError, DataError, RayclsError
from raycls.run.folder import RunFolder
from raycls.run.storage.store import Store

if TYPE_CHECKING:
    from raycls.config.sections.data import DataConfig
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
            metavar="RUN... [PATH=VALUE]...",
            help="Run folders, or names below runs/. Several are compared with the first. Options such as "
            "scale.workers=0 are for the evaluation.",
        ),
    ],
    split: Annotated[str | None, typer.Option(help="train, val or test. Default: test where the data has it.")] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="best, last or step-N. Default: as evaluate.keep says.")
    ] = None,
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

    What `raycls eval` has not measured yet is evaluated first. Where that fails, the page has the rest, and the exit
    code is that of the error.
    """
    names, overrides = parted(runs)
    if not names:
        raise ConfigError("there is no RUN", valid="a run folder, or the name of one under runs/")
    folders = [run_folder(name) for name in names]
    if live:
        return _live(folders, port)
    prepare()
    asked = _Asked(split, weights, overrides)
    if len(folders) > 1:
        return _compare(folders, asked, out or _COMPARISON)
    from raycls.report.page.report import report as page
    from raycls.screen.working import Working

    found = _found(folders[0], asked)
    told, evaluated = found.told, found.evaluated
    with Working("writing the report"):
        from raycls.report.evaluated import read_samples
        from raycls.session.trained.pictures import pictures

        samples = read_samples(told.folder, evaluated) if evaluated else None
        text = page(told, evaluated, samples, partial(pictures, found.data), why_none=found.why_none)
        where = _write(told.folder, out, RunFolder.REPORT, text)
        lines = [f"wrote {where}", *([_card(told, evaluated, out)] if card else [])]
    typer.echo("\n".join(lines))
    if found.error is not None:
        found.error.what = f"the page has no evaluation: {found.error.what}"
        raise found.error
    return None


@dataclass(frozen=True)
class _Asked:
    """Which evaluation a report is about."""

    split: str | None
    weights: str | None
    overrides: tuple[str, ...]
    """On the config of the run, for an evaluation that has to be made."""


@dataclass(frozen=True)
class _Found:
    """A run and its evaluation."""

    told: Told
    data: DataConfig
    """Where its images are."""
    evaluated: Evaluated | None
    error: RayclsError | None
    """Why there is no evaluation."""

    @property
    def why_none(self) -> str:
        if self.error is None:
            return ""
        where = f" ({self.error.where})" if self.error.where else ""
        return f"Not evaluated: {self.error.what}{where}."


def _card(told: Told, evaluated: Evaluated | None, out: str | None) -> str:
    """Write the model card, unless there is one: people add to it. A line about it."""
    from raycls.report.card import card

    beside = None if out is None else str(Path(out).with_name(RunFolder.CARD))
    there = told.folder.store.exists(RunFolder.CARD) if beside is None else Path(beside).exists()
    if there:
        where = beside or told.folder.store.describe(RunFolder.CARD)
        return f"kept  {where}, which may have been edited: move it away to have it written anew"
    return f"wrote {_write(told.folder, beside, RunFolder.CARD, card(told, evaluated))}"


def _compare(folders: list[str], asked: _Asked, out: str) -> None:
    from raycls.report.evaluated import read_samples
    from raycls.report.page.comparison import Candidate, comparison, verdicts
    from raycls.screen.working import Working

    candidates: list[Candidate] = []
    data: DataConfig | None = None
    for folder in folders:
        found = _found(folder, asked)
        told, evaluated = found.told, found.evaluated
        if found.error is not None:
            found.error.what = f"a run without an evaluation cannot be compared: {found.error.what}"
            raise found.error
        samples = read_samples(told.folder, evaluated) if evaluated else None
        if evaluated is not None and "map_classes" in evaluated.summary:
            raise ConfigError(
                "runs whose images have any number of classes are not compared: each of the tests is about one class",
                where=folder,
                found=f"task.name: {told.config.task.name}",
                fix="report each of them by itself, and put their curves into one chart: raycls curves RUN RUN",
            )
        if evaluated is None or samples is None:
            split, weights = (evaluated.split, evaluated.summary["weights"]["name"]) if evaluated else ("test", "best")
            raise DataError(
                "a run without an evaluation cannot be compared",
                where=folder,
                found="no predictions of its images",
                fix=f"evaluate it: raycls eval {word(folder)} --split {split} --weights {weights}",
            )
        asked, data = replace(asked, split=evaluated.split), data or found.data
        candidates.append(Candidate(told, told.name, dict(evaluated.summary), samples))
    labels = _labels([each.told for each in candidates])
    candidates = [replace(each, label=label) for each, label in zip(candidates, labels, strict=True)]
    with Working("comparing"):
        from raycls.session.trained.pictures import pictures

        against = verdicts(candidates)
        shown = partial(pictures, data or candidates[0].told.config.data)
        where = _write(candidates[0].told.folder, out, "", comparison(candidates, against, shown))
    typer.echo("\n".join([*(verdict.sentence for verdict in against), f"wrote {where}"]))


def _labels(told: Sequence[Told]) -> list[str]:
    """The names of runs; their folders where two have the same name."""
    names = [each.name for each in told]
    return names if len(set(names)) == len(names) else [each.folder.store.describe() for each in told]


def _found(folder: str, asked: _Asked) -> _Found:
    """The run with the evaluation that is there or is made now."""
    from raycls.report.evaluated import find_evaluated
    from raycls.report.runs import tell

    told = tell(RunFolder(folder))
    run, weights = told.config, None
    if asked.overrides:
        from raycls.session.scoring.opened import overridden

        run, _ = overridden(told.text, told.folder.store.describe(RunFolder.CONFIG), asked.overrides, None)
    if asked.weights is not None:
        from raycls.run.kept import choose

        weights = choose(told.folder, asked.weights).to_dict()
    found = find_evaluated(told, asked.split, weights)
    if found is not None:
        return _Found(told, run.data, found, None)
    try:
        summary = _evaluate(folder, asked)
    except RayclsError as error:
        return _Found(told, run.data, None, error)
    return _Found(told, run.data, find_evaluated(told, summary["split"], summary["weights"]), None)


def _evaluate(folder: str, asked: _Asked) -> dict[str, Any]:
    from raycls.config.sections.track import TrackConfig

    with display(TrackConfig(), sys.stderr) as shown:
        from raycls.launch import trainer
        from raycls.session.scoring.options import UNWRITTEN, Scoring

        summary = trainer.evaluate(
            folder,
            split=asked.split,
            weights=asked.weights,
            scoring=Scoring(),
            overrides=asked.overrides,
            display=shown,
        )
    if UNWRITTEN in summary:
        raise CheckpointError(**{**summary[UNWRITTEN], "fix": "make room or get permission there: a report reads them"})
    return summary


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
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run folders, or names below runs/. Several share the charts.")
    ],
    width: Annotated[
        int | None, typer.Option(min=40, max=400, help="Columns. Default: those of the terminal, at most 120.")
    ] = None,
    height: Annotated[int, typer.Option(min=4, max=60, help="Lines of each chart.")] = _CURVE_LINES,
    every: Annotated[bool, typer.Option("--all", help="Speed, learning rate and gradient norm too.")] = False,
) -> None:
    """Draw the curves of runs in the terminal: the loss, and what was measured, over the epochs.

    Of several runs each chart has the evaluations, or what was measured in training where there are none.
    """
    from raycls.report.runs import tell
    from raycls.report.series import together
    from raycls.report.terminal import draw

    told = [tell(RunFolder(folder)) for folder in map(run_folder, runs)]
    columns = width or min(120, shutil.get_terminal_size((100, 24)).columns)
    braille = "utf" in (sys.stdout.encoding or "").lower()
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    names = _labels(told)
    several = [(name, each.panels) for name, each in zip(names, told, strict=True)]
    charts = told[0].panels if len(told) == 1 else together(several)
    chosen = [panel for panel in charts if every or any(line.marked for line in panel.lines) or panel.key == "loss"]
    lines = [f"{name}: {each.state}" for name, each in zip(names, told, strict=True)]
    for panel in chosen:
        lines += ["", *draw(panel, width=columns, height=height, colour=colour, braille=braille)]
    typer.echo("\n".join([*lines, *([] if chosen else ["nothing was measured yet"])]))
