"""`raycls prune`: a trained run with a part of its channels or weights taken away, to be fine-tuned."""

from __future__ import annotations

from typing import Annotated

import typer

from raycls.cli.command import AsJson, prepare, say
from raycls.cli.run_argument import RunArgument, run_folder

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(prune)


def prune(
    run: RunArgument,
    ratio: Annotated[
        float,
        typer.Option(min=0.01, max=0.99, help="Part of the weights, or with --structured of the channels, that goes."),
    ] = 0.5,
    structured: Annotated[
        bool,
        typer.Option("--structured", help="Cut whole channels: a smaller and faster network. Default: zero weights."),
    ] = False,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="The new run folder. Default: NAME-pruned beside the run.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Measure accuracy on these images. Default: the validation split of the run."
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Measure accuracy on at most so many images. Default: all.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads while latency is measured.")] = 1,
    time_limit: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="For finding the channels that depend on each other.")
    ] = 300,
    memory_limit: Annotated[float, typer.Option(min=0.1, metavar="GIB", help="For the same.")] = 8,
    weights: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="best, last or step-N. Default: as evaluate.keep says.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take weights or channels from a trained network and write it as a new run, with a table of before and after.

    The command that fine-tunes it is printed. What cannot be pruned is an error, and nothing is written.
    """
    folder = run_folder(run)
    prepare()
    from raycls.export.pruning.structured import Limits, check_extra

    if structured:
        check_extra()
    from raycls.export.pruning.folder import place_of
    from raycls.export.pruning.prune import Wanted
    from raycls.export.pruning.prune import prune as prune_run
    from raycls.run import strict_json
    from raycls.run.folder import RunFolder
    from raycls.screen.prune_text import pruned_lines
    from raycls.screen.working import Working
    from raycls.session.trained.trained import open_trained

    limits = Limits(time_limit, memory_limit * 2**30)
    wanted = Wanted(ratio, structured, limits, data=data, images=images, threads=threads)
    with Working("opening the run"):
        trained = open_trained(folder, weights=weights)
        place = place_of(trained, out, "pruned")
        facts = prune_run(trained, place, wanted, say=say)
    store = place.folder.store
    lines = pruned_lines(facts, store.describe(), store.address(RunFolder.CONFIG), place.name)
    typer.echo(strict_json.dumps(facts) if as_json else "\n".join(lines))
