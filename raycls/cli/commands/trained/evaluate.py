"""`raycls eval`: what the weights of a run are worth on images that they were not trained on."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from raycls.cli.command import AsJson, Overrides, display, prepare
from raycls.cli.run_argument import RunArgument, run_folder
from raycls.errors import CheckpointError
from raycls.session.scoring.options import TTA, UNWRITTEN, Saved, Scoring

__all__ = ["register"]


Data = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Other data, evaluated as a whole: a folder of class folders, a manifest, an .npz, or a config file.",
    ),
]
Views = Annotated[TTA, typer.Option(help="Average the probabilities of views: mirror (2), flips (4), turns (8).")]
By = Annotated[
    list[str] | None,
    typer.Option("--by", metavar="COLUMN", help="The metrics by each value of a column of the manifest."),
]
Calibrate = Annotated[
    bool, typer.Option("--calibrate", help="Fit a temperature on the validation split, and keep it for the run.")
]
Calibrated = Annotated[bool, typer.Option("--calibrated", help="Apply the temperature that was fitted before.")]
Threshold = Annotated[
    str, typer.Option(metavar="RULE", help="Of two classes: 0.3; or on validation: max-f1, youden, recall=0.95.")
]
Positive = Annotated[
    str, typer.Option(metavar="CLASS", help="The class that the threshold is for. Default: the second one.")
]
JoinCrf = Annotated[
    bool, typer.Option("--crf", help="Of a segmentation: join a CRF, fitted on the validation split and kept.")
]
Predictions = Annotated[
    Saved, typer.Option(help="What is written of each image: its logits too, its top 5 alone, or nothing.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("eval")(evaluate)


def evaluate(
    run: RunArgument,
    overrides: Overrides = None,
    split: Annotated[str | None, typer.Option(help="train, val or test. Default: test where the data has it.")] = None,
    data: Data = None,
    extra_classes: Annotated[
        Literal["refuse", "leave-out"], typer.Option(help="Images of classes that the model does not know.")
    ] = "refuse",
    weights: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="best, last or step-N. Default: as evaluate.keep says.")
    ] = None,
    tta: Views = "off",
    by: By = None,
    calibrate: Calibrate = False,
    calibrated: Calibrated = False,
    threshold: Threshold = "",
    positive: Positive = "",
    crf: JoinCrf = False,
    predictions: Predictions = "full",
    as_json: AsJson = False,
) -> None:
    """Evaluate the model of a run on a split as the run was started with it, or on other data as a whole.

    Every image counts once, on any number of workers.
    """
    folder = run_folder(run)
    scoring = Scoring(
        predictions=predictions,
        tta=tta,
        by=tuple(by or ()),
        calibrate=calibrate,
        calibrated=calibrated,
        threshold=threshold,
        positive=positive,
        crf=crf,
    )
    prepare()
    from raycls.config.sections.track import TrackConfig
    from raycls.run import strict_json
    from raycls.screen.trained.summary_text import summary_lines

    with display(TrackConfig(), sys.stderr) as shown:
        from raycls.launch import trainer

        summary = trainer.evaluate(
            folder,
            split=split,
            data=data,
            extra_classes=extra_classes,
            weights=weights,
            scoring=scoring,
            overrides=overrides or (),
            display=shown,
        )
    unwritten = summary.pop(UNWRITTEN, None)
    typer.echo(strict_json.dumps(summary) if as_json else "\n".join(summary_lines(summary)))
    if unwritten is not None:  # the numbers are there: what took an hour is not lost for a folder that is read-only
        raise CheckpointError(**unwritten)
