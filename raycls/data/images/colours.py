"""Operations on the colours and the sharpness of an image, with probability `p`: torchvision's where it has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from raycls.data.images.checks import number, rising, whole

__all__ = ["equalize", "gaussian_blur", "grayscale", "hsv", "posterize", "sharpness", "solarize"]


def hsv(
    image_size: int, *, hue: float = 0.05, saturation: float = 0.2, value: float = 0.2, p: float = 1.0
) -> Callable[[Any], Any]:
    """Each moved by one random number for all pixels: the hue by up to `hue` of the circle, the others by up to this
    part of their range, to its end at most. In Pillow's HSV of 8 bits, which is a few levels coarser than RGB."""
    most = number("hue", hue, 0, 0.5), number("saturation", saturation, 0, 1), number("value", value, 0, 1)
    return _Hsv(most, number("p", p, 0, 1))


@dataclass(frozen=True)
class _Hsv:
    most: tuple[float, float, float]
    p: float

    def __call__(self, image: Image.Image) -> Image.Image:
        if torch.rand(1) >= self.p:
            return image
        drawn = torch.empty(3).uniform_(-1.0, 1.0).tolist()
        shifts = [round(255 * most * part) for most, part in zip(self.most, drawn, strict=True)]
        if not any(shifts):  # the way to HSV and back would not be exact
            return image
        levels = np.asarray(image.convert("HSV")).astype(np.int16) + np.array(shifts, np.int16)
        levels[..., 0] %= 256
        return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8), "HSV").convert("RGB")


def gaussian_blur(
    image_size: int, *, kernel_size: int | None = None, sigma: Sequence[float] = (0.1, 2.0), p: float = 0.5
) -> Callable[[Any], Any]:
    """With a random `sigma` in pixels. `kernel_size` is odd; by default about a tenth of `data.image_size`, as in Chen
    and others: A Simple Framework for Contrastive Learning, ICML 2020, appendix A."""
    size = 2 * max(1, round(image_size / 20)) + 1 if kernel_size is None else whole("kernel_size", kernel_size, 1, 9999)
    if size % 2 == 0:
        raise ValueError("kernel_size must be odd")
    return v2.RandomApply([v2.GaussianBlur(size, rising("sigma", sigma, 1000.0))], number("p", p, 0, 1))


def grayscale(image_size: int, *, p: float = 0.1) -> Callable[[Any], Any]:
    """Without colour."""
    return v2.RandomGrayscale(number("p", p, 0, 1))


def solarize(image_size: int, *, threshold: int = 128, p: float = 0.5) -> Callable[[Any], Any]:
    """Levels from `threshold` (0 to 256) on are inverted."""
    return v2.RandomSolarize(whole("threshold", threshold, 0, 256), number("p", p, 0, 1))


def posterize(image_size: int, *, bits: int = 4, p: float = 0.5) -> Callable[[Any], Any]:
    """Only the highest `bits` (1 to 8) of each channel are kept."""
    return v2.RandomPosterize(whole("bits", bits, 1, 8), number("p", p, 0, 1))


def equalize(image_size: int, *, p: float = 0.5) -> Callable[[Any], Any]:
    """The histogram of each channel becomes as flat as it can."""
    return v2.RandomEqualize(number("p", p, 0, 1))


def sharpness(image_size: int, *, factor: float = 2.0, p: float = 0.5) -> Callable[[Any], Any]:
    """`factor` 0 blurs, 1 changes nothing, more sharpens."""
    return v2.RandomAdjustSharpness(number("factor", factor, 0, 100), number("p", p, 0, 1))
