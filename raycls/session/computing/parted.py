"""What is computed part by part, and the folder in which one command at a time keeps what is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from raycls.config.sections.run import Run
from raycls.data.source import Split
from raycls.errors import ConfigError, DataError, LaunchError
from raycls.run.folder import RunFolder
from raycls.run.storage.lock import Lock

__all__ = ["JOB", "Compute", "Elsewhere", "Join", "Parted", "check_job", "held", "refuse_unseen"]

JOB = "job.json"
"""Says which images and options the parts in a folder are of."""
_WAIT_SECONDS = 5.0
"""How long a command waits for one that was killed a moment ago to be gone."""

Compute = Callable[[int], bytes]
"""Number of a part -> what was made: the same bytes in every process."""


class Parted(Protocol):
    """Plain values: it travels to other processes."""

    @property
    def workdir(self) -> str:
        """Where plug-ins come from."""
        ...

    @property
    def doing(self) -> str:
        """What is done with the images, for messages: `predicting`."""
        ...

    @property
    def remedy(self) -> str:
        """What helps where the same images end their process each time."""
        ...

    def place(self, number: int) -> str:
        """For messages: which images the part `number` has."""
        ...

    def computing(self) -> AbstractContextManager[Compute]:
        """What computes parts in this process."""
        ...


class Elsewhere(Protocol):
    """A cluster that computes parts."""

    def parts(self, work: Parted, numbers: Sequence[int]) -> Iterable[tuple[int, bytes, str]]:
        """The parts with these numbers, in any order, each with the host that made it."""
        ...


Join = Callable[[Run, Callable[[str], None]], AbstractContextManager[Elsewhere]]


def refuse_unseen(split: Split, row: int, host: str, why: str | None) -> None:
    """LaunchError where an image that could not be read on `host` can be read here: that is no fault of the file."""
    try:
        split.reader.read(row)
    except DataError:
        return
    raise LaunchError(
        "a node does not see an image that this one sees",
        where=split.locate(row),
        found=f"on the node {host}: {why}",
        fix="put the images where every node reaches them; then rerun the command to resume",
    )


@contextmanager
def held(folder: RunFolder, purpose: str, *, what: str) -> Iterator[None]:
    """Hold the folder for one command. LaunchError that says `what` where another one does."""
    lock = Lock(folder, purpose, timeout=_WAIT_SECONDS)
    try:
        lock.acquire()
    except LaunchError as error:
        raise LaunchError(
            what,
            where=folder.store.describe(),
            found=error.found,
            valid="one command at a time",
            fix="wait for it to end or stop it, or choose another --out",
        ) from error
    with lock:
        yield


def check_job(folder: RunFolder, job: Mapping[str, Any], before: Mapping[str, Any] | None, *, what: str) -> None:
    """Note the job where there was none `before`; ConfigError that says `what` where that was another one."""
    if before is None:
        folder.write_json(JOB, job)
        return
    differs = [
        f"{name} {before.get(name)!r}, now {value!r}" for name, value in job.items() if before.get(name) != value
    ]
    if differs:
        raise ConfigError(
            what,
            where=folder.store.describe(),
            found="\n         ".join(differs),
            valid="the same images and options as when it was started",
            fix="choose another --out, or start anew with --force",
        )
