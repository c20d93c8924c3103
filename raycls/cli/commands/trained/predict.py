"""`raycls predict`: what a trained run says about images."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from raycls.cli.command import join, prepare, say
from raycls.cli.run_argument import RunArgument, Threshold, ThresholdsFile, parted, run_folder
from raycls.errors import EXIT_DATA, EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from raycls.session.predictions.predict import Predicted

__all__ = ["register"]


Weights = Annotated[
    str | None, typer.Option(metavar="WEIGHTS", help="best, last or step-N. Default: as evaluate.keep says.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(predict)


def predict(
    run: RunArgument,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT... [PATH=VALUE]...",
            help="Image files, folders, globs in quotes, manifests, .npz files, configs with data.source, or s3://...; "
            "of volumes .nii, .nii.gz or folders of DICOM files; options such as scale.workers=4 compute on Ray.",
        ),
    ],
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="A .parquet, .csv or .jsonl file. Default: print the answers.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the likeliest classes.")] = 5,
    every: Annotated[bool, typer.Option("--all", help="The probabilities of all classes too.")] = False,
    weights: Weights = None,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Apply the temperature that raycls eval --calibrate fitted.")
    ] = False,
    threshold: Threshold = None,
    thresholds: ThresholdsFile = None,
    masks: Annotated[
        str | None, typer.Option(metavar="DIR", help="Of a segmentation: the folder of the masks, and of masks.csv.")
    ] = None,
    crf: Annotated[bool, typer.Option("--crf", help="Join the CRF that raycls eval --crf fitted to masks.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace FILE if it is there, and what an earlier command left of it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image and nothing else.")] = False,
) -> None:
    """Predict the classes of images, or their masks. Rerun the command to resume.

    A file that cannot be decoded has an error in its row; where no file can, the exit code is 3. Without scale.workers
    this machine computes, without Ray.
    """
    folder = run_folder(run)
    given, overrides = parted(inputs)
    if not given:
        raise ConfigError("there is no INPUT", valid="an image, a folder, a manifest ... after RUN")
    prepare()
    from raycls.screen.working import Working

    with Working("starting") as working:
        from raycls.session.predictions.predict import Request, predict

        asked = Request(folder, tuple(given), out, weights, overrides, top, every, calibrated, force)
        request = replace(asked, threshold=threshold, thresholds=thresholds, masks=masks, crf=crf)
        try:
            found = predict(request, join=join, say=working.lines)
        except KeyboardInterrupt:
            if out is not None or masks is not None:
                working.lines("interrupted: the parts that are done are kept, rerun the command to resume")
            raise
    _tell(found, as_json)
    raise typer.Exit(EXIT_DATA if found.bad == found.rows else EXIT_DONE)


def _tell(found: Predicted, as_json: bool) -> None:
    from raycls.screen.predictions import closing_lines, show_answers
    from raycls.session.predictions.output import json_lines, rows_of

    if found.out is None and as_json:
        sys.stdout.writelines(f"{line}\n" for part in found.parts for line in json_lines(found.work, part))
    elif found.out is None:
        show_answers([row for part in found.parts for row in rows_of(found.work, part)])
    elif found.out is not None or found.bad:
        for line in closing_lines(found.rows, found.counts, found.bad, found.first, found.out, found.masks):
            say(line) if as_json or found.out is None else typer.echo(line)
