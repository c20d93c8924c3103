"""`raycls config`: what a config says, and what a config may say."""

from __future__ import annotations

from typing import Annotated

import typer

from raycls.cli.command import Overrides, load_config
from raycls.errors import ConfigError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("config")(show)


def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A YAML file, or the word schema for the JSON Schema.")],
    overrides: Overrides = None,
) -> None:
    """Print the resolved config, each value with where it was set."""
    from raycls.config import load as loading

    if file == "schema":
        if overrides:
            raise ConfigError("raycls config schema takes no options", found=" ".join(overrides))
        typer.echo(loading.schema_json())
    else:
        typer.echo(loading.show(load_config(file, overrides)).rstrip("\n"))
