"""Operations on the batches of training, after normalisation: MixUp, CutMix, erasing, and the user's own.

One more is one more function: it takes `num_classes` and what the config gives it, and returns a function of images
`[B, channels, H, W] float32` and targets (`[B] int64`, or shares of the classes `[B, C] float32`) that returns both. It
sees one micro-batch, and draws from generators that follow from (seed, step, micro-batch): so the bits are those of any
number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from raycls.config.names.builders import as_annotated
from raycls.config.names.builtin import BATCH_OPERATIONS
from raycls.config.sections.types import Operation
from raycls.data.images.operations import entry_of
from raycls.errors import ConfigError, RayclsError, TrainError
from raycls.plugins import builder

__all__ = ["BatchOperation", "build_mix", "mixes"]

BatchOperation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
_FORM = "- random_erasing   or   - mixup: {alpha: 0.2}"


def mixes(operations: Sequence[Operation], num_classes: int, image_size: int, channels: int = 3) -> bool:
    """Whether a loss sees shares of classes instead of labels: tried on two black images. ConfigError where an
    operation fails there. The generators are the caller's to keep."""
    apply = build_mix(operations, num_classes)
    if apply is None:
        return False
    try:
        return apply(torch.zeros(2, channels, image_size, image_size), torch.tensor([0, num_classes - 1]))[1].ndim == 2
    except TrainError as error:
        raise ConfigError(error.what, where=error.where, found=error.found, valid=error.valid) from error


def build_mix(operations: Sequence[Operation], num_classes: int) -> BatchOperation | None:
    """The operations of `augment.batch`, one after another; None where there are none. ConfigError names the entry."""
    steps = [_step(entry, f"augment.batch[{index}]", num_classes) for index, entry in enumerate(operations)]

    def apply(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        for name, step in steps:
            shape = images.shape
            images, targets = _applied(name, step, images, targets)
            if images.shape != shape or targets.shape not in ((shape[0],), (shape[0], num_classes)):
                raise TrainError(
                    f"the operation {name} on the batch does not return images and targets",
                    where="augment.batch",
                    found=f"{list(images.shape)} and {list(targets.shape)}",
                    valid=f"{list(shape)} and [{shape[0]}] or [{shape[0]}, {num_classes}]",
                )
        return images, targets

    return apply if steps else None


def _applied(name: str, step: BatchOperation, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    try:
        images, targets = step(images, targets)
    except RayclsError:
        raise
    except (Exception, SystemExit) as error:  # whatever a plug-in raises
        raise TrainError(
            f"the operation {name} on the batch fails",
            where="augment.batch",
            found=f"{type(error).__name__}: {error}",
        ) from error
    return images, targets


def _step(entry: Operation, where: str, num_classes: int) -> tuple[str, BatchOperation]:
    name, args = entry_of(entry, where, _FORM)
    inside = f"{where}.{name}"
    given = ("num_classes",)
    function = builder("batch operation", name, args, BATCH_OPERATIONS, given=given, at=(where, inside))
    values = as_annotated(function, args, inside)
    try:
        made = function(num_classes=num_classes, **values)
    except RayclsError:
        raise
    except (Exception, SystemExit) as error:  # whatever a plug-in raises
        found = f"{args}: {type(error).__name__}: {error}"
        raise ConfigError(f"the operation {name} does not accept its arguments", where=inside, found=found) from error
    if not callable(made):
        valid = "a factory: called with its arguments, it returns a callable images, targets -> images, targets"
        raise ConfigError(f"{name} did not return an operation", where=inside, found=repr(type(made)), valid=valid)
    return name, cast("BatchOperation", made)
