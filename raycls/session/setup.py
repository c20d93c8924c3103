"""What a training and an evaluation have in common on one rank: threads, generators, the task, the samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from raycls import randomness
from raycls.allocator import keep_freed_memory
from raycls.config.sections.run import Run
from raycls.data.images.decoding.kept import kept, share_of
from raycls.data.images.planes import planes_of
from raycls.data.slices import Maker
from raycls.data.source import Dataset
from raycls.data.volumes.reading import Wanted
from raycls.errors import LaunchError, RayclsError
from raycls.quantities import bytes_text, cores
from raycls.session.job import Job, World
from raycls.session.messages import Event
from raycls.session.recording.reporter import Reporter
from raycls.tasks.base import Setting, Task
from raycls.tasks.build import Arrays, build, takes_volumes
from raycls.train.plan import Plan
from raycls.train.precision import arithmetic
from raycls.train.ranks import Ranks

__all__ = [
    "device_of",
    "in_memory",
    "make_arrays",
    "make_maker",
    "make_task",
    "refuse_missing_gpu",
    "surrounded",
    "tell",
    "together",
    "volumes_of",
]


def surrounded(run: Run, plan: Plan, job: Job, world: World, stack: ExitStack) -> Reporter:
    """What every computation of a rank has around it; the reporter of rank 0 says how far it is."""
    keep_freed_memory()
    stack.enter_context(arithmetic(threads=run.scale.threads, strict=plan.reduction == "exact"))
    stack.enter_context(randomness.kept())  # the loop seeds them; a process that trains itself gets its own back
    return stack.enter_context(Reporter(world.post, quiet=world.rank > 0 or bool(job.search)))


def together(ranks: Ranks, build: Callable[[], Any]) -> Any:
    """Run `build` on every rank; where one rank fails, all raise."""
    made, error = None, None
    try:
        made = build()
    except RayclsError as failed:
        error = failed
    ranks.check(error)
    return made


def device_of(run: Run, gpus: int) -> str:
    """`cpu` or `cuda`, where there are `gpus` GPUs."""
    if run.scale.device != "auto":
        return run.scale.device
    return "cuda" if gpus else "cpu"


def refuse_missing_gpu(run: Run) -> None:
    """LaunchError where `scale.device` asks for a GPU that this machine does not have."""
    if run.scale.device == "cuda" and not torch.cuda.is_available():
        raise LaunchError(
            "this machine has no GPU that torch can use",
            where="scale.device",
            found="cuda",
            fix="set scale.device=cpu; on a machine with a GPU check its driver, and that torch is a CUDA build",
        )


def tell(world: World, text: str) -> None:
    world.post(Event(text))


def make_task(run: Run, classes: Sequence[str], device: torch.device | None, plan: Plan | None = None) -> Task:
    """The task of `run` for data with these classes; see `Setting.device`. Only who trains has a `plan`."""
    return build(run.task, _setting(run, classes, device, plan))


def make_arrays(run: Run, classes: Sequence[str], plan: Plan | None = None) -> Arrays:
    """What makes the samples of the task, of training as `plan` has it."""
    return Arrays(run.task, _setting(run, classes, None, plan))


def make_maker(run: Run, plan: Plan, dataset: Dataset, world: int, split: str) -> Maker:
    evaluated = dataset.splits.get(split)
    return Maker(
        order=plan.order,
        world=world,
        train=dataset.splits.get("train", evaluated),
        evaluated=evaluated,
        evaluate_batch=plan.evaluate_batch,
        arrays=make_arrays(run, dataset.classes, plan),
        skips=run.data.on_bad_image == "skip",
    )


def in_memory(run: Run, maker: Maker, executor: str, world: World) -> Maker:
    """`maker` as `data.cache` has it. ConfigError on every rank where one of them has not the memory."""
    if run.data.cache != "memory":
        return maker
    splits = {name: split for name, split in (("train", maker.train), ("evaluated", maker.evaluated)) if split}
    each = {"inline": 1, "processes": run.data.processes}.get(executor, cores())
    processes = each * min(world.size, cores()) if executor != "ray" else each
    ranks = Ranks(world.rank, world.size, world.device)
    needed, most = together(ranks, partial(share_of, splits, processes))
    if world.rank == 0:
        found = f"about {bytes_text(needed)} of decoded images are kept in memory"
        found += f", in each of {processes} processes" if processes > 1 else ""
        tell(world, f"data.cache: {found if needed else 'nothing is kept, the images are arrays in memory'}")
    if not needed:
        return maker
    return replace(maker, **{name: kept(split, most) for name, split in splits.items()})


def volumes_of(run: Run) -> Wanted | None:
    """How the volumes of a run are read; None where its samples are images."""
    return Wanted(run.data.window, run.data.spacing) if takes_volumes(run.task) else None


def _setting(run: Run, classes: Sequence[str], device: torch.device | None, plan: Plan | None) -> Setting:
    return Setting(
        seed=run.run.seed,
        classes=tuple(classes),
        image_size=run.data.image_size,
        max_pixels=run.data.max_pixels,
        augment=run.augment,
        loss=run.loss,
        channels_last=run.train.memory_format == "channels_last",
        device=device,
        class_counts=plan.labels.counts(len(classes)) if plan and plan.labels else (),
        off_epoch=-1 if run.train.overfit != "off" else plan.off_epoch if plan else 0,
        batch_size=run.data.batch_size,
        sizes=plan.sizes if plan else (),
        channels=run.model.in_channels,
        volumes=Wanted(run.data.window, run.data.spacing),
        planes=planes_of(run.data),
        patch=run.data.patch,
        windows=run.windows,
    )
