"""Operations on arrays of pixels: to the bit what torchvision's do on Pillow images, without making any.

A Pillow image of RGB has four bytes per pixel, so that each way to one and back is a copy; of a small image these, and
the way through torchvision, are most of the time. An operation with a form here takes an array or a Pillow image and
returns either. It draws the numbers that torchvision would draw, in the same order, from a generator that it is handed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from raycls.data.images.checks import pair
from raycls.data.images.decoding.decode import Pixels
from raycls.data.images.decoding.turbo import Encoded

__all__ = ["Form", "QuickCrop", "as_image", "form_of", "on_images", "size_of"]

Form = Callable[[Pixels, torch.Generator], Pixels]


def form_of(operation: Any) -> Form | None:
    """How a built-in operation is done here; None where it is done on Pillow images alone."""
    make = _FORMS.get(type(operation))
    return None if make is None else make(operation)


def size_of(pixels: Pixels | Encoded) -> tuple[int, int]:
    """Height and width."""
    return pixels.shape[:2] if isinstance(pixels, np.ndarray) else (pixels.height, pixels.width)


class QuickCrop(v2.RandomResizedCrop):
    """`RandomResizedCrop` by torch's resize of 8-bit integers, of images that are decoded no larger than it takes."""


def as_image(pixels: Pixels) -> Image.Image:
    """As a Pillow image; 16 bits as one of floats, which hold them exactly.

    Pillow 13 turns images of mode I;16 to noise: its bilinear filter takes their bytes for pixels.
    """
    if not isinstance(pixels, np.ndarray):
        return pixels
    return Image.fromarray(np.ascontiguousarray(pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)))


def on_images(function: Callable[..., Any], pixels: Pixels) -> Pixels:
    """An operation on Pillow images, of one or, with the same numbers drawn, of each channel of `[H, W, C]`."""
    if not isinstance(pixels, np.ndarray) or pixels.ndim == 2 or (pixels.shape[2], pixels.dtype) == (3, np.uint8):
        return levels(function(as_image(pixels)))
    images = [as_image(pixels[..., channel]) for channel in range(pixels.shape[2])]
    made = function(*images) if isinstance(function, v2.Transform) else map(function, images)
    return np.stack([np.asarray(levels(image)) for image in made], 2)


def levels(pixels: Pixels) -> Pixels:
    """What an operation made: of floats, the nearest 16-bit levels."""
    if isinstance(pixels, np.ndarray) or pixels.mode != "F":
        return pixels
    return np.clip(np.rint(np.asarray(pixels)), 0, 65535).astype(np.uint16)


def _flip(operation: v2.RandomHorizontalFlip | v2.RandomVerticalFlip) -> Form:
    axis = 1 if isinstance(operation, v2.RandomHorizontalFlip) else 0
    turn = (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_LEFT_RIGHT)[axis]
    p = float(np.float32(operation.p))  # torch compares its number with this one

    def flip(pixels: Pixels, generator: torch.Generator) -> Pixels:
        if torch.rand(1, generator=generator).item() >= p:
            return pixels
        if isinstance(pixels, Image.Image):
            return pixels.transpose(turn)
        return torch.flip(_tensor(pixels), (axis,)).numpy()  # numpy would copy it pixel by pixel

    return flip


def _center_crop(operation: v2.CenterCrop) -> Form:
    tall, wide = pair(operation.size)

    def crop(pixels: Pixels, generator: torch.Generator) -> Pixels:
        height, width = size_of(pixels)
        if isinstance(pixels, Image.Image) or height < tall or width < wide:  # where it is smaller it is padded
            return on_images(operation, pixels)
        return _part(pixels, round((height - tall) / 2), round((width - wide) / 2), tall, wide)

    return crop


def _random_crop(operation: v2.RandomCrop) -> Form | None:
    left, right, top, bottom = operation.padding or (0, 0, 0, 0)
    fill = operation.fill
    if operation.padding_mode != "constant" or operation.pad_if_needed or min(left, right, top, bottom) < 0:
        return None
    if not (isinstance(fill, int) or (isinstance(fill, list | tuple) and len(fill) == 3)):
        return None
    tall, wide = pair(operation.size)

    def crop(pixels: Pixels, generator: torch.Generator) -> Pixels:
        height, width = size_of(pixels)
        down, along = height + top + bottom - tall, width + left + right - wide
        if down < 0 or along < 0:
            return on_images(operation, pixels)  # says what is wrong, and draws nothing
        y = _below(down + 1, generator) - top if down else -top
        x = _below(along + 1, generator) - left if along else -left
        if isinstance(pixels, Image.Image):
            if min(x, y) >= 0 and x + wide <= width and y + tall <= height:
                return pixels.crop((x, y, x + wide, y + tall))
            pixels = np.asarray(pixels)
        return _window(pixels, y, x, tall, wide, fill)

    return crop


_Box = tuple[int, int, int, int]
"""Top, left, height and width."""


def _box(operation: v2.RandomResizedCrop) -> Callable[[int, int, torch.Generator], _Box]:
    least, most = (float(bound) for bound in operation._log_ratio)

    def box(height: int, width: int, generator: torch.Generator) -> _Box:
        """Drawn as `RandomResizedCrop.make_params` does."""
        for _ in range(10):
            area = height * width * _between(*operation.scale, generator).item()
            ratio = torch.exp(_between(least, most, generator)).item()
            wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < tall <= height:
                top, left = _below(height - tall + 1, generator), _below(width - wide + 1, generator)
                return top, left, tall, wide
        tall, wide, (low, high) = height, width, operation.ratio  # ten were too large: the middle
        if width / height < low:
            tall = round(width / low)
        elif width / height > high:
            wide = round(height * high)
        return (height - tall) // 2, (width - wide) // 2, tall, wide

    return box


def _random_resized_crop(operation: v2.RandomResizedCrop) -> Form:
    box, size = _box(operation), list(pair(operation.size))

    def crop(pixels: Pixels, generator: torch.Generator) -> Pixels:
        top, left, tall, wide = box(*size_of(pixels), generator)
        if isinstance(pixels, Image.Image):
            part: Pixels = pixels.crop((left, top, left + wide, top + tall))
        else:
            part = _part(pixels, top, left, tall, wide)
        return on_images(partial(functional.resize, size=size, interpolation=operation.interpolation), part)

    return crop


def _quick_crop(operation: QuickCrop) -> Form:
    """Torch's sums are of integers, with weights of 15 bits: the same on every kind of CPU."""
    box, size = _box(operation), pair(operation.size)

    def crop(pixels: Pixels | Encoded, generator: torch.Generator) -> Pixels:
        top, left, tall, wide = box(*size_of(pixels), generator)
        if isinstance(pixels, Encoded):
            scale = next((by for by in (8, 4, 2) if tall >= by * size[0] and wide >= by * size[1]), 1)
            before = size_of(pixels)
            pixels = pixels.whole() if scale == 1 else pixels.scaled(scale)
            if size_of(pixels) != before:
                bottom, right = -(-(top + tall) // scale), -(-(left + wide) // scale)
                top, left = top // scale, left // scale
                tall, wide = bottom - top, right - left
        part = _tensor(_part(np.asarray(pixels), top, left, tall, wide)).permute(2, 0, 1)[None]
        small = F.interpolate(part, size, mode="bilinear", antialias=True)
        return small[0].permute(1, 2, 0).numpy()

    return crop  # type: ignore[return-value]


_FORMS: dict[type, Callable[[Any], Form | None]] = {
    v2.RandomHorizontalFlip: _flip,
    v2.RandomVerticalFlip: _flip,
    v2.CenterCrop: _center_crop,
    v2.RandomCrop: _random_crop,
    v2.RandomResizedCrop: _random_resized_crop,
    QuickCrop: _quick_crop,
}


def _between(low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.empty(1).uniform_(low, high, generator=generator)


def _below(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(0, bound, size=(), generator=generator))


def _part(pixels: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    return pixels[top : top + height, left : left + width]


def _window(pixels: np.ndarray, y: int, x: int, tall: int, wide: int, fill: Any) -> np.ndarray:
    """What is seen of `pixels` through a window whose corner is at `y`, `x`; the level `fill` beside it."""
    rows, columns = _overlap(y, tall, pixels.shape[0]), _overlap(x, wide, pixels.shape[1])
    seen = pixels[rows, columns]
    if seen.shape[:2] == (tall, wide):
        return seen
    window = np.zeros((tall, wide, *pixels.shape[2:]), pixels.dtype)
    if fill != 0:
        window[:] = fill
    window[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x] = seen
    return window


def _overlap(start: int, length: int, size: int) -> slice:
    first = min(max(start, 0), size)
    return slice(first, max(first, min(start + length, size)))


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    """`pixels` for an operation that only reads; torch would warn of an array that is not to be written to."""
    if pixels.flags.writeable:
        return torch.from_numpy(pixels)
    return torch.from_numpy(np.array(pixels))
