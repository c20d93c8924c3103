"""`raycls serve`: replicas of a trained network behind one HTTP front, from the start to the last answer."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import uvicorn

from raycls.cluster.connection import Cluster, running_cluster
from raycls.errors import ConfigError, LaunchError
from raycls.launch.stopping import interrupted_by_sigterm
from raycls.progress import progress
from raycls.serve.app import Backend, make_app
from raycls.serve.intake import Limits
from raycls.serve.local import Local
from raycls.serve.metrics import Metrics
from raycls.serve.predictor import Served, check
from raycls.serve.token import Access
from raycls.session.trained.thresholds import Thresholds
from raycls.session.trained.trained import Trained

__all__ = ["Options", "serve"]


_TALKATIVE = ("uvicorn.error", "python_multipart")
"""They print a line for each request that cannot be read, and anybody may send any number of these."""


@dataclass(frozen=True)
class Options:
    """How a run is served."""

    host: str
    port: int
    """0: a free one."""
    replicas: int
    """0: in this process, without Ray."""
    device: str
    """`auto`, `cpu` or `cuda`."""
    threads: int
    max_batch: int
    max_pixels: int
    limits: Limits
    wait: float
    """Seconds in which the replicas have to be there."""
    thresholds: Thresholds | None = None
    """Where an image has any number of classes."""


def serve(trained: Trained, options: Options, access: Access, *, say: Callable[[str], None]) -> None:
    """Answer requests until SIGINT or SIGTERM; then those that were accepted are answered, and everything is ended.

    `say` is told what a user has to know, a line at a time.
    """
    metrics = Metrics()
    with ExitStack() as stack:
        listening = stack.enter_context(_listening(options.host, options.port))
        stack.enter_context(interrupted_by_sigterm())
        backend, place = stack.enter_context(_backend(trained, options, metrics))
        app = make_app(backend, token=access.token, limits=options.limits, metrics=metrics, say=say)
        address = _address(options.host, listening.getsockname()[1])
        for line in _welcome(trained, access, address, place):
            say(line)
        try:
            _answer(app, listening, options.limits.seconds)
        finally:
            say(metrics.summary())


def _answer(app: object, listening: socket.socket, seconds: float) -> None:
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType]
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=int(seconds) + 5,  # every request has its answer by then
    )
    asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that is bound: a port that is taken is told at once. Nobody can connect before the server is up."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError("there is no such address", where="--host", found=f"{host}: {error.strerror}") from error
    with opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind(address)
        except OSError as error:
            raise ConfigError(
                "the address cannot be listened on",
                where="--host, --port",
                found=f"{host} port {port}: {error.strerror}",
                fix="choose another --port, or 0 for a free one",
            ) from error
        yield opened


@contextmanager
def _backend(trained: Trained, options: Options, metrics: Metrics) -> Iterator[tuple[Backend, str]]:
    """Who answers, and where that is in words."""
    progress("loading the weights")
    if options.replicas == 0:
        device = Local.device(options.device)
        with Local(_served(trained, options, device)) as local:
            yield local, f"in this process, on {device}"
        return
    check(_served(trained, options, "cpu"))
    progress("starting Ray")
    with running_cluster() as cluster:
        from raycls.serve.replicas import deployed  # Ray Serve takes seconds to import

        served = _served(trained, options, _device(cluster, options))
        name = f"raycls-{os.path.basename(trained.name.rstrip('/'))}-{secrets.token_hex(3)}"
        with deployed(
            served, cluster, app=name, replicas=options.replicas, wait=options.wait, metrics=metrics
        ) as replicas:
            kind = "a private Ray" if cluster.private else cluster.address
            count = f"{options.replicas} replica{'s' * (options.replicas > 1)}"
            yield replicas, f"{count} on {kind}, on {served.device}"


def _served(trained: Trained, options: Options, device: str) -> Served:
    sizes = options.threads, options.max_batch, options.max_pixels
    return Served(trained, device, *sizes, os.getcwd(), options.thresholds)


def _device(cluster: Cluster, options: Options) -> str:
    device = options.device
    if device == "auto":
        device = "cuda" if cluster.gpus else "cpu"
    if device == "cuda" and cluster.gpus < options.replicas:
        raise LaunchError(
            "there are fewer GPUs than replicas",
            found=f"{cluster.gpus} GPUs for {options.replicas} replicas",
            fix=f"--replicas {cluster.gpus}" if cluster.gpus else "--device cpu",
        )
    return device


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _welcome(trained: Trained, access: Access, address: str, place: str) -> Iterator[str]:
    weights = trained.weights
    yield f"serving {trained.name} ({weights.name}, step {weights.step:,}), {place}"
    yield f"address  {address}"
    header = ""
    if access.token is not None:
        made = not access.origin
        yield f"token    {access.token}" if made else f"token    that of {access.origin}"
        header = "-H 'Authorization: Bearer TOKEN' "
    yield f"try      curl {header}--data-binary @IMAGE '{address}/predict?top=3'"
