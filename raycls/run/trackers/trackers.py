"""MLflow and Weights & Biases: told of every log line of a run, and never in its way.

Each tracker lives in a process of its own (`tracker_process`), beside rank 0. Their libraries draw from Python's
random generator when they wait between two tries, change signals and hooks, and can hang: none of that can touch the
training there. A line waits in a bounded queue that a thread empties into the process; what finds it full is left out.

One run on a tracker lasts through every restart. It is found by an id that lies in the run folder, outside any
checkpoint, and each start completes it from `history.jsonl`: with what a crash, or a tracker that was down, had kept
from it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import raycls
from raycls.config.sections.track import TrackConfig
from raycls.errors import ConfigError
from raycls.run import strict_json
from raycls.run.folder import RunFolder

__all__ = ["ENVIRONMENT", "Trackers", "check_trackers", "open_trackers"]

ENVIRONMENT = {
    # Neither library tells its maker anything, neither looks at git, code or the machine.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_DISABLE_CODE": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_SILENT": "true",
    # One try each; `tracker_process` repeats it, and knows when to stop.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""What the process of a tracker has in its environment beside that of the run."""

_NAMES = {"mlflow": "MLflow", "wandb": "Weights & Biases"}
_QUEUE = 10_000
"""Lines that wait for a slow tracker, at most."""
_END_SECONDS, _DOWN_SECONDS = 20.0, 2.0
"""How long the end of a run waits for a tracker that works, and for one that does not."""


def check_trackers(track: TrackConfig, folder: RunFolder) -> None:
    """Refuse a tracker whose package is not installed, and offline files that nobody would find again."""
    for kind in _kinds(track):
        spec = importlib.util.find_spec(kind)
        if spec is None or spec.origin is None:  # a folder of that name, such as W&B makes, is no package
            raise ConfigError(
                f"track.{kind} needs {_NAMES[kind]}, which is not installed",
                where=f"track.{kind}",
                fix=f"pip install 'raycls[{kind}]'",
            )
    if track.wandb.mode == "offline" and folder.path() is None:
        raise ConfigError(
            "track.wandb.mode: offline writes files, which need a run folder on a disk",
            where="track.wandb.mode, run.storage",
            found=folder.store.describe(),
            fix="set run.storage to a folder, or track.wandb.mode: online",
        )


def open_trackers(
    track: TrackConfig,
    folder: RunFolder,
    *,
    attempt: int,
    name: str,
    group: str = "",
    parameters: Mapping[str, Any],
    dashboard: str = "",
    tell: Callable[[str], None],
) -> Trackers:
    """Start the trackers that `track` names, for rank 0. They connect on their own; nothing here waits for them.

    `parameters` are the options of the run under their dotted paths, `group` is the search that it is a trial of, and
    `dashboard` the page of the Ray job. `tell` is called with lines for the screen, in the thread that uses the
    trackers. Raises what reading and writing the run folder raises, and nothing else.
    """
    kinds = _kinds(track)
    if not kinds:
        return Trackers([], tell)
    settings = {
        "folder": folder.uri,
        "local": str(folder.path() or ""),
        "id": _identity(folder),
        "attempt": attempt,
        "name": f"{group}/{name}" if group else name,
        "group": group,
        "group_id": sha256(folder.uri.rpartition("/")[0].encode()).hexdigest()[:16],
        "parameters": dict(parameters),
        "dashboard": dashboard,
    }
    sections = {"mlflow": track.mlflow.model_dump(), "wandb": track.wandb.model_dump()}
    return Trackers([_Tracker(kind, {**settings, "kind": kind, "track": sections[kind]}) for kind in kinds], tell)


class Trackers:
    """All trackers of a run; none on the other ranks. No method raises, and only `end` waits."""

    def __init__(self, trackers: list[_Tracker], tell: Callable[[str], None]) -> None:
        self._trackers, self._tell = trackers, tell

    def write(self, record: Mapping[str, Any]) -> None:
        """Hand on a record of the history."""
        for tracker in self._trackers:
            tracker.put(record)
            self._pass_on(tracker)

    def end(self, state: str, summary: Mapping[str, Any], *, moves: bool = False) -> None:
        """End the run on the trackers as FINISHED, FAILED or KILLED, and tell what did not reach them.

        Waits at most 20 s for all of them, 2 s for one that is known to be down or where the run `moves` to another
        group of workers, which brings what is lacking. A second call does nothing.
        """
        trackers, self._trackers = self._trackers, []
        for tracker in trackers:
            tracker.ask_to_end(state, summary)
        deadline = time.monotonic() + (_DOWN_SECONDS if moves else _END_SECONDS)
        for tracker in trackers:
            tracker.end(deadline, tell=not moves)
            self._pass_on(tracker)

    def _pass_on(self, tracker: _Tracker) -> None:
        while tracker.news:
            self._tell(tracker.news.pop(0))


class _Tracker:
    """One tracker's process, and the two threads that talk to it."""

    def __init__(self, kind: str, settings: dict[str, Any]) -> None:
        self.news: list[str] = []
        """Lines for the screen that nobody has read yet."""
        self._kind, self._given, self._delivered = kind, 0, 0
        self._down, self._complained, self._ended, self._killed = False, False, False, False
        self._remedy, self._address = "", settings["track"].get("uri", "")
        self._queue: queue.Queue[str | None] = queue.Queue(_QUEUE)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        try:
            self._process = _start(self._errors)
        except OSError as error:
            self._process = None
            self._complain(str(error))
            return
        self._queue.put(_line(settings))
        threading.Thread(target=self._feed, args=(self._process,), name=f"raycls-{kind}", daemon=True).start()
        self._listener = threading.Thread(target=self._listen, args=(self._process,), name=f"raycls-{kind}-said")
        self._listener.daemon = True
        self._listener.start()

    def put(self, record: Mapping[str, Any]) -> None:
        self._given += 1
        with suppress(queue.Full):
            self._queue.put_nowait(_line({"record": dict(record)}))

    def ask_to_end(self, state: str, summary: Mapping[str, Any]) -> None:
        text = _line({"end": state, "summary": dict(summary)})
        for item in (text, None):
            try:
                self._queue.put_nowait(item)
            except queue.Full:  # it hangs, and is ended without a word
                self._down = True
                break

    def end(self, deadline: float, *, tell: bool) -> None:
        """Wait for the process to end by itself, then make it."""
        process = self._process
        if process is not None:
            began = time.monotonic()
            while process.poll() is None and time.monotonic() < deadline:
                if self._down and time.monotonic() > began + _DOWN_SECONDS:
                    break
                time.sleep(0.02)
            if process.poll() is None:
                self._killed = True
                with suppress(OSError):  # what it has started goes with it
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            self._listener.join(1.0)
        with suppress(queue.Full):  # where the feeding thread waits for a line still
            self._queue.put_nowait(None)
        if tell and (self._delivered < self._given or not self._ended):
            self._tell_of_loss()
        self._errors.close()

    def _tell_of_loss(self) -> None:
        lost = self._given - self._delivered
        what = (
            f"{lost} of {self._given} log lines did not arrive"
            if lost
            else "the end of the run, and perhaps lines before it, did not arrive"
        )
        remedy = self._remedy or "history.jsonl has all of them"
        self.news.append(f"warning: {_NAMES[self._kind]}: {what}; {remedy}")

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        stdin: Any = process.stdin
        with suppress(OSError, ValueError), stdin:
            while (text := self._queue.get()) is not None:
                stdin.write(text.encode())
                if self._queue.empty():
                    stdin.flush()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        stdout: Any = process.stdout
        with suppress(OSError, ValueError), stdout:
            for text in stdout:
                self._hear(json.loads(text))
        if process.wait() and not self._ended and not self._killed:
            self._complain(_last_line(self._errors) or f"its process ended with {process.returncode}")

    def _hear(self, said: dict[str, Any]) -> None:
        if "problem" in said:
            self._complain(said["problem"])
        self._down = "problem" in said
        self._delivered = said.get("delivered", self._delivered)
        self._remedy = said.get("remedy", self._remedy)
        self._ended = self._ended or "ended" in said
        if "url" in said:
            self.news.append(f"{_NAMES[self._kind]}: {said['url']}")

    def _complain(self, problem: str) -> None:
        self._down = True
        if not self._complained:
            self._complained = True
            who = " at ".join(part for part in (_NAMES[self._kind], self._address) if part)
            self.news.append(f"warning: {who} does not answer as it should, the run goes on: {problem}")


def _kinds(track: TrackConfig) -> list[str]:
    chosen = {"mlflow": track.mlflow.uri != "off", "wandb": track.wandb.mode != "off"}
    return [kind for kind, wanted in chosen.items() if wanted]


def _identity(folder: RunFolder) -> str:
    """The id of the run on every tracker: made at its first start, and kept as long as the run folder."""
    known = folder.read_json(RunFolder.TRACKERS) or {"id": secrets.token_hex(8)}
    if not folder.store.exists(RunFolder.TRACKERS):
        folder.write_json(RunFolder.TRACKERS, known)
    return str(known["id"])


def _start(errors: Any) -> subprocess.Popen[bytes]:
    # -P: a folder `wandb` in the working directory must not hide the package
    words = [sys.executable, "-P", "-m", "raycls.run.trackers.process", str(os.getpid())]
    home = str(Path(raycls.__file__).parents[1])
    paths = os.pathsep.join(path for path in (home, os.environ.get("PYTHONPATH", "")) if path)
    return subprocess.Popen(
        words,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,  # Ctrl-C is for the run, which then says how it ended
    )


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, default=strict_json.plain) + "\n"  # between two Pythons: NaN may stay NaN


def _last_line(errors: Any) -> str:
    with suppress(OSError, ValueError):
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
        lines = errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""
    return ""
