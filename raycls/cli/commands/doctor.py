"""`raycls doctor`: what would go wrong, before anything is taken."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from raycls.cli.command import AsJson, prepare, say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(doctor)


def doctor(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG] [PATH=VALUE]...", help="The run to be looked at; without one, the cluster."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="host:port of a Ray. Default: RAY_ADDRESS, or a Ray of its own here.",
        ),
    ] = None,
    as_json: AsJson = False,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds that a node has for each answer.")] = 60.0,
) -> None:
    """Look at a cluster, and at a run on it, before anything is taken: a row and a remedy for each question."""
    from raycls.doctor.arguments import read, refuse_dashboard

    refuse_dashboard(address, words or (), say)
    asked = read(words or (), timeout)
    prepare()
    from raycls.screen.working import Working

    with Working("starting"):
        from raycls.doctor import doctor as examination

    if address:
        os.environ["RAY_ADDRESS"] = address
    raise typer.Exit(examination.doctor(asked, as_json=as_json))
