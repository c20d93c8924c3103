"""Operations that move pixels: random views of a plane, and an image fitted into a size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from raycls.data.images.checks import colour, interpolated, number, pair, sides, whole

__all__ = ["Fit", "affine", "perspective", "resize"]

_FITS = ("side", "crop", "pad", "stretch")


def resize(
    image_size: int,
    *,
    size: int | Sequence[int] | None = None,
    interpolation: str = "bilinear",
    fit: str = "side",
    fill: int = 0,
) -> Callable[[Any], Any]:
    """To `size` pixels: one number or height and width. `bilinear` or `bicubic`, antialiased.

    `fit: side`: one number is the shorter side, two are height and width. The others give exactly `size`, a square
    where it is one number: `crop` fills it and cuts off what is too much on both sides, `pad` shows the whole image
    with bars of the level `fill`, `stretch` does not keep the shape.
    """
    mode, wanted = interpolated(interpolation), image_size if size is None else size
    if fit not in _FITS:
        raise ValueError(f"fit is one of {', '.join(_FITS)}")
    if fill and fit != "pad":
        raise ValueError("fill goes with fit: pad")
    if fit in ("crop", "pad"):
        return Fit(pair(wanted), fit, mode, whole("fill", fill, 0, 255))
    return v2.Resize(list(pair(wanted)) if fit == "stretch" else sides(wanted), mode, antialias=True)


@dataclass(frozen=True)
class Fit:
    """To exactly `size` (height, width), keeping the shape: `crop` or `pad`."""

    size: tuple[int, int]
    fit: str
    interpolation: InterpolationMode
    fill: int = 0

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the resize, before what is too much is cut off or what lacks is added."""
        tall, wide = self.size
        sides = (wide * height // width, tall * width // height)
        if self.fit == "crop":
            return max(tall, sides[0]), max(wide, sides[1])
        return min(tall, max(1, sides[0])), min(wide, max(1, sides[1]))

    def __call__(self, image: Any) -> Any:
        height, width = self.resized(image.height, image.width)
        small = functional.resize(image, [height, width], self.interpolation, antialias=True)
        if self.fit == "crop":
            return functional.center_crop(small, list(self.size))
        down, right = self.size[0] - height, self.size[1] - width
        bars = [right // 2, down // 2, right - right // 2, down - down // 2]
        return functional.pad(small, bars, fill=self.fill)


def perspective(
    image_size: int, *, distortion_scale: float = 0.5, p: float = 0.5, fill: int | Sequence[int] = 0
) -> Callable[[Any], Any]:
    """As seen from another side: each corner moves inwards by up to `distortion_scale` of half a side. Bilinear."""
    scale = number("distortion_scale", distortion_scale, 0, 1)
    return v2.RandomPerspective(scale, number("p", p, 0, 1), InterpolationMode.BILINEAR, colour(fill))


def affine(
    image_size: int,
    *,
    degrees: float | Sequence[float] = 0.0,
    translate: Sequence[float] | None = None,
    scale: Sequence[float] | None = None,
    shear: float | Sequence[float] | None = None,
    fill: int | Sequence[int] = 0,
) -> Callable[[Any], Any]:
    """Turned by up to `degrees`, moved by up to `translate` ([of the width, of the height], 0 to 1), scaled by a factor
    between two of `scale`, sheared by up to `shear` degrees (or [min, max] along x, then along y). Bilinear."""
    return v2.RandomAffine(degrees, translate, scale, shear, InterpolationMode.BILINEAR, colour(fill))  # type: ignore[arg-type]
