"""`train.profile`: what every operation of a few steps took, as a trace that Perfetto (ui.perfetto.dev) opens."""

from __future__ import annotations

import tempfile

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from raycls.config.sections.train import ProfileConfig
from raycls.run.folder import RunFolder

__all__ = ["Profiler"]


class Profiler:
    """Traces `config.steps` steps of one rank, the first of them the one after `config.after` of this start.

    `seen` is called once in each step, at the same place of it. The trace is `profile/attempt-A-rank-R.json.gz` in the
    run folder, written after the last of these steps, or by `close`.
    """

    def __init__(self, config: ProfileConfig, folder: RunFolder, attempt: int, rank: int) -> None:
        self._first, self._steps = config.after, 0 if config.steps == "off" else config.steps
        self._folder, self._name = folder, f"profile/attempt-{attempt}-rank-{rank}.json.gz"
        self._calls, self._step = 0, None
        self._profile: profile | None = None

    def seen(self, step: int) -> None:
        """Another step, `step` counted from 0, is at the place between its backward pass and its update."""
        self._calls += 1
        if not self._steps or self._calls <= self._first:
            return
        if self._calls == self._first + 1:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            self._profile = profile(activities=activities, record_shapes=True)
            self._profile.start()
        elif self._calls > self._first + self._steps:
            self.close()
            return
        self._mark(step)

    def _mark(self, step: int) -> None:
        self._end_mark()
        self._step = record_function(f"step {step + 1}")
        self._step.__enter__()

    def _end_mark(self) -> None:
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None

    def close(self) -> None:
        """Write the trace, where one is under way."""
        self._end_mark()
        if self._profile is None:
            return
        done, self._profile = self._profile, None
        done.stop()
        with tempfile.NamedTemporaryFile(suffix=".json.gz") as file:
            done.export_chrome_trace(file.name)
            self._folder.store.upload_file(file.name, self._name)
