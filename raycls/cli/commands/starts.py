"""`raycls init` and `demo`: the commands to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raycls.cli.command import display, prepare, typed
from raycls.config.paths import expand
from raycls.errors import EXIT_DATA, EXIT_DONE, ConfigError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(init)
    app.command()(demo)


def init(
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="A folder of images, one folder per class; a manifest or .npz; with --check a config."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH=VALUE]...", help="Options of data.source, such as data.source.args.splits=none."),
    ] = None,
    out: Annotated[str, typer.Option(metavar="FILE", help="Where the config goes.")] = "raycls.yaml",
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Files that are no images, such as '*.txt'.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Decode every image, and name all that training would stop at; write no config."),
    ] = False,
) -> None:
    """Look at a folder of images and write a config that trains on it."""
    if check:
        prepare()
        from raycls.screen.working import Working

        with Working("starting"):
            from raycls.cli import image_check

        checked = image_check.look(directory, ignore=tuple(ignore or ()), overrides=overrides or ())
        typer.echo("\n".join(image_check.report(checked)))
        raise typer.Exit(EXIT_DATA if checked.bad or checked.unfit else EXIT_DONE)
    file = Path(expand(out, where="--out"))
    if file.exists() and not force:
        raise ConfigError(f"{out} is there already", fix="choose another --out FILE, or --force to replace it")
    from raycls.config.write import word
    from raycls.screen.working import Working

    with Working(f"looking at {directory}"):
        from raycls.cli import init as starter

        survey = starter.survey(directory, ignore=tuple(ignore or ()), overrides=overrides or ())
    text = starter.compose(survey, out=out)
    typer.echo("\n".join(starter.describe(survey)))
    starter.write(text, file)
    typer.echo(f"wrote {out}\nnext: raycls train {word(out)}")


def demo() -> None:
    """Train a small network on 1,797 handwritten digits, then test it: no network, no GPU."""
    prepare()
    from raycls.cli import demo as demonstration

    settings = demonstration.settings()
    with display(settings.track) as shown:
        result = demonstration.run(settings, command=typed(), display=shown)
    typer.echo("\n".join(demonstration.lines(result)))
    raise typer.Exit(result.exit_code)
