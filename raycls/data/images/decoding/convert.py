"""From an image as Pillow has decoded it to what is asked for: 8-bit RGB, or grey of 8 or 16 bits."""

from __future__ import annotations

import numpy as np
from PIL.Image import Image, fromarray, new

from raycls.data.images.planes import RGB, Planes, held

__all__ = ["UnusableError", "converted"]

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262


class UnusableError(Exception):
    """The image is whole, but its values have no defined meaning in levels from black to white."""


def converted(image: Image, box: tuple[int, int, int, int] | None, planes: Planes) -> Image | np.ndarray:
    """`image`, of which only what is in `box` is there, where that is given, as `planes` has it.

    Colour becomes grey after it was laid over white, and 8 bits become 16 in the end.
    """
    if planes.channels not in (1, 3):
        return _channels(image, planes)
    if planes.bits == 16 and box is None and _is_deep(image):
        return _levels(image, planes.white).astype(planes.dtype)
    if planes == Planes(1) and box is None and image.mode == "L" and "transparency" not in image.info:
        return image
    colours = _to_rgb(image) if box is None else _on_white(_to_rgb(image), box)
    if planes == RGB:
        return colours
    return _held(np.asarray(colours), planes)


def _channels(image: Image, planes: Planes) -> np.ndarray:
    """Red, green, blue and alpha, where there are these."""
    if image.mode == "RGBA" and planes.channels == 4:
        return _held(np.asarray(image), planes)
    count = len(image.getbands())
    raise UnusableError(f"an image of {count} channel{'s' * (count > 1)} ({image.mode}), not of {planes.channels}")


def _held(array: np.ndarray, planes: Planes) -> np.ndarray:
    found = held(array, planes)
    if found is None:
        raise UnusableError(f"there is no conversion to {planes.words}")
    return found


def _to_rgb(image: Image) -> Image:
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image
    if _is_deep(image):
        return fromarray(_levels(image, 255).astype(np.uint8)).convert("RGB")
    if mode == "F":
        raise UnusableError("the pixels are floating-point numbers")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _over_white(image)
    return image.convert("RGB")


def _on_white(image: Image, box: tuple[int, int, int, int]) -> Image:
    canvas = new("RGB", image.size, (255, 255, 255))
    canvas.paste(image.crop(box), box)
    return canvas


def _over_white(image: Image) -> Image:
    if image.mode == "La":  # Pillow leads from premultiplied grey to grey with alpha only
        image = image.convert("LA")
    image = image.convert("RGBA")
    canvas = new("RGB", image.size, (255, 255, 255))
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas


def _is_deep(image: Image) -> bool:
    """Whether it is grey of more than 8 bits."""
    return image.mode == "I" or image.mode.startswith("I;")


def _levels(image: Image, top: int) -> np.ndarray:
    """Grey of more than 8 bits, `[H, W] int64` from 0 to `top`, which is 65535, or 4095 of a 12-bit TIFF."""
    values = np.asarray(image).astype(np.int64)
    if values.size and not (values.min() >= 0 and values.max() <= 65535):
        raise UnusableError(f"grey values from {values.min()} to {values.max()}, outside the 16-bit range 0..65535")
    tags = getattr(image, "tag_v2", {})
    white = 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535
    grey = (values * top + white // 2) // white
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow leaves alone for 16 bits
        grey = top - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = top
    return grey
