"""An image before the model: resizing, cropping, turning, and the user's own transforms.

Randomness is keyed, never carried: before a sample, the generators that a transform may draw from (torch's,
numpy's global one, Python's) are seeded from `(seed, epoch, sample)`, and afterwards they are put back. So a
sample looks the same whoever augments it, and whatever was augmented before. A generator that a user's
transform makes for itself is outside this: `numpy.random.default_rng()` without a seed differs in every run.

The generators belong to the process, so two threads of one process must not augment at the same time.
The built-in operations work on Pillow images, whose resampling is integer arithmetic: the same bits on any
CPU and with any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from raycls.config.names.builtin import OPERATIONS
from raycls.config.sections.data import DataConfig
from raycls.config.sections.types import Operation
from raycls.data.images.largest import MULTIPLE, largest
from raycls.data.order import key as order_key
from raycls.data.samples import UnfitError
from raycls.errors import ConfigError, DataError
from raycls.plugins import builder
from raycls.randomness import seeded, seeded_torch

__all__ = ["FIXED", "OPERATIONS", "Augment", "build", "default_operations"]

Size = int | Sequence[int]


def build(
    operations: tuple[Operation, ...] | None,
    *,
    train: bool,
    image_size: int,
    max_pixels: int = DataConfig.model_fields["max_pixels"].default,
) -> Augment:
    """The augmentation that a config lists; None stands for the default of `augment.train` or `augment.eval`.

    Every name and argument is checked here. ConfigError names the entry, such as `augment.train[2]`. `max_pixels` is
    `data.max_pixels`.
    """
    if operations is None:
        operations = default_operations(train=train, image_size=image_size)
    section = "augment.train" if train else "augment.eval"
    steps = tuple(_step(entry, f"{section}[{index}]", image_size) for index, entry in enumerate(operations))
    return Augment(steps, (operations, train, image_size, max_pixels))


class Augment:
    """A list of operations, applied to one image at a time. Pickles as the config it was built from."""

    def __init__(self, steps: tuple[_Step, ...], recipe: tuple[tuple[Operation, ...], bool, int, int]) -> None:
        self._steps = steps
        self._recipe = recipe
        self.random = any(step.random for step in steps)
        """Whether an operation draws from a generator, or may."""
        self._foreign = any(step.foreign for step in steps)
        self._most = MULTIPLE * recipe[3]

    def __call__(self, image: Image.Image, key: tuple[int, int, int]) -> np.ndarray:
        """`image` (mode RGB) -> `[H, W, 3] uint8`; `key` is (seed, epoch, sample).

        DataError where an operation fails or returns anything but an 8-bit RGB image.
        """
        if not self.random:
            return self._apply(image)
        with seeded(order_key(*key)) if self._foreign else seeded_torch(order_key(*key)):
            return self._apply(image)

    def _apply(self, image: Image.Image) -> np.ndarray:
        for step in self._steps:
            if not step.foreign and largest(step.function, image.height, image.width) > self._most:
                raise _too_large(step, image, self._most)
            try:
                result = step.function(image)
            except (Exception, SystemExit) as error:
                raise _failure(step, image, error) from error
            image = _checked(result, step) if step.foreign else result
        return np.asarray(image)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, self._recipe


class _Step(NamedTuple):
    name: str
    place: str
    """Where the config has it, such as `augment.train[2]`."""
    function: Callable[[Any], Any]
    random: bool
    foreign: bool
    """Not ours: it may draw from any generator and return anything."""


def default_operations(*, train: bool, image_size: int) -> tuple[Operation, ...]:
    """What `augment.train` or `augment.eval` is where a config says nothing."""
    if train:
        return ("random_resized_crop", "horizontal_flip")
    return ({"resize": {"size": round(image_size * 8 / 7)}}, "center_crop")


def _rebuild(operations: tuple[Operation, ...], train: bool, image_size: int, max_pixels: int) -> Augment:
    return build(operations, train=train, image_size=image_size, max_pixels=max_pixels)


def _step(entry: Operation, where: str, image_size: int) -> _Step:
    if isinstance(entry, str):
        name, args = entry, {}
    elif len(entry) == 1:
        ((name, args),) = entry.items()
    else:
        raise ConfigError(
            "an operation must be a name, or one name with its arguments",
            where=where,
            found=", ".join(entry) or "an empty entry",
            valid="- horizontal_flip   or   - rotation: {degrees: 10}",
            fix="give each operation a line of its own, each with a dash",
        )
    foreign = name not in OPERATIONS
    given = () if foreign else ("image_size",)
    factory = builder("augmentation", name, args, OPERATIONS, given=given, at=(where, f"{where}.{name}"))
    args = {key: tuple(value) if isinstance(value, list) and not foreign else value for key, value in args.items()}
    try:
        function = factory(**args) if foreign else factory(image_size=image_size, **args)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"the operation {name} does not accept its arguments",
            where=f"{where}.{name}",
            found=f"{args}: {error}"
            if isinstance(error, TypeError | ValueError)
            else f"{type(error).__name__}: {error}",
        ) from error
    if not callable(function):
        raise ConfigError(
            f"{name} did not return an operation",
            where=f"{where}.{name}",
            found=repr(type(function)),
            valid="a factory: called with its arguments, it returns a callable image -> image",
        )
    return _Step(name, where, function, foreign or name not in FIXED, foreign)


def _checked(result: Any, step: _Step) -> Image.Image:
    """What a user's operation returned, as a Pillow image for the next one."""
    if isinstance(result, torch.Tensor) and result.dtype == torch.uint8 and result.ndim == 3 and result.shape[0] == 3:
        result = result.detach().cpu().permute(1, 2, 0).contiguous().numpy()
    if isinstance(result, Image.Image):
        if result.mode == "RGB":
            return result
        found = f"a Pillow image of mode {result.mode}"
    elif isinstance(result, np.ndarray):
        if result.dtype == np.uint8 and result.ndim == 3 and result.shape[2] == 3 and result.size:
            return Image.fromarray(np.ascontiguousarray(result))
        found = f"an array {result.dtype} of shape {list(result.shape)}"
    elif isinstance(result, torch.Tensor):
        found = f"a tensor {result.dtype} of shape {list(result.shape)}"
    else:
        found = repr(type(result))
    raise DataError(
        f"the operation {step.name} ({step.place}) did not return an 8-bit RGB image",
        found=found,
        valid="a Pillow image of mode RGB, an array [H, W, 3] uint8, or a tensor [3, H, W] uint8",
        fix="normalisation and conversion to float happen later, on the device: leave them out",
    )


def _failure(step: _Step, image: Any, error: BaseException) -> DataError:
    """An error without a place: that is the file, which whoever reads the samples knows."""
    size = f" on an image of {image.height} x {image.width} (height x width)" if isinstance(image, Image.Image) else ""
    what, found = f"the operation {step.name} ({step.place}) failed{size}", f"{type(error).__name__}: {error}"
    if step.name == "random_crop":
        return UnfitError(what, entry=step.place, found=found, fix="put a resize before it, or give it padding")
    return DataError(what, found=found)


def _too_large(step: _Step, image: Image.Image, most: int) -> UnfitError:
    pixels = largest(step.function, image.height, image.width)
    shape = "give the resize two numbers, [height, width], which do not keep the shape, or " * (step.name == "resize")
    return UnfitError(
        f"the operation {step.name} ({step.place}) would make an image larger than allowed and was not run",
        entry=step.place,
        found=f"an image of {image.height} x {image.width} (height x width) would become one of "
        f"{pixels / 1e6:,.1f} million pixels",
        valid=f"at most {MULTIPLE} times data.max_pixels, {most / 1e6:g} million pixels",
        fix=f"{shape}raise data.max_pixels where there is the memory",
    )


def resize(image_size: int, *, size: Size | None = None, interpolation: str = "bilinear") -> Callable[[Any], Any]:
    """To `size`: one number is the shorter side, two are height and width. `bilinear` or `bicubic`, antialiased."""
    if interpolation not in (known := ("bilinear", "bicubic")):
        raise ValueError(f"interpolation is {' or '.join(known)}")
    return v2.Resize(_sides(image_size if size is None else size), InterpolationMode(interpolation), antialias=True)


def center_crop(image_size: int, *, size: Size | None = None) -> Callable[[Any], Any]:
    """The middle; a smaller image is padded with black."""
    return v2.CenterCrop(_sides(image_size if size is None else size))


def random_crop(
    image_size: int,
    *,
    size: Size | None = None,
    padding: Size | None = None,
    padding_mode: str = "constant",
    fill: int | Sequence[int] = 0,
) -> Callable[[Any], Any]:
    """Any part of this size, after `padding` pixels were added (all sides; or left/right, top/bottom; or each)."""
    if padding_mode not in (modes := ("constant", "edge", "reflect", "symmetric")):
        raise ValueError(f"padding_mode is one of {', '.join(modes)}")
    size = _sides(image_size if size is None else size)
    return v2.RandomCrop(size, padding=padding, padding_mode=padding_mode, fill=_colour(fill))  # type: ignore[arg-type]


def random_resized_crop(
    image_size: int,
    *,
    size: Size | None = None,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
) -> Callable[[Any], Any]:
    """A part of random area (`scale` of the image) and shape (`ratio`, width to height), resized."""
    scale, ratio = _range("scale", scale, 1.0), _range("ratio", ratio, float("inf"))
    return v2.RandomResizedCrop(_sides(image_size if size is None else size), scale=scale, ratio=ratio, antialias=True)


def horizontal_flip(image_size: int, *, p: float = 0.5) -> Callable[[Any], Any]:
    """Left and right change places with probability `p`."""
    return v2.RandomHorizontalFlip(p)


def vertical_flip(image_size: int, *, p: float = 0.5) -> Callable[[Any], Any]:
    """Top and bottom change places with probability `p`."""
    return v2.RandomVerticalFlip(p)


def rotation(
    image_size: int, *, degrees: float | Sequence[float], fill: int | Sequence[int] = 0
) -> Callable[[Any], Any]:
    """By an angle between `-degrees` and `degrees`, or between two angles; corners are filled. Bilinear."""
    return v2.RandomRotation(degrees, InterpolationMode.BILINEAR, fill=_colour(fill))  # type: ignore[arg-type]


def color_jitter(
    image_size: int,
    *,
    brightness: float | Sequence[float] = 0.0,
    contrast: float | Sequence[float] = 0.0,
    saturation: float | Sequence[float] = 0.0,
    hue: float | Sequence[float] = 0.0,
) -> Callable[[Any], Any]:
    """Factors from `1 - x` to `1 + x` (or between two numbers), a hue turned by up to `hue` of a circle."""
    return v2.ColorJitter(brightness, contrast, saturation, hue)  # type: ignore[arg-type]


FIXED = frozenset(("resize", "center_crop"))
"""Operations that draw nothing."""


def _sides(size: Any) -> int | list[int]:
    sides: list[Any] = list(size) if isinstance(size, list | tuple) else [size]
    if len(sides) not in (1, 2) or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError("size must be a number of pixels, or [height, width]")
    return sides if isinstance(size, list | tuple) else size


def _range(name: str, value: Any, most: float) -> tuple[float, float]:
    numbers = tuple(value) if isinstance(value, list | tuple) else ()
    if len(numbers) != 2 or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(f"{name} must be two numbers, min and max")
    if not 0 < numbers[0] <= numbers[1] <= most:
        raise ValueError(f"{name} must rise from above 0 to at most {most:g}")
    return float(numbers[0]), float(numbers[1])


def _colour(fill: Any) -> Any:
    levels = (fill,) if isinstance(fill, int) else fill
    if not isinstance(levels, list | tuple) or len(levels) not in (1, 3):
        raise ValueError("fill must be one level, or three for red, green and blue")
    if not all(type(level) is int and 0 <= level <= 255 for level in levels):
        raise ValueError("fill must be from 0 to 255")
    return fill
