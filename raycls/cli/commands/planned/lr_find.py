"""`raycls lr-find`: which learning rates a run can be trained with."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Annotated

import typer

from raycls.cli.command import AsJson, Overrides, display, load_config, out_file, prepare, say
from raycls.errors import ConfigError

if TYPE_CHECKING:
    from raycls.launch.range_test import Curve

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("lr-find")(lr_find)


def lr_find(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or recipe:NAME for one of configs/.")],
    overrides: Overrides = None,
    low: Annotated[float, typer.Option("--from", min=1e-12, help="The lowest rate.")] = 1e-5,
    high: Annotated[float, typer.Option("--to", max=1e4, help="The highest rate.")] = 10.0,
    steps: Annotated[int, typer.Option(min=20, help="Steps between them.")] = 100,
    out: Annotated[str, typer.Option(metavar="FILE", help="Where the plot goes, an SVG file.")] = "lr-find.svg",
    as_json: AsJson = False,
) -> None:
    """Train CONFIG for some steps while the learning rate rises, plot the loss over it, and suggest a rate.

    Nothing of it is kept but the plot: no run is touched.
    """
    if not low < high:
        raise ConfigError(
            "the range of rates is empty", where="--from, --to", found=f"{low:g} to {high:g}", valid="a higher --to"
        )
    file = out_file(out, ".svg", "the plot is an SVG file")
    loaded = load_config(config, overrides)
    prepare()
    with display(loaded.run.track) as shown, tempfile.TemporaryDirectory(prefix="raycls-lr-find-") as folder:
        from raycls.launch.range_test import Range, range_test, suggested
        from raycls.report.plots.lr_find import svg
        from raycls.run import strict_json

        for note in loaded.notes:
            say(note)
        tested = range_test(
            loaded.run,
            Range(low, high, steps),
            folder,
            say=say,
            work=lambda now: shown.tell(now.now, waits=now.waits, ago=now.ago, steps=now.steps),
        )
    rate = suggested(tested)
    file.write_bytes(svg(tested.rates, tested.losses, tested.smooth, rate))
    facts = {"suggested": rate, "rates": tested.rates, "losses": tested.losses, "diverged": tested.diverged}
    typer.echo(
        strict_json.dumps(facts) if as_json else "\n".join(_lines(loaded.run.optim.name, tested, rate, str(file)))
    )


def _lines(optimizer: str, tested: Curve, rate: float | None, file: str) -> list[str]:
    last = tested.rates[-1]
    ended = f"the loss diverged at {last:.2g}" if tested.diverged else f"up to {last:.2g} it did not diverge"
    told = "no suggestion: the loss never fell; try more --steps or another --from"
    if rate is not None:
        told = f"suggested: optim.lr={rate:.2g}  (the highest rate of a schedule, for {optimizer} and this batch size)"
    return [f"{len(tested.rates)} rates from {tested.rates[0]:.2g}; {ended}", told, f"plot: {file}"]
