"""`raycls export`: a trained run as a file for other programs, compared with the run before it counts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from raycls.cli.command import AsJson, prepare
from raycls.cli.run_argument import RunArgument, Threshold, ThresholdsFile, run_folder
from raycls.errors import EXIT_DONE, EXIT_FAILED, ConfigError

if TYPE_CHECKING:
    from raycls.export.export import Wanted

__all__ = ["register"]


To = Annotated[Literal["onnx", "pt2", "triton"], typer.Option(help="The format. triton: ONNX in a model repository.")]
Preprocess = Annotated[
    Literal["inside", "outside"] | None,
    typer.Option(help="inside: decoded images of any size in. outside: resized, cropped and normalised ones."),
]
Out = Annotated[
    str | None, typer.Option(metavar="FILE", help="Default: RUN/export/<name of the run>-<precision>.<format>")
]
Data = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Compare on these images. Default: the validation split of the run."),
]
Calibration = Annotated[
    int | None, typer.Option(min=1, help="INT8 takes its ranges from at most so many training images. Default: 128")
]
Agreement = Annotated[
    float | None, typer.Option(min=0, max=1, help="Least share of images with the same top-1 class or classes.")
]
Difference = Annotated[float | None, typer.Option(min=0, help="Largest difference of a probability. inf: any.")]
Drop = Annotated[
    float | None,
    typer.Option(min=-100, max=100, help="Accuracy that may be lost, in percentage points; below 0: has to be gained."),
]
Weights = Annotated[
    str | None, typer.Option(metavar="WEIGHTS", help="best, last or step-N. Default: as evaluate.keep says.")
]
Repository = Annotated[
    str | None, typer.Option(metavar="DIR", help="triton: the model repository; each export is a new version in it.")
]
ModelName = Annotated[str | None, typer.Option(metavar="NAME", help="triton: the model. Default: the name of the run.")]
MaxBatch = Annotated[
    int | None, typer.Option(min=1, help="triton: images that are computed together at most. Default: 32")
]
Instances = Annotated[int | None, typer.Option(min=1, help="triton: copies of the network on a device. Default: 1")]
TensorRT = Annotated[
    Literal["fp16", "int8"] | None,
    typer.Option("--tensorrt", help="triton: compute by TensorRT on GPUs, in this precision."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(export)


def export(
    run: RunArgument,
    to: To,
    precision: Annotated[Literal["fp32", "fp16", "int8"], typer.Option(help="What it computes in.")] = "fp32",
    preprocess: Preprocess = None,
    out: Out = None,
    data: Data = None,
    images: Annotated[int, typer.Option(min=1, help="Compare on at most so many images.")] = 1000,
    calibration_images: Calibration = None,
    threshold: Threshold = None,
    thresholds: ThresholdsFile = None,
    min_agreement: Agreement = None,
    max_difference: Difference = None,
    max_drop: Drop = None,
    weights: Weights = None,
    repository: Repository = None,
    model_name: ModelName = None,
    max_batch: MaxBatch = None,
    instances: Instances = None,
    tensorrt: TensorRT = None,
    as_json: AsJson = False,
) -> None:
    """Write the network of a run, with its preprocessing, for onnxruntime and other programs.

    The file is compared with the run on the same image files. One that says something else is renamed .rejected, and
    the exit code is 1.
    """
    _check_words(to, precision, calibration_images)
    given = {"max_batch": max_batch, "instances": instances, "tensorrt": tensorrt}
    options = {name: value for name, value in given.items() if value is not None}
    _check_triton(to, precision, {"repository": repository, "model-name": model_name, "out": out, **given})
    folder = run_folder(run)
    prepare()
    from raycls.export.extra import check_extra

    check_extra()
    from raycls.export.export import GATES, Wanted

    asked = {"agreement": min_agreement, "difference": max_difference, "drop": max_drop}
    gate = replace(GATES[precision], **{name: value for name, value in asked.items() if value is not None})
    most: dict[str, Any] = {} if calibration_images is None else {"calibration": calibration_images}
    most["tensorrt"] = tensorrt == "int8"
    wanted = Wanted("onnx" if to == "triton" else to, precision, True, data, images, gate=gate, **most)
    triton = None if repository is None else _Triton(repository, model_name, options)
    _export(folder, weights, wanted, preprocess, (threshold, thresholds), out, as_json, triton)


@dataclass(frozen=True)
class _Triton:
    """Where a model goes, and how Triton runs it."""

    repository: str
    name: str | None
    options: dict[str, Any]
    """Those of `Serving` that were given."""


def _export(
    folder: str,
    weights: str | None,
    wanted: Wanted,
    preprocess: str | None,
    thresholds: tuple[float | None, str | None],
    out: str | None,
    as_json: bool,
    triton: _Triton | None,
) -> None:
    from raycls.export.export import export as export_run
    from raycls.export.place import inside_of, place_of, put
    from raycls.export.triton.config import Serving
    from raycls.export.triton.repository import add, model_folder
    from raycls.run import strict_json
    from raycls.screen.export_text import exported_lines
    from raycls.screen.working import Working
    from raycls.session.trained.thresholds import thresholds_of
    from raycls.session.trained.trained import open_trained

    trained = open_trained(folder, weights=weights, masks=True)
    wanted = replace(wanted, inside=inside_of(trained, preprocess, triton=triton is not None))
    wanted = replace(wanted, thresholds=thresholds_of(trained, threshold=thresholds[0], file=thresholds[1]))
    store, name = place_of(trained, wanted, out)
    model = None if triton is None else model_folder(triton.repository, triton.name, trained.run.run.name)
    with tempfile.TemporaryDirectory(prefix="raycls-export-") as scratch, Working("opening the run") as working:
        done = export_run(trained, Path(scratch), name, wanted, say=working.lines)
        if triton is None or model is None or not done.passed:
            where = put(done, store)
        else:
            where = str(add(model, done.path, done.report, done.facts, Serving(**triton.options)))
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


def _check_triton(to: str, precision: str, given: Mapping[str, object]) -> None:
    """ConfigError where the options do not fit a model repository. `given` are options by name, or None."""
    there = {name.replace("_", "-") for name, value in given.items() if value is not None}
    if to == "triton" and ("repository" not in there or "out" in there):
        raise ConfigError(
            "a model for Triton goes into a model repository",
            where="--to triton",
            found="--out" if "out" in there else "no --repository",
            fix="name the folder of the repository, and no file: --repository=DIR",
        )
    wrong = sorted(there - {"out"}) if to != "triton" else []
    if wrong:
        raise ConfigError(
            "this option is for a model repository of Triton",
            where=f"--{wrong[0]}",
            found=f"--to {to}",
            valid="--to triton",
            fix=f"leave --{wrong[0]} out, or export with --to=triton",
        )
    if given["tensorrt"] == "int8" and precision != "int8":
        raise ConfigError(
            "only what was quantised is computed in INT8 by TensorRT",
            where="--tensorrt int8",
            found=f"--precision {precision}",
            fix="--precision=int8",
        )
