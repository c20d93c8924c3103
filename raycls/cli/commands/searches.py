"""`raycls search`: one command about many runs."""

from __future__ import annotations

from typing import Annotated

import typer

from raycls.cli.command import Overrides, load_config, prepare, screen, typed

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(search)


def search(
    config: Annotated[
        str,
        typer.Argument(metavar="CONFIG", help="A YAML file with a section search, or recipe:NAME."),
    ],
    overrides: Overrides = None,
    new: Annotated[
        bool, typer.Option("--new", help="Start again: a search folder that is there is renamed, never deleted.")
    ] = False,
) -> None:
    """Search over options of CONFIG with Ray Tune. Rerun the command to resume the search."""
    loaded = load_config(config, overrides)
    prepare()
    from raycls.screen.search import SearchDisplay

    with SearchDisplay(screen(), loaded.run.track.print_every.seconds or 0.0) as shown:
        from raycls.tune import play as searching

        outcome = searching.search(loaded, new=new, command=typed(), display=shown)
    raise typer.Exit(outcome.exit_code)
