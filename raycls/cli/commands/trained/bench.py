"""`raycls bench model`: a network computed in several ways, side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from raycls.cli.command import AsJson, prepare, say
from raycls.cli.run_argument import RunArgument, run_folder

__all__ = ["model"]


def model(
    run: RunArgument,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each way.")] = 1,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Measure accuracy on these images. Default: the run's validation split."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Measure accuracy on at most so many images.")] = 1000,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Measure torch.compile, which takes up to a minute.")
    ] = True,
    seconds: Annotated[float, typer.Option(min=0, help="For the latencies of each batch.")] = 10.0,
    weights: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="best, last or step-N. Default: as evaluate.keep says.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Latency, throughput, size and accuracy on the CPU: PyTorch, torch.compile, ONNX in float32 and in INT8.

    They take turns in one run with the same number of threads, with 1 and with 32 images at a time. The table, as JSON
    and as a plot, is written to bench/ of the run folder.
    """
    folder = run_folder(run)
    prepare()
    from raycls.export.bench.bench import Wanted, bench
    from raycls.report.plots.bench import svg
    from raycls.run import strict_json
    from raycls.run.folder import RunFolder
    from raycls.screen.measured.bench_text import bench_lines
    from raycls.screen.working import Working
    from raycls.session.trained.trained import open_trained

    with Working("opening the run"):
        trained = open_trained(folder, weights=weights)
        facts = bench(trained, Wanted(threads, data, images, compiled, seconds), say=say)
        there = trained.folder
        there.write_json(RunFolder.BENCH, facts)
        there.store.write_bytes(RunFolder.BENCH_PLOT, svg(facts))
    written = [there.store.describe(name) for name in (RunFolder.BENCH, RunFolder.BENCH_PLOT)]
    typer.echo(strict_json.dumps(facts) if as_json else "\n".join(bench_lines(facts, written)))
