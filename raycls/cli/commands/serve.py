"""`raycls serve`: a trained run behind HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from raycls.cli.command import prepare, say
from raycls.cli.run_argument import RunArgument, Threshold, ThresholdsFile, run_folder
from raycls.errors import ConfigError

if TYPE_CHECKING:
    from raycls.screen.working import Working

__all__ = ["register"]

_HELD_BYTES = 512_000_000

Host = Annotated[str, typer.Option(help="Where to listen. Anything but loopback can be reached by others.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: a free one, which is printed.")]
Replicas = Annotated[
    int, typer.Option(min=0, help="Copies of the network, on the cluster of RAY_ADDRESS or a private Ray. 0: no Ray.")
]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU per replica if there are GPUs.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of a replica. Default: those of the run.")]
Weights = Annotated[
    str | None, typer.Option(metavar="WEIGHTS", help="best, last or step-N. Default: what model/ holds.")
]
MaxBatch = Annotated[int, typer.Option(min=1, help="Images that are computed together at most.")]
MaxBytes = Annotated[int, typer.Option(min=1, help="Of one image file.")]
MaxPixels = Annotated[
    int | None, typer.Option(min=1, help="Of one image, before it is decoded. Default: data.max_pixels of the run.")
]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds that one request may take.")]
Wait = Annotated[float, typer.Option(min=1, help="Seconds in which the replicas have to be there.")]
TokenFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="A file with the token, mode 0600. Default: RAYCLS_SERVE_TOKEN.")
]
NoToken = Annotated[bool, typer.Option("--no-token", help="Everybody on this machine may ask.")]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(serve)


def serve(
    run: RunArgument,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    replicas: Replicas = 1,
    device: Device = "auto",
    threads: Threads = None,
    weights: Weights = None,
    threshold: Threshold = None,
    thresholds: ThresholdsFile = None,
    max_batch: MaxBatch = 32,
    max_bytes: MaxBytes = 20_000_000,
    max_pixels: MaxPixels = None,
    timeout: Timeout = 60.0,
    wait: Wait = 600.0,
    token_file: TokenFile = None,
    no_token: NoToken = False,
) -> None:
    """Answer `POST /predict` with what the network of a run says about an image, until Ctrl-C or SIGTERM.

    A token is made and printed unless one is given. `GET /healthz` tells whether a replica has the weights,
    `GET /metrics` is for Prometheus.
    """
    folder = run_folder(run)
    from raycls.serve import token

    access = token.choose(host=host, file=token_file, off=no_token)
    prepare()
    from raycls.screen.working import Working

    with Working("starting") as shown:
        try:
            from raycls.serve import server
        except ImportError as error:
            raise ConfigError(
                "serving requires packages that are not installed",
                found=str(error),
                fix="pip install 'raycls[serve]'",
            ) from error
        from raycls.serve.intake import Limits
        from raycls.session.trained.thresholds import thresholds_of
        from raycls.session.trained.trained import open_trained

        trained = open_trained(folder, weights=weights)
        chosen = thresholds_of(trained, threshold=threshold, file=thresholds)
        shown.lines(*(chosen.told if chosen else ()))
        options = server.Options(
            host=host,
            port=port,
            replicas=replicas,
            device=device,
            threads=threads or trained.run.scale.threads,
            max_batch=max_batch,
            max_pixels=max_pixels or trained.run.data.max_pixels,
            thresholds=chosen,
            limits=Limits(max_bytes, held_bytes=max(_HELD_BYTES, 4 * max_bytes), seconds=timeout),
            wait=wait,
        )
        server.serve(trained, options, access, say=_told(shown))


def _told(shown: Working) -> Callable[[str], None]:
    """Print a line in place of what was going on: from the first line on the server is up."""

    def tell(line: str) -> None:
        shown.close()
        say(line)

    return tell
