"""`raycls train`, `eval` and `ledger`: the commands about one run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Literal

import typer

from raycls.cli.command import AsJson, Overrides, display, load_config, prepare, typed
from raycls.cli.run_argument import RunArgument, run_folder
from raycls.errors import EXIT_DONE, EXIT_FAILED

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(train)
    app.command("eval")(evaluate)
    app.command()(ledger)


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, see configs/.")],
    overrides: Overrides = None,
    new: Annotated[
        bool, typer.Option("--new", help="Start again: a run folder that is there is renamed, never deleted.")
    ] = False,
) -> None:
    """Train what CONFIG describes. Rerun the command to resume the run."""
    loaded = load_config(config, overrides)
    prepare()
    with display(loaded.run.track) as shown:
        from raycls.launch import trainer  # after the config: its errors need no torch to be told

        for note in loaded.notes:
            shown.event(note)
        outcome = trainer.train(loaded.run, new=new, command=typed(), display=shown)
    raise typer.Exit(outcome.exit_code)


def evaluate(
    run: RunArgument,
    overrides: Overrides = None,
    split: Annotated[str | None, typer.Option(help="train, val or test. Default: test where the data has it.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Other data, evaluated as a whole: a folder of class folders, a manifest, an .npz, or a config file.",
        ),
    ] = None,
    extra_classes: Annotated[
        Literal["refuse", "leave-out"], typer.Option(help="Images of classes that the model does not know.")
    ] = "refuse",
    weights: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="best, last or step-N. Default: as evaluate.keep says.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate the model of a run on a split as the run was started with it, or on other data as a whole.

    Every image counts once, on any number of workers.
    """
    folder = run_folder(run)
    prepare()
    from raycls.config.sections.track import TrackConfig
    from raycls.run import strict_json
    from raycls.screen.run_text import summary_lines

    with display(TrackConfig(), sys.stderr) as shown:
        from raycls.launch import trainer

        summary = trainer.evaluate(
            folder,
            split=split,
            data=data,
            extra_classes=extra_classes,
            weights=weights,
            overrides=overrides or (),
            display=shown,
        )
    typer.echo(strict_json.dumps(summary) if as_json else "\n".join(summary_lines(summary)))


def ledger(run: RunArgument) -> None:
    """Say whether the steps behind the last weights saw every training sample exactly once per epoch.

    Those behind the best weights, which model/ may hold, are the first ones of these.
    """
    folder = run_folder(run)
    from raycls.screen.run_text import ledger_lines
    from raycls.screen.working import Working

    names: Callable[[int], str] = str
    with Working("reading the ledger"):
        from raycls.run import sample_ledger as ledgers
        from raycls.run.folder import RunFolder
        from raycls.run.storage.store import Store

        store = Store(folder)
        store.check()
        report = ledgers.check(RunFolder(store))
        if report.left_out:  # then the run has written down which sample is which
            from raycls.session.data.scored import find_record

            record = find_record(RunFolder(store))
            names = str if record is None else record.parts["train"].name
    typer.echo("\n".join(ledger_lines(report, names)))
    raise typer.Exit(EXIT_DONE if report.ok else EXIT_FAILED)
