"""Parts of a prediction computed by Ray Data: a pool of actors, each with a network of its own, on any nodes.

What travels is the number of a part one way and its answers the other way. The driver keeps the answers, so the nodes
share nothing but the run folder and the images. Ray computes a part again whose worker was lost; parts have numbers, so
none counts twice.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from raycls.cluster.connection import Cluster, running_cluster
from raycls.cluster.nodes import nodes
from raycls.config.sections.run import Run
from raycls.errors import DataError, LaunchError, RayclsError, from_json, kind_and_line, to_json
from raycls.launch.fit import Nodes, described
from raycls.launch.node_checks import Mark, Sight
from raycls.launch.trainer import connecting, device_of
from raycls.launch.waiting import Request, wait_for_nodes
from raycls.progress import progress
from raycls.quantities import plural
from raycls.run.folder import RunFolder
from raycls.session.predictions.compute import Part, Predictor, Work
from raycls.workdir import set_workdir

__all__ = ["OnRay", "on_ray"]

_ROUNDING = 1e-6
_IN_FLIGHT = 2
"""Parts that wait at each worker, the one that it computes among them."""


@contextmanager
def on_ray(run: Run, say: Callable[[str], None]) -> Iterator[OnRay]:
    """Join or start a Ray for the length of the block; `run.scale` says who computes there."""
    say(connecting())
    progress(connecting())
    with running_cluster() as cluster:
        yield OnRay(run, cluster, say)


class OnRay:
    """Computes parts on `cluster`."""

    def __init__(self, run: Run, cluster: Cluster, say: Callable[[str], None]) -> None:
        self._run, self._cluster, self._say = run, cluster, say
        self.device = device_of(run, cluster.gpus)
        """`cpu` or `cuda`: the device of the workers."""

    def compute(self, work: Work, numbers: Sequence[int]) -> Iterator[Part]:
        """The parts `numbers`, in the order in which they are done.

        LaunchError where there is no room, where workers were lost more often than `scale.max_failures` allows for one
        part, or where a node does not see an image that is there.
        """
        smallest, largest = self._size(len(numbers))
        folder = work.trained.folder
        digest = hashlib.sha256(folder.store.read_bytes(RunFolder.ENV)).hexdigest()
        Sight(
            _elsewhere(self._run), Mark(folder.uri, RunFolder.ENV, digest), self._cluster, self.device, self._say
        ).check()
        self._say(f"placing {plural(largest, 'worker')}")
        progress(f"starting {plural(largest, 'worker')}")
        for row in _rows(work, numbers, self._run, self.device, smallest, largest):
            part = _part_of(row)
            _refuse_unseen(work, part, row["host"])
            yield part

    def _size(self, parts: int) -> tuple[int, int]:
        """The smallest and largest number of workers: those that there is room for, or that may come."""
        run, grows = self._run, self._cluster.grows
        unit = {"CPU": run.scale.cpus, **({"GPU": 1.0} if self.device == "cuda" else {})}
        wanted = min(run.scale.max_workers, parts)
        least = min(run.scale.min_workers, parts) if run.scale.elastic else 1
        there = wait_for_nodes(
            lambda seen: self._check(seen, least),
            nodes,
            f"{least} x ({', '.join(f'{count:g} {name}s' for name, count in unit.items())})",
            run.scale.wait,
            demand=Request([unit], least, wanted) if grows else None,
            patient=grows,
            stopped=lambda: False,
            say=self._say,
        )
        places = self._places(there or ())
        if places < wanted:
            self._say(f"room for {places} of {plural(wanted, 'worker')}")
        return (least, wanted) if grows and places < wanted else (min(places, wanted), min(places, wanted))

    def _places(self, there: Nodes) -> int:
        count = 0
        for node in there:
            fits = int(node.get("CPU", 0.0) / self._run.scale.cpus + _ROUNDING)
            count += min(fits, int(node.get("GPU", 0.0))) if self.device == "cuda" else fits
        return count

    def _check(self, there: Nodes, least: int) -> None:
        if self._places(there) < least:
            raise LaunchError(
                "there is no room for the workers of the prediction",
                found=described(there),
                valid=f"{self._run.scale.cpus:g} CPUs{' and a GPU' if self.device == 'cuda' else ''} on one node for "
                f"each of {plural(least, 'worker')}",
                fix="lower scale.workers or scale.threads, or add nodes",
            )


def _elsewhere(run: Run) -> Run:
    """The run without the place of its training data, which no prediction reads."""
    source = run.data.source.model_copy(update={"path": None})
    return run.model_copy(update={"data": run.data.model_copy(update={"source": source})})


def _rows(
    work: Work, numbers: Sequence[int], run: Run, device: str, smallest: int, largest: int
) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import ray
    import ray.data

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
                _Worker,
                # Inside a list, a reference is no argument that must be there for an actor to start again.
                fn_constructor_args=([ray.put(work)], work.workdir),
                batch_size=1,
                batch_format="pyarrow",
                compute=pool,
                num_cpus=run.scale.cpus,
                num_gpus=1 if device == "cuda" else None,
                max_task_retries=run.scale.max_failures,
            )
        for table in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from cast(pa.Table, table).to_pylist()
    except RayclsError:
        raise
    except Exception as error:
        raise LaunchError(
            "the prediction on Ray ended early: its workers were lost too often, or Ray itself failed",
            found=kind_and_line(error),
            fix="rerun the command to resume; where memory is short, lower scale.workers",
        ) from error
    finally:
        ray.data.DataContext._set_current(previous)


class _Worker:
    """A number in, a part out. It never raises: what goes wrong travels in the row."""

    def __init__(self, work: list[Any], workdir: str) -> None:
        (self._work,), self._workdir = work, workdir
        self._predictor: Predictor | None = None

    def __call__(self, table: Any) -> Any:
        import socket

        import pyarrow as pa

        rows = [self._answer(number) for number in table.column("number").to_pylist()]
        columns = {
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

        if self._predictor is None:
            set_workdir(self._workdir)  # where plug-ins are, before they are unpickled
            self._predictor = Predictor(ray.get(self._work))
            self._predictor.__enter__()
        return self._predictor.part(number).to_bytes()


def _part_of(row: dict[str, Any]) -> Part:
    if row["error"] is not None:
        error = from_json(json.loads(row["error"]))
        error.where = f"{error.where} (on the node {row['host']})" if error.where else f"the node {row['host']}"
        raise error
    return Part.from_bytes(row["data"])


def _refuse_unseen(work: Work, part: Part, host: str) -> None:
    """LaunchError where a file could not be read there and can be read here: that is no fault of the file."""
    for place in part.unread:
        row = part.number * work.part_rows + place
        try:
            work.split.reader.read(row)
        except DataError:
            continue
        raise LaunchError(
            "a node does not see an image that this one sees",
            where=work.split.locate(row),
            found=f"on the node {host}: {part.errors[place]}",
            fix="put the images where every node reaches them; then rerun the command to resume",
        )
