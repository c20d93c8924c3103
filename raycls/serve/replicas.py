"""Copies of a trained network on Ray Serve. Nothing here listens on a port: requests come through `raycls.serve.app`.

Ray Serve's own HTTP proxies are switched off. They have no token, accept bodies of any size and belong to the whole
cluster; what they would route to is asked through a handle instead.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from raycls.cluster.connection import Cluster
from raycls.errors import LaunchError
from raycls.progress import progress
from raycls.serve.answer import Answer
from raycls.serve.app import UnavailableError
from raycls.serve.metrics import Metrics
from raycls.serve.predictor import Predictor, Served

with warnings.catch_warnings():  # Ray Serve describes its options in a way that this pydantic warns of
    warnings.filterwarnings("ignore", "Using extra keyword arguments on `Field` is deprecated")
    from ray import serve
    from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
    from ray.serve.handle import DeploymentHandle

__all__ = ["Replicas", "deployed"]

_NAME = "replica"
_TRIES = 4
"""How often one request is sent to a replica, where replicas die."""
_LOOK_SECONDS = 0.25
_READY_SECONDS = 1.0
"""For how long the number of replicas that run is believed."""
_DRAIN_SECONDS = 20.0
_FRONT_SECONDS = 5.0
"""How often a replica looks whether its front is still there."""
_NAMESPACE = "raycls"


class _Replica:
    """A predictor in a process of its own."""

    def __init__(self, served: Served, app: str) -> None:
        self._predictor = Predictor(served)
        threading.Thread(target=_end_with_the_front, args=(app,), name="raycls-front", daemon=True).start()

    async def __call__(self, data: bytes, top: int) -> Answer:
        return await self._predictor.predict(data, top)


def _end_with_the_front(app: str) -> None:
    """Applications of Ray Serve outlive the program that made them. Nobody could reach this one: its front, killed,
    leaves it to its replicas to end it."""
    while True:
        time.sleep(_FRONT_SECONDS)
        try:
            ray.get_actor(app, namespace=_NAMESPACE)
        except ValueError:
            serve.delete(app, _blocking=False)
            return
        except RayError:
            continue  # the cluster does not answer: perhaps it does the next time


class _Front:
    """Lives as long as the program that made it."""

    def here(self) -> None:
        """Returns once it lives."""


class Replicas:
    """The backend that asks replicas."""

    def __init__(self, handle: DeploymentHandle, app: str, metrics: Metrics) -> None:
        self._handle, self._app, self._metrics = handle, app, metrics
        self._looked, self._running = 0.0, 0

    async def predict(self, data: bytes, top: int) -> Answer:
        """The answer of one of the replicas. One that dies meanwhile is replaced by another: asking twice does no harm.
        UnavailableError where that does not help."""
        for left in reversed(range(_TRIES)):
            try:
                return await self._handle.remote(data, top)
            except RayActorError as error:
                if not left:
                    raise UnavailableError from error
                self._metrics.retries.inc()
                await asyncio.sleep(0.1 * (_TRIES - left))
            except DeploymentUnavailableError as error:
                raise UnavailableError from error
        raise UnavailableError

    async def ready(self) -> bool:
        if time.monotonic() - self._looked > _READY_SECONDS:
            self._running = await asyncio.to_thread(_running, self._app)
            self._looked = time.monotonic()
        return self._running > 0


@contextmanager
def deployed(
    served: Served, cluster: Cluster, *, app: str, replicas: int, wait: float, metrics: Metrics
) -> Iterator[Replicas]:
    """`replicas` replicas as the application `app` of Ray Serve, for the length of the block.

    Enters once all of them have the weights; LaunchError where that fails or takes longer than `wait` seconds.
    """
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    before = serve.status()
    mine = not before.applications and not before.proxies
    serve.start(proxy_location="Disabled", logging_config=_LOGGING)
    try:
        kind: Any = ray.remote(num_cpus=0)(_Front)
        front = kind.options(name=app, namespace=_NAMESPACE).remote()
        target = serve.RunTarget(_application(served, cluster, app, replicas), name=app, route_prefix=None)
        serve.run_many([target], wait_for_applications_running=False)
        ray.get(front.here.remote(), timeout=wait)
        _wait(app, replicas, wait, cluster.logs)
        yield Replicas(serve.get_app_handle(app), app, metrics)
    finally:
        progress("ending the replicas")
        _end(app, mine)


_LOGGING = {"log_level": "ERROR", "enable_access_log": False}


def _application(served: Served, cluster: Cluster, app: str, replicas: int) -> Any:
    # A private Ray is ours alone: nothing has to be set aside there.
    resources: dict[str, float] = {"num_cpus": 0.01 if cluster.private else float(served.threads)}
    if served.device == "cuda":
        resources["num_gpus"] = 1.0
    made: Any = serve.deployment(_Replica)
    deployment = made.options(
        name=_NAME,
        num_replicas=replicas,
        max_ongoing_requests=2 * served.max_batch + served.threads,  # one batch computed, the next one decoded
        ray_actor_options=resources,
        health_check_period_s=2.0,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=_DRAIN_SECONDS,
        logging_config=_LOGGING,
    )
    return deployment.bind(served, app)


def _wait(app: str, replicas: int, seconds: float, logs: str) -> None:
    end = time.monotonic() + seconds
    while True:
        status = serve.status().applications.get(app)
        deployment = None if status is None else status.deployments.get(_NAME)
        running = _count(deployment)
        progress("waiting for replicas", running, replicas, "replicas")
        if running >= replicas:
            return
        message = "" if deployment is None else deployment.message
        if status is not None and status.status == "DEPLOY_FAILED":
            raise LaunchError(
                "the replicas cannot start",
                found=_cause(message or status.message),
                valid="a run folder, and a working directory with its plug-ins, that every node can read",
                fix=f"see {logs}",
            )
        if time.monotonic() > end:
            raise LaunchError(
                "the replicas found no place in time",
                found=f"{running} of {replicas} run after {seconds:.0f} s; {_cause(message)}".rstrip("; "),
                fix="free resources of the cluster, or ask for fewer replicas with --replicas",
            )
        time.sleep(_LOOK_SECONDS)


def _cause(message: str) -> str:
    """What a replica died of, of the traceback that Ray Serve tells: one of our errors where it is one, in one line."""
    ours = re.findall(r"^raycls\.errors\.\w+: (.+)((?:\n  \w+: .+)*)", message, re.MULTILINE)
    if ours:
        what, lines = ours[-1]
        return ", ".join(
            [what, *(line.strip() for line in lines.splitlines() if not line.startswith("  fix:") and line)]
        )
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _running(app: str) -> int:
    try:
        status = serve.status().applications.get(app)
    except (RayError, RayServeException):
        return 0
    return _count(None if status is None else status.deployments.get(_NAME))


def _count(deployment: Any) -> int:
    return 0 if deployment is None else deployment.replica_states.get("RUNNING", 0)


def _end(app: str, mine: bool) -> None:
    """Delete the application; Ray Serve itself too where it was started for it and nobody else uses it."""
    if not ray.is_initialized():
        return
    serve.delete(app)
    if mine and not serve.status().applications:
        serve.shutdown()
