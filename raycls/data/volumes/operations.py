"""A volume before the model: the operations of `augment` on `[C, D, H, W] float32` in 0..1.

As on images, randomness is keyed: a sample looks the same whoever makes it. The built-in operations draw from a
generator of their own and compute without sums that threads divide, so the bits are those of any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from raycls.config.names.builtin import VOLUME_OPERATIONS
from raycls.config.sections.data import DataConfig
from raycls.config.sections.types import Operation
from raycls.data.images.operations import entry_of, operation_of
from raycls.data.order import key as order_key
from raycls.data.samples import UnfitError
from raycls.errors import DataError
from raycls.plugins import builder
from raycls.randomness import own_generator, seeded

__all__ = ["VolumeAugment", "build", "default_operations"]

MULTIPLE = 8
"""No operation makes a volume of more than this many times `data.max_pixels` voxels."""


class Step(NamedTuple):
    name: str
    place: str
    """Where the config has it, such as `augment.train[2]`."""
    function: Callable[..., Any]
    foreign: bool
    """Not ours: it may draw from any generator and return anything."""


def build(
    operations: tuple[Operation, ...] | None,
    *,
    train: bool,
    image_size: int,
    max_pixels: int = DataConfig.model_fields["max_pixels"].default,
) -> VolumeAugment:
    """The operations that a config lists; None stands for the default. Every name and argument is checked here.

    ConfigError names the entry, such as `augment.train[2]`.
    """
    listed = default_operations() if operations is None else operations
    section = "augment.train" if train else "augment.eval"
    steps = tuple(_step(entry, f"{section}[{index}]", image_size) for index, entry in enumerate(listed))
    return VolumeAugment(steps, (operations, train, image_size, max_pixels))


def default_operations() -> tuple[Operation, ...]:
    """What `augment.train` and `augment.eval` are where a config says nothing."""
    return ("resize",)


class VolumeAugment:
    """A list of operations, applied to one volume at a time. Pickles as the config it was built from."""

    encoded = False
    """Whether a call takes what is not decoded: never, as of an image."""

    def __init__(self, steps: tuple[Step, ...], recipe: tuple[tuple[Operation, ...] | None, bool, int, int]) -> None:
        self._steps, self._recipe = steps, recipe
        self.separate = not any(step.foreign for step in steps)
        """Whether nothing is drawn from the generators of the process."""
        self.random = not self.separate or any(step.name in _DRAWING for step in steps)
        """Whether an operation draws from a generator, or may."""

    def __call__(self, volume: np.ndarray, key: tuple[int, int, int]) -> np.ndarray:
        """`volume` `[C, D, H, W] float32` -> the same of another size; `key` is (seed, epoch, sample).

        DataError where an operation fails or returns anything else.
        """
        if self.separate:
            return np.ascontiguousarray(self._run(volume, own_generator(order_key(*key))))
        with seeded(order_key(*key)) as generator:
            return np.ascontiguousarray(self._run(volume, generator))

    def each(self) -> list[tuple[Step, VolumeAugment]]:
        """Every operation of the list by itself."""
        made = self._recipe[0] or default_operations()
        return [
            (step, VolumeAugment((step,), (made[row : row + 1], *self._recipe[1:])))
            for row, step in enumerate(self._steps)
        ]

    def _run(self, volume: np.ndarray, generator: torch.Generator) -> np.ndarray:
        for step in self._steps:
            shape = list(volume.shape)
            try:
                made = step.function(volume) if step.foreign else step.function(volume, generator, self._most)
            except UnfitError as error:
                error.entry = step.place
                error.what = f"the operation {step.name} ({step.place}) {error.what}"
                error.found = f"{error.found or ''}a volume {shape}"
                raise
            except (Exception, SystemExit) as error:
                what = f"the operation {step.name} ({step.place}) failed on a volume {shape}"
                raise DataError(what, found=f"{type(error).__name__}: {error}") from error
            volume = _checked(made, step, shape[0]) if step.foreign else made
        return volume

    @property
    def _most(self) -> int:
        return MULTIPLE * self._recipe[3]

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, self._recipe


_DRAWING = frozenset(("random_crop", "flip", "rotate90", "intensity", "noise"))


def _rebuild(operations: Any, train: bool, image_size: int, max_pixels: int) -> VolumeAugment:
    return build(operations, train=train, image_size=image_size, max_pixels=max_pixels)


def _step(entry: Operation, where: str, image_size: int) -> Step:
    name, args = entry_of(entry, where, "- flip   or   - noise: {std: 0.05}")
    foreign = name not in VOLUME_OPERATIONS
    given = () if foreign else ("image_size",)
    factory = builder("volume operation", name, args, VOLUME_OPERATIONS, given=given, at=(where, f"{where}.{name}"))
    given_args = args if foreign else {"image_size": image_size, **args}
    function = operation_of(factory, given_args, name, f"{where}.{name}", shown=args, made="volume -> volume")
    return Step(name, where, function, foreign)


def _checked(result: Any, step: Step, channels: int) -> np.ndarray:
    if isinstance(result, torch.Tensor):
        result = result.detach().cpu().numpy()
    whole = isinstance(result, np.ndarray) and result.ndim == 4 and result.shape[0] == channels and result.size
    if whole and result.dtype == np.float32 and np.isfinite(result).all():
        return result
    shown = f"{result.dtype} {list(result.shape)}" if isinstance(result, np.ndarray) else repr(type(result))
    raise DataError(
        f"the operation {step.name} ({step.place}) did not return a volume",
        found=shown,
        valid=f"an array or tensor [{channels}, D, H, W] float32 of finite values",
    )
