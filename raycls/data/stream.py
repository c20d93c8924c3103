"""The pipeline: slices decoded and augmented, in order, by one of three executors.

What is in a slice is a pure function of its position (`slices`). The executors only differ in who computes that
function: this process (`inline`), processes beside it (`processes`), or Ray Data on any CPU of the cluster
(`ray`). So they give the same bytes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import astuple, dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from raycls.config.sections.data import DataConfig
from raycls.data.executors.ahead import Ahead
from raycls.data.making.bad import Bad
from raycls.data.making.sample import unexpected
from raycls.data.slices import EVALUATE, Maker, Position, Slice, Timeline, failed
from raycls.errors import DataError, RayclsError, from_json, to_json
from raycls.workdir import set_workdir, workdir

__all__ = ["Stream", "end_with_parent", "open_stream"]


@dataclass
class Stream:
    """The slices of one rank. Refuses a slice that is not the next one of the timeline."""

    slices: Iterator[Slice]
    expected: Iterator[Position]
    close: Callable[[], None] = lambda: None
    waited: float = field(default=0.0)
    """Seconds that `next` has waited for data so far."""

    def next(self, kind: str, step: int) -> Slice:
        """The next slice, which must be of `kind` and `step`."""
        began = time.perf_counter()
        found = next(self.slices, None)
        self.waited += time.perf_counter() - began
        wanted = next(self.expected, None)
        asked = wanted is not None and (wanted.kind, wanted.step) == (kind, step)
        if found is None or wanted is None or found.position != wanted or not asked:
            raise DataError(
                "the data stream is out of step: a slice that is not the next one was refused",
                found=str(found and found.position),
                valid=f"{wanted} (asked for: {kind}, step {step})",
                fix="rerun the command to resume from the latest checkpoint; if it recurs, report it",
            )
        return found

    def evaluation(self, step: int, batches: int, world: int) -> Iterator[Slice]:
        """The slices of one evaluation, empty ones included: one per round."""
        for _ in range(-(-batches // world)):
            yield self.next(EVALUATE, step)


def open_stream(
    config: DataConfig,
    executor: str,
    timeline: Timeline,
    maker: Maker,
    rank: int,
    *,
    share: Callable[[Any], Any] = lambda value: value,
    ahead: bool = False,
) -> Stream:
    """Start `executor` and return the stream of `rank`.

    `share` hands what rank 0 passes in to every rank (a collective call); only the executor `ray` needs it. `ahead`:
    whether `inline` has a thread that makes slices during the steps; `Ahead` says what that takes.
    """
    if executor == "inline" and ahead:
        slices = Ahead(maker, timeline.of(rank), config.prefetch)
        return Stream(slices, timeline.of(rank), slices.close)
    if executor == "inline":
        return Stream((maker(position) for position in timeline.of(rank)), timeline.of(rank))
    if executor == "processes":
        return _open_processes(config, timeline, maker, rank)
    return _open_ray(config, timeline, maker, rank, share)


# --- processes ---------------------------------------------------------------------------------------------


class _Slices:
    """A map-style data set whose items are whole slices."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker

    def __getitem__(self, position: Position) -> tuple[Any, ...]:
        import torch

        made = self.maker(position)
        # Tensors travel through shared memory, arrays would be copied through a pipe.
        arrays = {name: torch.from_numpy(array) for name, array in made.arrays.items()}
        return position, torch.from_numpy(made.ids), arrays, made.error, made.bad


class _Positions:
    def __init__(self, timeline: Timeline, rank: int) -> None:
        self.timeline, self.rank = timeline, rank

    def __iter__(self) -> Iterator[Position]:
        return self.timeline.of(self.rank)


def _same(item: Any) -> Any:
    return item


def end_with_parent(worker: int) -> None:
    """End this process when the one that it decodes for is gone, by whatever signal.

    torch's own watchdog looks at the parent in the process table, which is the fork server here, and the server
    lives as long as its children do. A terminal sends Ctrl-C to every process of a command: here it is ignored,
    so that the parent, which decides what it means, can still finish its step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), name="raycls-parent", daemon=True).start()


def _follow(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _open_processes(config: DataConfig, timeline: Timeline, maker: Maker, rank: int) -> Stream:
    import torch.utils.data

    # The server is a fresh process: forking one that has threads (Ray's, gloo's) can deadlock. It imports
    # torch once for all its children.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["raycls.data.stream", "raycls.data.images.operations"])
    loader = torch.utils.data.DataLoader(
        _Slices(maker),  # type: ignore[arg-type]
        batch_size=None,
        sampler=_Positions(timeline, rank),  # type: ignore[arg-type]
        num_workers=config.processes,
        prefetch_factor=max(1, config.prefetch // config.processes),
        collate_fn=_same,
        multiprocessing_context=context,
        worker_init_fn=end_with_parent,
        generator=torch.Generator(),  # else the loader draws a seed from this process's own generator
    )
    items = iter(loader)

    def slices() -> Iterator[Slice]:
        for position, ids, arrays, error, bad in items:
            yield Slice(position, ids.numpy(), {name: array.numpy() for name, array in arrays.items()}, error, bad)

    def close() -> None:
        stop = getattr(items, "_shutdown_workers", None)  # what its destructor calls; we do not wait for that
        if stop is not None:
            stop()

    return Stream(slices(), timeline.of(rank), close)


# --- ray ---------------------------------------------------------------------------------------------------


def _open_ray(config: DataConfig, timeline: Timeline, maker: Maker, rank: int, share: Callable[[Any], Any]) -> Stream:
    iterators = share(_splits(timeline, maker) if rank == 0 else None)
    tables = iter(
        iterators[rank].iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=config.prefetch)
    )
    # The pipeline starts when its first batch is asked for: that is now, while this worker builds its model.
    first: Future[Any] = Future()
    threading.Thread(target=_fetch, args=(tables, first), name="raycls-first-batch", daemon=True).start()

    def slices() -> Iterator[Slice]:
        table = first.result()
        while table is not None:
            for index in range(table.num_rows):
                yield _from_row(table, index)
            table = next(tables, None)

    def close() -> None:
        stop = getattr(tables, "close", None)
        if stop is not None and first.done():
            stop()

    return Stream(slices(), timeline.of(rank), close)


def _fetch(tables: Iterator[Any], into: Future[Any]) -> None:
    try:
        into.set_result(next(tables, None))
    except BaseException as error:  # noqa: BLE001 - raised again where the batch is asked for
        into.set_exception(error)


def _splits(timeline: Timeline, maker: Maker) -> list[Any]:
    """One Ray Data iterator per rank over a single execution.

    Every row is a whole slice and a block of its own, blocks keep their order, and the splitter deals them
    round by round. That is how Ray behaves, not what it promises: `Stream` checks every slice.
    """
    import ray
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = 1
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    previous = ray.data.DataContext.get_current()
    ray.data.DataContext._set_current(context)
    try:
        source = ray.data.read_datasource(
            _timeline_source(timeline), override_num_blocks=1, concurrency=1, num_cpus=0.01
        )
        decoded = source.map_batches(
            _Decode(ray.put(maker), str(workdir())),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0.9,  # the share of a CPU that the training workers' reservations leave on every node
        )
        return decoded.streaming_split(timeline.world, equal=True)
    finally:
        ray.data.DataContext._set_current(previous)


def _timeline_source(timeline: Timeline) -> Any:
    import pyarrow as pa
    from ray.data import Datasource
    from ray.data.block import BlockMetadata
    from ray.data.datasource import ReadTask

    # A task costs Ray some 10 ms of CPU, so it makes a few slices, which it hands on one by one.
    group = max(1, _TASK_IMAGES * timeline.world // timeline.order.batch_size)

    class TimelineSource(Datasource):
        """Yields one row, which becomes a block, per task: the positions of its slices and nothing else."""

        def get_read_tasks(
            self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
        ) -> list[ReadTask]:
            def read() -> Iterator[pa.Table]:
                positions = (position for ranks in timeline.rounds() for position in ranks)
                while together := [position.__dict__ for position in islice(positions, group)]:
                    yield pa.table({"positions": [json.dumps(together)]})

            schema = pa.schema({"positions": pa.string()})
            metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(read, metadata, schema=schema)]

        def estimate_inmemory_data_size(self) -> int | None:
            return None

    return TimelineSource()


_TASK_IMAGES = 256
"""Images that one decoding task makes."""
_makers: dict[str, Maker] = {}


class _Decode:
    """Rows of positions in, slice rows out. The maker is fetched once per process.

    It never raises: Ray would run the task again for ever. What goes wrong travels in the slice.
    """

    def __init__(self, maker: Any, workdir: str) -> None:
        self.maker = maker
        self.workdir = workdir

    def __call__(self, table: Any) -> Iterator[Any]:
        for text in table.column("positions").to_pylist():
            for position in json.loads(text):
                yield _to_row(self._make(Position(**position)))

    def _make(self, position: Position) -> Slice:
        import ray

        name = self.maker.hex()
        try:
            if name not in _makers:
                set_workdir(self.workdir)  # where plug-ins are, before they are unpickled
                _makers.clear()
                _makers[name] = ray.get(self.maker)
        except RayclsError as error:
            return failed(position, error)
        except Exception as error:  # noqa: BLE001 - see above
            return failed(position, unexpected(error))
        return _makers[name](position)


def _to_row(made: Slice) -> Any:
    """A slice as an Arrow row, with a column for each of its arrays.

    An array is one binary value over its own memory: no copy here, and none when it is read back. Its dtype and shape
    stand in the column `arrays`.
    """
    import pyarrow as pa

    def binary(array: np.ndarray) -> pa.Array:
        buffer = pa.py_buffer(np.ascontiguousarray(array))
        offsets = pa.py_buffer(np.array([0, buffer.size], np.int64))
        return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, buffer])

    kinds = {name: [array.dtype.str, list(array.shape)] for name, array in made.arrays.items()}
    return pa.table(
        {
            "position": pa.array([json.dumps(made.position.__dict__)], pa.string()),
            "ids": binary(made.ids),
            "arrays": pa.array([json.dumps(kinds)], pa.string()),
            **{_COLUMN + name: binary(array) for name, array in made.arrays.items()},
            "error": pa.array([json.dumps(to_json(made.error)) if made.error else None], pa.string()),
            "bad": pa.array(
                [None if made.bad is None else json.dumps([astuple(bad) for bad in made.bad])], pa.string()
            ),
        }
    )


def _from_row(table: Any, index: int) -> Slice:
    def value(column: str) -> Any:
        return table.column(column)[index]

    error, bad = value("error").as_py(), value("bad").as_py()
    kinds: dict[str, tuple[str, list[int]]] = json.loads(value("arrays").as_py())
    return Slice(
        Position(**json.loads(value("position").as_py())),
        np.frombuffer(value("ids").as_buffer(), np.int64),
        {
            name: np.frombuffer(value(_COLUMN + name).as_buffer(), dtype).reshape(shape)
            for name, (dtype, shape) in kinds.items()
        },
        from_json(json.loads(error)) if error else None,
        None if bad is None else tuple(Bad(*each) for each in json.loads(bad)),
    )


_COLUMN = "array."
"""What the names of the columns of arrays begin with."""
