"""How large an image an operation makes on its way, told from sizes alone: before anything is allocated."""

from __future__ import annotations

from typing import Any

from torchvision.transforms import v2

from raycls.data.images.geometry import Fit

__all__ = ["MULTIPLE", "largest"]

MULTIPLE = 2
"""No operation makes an image of more than this many times `data.max_pixels`."""


def largest(operation: Any, height: int, width: int) -> int:
    """Pixels of the largest image that one of the built-in operations makes of one of `height` x `width`.

    Pillow resizes along the width first, so an image of the new width and the old height is between.
    """
    if isinstance(operation, v2.Resize):
        new_height, new_width = _resized(operation.size, height, width)
        return max(new_height * new_width, height * new_width)
    if isinstance(operation, Fit):
        new_height, new_width = operation.resized(height, width)
        return max(new_height * new_width, height * new_width, operation.size[0] * operation.size[1])
    if isinstance(operation, v2.CenterCrop):
        crop_height, crop_width = _pair(operation.size)  # where the image is smaller it is padded, and cropped then
        return max(height, crop_height) * max(width, crop_width)
    if isinstance(operation, v2.RandomCrop):
        left, top, right, bottom = operation.padding or (0, 0, 0, 0)
        return (height + top + bottom) * (width + left + right)
    if isinstance(operation, v2.RandomResizedCrop):
        new_height, new_width = _pair(operation.size)
        part = min(height, round(width / min(operation.ratio)) + 1)  # the tallest part there can be
        return max(new_height * new_width, part * new_width)
    return height * width


def _resized(size: Any, height: int, width: int) -> tuple[int, int]:
    """Height and width after a resize: of one number, that of the shorter side, the longer follows."""
    sides = [size] if isinstance(size, int) else list(size)
    if len(sides) == 2:
        return _pair(sides)
    longer = int(sides[0] * max(height, width) / min(height, width))
    return (longer, sides[0]) if height > width else (sides[0], longer)


def _pair(size: Any) -> tuple[int, int]:
    height, width = size
    return height, width
