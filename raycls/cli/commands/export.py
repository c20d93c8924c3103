"""`raycls export`: a trained run as a file for other programs, compared with the run before it counts."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from raycls.cli.command import AsJson, prepare
from raycls.cli.run_argument import RunArgument, run_folder
from raycls.errors import EXIT_DONE, EXIT_FAILED, ConfigError

if TYPE_CHECKING:
    from raycls.export.export import Wanted

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(export)


def export(
    run: RunArgument,
    to: Annotated[Literal["onnx", "pt2"], typer.Option(help="The format.")],
    precision: Annotated[Literal["fp32", "fp16", "int8"], typer.Option(help="What it computes in.")] = "fp32",
    preprocess: Annotated[
        Literal["inside", "outside"],
        typer.Option(help="inside: decoded images of any size in. outside: resized, cropped and normalised ones."),
    ] = "inside",
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Default: RUN/export/<name of the run>-<precision>.<format>")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Compare on these images. Default: the validation split of the run."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Compare on at most so many images.")] = 1000,
    calibration_images: Annotated[
        int | None, typer.Option(min=1, help="INT8 takes its ranges from at most so many training images. Default: 128")
    ] = None,
    min_agreement: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least share of images with the same top-1 class.")
    ] = None,
    max_difference: Annotated[
        float | None, typer.Option(min=0, help="Largest difference of a probability. inf: any.")
    ] = None,
    max_drop: Annotated[float | None, typer.Option(help="Accuracy that may be lost, in percentage points.")] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="best, last or step-N. Default: as evaluate.keep says.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the network of a run, with its preprocessing, for onnxruntime and other programs.

    The file is compared with the run on the same image files. One that says something else is renamed .rejected, and
    the exit code is 1.
    """
    _check_words(to, precision, calibration_images)
    folder = run_folder(run)
    prepare()
    from raycls.export.extra import check_extra

    check_extra()
    from raycls.export.export import GATES, Wanted

    asked = {"agreement": min_agreement, "difference": max_difference, "drop": max_drop}
    gate = replace(GATES[precision], **{name: value for name, value in asked.items() if value is not None})
    most = {} if calibration_images is None else {"calibration": calibration_images}
    inside = preprocess == "inside"
    _export(folder, weights, Wanted(to, precision, inside, data, images, gate=gate, **most), out, as_json)


def _export(folder: str, weights: str | None, wanted: Wanted, out: str | None, as_json: bool) -> None:
    from raycls.export.export import export as export_run
    from raycls.export.place import place_of, put
    from raycls.run import strict_json
    from raycls.screen.export_text import exported_lines
    from raycls.screen.working import Working
    from raycls.session.trained.trained import open_trained

    trained = open_trained(folder, weights=weights)
    store, name = place_of(trained, wanted, out)
    with tempfile.TemporaryDirectory(prefix="raycls-export-") as scratch, Working("opening the run") as working:
        done = export_run(trained, Path(scratch), name, wanted, say=working.lines)
        where = put(done, store)
    typer.echo(strict_json.dumps(done.facts) if as_json else "\n".join(exported_lines(done.facts, where)))
    raise typer.Exit(EXIT_DONE if done.passed else EXIT_FAILED)


def _check_words(to: str, precision: str, calibration_images: int | None) -> None:
    """ConfigError for options that would do nothing."""
    if to == "pt2" and precision != "fp32":
        raise ConfigError(
            "this format has one precision",
            where="--precision",
            found=f"{precision} with --to pt2",
            valid="fp32",
            fix="export to ONNX: --to=onnx",
        )
    if calibration_images is not None and precision != "int8":
        raise ConfigError(
            "nothing is calibrated",
            where="--calibration-images",
            found=f"--precision {precision}",
            valid="--precision int8",
            fix="leave --calibration-images out",
        )
