"""What a run will see of its images: the first ones of an epoch, before and after each operation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from raycls.config.sections.run import Run
from raycls.config.sections.types import Operation, named
from raycls.config.write import flow
from raycls.data.images.operations import Stage, build, default_operations
from raycls.data.images.planes import planes_of
from raycls.data.making.bad import BadImageError, or_skip
from raycls.data.source import Dataset
from raycls.errors import ConfigError, DataError
from raycls.session.prepare import plan_of
from raycls.session.setup import make_task
from raycls.tasks.build import gives_masks, takes_volumes
from raycls.train.plan import Plan

__all__ = ["Seen", "seen", "told"]


@dataclass(frozen=True)
class Seen:
    """One image on its way to the network."""

    id: int
    where: str
    """The file, or the place in one."""
    label: str
    """Its class or classes; empty where the data has no such labels."""
    stages: tuple[Stage, ...]


def seen(run: Run, dataset: Dataset, *, epoch: int, count: int) -> tuple[list[str], list[Seen]]:
    """The operations as the config has them, and the first `count` images of `epoch` (from 0), in the order of the run.

    ConfigError where the run has no such epoch, DataError where an image cannot be read or does not suit an operation.
    """
    plan, split = plan_of(run, dataset), dataset.splits["train"]
    epochs = -(-plan.total_steps // plan.steps_per_epoch)
    if epoch >= epochs:
        raise ConfigError("the run has no such epoch", where="--epoch", found=str(epoch), valid=f"0 to {epochs - 1}")
    setting = make_task(run, dataset.classes, None, plan).setting
    train = setting.augments(epoch)
    size = setting.size(epoch) if train else run.data.image_size
    listed = run.augment.train if train else run.augment.eval
    if takes_volumes(run.task) or gives_masks(run.task):
        raise ConfigError(
            "volumes and masks are not shown",
            where="task.name",
            found=run.task.name,
            valid="a task with one answer per image",
        )
    operations = default_operations(train=train, image_size=size) if listed is None else listed
    most, planes = run.data.max_pixels, planes_of(run.data)
    augment = build(operations, train=train, image_size=size, max_pixels=most, planes=planes)
    found: list[Seen] = []
    for key in _keys(plan, epoch):
        if len(found) == count:
            break
        index = key[2]
        try:
            stages = augment.stages(split.encoded(index) if augment.encoded else split.pixels(index), key)
        except BadImageError as error:
            if run.data.on_bad_image == "error":
                raise or_skip(error) from error.__cause__
            continue
        except DataError as error:
            error.where = error.where or split.locate(index)
            raise
        found.append(Seen(index, split.key(index), split.label(index), tuple(stages)))
    return [told(each) for each in operations], found


def told(operation: Operation) -> str:
    """An operation in a heading: its name and its arguments."""
    name, args = named(operation)
    return name if isinstance(operation, str) else f"{name} {flow(args)[1:-1]}"


def _keys(plan: Plan, epoch: int) -> Iterator[tuple[int, int, int]]:
    first = epoch * plan.steps_per_epoch
    for step in range(first, min(first + plan.steps_per_epoch, plan.total_steps)):
        yield from plan.order.slice_keys(step, 0, 1)
