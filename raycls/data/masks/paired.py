"""The operations of `augment` on an image and on its mask alike: the same place, turn and cut of both.

Each operation draws from a generator of its own that follows from (seed, epoch, sample) and its place in the list, for
the image and again for the mask. Masks take the nearest pixel, and what is added beside an image is ignored. Operations
that change colours or intensities leave the mask alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torchvision.transforms import InterpolationMode

from raycls.config.names.builtin import MASK_OPERATIONS, MOVING
from raycls.config.sections.types import Operation
from raycls.data.images import operations as of_images
from raycls.data.images.decoding.decode import Pixels
from raycls.data.images.geometry import Fit
from raycls.data.images.operations import Augment, entry_of
from raycls.data.images.planes import RGB, Planes
from raycls.data.order import key as order_key
from raycls.data.volumes import operations as of_volumes
from raycls.data.volumes.geometry import nearest
from raycls.data.volumes.operations import VolumeAugment
from raycls.errors import ConfigError, DataError
from raycls.randomness import own_generator

__all__ = ["PairedImages", "PairedVolumes"]

_Key = tuple[int, int, int]

_CUTTING = frozenset(("center_crop", "random_crop", "pad", "flip", "rotate90"))
"""Operations on volumes that move voxels and compute none."""
_CHANGING = frozenset(("intensity", "noise"))


class PairedImages:
    """A list of operations on an image as `planes` has it and its codes `[H, W] uint8`."""

    def __init__(
        self,
        listed: Sequence[Operation] | None,
        *,
        train: bool,
        image_size: int,
        max_pixels: int,
        planes: Planes = RGB,
    ) -> None:
        usual = of_images.default_operations(train=train, image_size=image_size)
        given = usual if listed is None else tuple(listed)
        whole = of_images.build(given, train=train, image_size=image_size, max_pixels=max_pixels, planes=planes)
        self.separate = whole.separate
        self._steps: list[tuple[Augment, Augment | None]] = []
        for number, (entry, step) in enumerate(zip(given, whole.each(), strict=True)):
            where = f"augment.{'train' if train else 'eval'}[{number}]"
            name, args = entry_of(entry, where, "- horizontal_flip")
            _refuse_unknown(name, where, sorted(MASK_OPERATIONS))
            if args.get("resampling", "exact") != "exact":
                raise _unfit(name, where, "resampling: fast", "resampling: exact")
            moved = None
            if name in MOVING:
                left = {key: value for key, value in args.items() if key != "fill"}
                moved = of_images.build(({name: left},), train=train, image_size=image_size, max_pixels=max_pixels)
                moved = moved.changed(_by_nearest)
            self._steps.append((step, moved))

    def __call__(self, image: Pixels, mask: np.ndarray, key: _Key, place: str) -> tuple[np.ndarray, np.ndarray]:
        """Both after the operations. DataError where they are of different sizes, or an operation fails."""
        found, codes = np.asarray(image), np.repeat(mask[..., None], 3, 2)
        if found.shape[:2] != mask.shape:
            raise DataError(
                "a mask has another size than its image",
                where=place,
                found=f"{mask.shape[0]} x {mask.shape[1]}, and an image of {found.shape[0]} x {found.shape[1]}",
                valid="the height and the width of the image",
            )
        for number, (step, moved) in enumerate(self._steps):
            own = _own(key, number)
            if moved is not None:
                codes = moved(codes, own)
            found = step(found, own)
        return np.ascontiguousarray(found), np.ascontiguousarray(codes[..., 0])


class PairedVolumes:
    """A list of operations on `[C, D, H, W] float32` and its codes `[D, H, W] uint8`."""

    def __init__(self, listed: Sequence[Operation] | None, *, train: bool, image_size: int, max_pixels: int) -> None:
        given = of_volumes.default_operations() if listed is None else tuple(listed)
        whole = of_volumes.build(given, train=train, image_size=image_size, max_pixels=max_pixels)
        self.separate, self._most = whole.separate, of_volumes.MULTIPLE * max_pixels
        self._steps: list[tuple[str, VolumeAugment, Any]] = []
        for (name, where, function, _), step in whole.each():
            moved = getattr(function, "on_mask", function if name in _CUTTING else None)
            if moved is None:
                _refuse_unknown(name, where, sorted({"resize"} | _CUTTING | _CHANGING), _CHANGING | {"resize"})
            self._steps.append((name, step, moved))

    def __call__(
        self, volume: np.ndarray, mask: np.ndarray, key: _Key, spacing: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both after the operations, and the spacing `[3]` of what they are then."""
        codes, spacing = mask[None], spacing.astype(np.float64)
        for number, (name, step, moved) in enumerate(self._steps):
            own, before = _own(key, number), volume.shape[1:]
            volume = step(volume, own)
            if name == "resize":
                steps = [old / new for old, new in zip(before, volume.shape[1:], strict=True)]
                codes, spacing = nearest(codes, volume.shape[1:], steps), spacing * steps
            elif moved is not None:
                codes = moved(codes, own_generator(order_key(*own)), self._most)
        return np.ascontiguousarray(volume), np.ascontiguousarray(codes[0]), spacing


def _own(key: _Key, number: int) -> _Key:
    """The key of one operation of the list."""
    seed, epoch, sample = key
    return order_key(seed, number) >> 1, epoch, sample


def _by_nearest(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    if isinstance(function, Fit):
        return replace(function, interpolation=InterpolationMode.NEAREST)
    if hasattr(function, "interpolation"):
        function.interpolation = InterpolationMode.NEAREST  # type: ignore[attr-defined]
    return function


def _refuse_unknown(name: str, where: str, known: Sequence[str], fine: frozenset[str] | None = None) -> None:
    if name not in (known if fine is None else fine):
        raise _unfit(name, where, name, ", ".join(known))


def _unfit(name: str, where: str, found: str, valid: str) -> ConfigError:
    return ConfigError(
        f"it is not known how the operation {name} changes a mask",
        where=where,
        found=found,
        valid=valid,
        fix=f"leave {name} out, or use these in its place",
    )
