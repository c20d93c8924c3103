"""Predictions from a run folder and a list of inputs, here or by whoever else computes the parts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch

from raycls.config.sections.run import Run
from raycls.errors import ConfigError, LaunchError
from raycls.plugins import no_exit
from raycls.progress import progress
from raycls.quantities import plural
from raycls.session.predictions.compute import Part, Predictor, Work
from raycls.session.predictions.inputs import Inputs, list_inputs
from raycls.session.predictions.output import rows_of
from raycls.session.predictions.parts import Folder, InMemory, Parts, Target
from raycls.session.trained.temperature import temperature_of
from raycls.session.trained.trained import Trained, open_trained

__all__ = ["Computed", "Elsewhere", "Join", "Predicted", "Request", "predict"]

_OPTIONS = ("scale.", "data.processes", "data.formats", "data.max_pixels")
"""What a prediction may change of a run: who computes, and which images are decoded."""
_PART_ROWS, _MOST_PARTS = 256, 4096
"""What a part has at least, and how many there are at most: files in the folder of the parts."""
_FEW_PARTS = 8
"""Below so many parts no processes are started: each of them imports torch first."""
_NAMED = 5
"""Images without an answer that are named on the screen."""

Computed = Iterator[Part]


class Elsewhere(Protocol):
    """A cluster that computes parts."""

    device: str
    """`cpu` or `cuda`."""

    def compute(self, work: Work, numbers: Sequence[int]) -> Computed:
        """The parts with these numbers, in any order."""
        ...


Join = Callable[[Run, Callable[[str], None]], AbstractContextManager[Elsewhere]]


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    run: str
    inputs: tuple[str, ...]
    out: str | None = None
    weights: str | None = None
    overrides: tuple[str, ...] = ()
    top: int = 5
    every: bool = False
    calibrated: bool = False
    """Whether the temperature that was fitted for these weights is applied."""
    force: bool = False


@dataclass(frozen=True)
class Predicted:
    """What came of it."""

    work: Work
    rows: int
    bad: int
    """Images without an answer."""
    first: tuple[tuple[str, str], ...]
    """The first of them, with the reason."""
    counts: Counter[str]
    """Images per predicted class."""
    parts: tuple[Part, ...]
    """The answers, where they were written to no file."""
    out: str | None
    """The file, as it is shown."""


@no_exit()
def predict(request: Request, *, join: Join, say: Callable[[str], None]) -> Predicted:
    """Predict each image once and write the file.

    With `scale.workers` among the overrides the cluster that `join` joins computes, else this machine. A command that
    was killed is resumed by the same command: the parts that are there are not computed again. ConfigError where these
    are of other images, weights or options, or the file is there already.
    """
    target = Target(request.out) if request.out is not None else None
    trained = open_trained(request.run, weights=request.weights, overrides=_allowed(request.overrides))
    given = request.overrides
    workers = trained.run.scale.max_workers if _asked("scale.workers", given) else 0
    progress("looking for the images")
    inputs = list_inputs(request.inputs, say)
    if target is not None:
        _refuse_there(target, force=request.force)
    with ExitStack() as stack:
        cluster = stack.enter_context(join(trained.run, say)) if workers else None
        work = _work(request, trained, inputs, cluster.device if cluster else _device(trained.run))
        parts: Parts = InMemory()
        if target is not None and (work.parts > 1 or target.has_parts):
            parts = folder = Folder(target.parts)
            job = {**work.facts, "images": inputs.fingerprint(), "weights_digest": _digest(trained)}
            stack.enter_context(folder.opened(job, anew=request.force))
        there = parts.done()
        missing = [number for number in range(work.parts) if number not in there]
        if there:
            say(f"resuming: {len(there)} of {plural(work.parts, 'part')} are there already")
        if cluster is not None and missing:
            computed = cluster.compute(work, missing)
        else:
            computed = _here(work, missing, trained.run.data.processes if _asked("data.processes", given) else _cores())
        with nullcontext() if target is None else target.explaining():
            _tell(work, len(work.split) - _rows(work, missing))
            for part in _told(computed, work, missing):
                parts.add(part)
            return _finished(work, parts, target)


def _allowed(overrides: Sequence[str]) -> Sequence[str]:
    refused = [each for each in overrides if not each.startswith(_OPTIONS)]
    if refused:
        raise ConfigError(
            "a prediction cannot change these options: they belong to the training",
            found=", ".join(refused),
            valid=", ".join(f"{path}*" if path.endswith(".") else path for path in _OPTIONS),
            fix="leave them out",
        )
    return overrides


def _asked(path: str, overrides: Sequence[str]) -> bool:
    return any(each.startswith(f"{path}=") for each in overrides)


def _work(request: Request, trained: Trained, inputs: Inputs, device: str) -> Work:
    split = trained.split(inputs.keys, inputs.reader)
    batch = trained.plan.evaluate_batch
    least = max(_PART_ROWS, -(-len(split) // _MOST_PARTS))
    rows, temperature = -(-least // batch) * batch, _temperature(trained) if request.calibrated else 1.0
    return Work(trained, split, request.top, request.every, device, os.getcwd(), rows, temperature)


def _temperature(trained: Trained) -> float:
    found = temperature_of(trained.folder, trained.weights)
    if found == 1.0:
        raise ConfigError(
            "no temperature was fitted for these weights",
            where="--calibrated",
            found=f"{trained.name}, weights {trained.weights.name}",
            fix="fit one with raycls eval RUN --calibrate, or leave out --calibrated",
        )
    return found


def _device(run: Run) -> str:
    """The device of this machine that `scale.device` means."""
    if run.scale.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if run.scale.device == "cuda" and not torch.cuda.is_available():
        raise LaunchError(
            "this machine has no GPU that torch can use",
            where="scale.device",
            found="cuda",
            fix="set scale.device=cpu; on a machine with a GPU check its driver, and that torch is a CUDA build",
        )
    return run.scale.device


def _digest(trained: Trained) -> str:
    """Names the content of the weights: those of a checkpoint have no sum in `provenance`."""
    if trained.sha256:
        return trained.sha256
    import hashlib

    folder, step = trained.folder, trained.weights.step or 0
    return hashlib.sha256(folder.store.read_bytes(f"{folder.checkpoint(step)}/manifest.json")).hexdigest()


def _refuse_there(target: Target, *, force: bool) -> None:
    if not force and target.exists() and not target.has_parts:
        raise ConfigError(f"{target.shown} is there already", fix="choose another --out FILE, or --force to replace it")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _here(work: Work, numbers: Sequence[int], processes: int) -> Computed:
    """The parts, computed on this machine by at most so many processes, each with `scale.threads` threads."""
    processes = min(processes, _cores() // work.trained.run.scale.threads)
    if work.device == "cpu" and len(numbers) >= _FEW_PARTS and processes > 1:
        from raycls.session.predictions.processes import in_processes

        yield from in_processes(work, numbers, processes)
        return
    threads = _cores() if len(work.split) > 1 else 0
    done = len(work.split) - _rows(work, numbers)
    with Predictor(work, threads) as predictor:
        for number in numbers:
            yield predictor.part(number, lambda rows, before=done: _tell(work, before + rows))
            done += _rows(work, [number])


def _tell(work: Work, rows: int) -> None:
    progress("predicting", rows, len(work.split), "images")


def _told(computed: Iterable[Part], work: Work, missing: Sequence[int]) -> Computed:
    """The parts, with how far they are."""
    done = len(work.split) - _rows(work, missing)
    for part in computed:
        done += len(part.errors)
        _tell(work, done)
        yield part


def _rows(work: Work, numbers: Sequence[int]) -> int:
    """Images of these parts; the last part may be shorter than the others."""
    short = work.parts * work.part_rows - len(work.split) if work.parts - 1 in numbers else 0
    return len(numbers) * work.part_rows - short


def _finished(work: Work, parts: Parts, target: Target | None) -> Predicted:
    counts: Counter[str] = Counter()
    bad: list[tuple[str, str]] = []
    total = 0

    def seen() -> Iterator[Part]:
        nonlocal total
        for part in parts.all(work.parts):
            for row in rows_of(work, part):
                if row["error"] is None:
                    counts[row["predicted"]] += 1
                else:
                    total += 1
                    if len(bad) < _NAMED:
                        bad.append((row["path"], row["error"]))
            yield part

    kept: tuple[Part, ...] = ()
    if target is None:
        kept = tuple(seen())
    else:
        progress("writing the predictions")
        target.write(work, seen())
    return Predicted(work, len(work.split), total, tuple(bad), counts, kept, target and target.shown)
