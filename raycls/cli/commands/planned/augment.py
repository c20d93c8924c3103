"""`raycls augment`: a sheet of what the network will see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from raycls.cli.command import Overrides, load_config, out_file, prepare, say

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from raycls.session.data.mixed import Mixed

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(augment)


def augment(
    file: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or recipe:NAME for one of configs/.")],
    overrides: Overrides = None,
    count: Annotated[int, typer.Option(min=1, max=100, help="Images.")] = 8,
    epoch: Annotated[int, typer.Option(min=0, help="Of this epoch, the first one is 0.")] = 0,
    micro_batch: Annotated[int, typer.Option(min=0, help="Of the epoch, for augment.batch; the first one is 0.")] = 0,
    out: Annotated[str, typer.Option(metavar="FILE", help="The sheet, a PNG file.")] = "augment.png",
) -> None:
    """Draw the first training images of an epoch, before and after each operation, as the run will see them.

    With augment.batch a second sheet, FILE_batch.png, has a micro-batch as the model gets it, and its labels.
    """
    sheet = out_file(out, ".png", "the sheet is a PNG file")
    loaded = load_config(file, overrides)
    prepare()
    from raycls.data.source import open_dataset
    from raycls.report.plots.sheet import Row, draw
    from raycls.screen.working import Working
    from raycls.session.data.limited import limit_of
    from raycls.session.data.mixed import mixed
    from raycls.session.data.seen import seen

    for note in loaded.notes:
        say(note)
    run = loaded.run
    with Working("drawing what the network will see"):
        dataset = open_dataset(run.data, limit_of(run))
        operations, images = seen(run, dataset, epoch=epoch, count=count)
        batch = mixed(run, dataset, epoch=epoch, number=micro_batch)
        rows = [
            Row(
                f"{image.label} (sample {image.id})" if image.label else f"sample {image.id}",
                [(stage.pixels, _size(stage.pixels)) for stage in image.stages],
            )
            for image in images
        ]
        title = f"{run.run.name}: what the network sees in epoch {epoch}, height x width in pixels"
        draw(title, ["as decoded", *operations], rows).image.save(sheet)
        second = sheet.with_stem(f"{sheet.stem}_batch")
        if batch is not None:
            _drawn(run.run.name, batch, dataset.classes, count).save(second)
    typer.echo(f"wrote {sheet}: {len(images)} images of epoch {epoch}, before and after {len(operations)} operations")
    if batch is not None:
        drawn, size, place = min(count, len(batch.ids)), len(batch.ids), f"{batch.micro} of step {batch.step + 1}"
        operations = ", ".join(batch.operations)
        typer.echo(f"wrote {second}: {drawn} of {size} images of micro-batch {place}, before and after {operations}")
    elif run.augment.batch:
        say(f"augment.batch does nothing in epoch {epoch}, which is trained without augmentation")


def _drawn(name: str, batch: Mixed, classes: Sequence[str], count: int) -> Image:
    """A sheet of the first images of a micro-batch, each with the classes that it has, the largest share first."""
    from raycls.report.plots.sheet import Row, draw

    rows = [
        Row(
            f"{_labels(batch.shares[index], classes)} (sample {batch.ids[index]})",
            [(batch.before[index], _size(batch.before[index])), (batch.after[index], _size(batch.after[index]))],
        )
        for index in range(min(count, len(batch.ids)))
    ]
    title = f"{name}: step {batch.step + 1}, micro-batch {batch.micro}"
    return draw(title, ["before augment.batch", f"as the model gets it: {', '.join(batch.operations)}"], rows).image


def _labels(shares: np.ndarray, classes: Sequence[str]) -> str:
    order = sorted(range(len(shares)), key=lambda index: -shares[index])
    return ", ".join(f"{classes[index]}: {shares[index]:.3f}" for index in order if shares[index] > 0) or "no class"


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[0]} x {pixels.shape[1]}"
