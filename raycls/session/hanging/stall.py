"""What ends a run that hangs: where every thread of every worker stands, in a file, and an error that names it."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from raycls.config.sections.duration import Duration
from raycls.errors import EXIT_FAILED, LaunchError, RayclsError
from raycls.run.folder import RunFolder
from raycls.session.hanging.deadline import within
from raycls.train.ranks import Ranks

__all__ = ["Stall", "leave", "write_stacks"]

_WRITING_SECONDS = 10.0
_LOOKS = 20
"""How often the beat is looked at within the time that it may stay away."""


def leave(error: RayclsError) -> None:
    """End this process: the thread that hangs cannot be made to."""
    print(f"raycls: {error}", file=sys.stderr, flush=True)
    os._exit(EXIT_FAILED)


def write_stacks(folder: RunFolder, rank: int) -> str:
    """Write where every thread of this process stands; returns the file, as a message shows it.

    TimeoutError where the storage takes too long: it may be what hangs.
    """
    name = f"{RunFolder.STACKS}/rank-{rank}.txt"
    with tempfile.TemporaryFile() as file:
        file.write(f"rank {rank}, {socket.gethostname()}, process {os.getpid()}, {time.ctime()}\n\n".encode())
        file.flush()
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        within(_WRITING_SECONDS, folder.store.write_bytes, name, file.read())
    return folder.store.describe(name)


class Stall:
    """A thread that looks at a worker's beat, and tells `stalled` where it has stayed away for `timeout`."""

    def __init__(
        self, ranks: Ranks, folder: RunFolder, timeout: Duration | str, stalled: Callable[[RayclsError], None]
    ) -> None:
        self._ranks, self._folder, self._stalled = ranks, folder, stalled
        self._seconds = (timeout.seconds or 0.0) if isinstance(timeout, Duration) else 0.0
        self._timeout = timeout
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="raycls-stall", daemon=True)

    def __enter__(self) -> Self:
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._thread.ident and self._thread is not threading.current_thread():
            self._thread.join(1.0)  # it may be writing to a storage that hangs

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._closed.wait(self._seconds / _LOOKS):
            now, before = time.monotonic(), looked
            looked = now
            if now - before > self._seconds / 2:
                self._ranks.alive()  # this process itself was stopped, as by SIGSTOP: the others judge that
            elif now - self._ranks.pulse.beat > self._seconds:
                self._tell(now - self._ranks.pulse.beat)
                return

    def _tell(self, seconds: float) -> None:
        try:
            where = write_stacks(self._folder, self._ranks.rank)
        except (OSError, RayclsError) as error:
            where = f"not written: {str(error).splitlines()[0]}"
        self._stalled(
            LaunchError(
                f"the run makes no progress: rank {self._ranks.rank} has waited for {seconds:.0f} seconds",
                where=where,
                found=f"train.stall_timeout: {self._timeout}",
                fix="the files beside that one show where each worker was: a worker without a file was frozen or gone; "
                "rerun the command to resume from the latest checkpoint or to repeat the evaluation; if steps, "
                "evaluation batches or checkpoints take that long, raise train.stall_timeout",
            )
        )
