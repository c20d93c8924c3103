"""Parts of a prediction, or of other work, computed on a Ray: by as many workers as there is room for.

The driver keeps the answers, so the nodes share nothing but the run folder and the images.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

from raycls.cluster.connection import Cluster, running_cluster
from raycls.cluster.nodes import nodes
from raycls.config.sections.run import Run
from raycls.errors import LaunchError
from raycls.launch.node_checks import Mark, Sight
from raycls.launch.placing.fit import Nodes, described, workers_on
from raycls.launch.placing.waiting import Request, wait_for_nodes
from raycls.launch.predictions.pool import Done, computed_on
from raycls.launch.trainer import connecting
from raycls.progress import progress
from raycls.quantities import plural
from raycls.run.folder import RunFolder
from raycls.session.computing.parted import Parted, refuse_unseen
from raycls.session.consistency import nonce_of
from raycls.session.predictions.compute import Part, Work
from raycls.session.setup import device_of

__all__ = ["OnRay", "on_ray"]


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
        """`cpu` or `cuda`: the device of the workers that predict."""

    def compute(self, work: Work, numbers: Sequence[int]) -> Generator[Part, None, None]:
        """The parts `numbers`, in the order in which they are done.

        LaunchError where there is no room, where workers were lost more often than `scale.max_failures` allows for one
        part, or where a node does not see an image that is there.
        """
        folder = work.trained.folder
        mark = Mark(folder.uri, RunFolder.ENV, nonce_of(folder))
        for done in self._parts(work, numbers, _elsewhere(self._run), mark, self.device):
            part = Part.from_bytes(done.data)
            _refuse_unseen(work, part, done.host)
            yield part

    def parts(self, work: Parted, numbers: Sequence[int]) -> Iterator[Done]:
        """Parts of work that needs the data, no run and no GPU, such as packing, in the order in which they are done.
        LaunchError as for `compute`."""
        yield from self._parts(work, numbers, self._run, None, "cpu")

    def _parts(self, work: Parted, numbers: Sequence[int], seen: Run, mark: Mark | None, device: str) -> Iterator[Done]:
        smallest, largest = self._size(len(numbers), device)
        Sight(seen, mark, self._cluster, device, self._say).check()
        self._say(f"placing {plural(largest, 'worker')}")
        progress(f"starting {plural(largest, 'worker')}")
        return computed_on(work, numbers, self._run, device, smallest, largest)

    def _size(self, parts: int, device: str) -> tuple[int, int]:
        """The smallest and largest number of workers: those that there is room for, or that may come."""
        run, grows = self._run, self._cluster.grows
        unit = {"CPU": run.scale.cpus, **({"GPU": 1.0} if device == "cuda" else {})}
        wanted = min(run.scale.max_workers, parts)
        least = min(run.scale.min_workers, parts) if run.scale.elastic else 1
        there = wait_for_nodes(
            lambda seen: self._check(seen, least, device),
            nodes,
            f"{least} x ({', '.join(f'{count:g} {name}s' for name, count in unit.items())})",
            run.scale.wait,
            demand=Request([unit], least, wanted) if grows else None,
            patient=grows,
            stopped=lambda: False,
            say=self._say,
        )
        places = self._places(there or (), device)
        if places < wanted:
            self._say(f"room for {places} of {plural(wanted, 'worker')}")
        return (least, wanted) if grows and places < wanted else (min(places, wanted), min(places, wanted))

    def _places(self, there: Nodes, device: str) -> int:
        return sum(workers_on(self._run.scale.cpus, node, device) for node in there)

    def _check(self, there: Nodes, least: int, device: str) -> None:
        if self._places(there, device) < least:
            raise LaunchError(
                "there is no room for the workers",
                found=described(there),
                valid=f"{self._run.scale.cpus:g} CPUs{' and a GPU' if device == 'cuda' else ''} on one node for "
                f"each of {plural(least, 'worker')}",
                fix="lower scale.workers or scale.threads, or add nodes",
            )


def _elsewhere(run: Run) -> Run:
    """The run without the place of its training data, which no prediction reads."""
    source = run.data.source.model_copy(update={"path": None})
    return run.model_copy(update={"data": run.data.model_copy(update={"source": source})})


def _refuse_unseen(work: Work, part: Part, host: str) -> None:
    for place in part.unread:
        refuse_unseen(work.split, part.number * work.part_rows + place, host, part.errors[place])
