"""`raycls average`: the mean of the weights of checkpoints or runs, as a run."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from raycls.cli.command import AsJson, prepare, say
from raycls.cli.run_argument import run_folder
from raycls.errors import ConfigError

__all__ = ["register"]


_STATISTICS = {
    "none": "the network has none",
    "average": "averaged",
    "recompute": "recomputed from {images} images of the training split",
}


class BatchNorm(StrEnum):
    RECOMPUTE = "recompute"
    AVERAGE = "average"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(average)


def average(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run folders, or names below runs/, of the same network.")
    ],
    checkpoints: Annotated[
        str | None,
        typer.Option(
            metavar="WHICH", help="Checkpoints of each run: last:N or all. Default: of one run all, of several model/."
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="The new run folder. Default: NAME-averaged beside the last run."),
    ] = None,
    batch_norm: Annotated[
        BatchNorm,
        typer.Option(help="Statistics of batch normalisation: from the images of the training split, or their mean."),
    ] = BatchNorm.RECOMPUTE,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many training images for --batch-norm recompute. Default: all."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Average the weights of checkpoints, or of several runs, into a run that eval, predict and export read."""
    folders = [run_folder(run) for run in runs]
    if len(set(folders)) < len(folders):
        raise ConfigError("a run is named twice", where="RUN", found=", ".join(runs), fix="name each run once")
    prepare()
    from raycls.export.average import Averaging, checkpoints_of
    from raycls.export.average import average as average_weights
    from raycls.export.pruning.folder import place_of
    from raycls.run import strict_json
    from raycls.screen.working import Working
    from raycls.session.trained.trained import open_trained

    with Working("opening the runs"):
        opened = [open_trained(folder) for folder in folders]
        if checkpoints is not None or len(opened) == 1:
            sources = [source for run in opened for source in checkpoints_of(run, checkpoints or "all")]
        else:
            sources = opened
        place = place_of(opened[-1], out, "averaged")
        facts = average_weights(sources, place, Averaging(batch_norm.value, images), say=say)
    home = place.folder.store.describe()
    lines = [
        f"averaged {len(sources)}: " + ", ".join(f"{each['run']} {each['weights']}" for each in facts["from"]),
        f"batch-norm statistics: {_STATISTICS[facts['batch_norm']].format(**facts)}",
        f"run folder {home}",
    ]
    typer.echo(strict_json.dumps(facts) if as_json else "\n".join(lines))
