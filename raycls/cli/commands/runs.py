"""`raycls train` and `ledger`: the commands about one run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from raycls.cli.command import Overrides, display, load_config, prepare, typed
from raycls.cli.run_argument import RunArgument, run_folder
from raycls.errors import EXIT_DONE, EXIT_FAILED

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(train)
    app.command()(ledger)


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or recipe:NAME for one of configs/.")],
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


def ledger(run: RunArgument) -> None:
    """Say whether the steps behind the last weights saw every training sample exactly once per epoch.

    Those behind the best weights, which model/ may hold, are the first ones of these.
    """
    folder = run_folder(run)
    from raycls.screen.run_text import ledger_lines
    from raycls.screen.working import Working

    names: Callable[[int], str] = str
    with Working("reading the ledger"):
        from raycls.run.folder import RunFolder
        from raycls.run.ledgers import sample_ledger as ledgers
        from raycls.run.storage.store import Store

        store = Store(folder)
        store.check()
        from raycls.session.data.scored import find_labels, find_record

        report = ledgers.check(RunFolder(store), partial(find_labels, RunFolder(store)))
        if report.left_out:  # then the run has written down which sample is which
            record = find_record(RunFolder(store))
            names = str if record is None else record.parts["train"].name
    typer.echo("\n".join(ledger_lines(report, names)))
    raise typer.Exit(EXIT_DONE if report.ok else EXIT_FAILED)
