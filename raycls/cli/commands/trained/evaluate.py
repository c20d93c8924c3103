"""`raycls eval`: what the weights of a run are worth on images that they were not trained on."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from raycls.cli.command import AsJson, Overrides, display, prepare
from raycls.cli.run_argument import RunArgument, run_folder
from raycls.session.scoring.options import TTA, Saved, Scoring

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("eval")(evaluate)


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
    tta: Annotated[
        TTA, typer.Option(help="Average the probabilities of several views: mirror (2), flips (4), turns (8).")
    ] = "off",
    predictions: Annotated[
        Saved, typer.Option(help="What is written of each image: its logits too, its top 5 alone, or nothing.")
    ] = "full",
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
            scoring=Scoring(predictions=predictions, tta=tta),
            overrides=overrides or (),
            display=shown,
        )
    typer.echo(strict_json.dumps(summary) if as_json else "\n".join(summary_lines(summary)))
