"""`raycls predict`: what a trained run says about images."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated

import typer

from raycls.cli.command import join, prepare, say
from raycls.cli.run_argument import RunArgument, Threshold, ThresholdsFile, parted, run_folder
from raycls.errors import EXIT_DATA, EXIT_DONE, ConfigError

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
            "options such as scale.workers=4 compute on Ray.",
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
    force: Annotated[
        bool, typer.Option("--force", help="Replace FILE if it is there, and what an earlier command left of it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image and nothing else.")] = False,
) -> None:
    """Predict the classes of images. Rerun the command to resume.

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
        from raycls.screen.predictions import closing_lines, show_answers
        from raycls.session.predictions.output import json_lines, rows_of
        from raycls.session.predictions.predict import Request, predict

        asked = Request(folder, tuple(given), out, weights, overrides, top, every, calibrated, force)
        request = replace(asked, threshold=threshold, thresholds=thresholds)
        try:
            found = predict(request, join=join, say=working.lines)
        except KeyboardInterrupt:
            if out is not None:
                working.lines("interrupted: the parts that are done are kept, rerun the command to resume")
            raise
    if found.out is None and as_json:
        sys.stdout.writelines(f"{line}\n" for part in found.parts for line in json_lines(found.work, part))
    elif found.out is None:
        show_answers([row for part in found.parts for row in rows_of(found.work, part)])
    elif found.out is not None or found.bad:
        for line in closing_lines(found.rows, found.counts, found.bad, found.first, found.out):
            say(line) if as_json or found.out is None else typer.echo(line)
    raise typer.Exit(EXIT_DATA if found.bad == found.rows else EXIT_DONE)
