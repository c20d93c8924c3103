"""Parts computed by Ray Data: a pool of actors on any nodes, each with what it needs opened once.

What travels is the number of a part one way and what was made of it the other way. Ray computes a part again whose
worker was lost; parts have numbers, so none counts twice.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from raycls.config.sections.run import Run
from raycls.errors import LaunchError, RayclsError, from_json, kind_and_line, to_json
from raycls.session.computing.parted import Parted
from raycls.workdir import set_workdir

__all__ = ["Done", "UnderWay", "Worker", "computed_on", "done_of"]

_PATIENCE, _NAMED = 10.0, 3
"""Seconds that Ray has to say which parts were under way, and how many of them are named."""
_IN_FLIGHT = 2
"""Parts that wait at each worker, the one that it computes among them."""


class Done(NamedTuple):
    """A part, and the node that made it."""

    number: int
    data: bytes
    host: str


def computed_on(
    work: Parted, numbers: Sequence[int], run: Run, device: str, smallest: int, largest: int
) -> Iterator[Done]:
    """The parts `numbers`, in the order in which they are done, by at least `smallest` actors.

    An error of a worker is raised, with its node. LaunchError where workers were lost more often than
    `scale.max_failures` allows for one part.
    """
    import pyarrow as pa
    import ray
    import ray.data

    under_way = _noting()
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    previous = ray.data.DataContext.get_current()
    ray.data.DataContext._set_current(context)
    try:
        parts = ray.data.from_arrow([pa.table({"number": [number]}) for number in numbers])
        pool = ray.data.ActorPoolStrategy(min_size=smallest, max_size=largest, max_tasks_in_flight_per_actor=_IN_FLIGHT)
        with warnings.catch_warnings():  # of `max_task_retries`, for which there is no other way
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
            done = parts.map_batches(
                Worker,
                # Inside a list, a reference is no argument that must be there for an actor to start again.
                fn_constructor_args=([ray.put(work)], work.workdir, under_way),
                batch_size=1,
                batch_format="pyarrow",
                compute=pool,
                num_cpus=run.scale.cpus,
                num_gpus=1 if device == "cuda" else None,
                max_task_retries=run.scale.max_failures,
            )
        with _quiet():
            for table in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from map(done_of, cast(pa.Table, table).to_pylist())
    except RayclsError:
        raise
    except Exception as error:
        raise LaunchError(
            f"{work.doing} on Ray ended early: its workers were lost too often, or Ray itself failed",
            where=_suspect(under_way, work),
            found=kind_and_line(error),
            fix=f"rerun the command to resume; where memory is short, lower scale.workers; if it recurs, {work.remedy}",
        ) from error
    finally:
        ray.data.DataContext._set_current(previous)


class UnderWay:
    """An actor that knows which parts were begun and never ended: a worker that is killed can say nothing."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, number: int) -> None:
        self._begun[number] += 1

    def end(self, number: int) -> None:
        del self._begun[number]

    def suspects(self) -> list[int]:
        """Those that were begun most often."""
        most = max(self._begun.values(), default=0)
        return sorted(number for number, times in self._begun.items() if times == most)


def _noting() -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(UnderWay).options(num_cpus=0, max_restarts=0, scheduling_strategy=here).remote()


def _suspect(under_way: Any, work: Parted) -> str | None:
    """The parts at which workers were lost, where that can still be asked."""
    import ray

    try:
        numbers = ray.get(under_way.suspects.remote(), timeout=_PATIENCE)
    except Exception:  # noqa: BLE001 - Ray itself may be gone
        return None
    return "\n         ".join(map(work.place, numbers[:_NAMED])) or None


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data logs an error as a fault of its own, with its traceback: ours tells it."""
    logger = logging.getLogger("ray.data")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


class Worker:
    """A number in, a part out. It never raises: what goes wrong travels in the row."""

    def __init__(self, work: list[Any], workdir: str, under_way: Any) -> None:
        (self._work,), self._workdir, self._under_way = work, workdir, under_way
        self._compute: Any = None

    def __call__(self, table: Any) -> Any:
        import socket

        import pyarrow as pa

        rows = [self._answer(number) for number in table.column("number").to_pylist()]
        columns = {
            "number": table.column("number"),
            "data": pa.array([data for data, _ in rows], pa.large_binary()),
            "error": pa.array([error for _, error in rows], pa.string()),
            "host": pa.array([socket.gethostname()] * len(rows), pa.string()),
        }
        return pa.table(columns)

    def _answer(self, number: int) -> tuple[bytes | None, str | None]:
        try:
            return self._part(number), None
        except RayclsError as error:
            return None, json.dumps(to_json(error))
        except Exception as error:  # noqa: BLE001 - of a plug-in; raised, Ray would say it in its own words
            return None, json.dumps(to_json(LaunchError("a worker failed", found=kind_and_line(error))))

    def _part(self, number: int) -> bytes:
        import ray

        if self._compute is None:
            set_workdir(self._workdir)  # where plug-ins are, before they are unpickled
            found: Any = ray.get(self._work)
            self._compute = found.computing().__enter__()
        compute = self._compute
        ray.get(self._under_way.begin.remote(number))  # it has to be known before the process may end
        try:
            return compute(number)
        finally:
            self._under_way.end.remote(number)


def done_of(row: dict[str, Any]) -> Done:
    """What a worker answered. Its error, where it has one, names the node."""
    if row["error"] is not None:
        error = from_json(json.loads(row["error"]))
        error.where = f"{error.where} (on the node {row['host']})" if error.where else f"the node {row['host']}"
        raise error
    return Done(row["number"], row["data"], row["host"])
