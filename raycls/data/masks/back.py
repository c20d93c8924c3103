"""From the grid of the network back to that of the file: the operations of `augment.eval` undone, the last one first.

What a network says of each class is interpolated as volumes are, and the likeliest class is chosen on the grid of the
file: a mask that is resampled itself has steps at its border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raycls.config.sections.types import Operation
from raycls.data.images.geometry import Fit, resize
from raycls.data.images.operations import default_operations as of_images
from raycls.data.images.operations import entry_of
from raycls.data.volumes.geometry import at_spacing, changed, nearest
from raycls.data.volumes.operations import default_operations as of_volumes
from raycls.errors import ConfigError

__all__ = ["Moved", "moves_of", "undone"]

_LEAVING = frozenset(("intensity", "noise", "color_jitter", "hsv", "gaussian_blur", "grayscale", "solarize")) | {
    *("posterize", "equalize", "sharpness")
}
"""Operations that leave each voxel where it is."""


@dataclass(frozen=True)
class Moved:
    """What one operation did to the grid `[D, H, W]` (one slice of an image)."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    start: tuple[int, ...] = (0, 0, 0)
    """Which voxel became the first one; negative where there were voxels added before it."""
    step: tuple[float, ...] | None = None
    """How many old voxels a new one goes, the middle of all staying where it is; None: none was computed."""


def moves_of(
    listed: Sequence[Operation] | None,
    sizes: Sequence[int],
    *,
    volumes: bool,
    image_size: int,
    spacing: tuple[Sequence[float], Sequence[float]] | None = None,
) -> list[Moved]:
    """What `augment.eval` (and before it `spacing`: that of the file, and `data.spacing`) does to a grid of these
    `sizes` `[D, H, W]`. ConfigError names an operation that cannot be undone."""
    found: list[Moved] = []
    now = tuple(sizes)
    if spacing is not None:
        after, steps = at_spacing(now, *spacing)
        found.append(Moved(now, tuple(after), step=tuple(steps)))
        now = tuple(after)
    usual = of_volumes() if volumes else of_images(train=False, image_size=image_size)
    for number, entry in enumerate(usual if listed is None else listed):
        where = f"augment.eval[{number}]"
        name, args = entry_of(entry, where, "- resize")
        made = _of_volume(name, args, now, image_size) if volumes else _of_image(name, args, now, image_size)
        if made is None and name not in _LEAVING:
            raise ConfigError(
                "an answer cannot be put back to the size of its file: this operation cannot be undone",
                where=where,
                found=name,
                valid="resize, center_crop, " + ("pad, or none" if volumes else "or none"),
                fix=f"train with an augment.eval without {name}",
            )
        found += made or ()
        now = found[-1].after if found else now
    return found


def undone(values: np.ndarray, moves: Sequence[Moved]) -> tuple[np.ndarray, np.ndarray]:
    """`values` `[C, *after] float32` on the grid before all `moves`, and which of its voxels they say something of,
    `bool`: the others were cut away, and have the values of those that are nearest."""
    inside = np.ones(values.shape[1:], bool)
    for move in reversed(moves):
        if move.step is not None:
            steps = [1 / step for step in move.step]
            values, inside = changed(values, move.before, steps), nearest(inside, move.before, steps)
            continue
        kept: list[slice] = []
        beside: list[tuple[int, int]] = []
        for start, size, before in zip(move.start, move.after, move.before, strict=True):
            first, last = max(0, start), min(before, start + size)
            kept.append(slice(first - start, last - start))
            beside.append((first, before - last))
        values = np.pad(values[(slice(None), *kept)], [(0, 0), *beside], mode="edge")
        inside = np.pad(inside[tuple(kept)], beside)
    return np.ascontiguousarray(values), inside


def _of_volume(name: str, args: dict[str, Any], now: tuple[int, ...], image_size: int) -> list[Moved] | None:
    size = args.get("size") or image_size
    wanted = (size,) * 3 if isinstance(size, int) else tuple(size)
    if name == "resize":
        return [_scaled(now, wanted)]
    if name in ("center_crop", "pad"):
        # as `raycls.data.volumes.shapes`: what lacks is added first, half of it before; then the middle is cut out
        more = [max(0, want - have) for want, have in zip(wanted, now, strict=True)]
        whole = [have + lack for have, lack in zip(now, more, strict=True)]
        after = tuple(whole) if name == "pad" else wanted
        spare = [have - want for have, want in zip(whole, after, strict=True)]
        return [Moved(now, after, tuple(cut // 2 - lack // 2 for cut, lack in zip(spare, more, strict=True)))]
    return None


def _of_image(name: str, args: dict[str, Any], now: tuple[int, ...], image_size: int) -> list[Moved] | None:
    _, height, width = now
    if name == "center_crop":
        size = args.get("size") or image_size
        return [_middle(now, (size, size) if isinstance(size, int) else tuple(size))]
    if name != "resize":
        return None
    made: Any = resize(image_size, **args)
    if isinstance(made, Fit):
        between = (1, *made.resized(height, width))
        if made.fit == "crop":
            return [_scaled(now, between), _middle(between, made.size)]
        starts = tuple(-((want - have) // 2) for want, have in zip(made.size, between[1:], strict=True))
        return [_scaled(now, between), Moved(between, (1, *made.size), (0, *starts))]
    sides = list(made.size)
    if len(sides) == 1:  # the shorter one; the other keeps the shape, as torchvision rounds it
        short = min(height, width)
        sides = [int(sides[0] * side / short) for side in (height, width)]
    return [_scaled(now, (1, *sides))]


def _scaled(before: tuple[int, ...], after: Sequence[int]) -> Moved:
    return Moved(before, tuple(after), step=tuple(have / got for have, got in zip(before, after, strict=True)))


def _middle(before: tuple[int, ...], wanted: Sequence[int]) -> Moved:
    """The middle as torchvision cuts it: a half goes to the even number."""
    pairs = zip(before[1:], wanted, strict=True)
    starts = [-((want - have) // 2) if have < want else round((have - want) / 2) for have, want in pairs]
    return Moved(before, (1, *wanted), (0, *starts))
