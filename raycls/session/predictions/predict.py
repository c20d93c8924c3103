"""Predictions from a run folder and a list of inputs, here or by whoever else computes the parts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch

from raycls.config.sections.run import Run
from raycls.data.samples import Keys
from raycls.errors import ConfigError
from raycls.plugins import no_exit
from raycls.progress import progress
from raycls.quantities import cores, plural
from raycls.session.predictions.compute import Part, Predictor, Work
from raycls.session.predictions.inputs import Inputs, list_inputs
from raycls.session.predictions.masks import MaskFolder, names_of, table_in
from raycls.session.predictions.output import classes_in, rows_of
from raycls.session.predictions.parts import Folder, InMemory, Parts, Target
from raycls.session.predictions.volumes import list_volumes
from raycls.session.setup import device_of, refuse_missing_gpu
from raycls.session.trained.precision import in_float32
from raycls.session.trained.refined import kept_crf
from raycls.session.trained.temperature import fitted_temperature
from raycls.session.trained.thresholds import thresholds_of
from raycls.session.trained.trained import Trained, open_trained
from raycls.tasks.build import gives_masks, takes_volumes

__all__ = ["Computed", "Elsewhere", "Join", "Predicted", "Request", "here", "part_rows", "predict", "told"]

_OPTIONS = ("scale.", "data.processes", "data.formats", "data.max_pixels")
"""What a prediction may change of a run: who computes, and which images are decoded."""
_PART_ROWS, _MOST_PARTS = 256, 4096
"""What a part has at least, and how many there are at most: files in the folder of the parts."""
_FEW_PARTS = 8
"""Below so many parts no processes are started: each of them imports torch first."""
_NAMED = 5
"""Images without an answer that are named on the screen."""

Computed = Generator[Part, None, None]
"""Closed when it is left, as it holds the settings of the process: `with closing(computed)`."""


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
    threshold: float | None = None
    """From which probability on an image that may have any number of classes has one; None: 0.5, or `thresholds`."""
    thresholds: str | None = None
    """A file with one for each class, or `stored`."""
    crf: bool = False
    """Whether the CRF that was fitted for these weights is joined to masks."""
    masks: str | None = None
    """The folder of the masks, of a run whose answers are masks; the table is in it where `out` names no other."""


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
    """Images per class that was predicted."""
    parts: tuple[Part, ...]
    """The answers, where they were written to no file."""
    out: str | None
    """The file, as it is shown."""
    masks: str | None = None
    """The folder of the masks, as it is shown."""


@no_exit()
def predict(request: Request, *, join: Join, say: Callable[[str], None]) -> Predicted:
    """Predict each image once and write the file.

    With `scale.workers` among the overrides the cluster that `join` joins computes, else this machine. A command that
    was killed is resumed by the same command: the parts that are there are not computed again. ConfigError where these
    are of other images, weights or options, or the file is there already.
    """
    trained = open_trained(request.run, weights=request.weights, overrides=_allowed(request.overrides), masks=True)
    folder_of_masks = _masks(request, trained)
    out = request.out if request.out is not None or request.masks is None else table_in(request.masks)
    target = Target(out) if out is not None else None
    given = request.overrides
    workers = trained.run.scale.max_workers if _asked("scale.workers", given) else 0
    progress("looking for the images")
    volumes = takes_volumes(trained.run.task)
    inputs = list_volumes(request.inputs, say) if volumes else list_inputs(request.inputs, say)
    names = None if folder_of_masks is None else names_of(inputs.keys, volumes=volumes)
    if target is not None:
        _refuse_there(target, force=request.force)
        if folder_of_masks is not None and names is not None and not (request.force or target.has_parts):
            folder_of_masks.refuse_there(names)
    with ExitStack() as stack:
        cluster = stack.enter_context(join(trained.run, say)) if workers else None
        work = _work(request, trained, inputs, names, cluster.device if cluster else _device(trained.run))
        if work.precision != (trained.plan.precision or "off"):
            say(in_float32(trained.plan.precision))
        for line in work.thresholds.told if work.thresholds else ():
            say(line)
        if request.calibrated:
            say(f"calibrated: logits are divided by the fitted temperature {work.temperature:.4f}")
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
            computed = here(work, missing, trained.run.data.processes if _asked("data.processes", given) else cores())
        with closing(computed), nullcontext() if target is None else target.explaining():
            _tell(work, len(work.split) - _rows(work, missing))
            for part in told(computed, work, missing):
                parts.add(part)
            return _finished(work, parts, target, folder_of_masks)


def _masks(request: Request, trained: Trained) -> MaskFolder | None:
    """Where masks go. ConfigError where the options and the answers of the run do not fit each other."""
    given = gives_masks(trained.run.task)
    if given != (request.masks is not None):
        raise ConfigError(
            "the answers of this run are masks, and need a folder"
            if given
            else "the answers of this run are classes and no masks",
            where="task.name",
            found=trained.run.task.name,
            fix="add --masks=DIR to the command" if given else "leave --masks out",
        )
    if request.crf and not given:
        raise ConfigError("a CRF is joined to masks", where="--crf", found=trained.run.task.name, fix="leave --crf out")
    about = {"--all": request.every, "--calibrated": request.calibrated}
    about |= {"--threshold": request.threshold is not None, "--thresholds": request.thresholds is not None}
    if given and (wrong := [name for name, asked in about.items() if asked]):
        raise ConfigError(
            "this is for answers of classes for a whole image",
            where=", ".join(wrong),
            found="a run whose answers are masks",
            fix=f"leave {', '.join(wrong)} out",
        )
    return None if request.masks is None else MaskFolder(request.masks)


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


def part_rows(images: int, batch: int, least: int | None = None) -> int:
    """How many of so many images make a part: whole batches."""
    least = max(_PART_ROWS if least is None else least, -(-images // _MOST_PARTS))
    return -(-least // batch) * batch


def _work(request: Request, trained: Trained, inputs: Inputs, masks: Keys | None, device: str) -> Work:
    split = trained.split(inputs.keys, inputs.reader)
    rows = part_rows(len(split), trained.plan.evaluate_batch, None if masks is None else 1)  # masks are large
    thresholds = thresholds_of(trained, threshold=request.threshold, file=request.thresholds)
    if request.calibrated and thresholds is not None:
        raise ConfigError(
            "a temperature is of probabilities that add up to 1, and here each class has its own",
            where="--calibrated",
            fix="leave --calibrated out",
        )
    temperature = fitted_temperature(trained.folder, trained.weights) if request.calibrated else 1.0
    # a driver without the GPUs of its cluster cannot ask them: it takes them for those of the training
    asked = device == "cpu" or torch.cuda.is_available()
    precision = trained.precision_on(torch.device(device)) if asked else trained.plan.precision or "off"
    every = request.every or thresholds is not None
    what = trained, split, request.top, every, device, os.getcwd(), rows, precision
    crf = tuple(kept_crf(trained)["crf"].items()) if request.crf else ()
    return Work(*what, temperature, thresholds=thresholds, masks=masks, crf=crf)


def _device(run: Run) -> str:
    """The device of this machine that `scale.device` means."""
    refuse_missing_gpu(run)
    return device_of(run, torch.cuda.is_available())


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


def here(work: Work, numbers: Sequence[int], processes: int) -> Computed:
    """The parts, computed on this machine by at most so many processes, each with `scale.threads` threads."""
    processes = min(processes, cores() // work.trained.run.scale.threads)
    if work.device == "cpu" and len(numbers) >= _FEW_PARTS and processes > 1:
        from raycls.session.computing.processes import in_processes

        yield from (Part.from_bytes(data) for _, data in in_processes(work, numbers, processes))
        return
    threads = cores() if len(work.split) > 1 else 0
    done = len(work.split) - _rows(work, numbers)
    with Predictor(work, threads) as predictor:
        for number in numbers:
            yield predictor.part(number, lambda rows, before=done: _tell(work, before + rows))
            done += _rows(work, [number])


def _tell(work: Work, rows: int) -> None:
    progress(work.phase, rows, len(work.split), "images")


def told(computed: Iterable[Part], work: Work, missing: Sequence[int]) -> Computed:
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


def _finished(work: Work, parts: Parts, target: Target | None, masks: MaskFolder | None) -> Predicted:
    counts: Counter[str] = Counter()
    bad: list[tuple[str, str]] = []
    total = 0

    def seen() -> Iterator[Part]:
        nonlocal total
        for part in parts.all(work.parts):
            for row in rows_of(work, part):
                if row["error"] is None:
                    counts.update(classes_in(work, row))
                else:
                    total += 1
                    if len(bad) < _NAMED:
                        bad.append((row["path"], row["error"]))
            if masks is not None and part.masks is not None:
                start = part.number * work.part_rows
                masks.write((work.masks or [])[start : start + len(part.errors)], part.masks)
            yield part

    kept: tuple[Part, ...] = ()
    if target is None:
        kept = tuple(seen())
    else:
        progress("writing the predictions")
        target.write(work, seen())
    return Predicted(
        work, len(work.split), total, tuple(bad), counts, kept, target and target.shown, masks and masks.shown
    )
