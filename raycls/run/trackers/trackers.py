"""MLflow and Weights & Biases: brought every log line of a run, and never in its way.

Each tracker lives in a process of its own (`process`), beside rank 0, which reads `history.jsonl` as it grows. Their
libraries draw from Python's random generator when they wait between two tries, change signals and hooks, and can hang:
none of that can touch the training there. Run and process talk by two files without a name, as a pipe can be full.
In a remote store a line is seen when it was flushed there, after 40 seconds at most.

One run on a tracker lasts through every restart. It is found by an id that lies in the run folder, outside any
checkpoint, and each start completes it: with what a crash, or a tracker that was down, had kept from it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
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
    # One try each; `process` repeats it, and knows when to stop.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""What the process of a tracker has in its environment beside that of the run."""

_NAMES = {"mlflow": "MLflow", "wandb": "Weights & Biases"}
_END_SECONDS, _DOWN_SECONDS = 20.0, 2.0
"""How long the end of a run waits for a tracker that works, and for one that does not."""


def check_trackers(track: TrackConfig, folder: RunFolder) -> None:
    """Refuse a tracker whose package is not installed, and offline files that would be lost with the node."""
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

    def wrote(self) -> None:
        """A record is in the history. Tells what the trackers have said."""
        for tracker in self._trackers:
            tracker.wrote += 1
            self._pass_on(tracker)

    def end(self, state: str, summary: Mapping[str, Any], *, moves: bool = False) -> None:
        """End the run on the trackers as FINISHED, FAILED or KILLED, and tell what did not reach them.

        The history is flushed before. Waits at most 20 s for all of them, 2 s for one that is known to be down or where
        the run `moves` to another group of workers, which brings what is lacking. A second call does nothing.
        """
        trackers, self._trackers = self._trackers, []
        for tracker in trackers:
            tracker.ask_to_end(state, summary)
        deadline = time.monotonic() + (_DOWN_SECONDS if moves else _END_SECONDS)
        for tracker in trackers:
            tracker.end(deadline, tell=not moves)
            self._pass_on(tracker)
            tracker.close()

    def _pass_on(self, tracker: _Tracker) -> None:
        tracker.hear()
        while tracker.news:
            self._tell(tracker.news.pop(0))


class _Tracker:
    """One tracker's process, and the files by which the run talks to it."""

    def __init__(self, kind: str, settings: dict[str, Any]) -> None:
        self.news: list[str] = []
        """Lines for the screen that nobody has read yet."""
        self.wrote = 0
        """Records that are in the history."""
        self._kind, self._address = kind, settings["track"].get("uri", "")
        self._delivered, self._heard, self._remedy = 0, 0, ""
        self._down, self._complained, self._ended = False, False, False
        self._process: subprocess.Popen[bytes] | None = None
        self._files: list[Any] = []
        try:
            for _ in ("told", "said", "errors"):
                self._files.append(tempfile.TemporaryFile())  # noqa: SIM115 - closed by `close`
            self._say(settings)
            self._process = _start(*self._files)
        except OSError as error:
            self._complain(str(error))

    def ask_to_end(self, state: str, summary: Mapping[str, Any]) -> None:
        if self._process is not None:
            try:
                self._say({"end": state, "summary": dict(summary)})
            except OSError:  # the disk is full: it is ended without a word
                self._down = True

    def end(self, deadline: float, *, tell: bool) -> None:
        """Wait for the process to end by itself, then make it."""
        process, began = self._process, time.monotonic()
        if process is not None:
            while process.poll() is None and time.monotonic() < deadline:
                self.hear()
                if self._down and time.monotonic() > began + _DOWN_SECONDS:
                    break
                time.sleep(0.02)
            self.hear()
            if process.poll() is None:
                self._process = None
                with suppress(OSError):  # what it has started goes with it
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if tell and (self._delivered < self.wrote or not self._ended):
            self._tell_of_loss()

    def hear(self) -> None:
        """What the process has said since the last call, and whether it has died."""
        if self._process is None:
            return
        died = self._process.poll()  # before the look: its last word was written then
        _, said, errors = self._files
        data = os.pread(said.fileno(), os.fstat(said.fileno()).st_size, self._heard)
        data = data[: data.rfind(b"\n") + 1]
        self._heard += len(data)
        for line in data.splitlines():
            self._take(json.loads(line))
        if died and not self._ended:
            self._complain(_last_line(errors) or f"its process ended with {died}")

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _say(self, value: dict[str, Any]) -> None:
        text = json.dumps(value, default=strict_json.plain) + "\n"  # between two Pythons: NaN may stay NaN
        self._files[0].write(text.encode())
        self._files[0].flush()

    def _take(self, said: dict[str, Any]) -> None:
        if "problem" in said:
            self._complain(said["problem"])
        self._down = "problem" in said
        self._delivered = said.get("delivered", self._delivered)
        self._remedy = said.get("remedy", self._remedy)
        self._ended = self._ended or "ended" in said
        if "url" in said:
            self.news.append(f"{_NAMES[self._kind]}: {said['url']}")

    def _tell_of_loss(self) -> None:
        lost = self.wrote - self._delivered
        what = (
            f"{lost} of {self.wrote} log lines did not arrive"
            if lost
            else "the end of the run, and perhaps lines before it, did not arrive"
        )
        remedy = self._remedy or "history.jsonl has all of them"
        self.news.append(f"warning: {_NAMES[self._kind]}: {what}; {remedy}")

    def _complain(self, problem: str) -> None:
        self._down = True
        if not self._complained:
            self._complained = True
            who = " at ".join(part for part in (_NAMES[self._kind], self._address) if part)
            self.news.append(f"warning: {who} does not answer as it should; the run continues: {problem}")


def _kinds(track: TrackConfig) -> list[str]:
    chosen = {"mlflow": track.mlflow.uri != "off", "wandb": track.wandb.mode != "off"}
    return [kind for kind, wanted in chosen.items() if wanted]


def _identity(folder: RunFolder) -> str:
    """The id of the run on every tracker: made at its first start, and kept as long as the run folder."""
    known = folder.read_json(RunFolder.TRACKERS) or {"id": secrets.token_hex(8)}
    if not folder.store.exists(RunFolder.TRACKERS):
        folder.write_json(RunFolder.TRACKERS, known)
    return str(known["id"])


def _start(told: Any, said: Any, errors: Any) -> subprocess.Popen[bytes]:
    # -P: a folder `wandb` in the working directory must not hide the package
    words = [sys.executable, "-P", "-m", "raycls.run.trackers.process", str(os.getpid())]
    home = str(Path(raycls.__file__).parents[1])
    paths = os.pathsep.join(path for path in (home, os.environ.get("PYTHONPATH", "")) if path)
    return subprocess.Popen(
        words,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": paths},
        stdin=told,
        stdout=said,
        stderr=errors,
        start_new_session=True,  # Ctrl-C is for the run, which then says how it ended
    )


def _last_line(errors: Any) -> str:
    with suppress(OSError, ValueError):
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
        lines = errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""
    return ""
