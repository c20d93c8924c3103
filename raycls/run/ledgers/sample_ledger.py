"""Which sample was trained when: written by every rank, and checked from the files alone.

`ledger/attempt-0001-rank-0.jsonl` has one line per micro-batch:
`{"epoch": 0, "step": 1, "micro": 0, "ids": [...], "sha256": [...]}`. `epoch` counts from 0; `step` counts the
steps done after it, from 1; `sha256` is that of the augmented pixels of each sample, where they are recorded. `skipped`
are the bad images that were left out of the micro-batch, where there are any.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from raycls.errors import CheckpointError
from raycls.progress import counted
from raycls.run.folder import Attempt, RunFolder, parse_line, survivors
from raycls.run.ledgers.turns import Turns

__all__ = ["LedgerReport", "SampleLedger", "check"]

_NAME = re.compile(r"attempt-(\d+)-rank-(\d+)(?:\.(\d+))?\.jsonl")
_BUFFER = 1024 * 1024
"""Characters of lines that are held before they are written without waiting for the disk."""
_ROLL = 16 * 1024 * 1024
"""Characters after which a remote store gets another file: it is rewritten as a whole at each flush."""
_MOST_PROBLEMS = 20


class SampleLedger:
    """The lines of one rank in one attempt. They are held in memory until `flush`.

    Flush on every rank before the checkpoint of a step is submitted: then no checkpoint is ahead of its
    ledger. With `pixels`, each line has the sha256 of every sample's augmented pixels.
    """

    def __init__(self, folder: RunFolder, attempt: int, rank: int, pixels: bool) -> None:
        self._store = folder.store
        self._base = f"{folder.LEDGER}/attempt-{attempt:04d}-rank-{rank}"
        self._pixels = pixels
        self._lines: list[str] = []
        self._held = 0
        self._written = 0
        self._part = 1

    def write(
        self,
        epoch: int,
        step: int,
        micro: int,
        ids: Sequence[int],
        digests: Sequence[str] | None = None,
        skipped: Sequence[int] = (),
    ) -> None:
        """Note that micro-batch `micro` of `step` was trained on the samples `ids`, without those in `skipped`."""
        line: dict[str, Any] = {"epoch": epoch, "step": step, "micro": micro, "ids": [int(item) for item in ids]}
        if self._pixels:
            if digests is None or len(digests) != len(ids):
                raise ValueError("a ledger of pixels needs one digest per sample")
            line["sha256"] = list(digests)
        if skipped:
            line["skipped"] = list(skipped)
        text = json.dumps(line, separators=(",", ":"))
        self._lines.append(text)
        self._held += len(text) + 1
        if self._held >= _BUFFER:
            self._write(sync=False)

    def flush(self) -> None:
        """Bring every line to the disk, or to the remote store, before returning."""
        self._write(sync=True)

    def close(self) -> None:
        self.flush()

    def _write(self, *, sync: bool) -> None:
        if not self._store.is_local and self._written >= _ROLL:
            self._store.flush()
            self._part += 1
            self._written = 0
        name = f"{self._base}.jsonl" if self._part == 1 else f"{self._base}.{self._part}.jsonl"
        if self._lines or (sync and self._written):
            self._store.append_lines(name, self._lines, sync=sync)
        self._written += self._held
        self._lines, self._held = [], 0


@dataclass
class LedgerReport:
    """What `check` found. `ok` is True if every sample was trained exactly as often as it should have been."""

    samples: int
    """Training samples of one epoch."""
    steps: int
    """Steps that led to the last weights; those behind the best ones are among them."""
    epochs: int
    """Whole epochs among them."""
    attempts: list[str] = field(default_factory=list[str])
    """One line per attempt."""
    problems: list[str] = field(default_factory=list[str])
    """What is missing or was repeated, with the first few sample ids."""
    left_out: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    """Samples that were left out of the training, by the step after which they were."""
    classes: int | None = None
    """With a balanced sampler the number of classes, each drawn equally often; None: each sample once per epoch."""
    repeats: int = 1
    """`data.repeats`: so many times is each sample trained in so many epochs."""
    skipped: list[int] = field(default_factory=list[int])
    """Samples that were skipped where it was their turn, as bad images, ascending."""

    @property
    def ok(self) -> bool:
        return not self.problems


def check(folder: RunFolder, labels: Callable[[], np.ndarray | None] = lambda: None) -> LedgerReport:
    """Whether the steps that led to the final state saw each sample exactly once per epoch.

    With a balanced sampler, whether they drew each class equally often and its samples in turn: `labels` is called then
    for the class of each training sample by its id, `[N] int64`.

    A sample that an attempt left out, since it was gone from the data, must not be trained from there on. The final
    step is that of `result.json`, else of the newest checkpoint. Every step up to it must be there once and whole; each
    whole epoch has every sample id exactly once, the last one, cut short, at most once; with `data.repeats` of r, every
    r epochs have each id r times. Raises CheckpointError where the run has no plan or no ledger.
    """
    plan = folder.read_json(folder.PLAN)
    files = _files(folder)
    if plan is None or not files:
        raise CheckpointError(
            "this run has no ledger",
            where=folder.store.describe(folder.LEDGER),
            found="no plan.json" if plan is None else "no ledger files",
            fix="train with train.ledger=ids (or pixels) from the first step on",
        )
    final = _final_step(folder)
    audit = _Audit(plan, final)
    if plan.get("sampler"):
        found = labels()
        audit.report.classes = 0 if found is None else len(np.unique(found))
        audit.turns = None if found is None else Turns(found)
        if found is None:
            audit.complain("the run does not say of which class each sample is: its sampler cannot be checked")
    if final == 0:
        audit.complain("the run has no checkpoint and no result yet: nothing can be said")
    attempts = folder.attempts()
    spans = survivors(attempts)
    for attempt in attempts:
        first, last = spans[attempt.attempt]
        end = final if last is None else min(last, final)
        repeated = _Count()
        streams = [_lines(folder, names, first, end, repeated) for names in files.get(attempt.attempt, {}).values()]
        before = audit.lines
        audit.leave_out(min(first, end), attempt.rest.get("left_out", ()))
        merged = heapq.merge(*streams, key=itemgetter("step", "micro"))
        for line in counted(merged, f"reading the ledger of attempt {attempt.attempt}", unit="lines"):
            audit.add(line)
        audit.report.attempts.append(_describe(attempt, first, end, audit.lines - before, repeated.value, len(streams)))
    for stray in sorted(set(files) - {attempt.attempt for attempt in attempts}):
        audit.complain(f"the ledger has lines of attempt {stray}, which attempts.jsonl does not know")
    return audit.finish()


class _Count:
    def __init__(self) -> None:
        self.value = 0


class _Audit:
    """Takes the surviving lines in the order of their steps; holds one epoch's counts at a time."""

    def __init__(self, plan: Mapping[str, Any], final: int) -> None:
        self.samples = int(plan["samples"])
        self.per_epoch = int(plan["steps_per_epoch"])
        self.batch = int(plan["batch_size"])
        self.parts = int(plan["micro_batches"])
        self.turns: Turns | None = None
        self.report = LedgerReport(self.samples, final, final // self.per_epoch)
        self.lines = 0
        self._final = final
        self._unnamed = 0
        self._skipped = set[int]()
        self._step = 0
        self._micros: set[int] = set()
        self._rows = self._num_lines = 0
        self._counts = np.zeros(self.samples, np.int64)
        self._left_out = np.zeros(self.samples, bool)
        self._num_left_out = 0
        self._repeats = self.report.repeats = int(plan.get("repeats", 1))
        self._cycle, self._ever_left_out = np.zeros(self.samples, np.int64), np.zeros(self.samples, bool)

    def leave_out(self, step: int, ids: Sequence[int]) -> None:
        """After `step` steps, these samples and no others are left out."""
        now = np.zeros(self.samples, bool)
        now[[index for index in ids if 0 <= index < self.samples]] = True
        if (now == self._left_out).all():
            return
        self._close_steps(step + 1)
        if fresh := np.flatnonzero(now & ~self._left_out).tolist():
            self.report.left_out.setdefault(step, []).extend(fresh)
        self._left_out, self._num_left_out = now, int(now.sum())
        self._ever_left_out |= now

    def complain(self, text: str) -> None:
        if len(self.report.problems) < _MOST_PROBLEMS:
            self.report.problems.append(text)
        else:
            self._unnamed += 1

    def add(self, line: Mapping[str, Any]) -> None:
        self.lines += 1
        step, micro = line["step"], line["micro"]
        if step < self._step:
            self.complain(f"step {step} comes again after step {self._step}")
            return
        if step > self._step:
            self._close_steps(step)
        if line["epoch"] != (step - 1) // self.per_epoch:
            self.complain(f"step {step} says epoch {line['epoch']}, it belongs to {(step - 1) // self.per_epoch}")
        if micro in self._micros:
            self.complain(f"micro-batch {micro} of step {step} was trained twice")
        if not 0 <= micro < self.parts:
            self.complain(f"step {step} has a micro-batch {micro}, the plan has 0 to {self.parts - 1}")
        self._micros.add(micro)
        self._num_lines += 1
        skipped: list[int] = line.get("skipped", [])
        self._skipped.update(skipped)
        ids = np.asarray([*line["ids"], *skipped], np.int64)  # both had their turn
        self._rows += ids.size
        inside = (ids >= 0) & (ids < self.samples)
        if not inside.all():
            self.complain(f"step {step} has samples that do not exist: {_first(ids[~inside])}")
            ids = ids[inside]
        if self._left_out[ids].any():
            self.complain(f"step {step} has samples that were left out: {_first(ids[self._left_out[ids]])}")
        found, times = np.unique(ids, return_counts=True)
        self._counts[found] += times

    def finish(self) -> LedgerReport:
        self._close_steps(self._final + 1)
        self.report.skipped = sorted(self._skipped)
        if self._unnamed:
            self.report.problems.append(f"and {self._unnamed} more")
        return self.report

    def _close_steps(self, step: int) -> None:
        """Every step before `step` is over."""
        while self._step < step:
            if self._step:
                self._close_step(self._step)
                if self._step % self.per_epoch == 0 or self._step == self._final:
                    self._close_epoch((self._step - 1) // self.per_epoch, self._step % self.per_epoch == 0)
            self._step += 1
            self._micros, self._rows, self._num_lines = set(), 0, 0
            if self._step < step:
                self.complain(f"step {self._step} is missing")

    def _close_step(self, step: int) -> None:
        position = (step - 1) % self.per_epoch
        expected = min(self.batch, self.samples - position * self.batch)
        if self._num_lines and not expected - self._num_left_out <= self._rows <= expected:
            self.complain(f"step {step} has {self._rows} samples in {self._num_lines} lines, it needs {expected}")

    def _close_epoch(self, epoch: int, whole: bool) -> None:
        if self.report.classes is not None:
            if self.turns is not None:
                for problem in self.turns.close_epoch(epoch, self._counts, whole, self._left_out):
                    self.complain(problem)
            self._counts[:] = 0
            return
        if self._repeats > 1:
            self._close_repeated(epoch, whole)
            return
        repeated = np.flatnonzero(self._counts > 1)
        missing = np.flatnonzero((self._counts == 0) & ~self._left_out) if whole else np.empty(0, np.int64)
        if repeated.size:
            self.complain(f"epoch {epoch}: {repeated.size} samples were trained more than once: {_first(repeated)}")
        if missing.size:
            self.complain(f"epoch {epoch}: {missing.size} samples were not trained: {_first(missing)}")
        self._counts[:] = 0

    def _close_repeated(self, epoch: int, whole: bool) -> None:
        """With `data.repeats`: in so many epochs each sample is trained so many times."""
        self._cycle += self._counts
        self._counts[:] = 0
        if (often := np.flatnonzero(self._cycle > self._repeats)).size:
            self.complain(f"epoch {epoch}: {often.size} samples came more than {self._repeats} times: {_first(often)}")
        if whole and (epoch + 1) % self._repeats == 0:
            if (missing := np.flatnonzero((self._cycle < self._repeats) & ~self._ever_left_out)).size:
                times = f"less than {self._repeats} times in {self._repeats} epochs"
                self.complain(f"epoch {epoch}: {missing.size} samples were trained {times}: {_first(missing)}")
            self._cycle[:], self._ever_left_out = 0, self._left_out.copy()


def _first(ids: np.ndarray) -> str:
    return ", ".join(map(str, ids[:5].tolist())) + (", ..." if ids.size > 5 else "")


def _files(folder: RunFolder) -> dict[int, dict[int, list[str]]]:
    """Names of the ledger files by attempt and rank, parts in order."""
    found: dict[int, dict[int, list[tuple[int, str]]]] = {}
    for name in folder.store.list(folder.LEDGER):
        match = _NAME.fullmatch(name)
        if match:
            parts = found.setdefault(int(match[1]), {}).setdefault(int(match[2]), [])
            parts.append((int(match[3] or 1), f"{folder.LEDGER}/{name}"))
    return {
        attempt: {rank: [name for _, name in sorted(parts)] for rank, parts in ranks.items()}
        for attempt, ranks in found.items()
    }


def _lines(folder: RunFolder, names: Sequence[str], first: int, last: int, done_again: _Count) -> Iterator[Any]:
    """The lines of one rank with `first < step <= last`, ascending. A torn line is no line."""
    for name in names:
        for text in folder.store.read_lines(name):
            line = parse_line(text)
            if line is None or not {"epoch", "step", "micro", "ids"} <= line.keys():
                continue
            if first < line["step"] <= last:
                yield line
            else:
                done_again.value += 1


def _final_step(folder: RunFolder) -> int:
    result = folder.read_json(folder.RESULT)
    if isinstance(result, dict) and "step" in result:
        return int(result["step"])
    return max(folder.steps(), default=0)


def _describe(attempt: Attempt, first: int, end: int, lines: int, done_again: int, ranks: int) -> str:
    span = f"steps {first + 1} to {end}" if end > first else "no steps that count"
    lost = f", {done_again} lines done again later or never used" if done_again else ""
    return f"attempt {attempt.attempt}: {attempt.workers} workers, {ranks} ledgers, {span}, {lines} micro-batches{lost}"
