"""An image before the model: resizing, cropping, turning, and the user's own transforms.

Randomness is keyed, never carried: before a sample, the generators that a transform may draw from (torch's,
numpy's global one, Python's) are seeded from `(seed, epoch, sample)`, and afterwards they are put back. So a
sample looks the same whoever augments it, and whatever was augmented before. A generator that a user's
transform makes for itself is outside this: `numpy.random.default_rng()` without a seed differs in every run.

The generators belong to the process, so two threads of one process must not augment at the same time. Operations with a
form in `arrays` draw from a generator of their own instead: lists of these alone (`Augment.separate`) may.
The built-in operations work on Pillow images, whose resampling is integer arithmetic: the same bits on any
CPU and with any number of threads. Those in `SUMMED` are torch's arithmetic of floats, with one thread: the same bits
on any number of workers, and perhaps a level apart on a CPU with other instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from raycls.config.names.builtin import NESTED, OPERATIONS
from raycls.config.sections.data import DataConfig
from raycls.config.sections.types import Operation
from raycls.data.images.arrays import Form, QuickCrop, as_image, form_of, on_images, size_of
from raycls.data.images.checks import colour, rising, sides
from raycls.data.images.decoding.decode import Pixels
from raycls.data.images.decoding.turbo import Encoded
from raycls.data.images.drawn import Drawn
from raycls.data.images.largest import MULTIPLE, largest
from raycls.data.images.planes import RGB, Planes, for_people
from raycls.data.order import key as order_key
from raycls.data.samples import UnfitError
from raycls.errors import ConfigError, DataError
from raycls.plugins import builder
from raycls.randomness import own_generator, seeded, seeded_torch

__all__ = ["FIXED", "OPERATIONS", "Augment", "Stage", "build", "default_operations", "entry_of"]

Size = int | Sequence[int]


def build(
    operations: tuple[Operation, ...] | None,
    *,
    train: bool,
    image_size: int,
    max_pixels: int = DataConfig.model_fields["max_pixels"].default,
    planes: Planes = RGB,
) -> Augment:
    """The augmentation that a config lists; None stands for the default of `augment.train` or `augment.eval`.

    Every name and argument is checked here. ConfigError names the entry, such as `augment.train[2]`. `max_pixels` is
    `data.max_pixels`. Which operations take images of other `planes` than RGB, `check_planes` has said.
    """
    if operations is None:
        operations = default_operations(train=train, image_size=image_size)
    section = "augment.train" if train else "augment.eval"
    steps = tuple(_step(entry, f"{section}[{index}]", image_size) for index, entry in enumerate(operations))
    return Augment(steps, (operations, train, image_size, max_pixels, planes))


_Recipe = tuple[tuple[Operation, ...], bool, int, int, Planes]
"""The arguments of `build`."""


class Stage(NamedTuple):
    """An image on its way."""

    name: str
    """The operation that it was made by; empty for the image as it was decoded."""
    pixels: np.ndarray
    """`[H, W, 3] uint8`."""


class Augment:
    """A list of operations, applied to one image at a time. Pickles as the config it was built from."""

    def __init__(self, steps: tuple[_Step, ...], recipe: _Recipe) -> None:
        self._steps = steps
        self._recipe = recipe
        self.random = any(step.random for step in steps)
        """Whether an operation draws from a generator, or may."""
        self._alone = all(step.alone for step in steps)
        self.separate = not self.random or all(step.form is not None or step.name in FIXED for step in steps)
        """Whether nothing is drawn from the generators of the process."""
        self.encoded = bool(steps) and isinstance(steps[0].function, QuickCrop)
        """Whether a call takes a file that is not decoded, too."""
        self._most, self._planes = MULTIPLE * recipe[3], recipe[4]

    def __call__(self, image: Pixels | Encoded, key: tuple[int, int, int]) -> np.ndarray:
        """`image` (a Pillow image of mode RGB, or `[H, W, 3] uint8`) -> `[H, W, 3] uint8`, which may be part of it and
        is not to be written to; `key` is (seed, epoch, sample). One of other planes, `[H, W]`, -> `[H, W, 1]`.

        DataError where an operation fails or returns anything but such an image.
        """
        if self._planes.channels == 1 and isinstance(image, np.ndarray) and image.ndim == 3:
            image = image[..., 0]  # of a list of operations before
        with self._drawing(key) as generator:
            made = np.asarray(_run(self._steps, image, self._most, self._planes, generator))
        return made[..., None] if made.ndim == 2 else made

    def stages(self, image: Pixels | Encoded, key: tuple[int, int, int]) -> list[Stage]:
        """The image before the first operation and after each of the list, for people; the last one as a call gives
        it."""
        found = [Stage("", for_people(image.whole() if isinstance(image, Encoded) else image))]
        with self._drawing(key) as generator:
            for step in self._steps:
                image = _run((step,), image, self._most, self._planes, generator)
                found.append(Stage(step.name, for_people(np.asarray(image))))
        return found

    def each(self) -> list[Augment]:
        """Every operation of the list by itself."""
        made = self._recipe[0]
        return [Augment((step,), (made[row : row + 1], *self._recipe[1:])) for row, step in enumerate(self._steps)]

    def changed(self, change: Callable[[Callable[[Any], Any]], Callable[[Any], Any]]) -> Augment:
        """The same list with another function for each operation, which draws the same numbers."""
        new = [(step, change(step.function)) for step in self._steps]
        steps = tuple(step._replace(function=function, form=form_of(function)) for step, function in new)
        return Augment(steps, self._recipe)

    def _drawing(self, key: tuple[int, int, int]) -> AbstractContextManager[torch.Generator]:
        if not self.random:
            return nullcontext(torch.default_generator)
        if self.separate:
            return nullcontext(own_generator(order_key(*key)))
        return seeded_torch(order_key(*key)) if self._alone else seeded(order_key(*key))

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
    alone: bool
    """It draws from torch's generator alone, and adds nothing up."""
    form: Form | None = None
    """How it is done on arrays."""


def _run(steps: Sequence[_Step], image: Any, most: int, planes: Planes, generator: torch.Generator) -> Any:
    for step in steps:
        if isinstance(step.function, Drawn):
            image = _run(step.function.draw(), image, most, planes, generator)
            continue
        if not step.foreign and largest(step.function, *size_of(image)) > most:
            raise _too_large(step, *size_of(image), most)
        try:
            result = _applied(step, image, planes, generator)
        except (Exception, SystemExit) as error:
            if isinstance(image, Encoded) and isinstance(error, DataError):
                raise  # of the file, and not of the operation
            raise _failure(step, image, error) from error
        image = _checked(result, step, planes) if step.foreign else result
    return image


def _applied(step: _Step, image: Any, planes: Planes, generator: torch.Generator) -> Any:
    if step.form is not None:
        return step.form(image, generator)
    if step.foreign:
        return step.function(as_image(image) if planes.pillow else np.asarray(image))
    return on_images(step.function, image)


def default_operations(*, train: bool, image_size: int) -> tuple[Operation, ...]:
    """What `augment.train` or `augment.eval` is where a config says nothing."""
    if train:
        return ("random_resized_crop", "horizontal_flip")
    return ({"resize": {"size": round(image_size * 8 / 7)}}, "center_crop")


def _rebuild(
    operations: tuple[Operation, ...], train: bool, image_size: int, max_pixels: int, planes: Planes
) -> Augment:
    return build(operations, train=train, image_size=image_size, max_pixels=max_pixels, planes=planes)


def _step(entry: Operation, where: str, image_size: int) -> _Step:
    name, args = entry_of(entry, where, "- horizontal_flip   or   - rotation: {degrees: 10}")
    foreign = name not in OPERATIONS
    given = () if foreign else ("image_size",)
    factory = builder("augmentation", name, args, OPERATIONS, given=given, at=(where, f"{where}.{name}"))
    args = {key: tuple(value) if isinstance(value, list) and not foreign else value for key, value in args.items()}
    inner: tuple[_Step, ...] = ()
    if name in NESTED:
        args["operations"] = inner = _inner(args["operations"], f"{where}.{name}.operations", image_size)
    shown = dict(entry[name]) if isinstance(entry, dict) else {}
    args = args if foreign else {"image_size": image_size, **args}
    function = operation_of(factory, args, name, f"{where}.{name}", shown=shown, made="image -> image")
    alone = not foreign and name not in SUMMED and all(step.alone for step in inner)
    form = None if foreign else form_of(function)
    return _Step(name, where, function, foreign or name not in FIXED, foreign, alone, form)


def operation_of(
    factory: Callable[..., Any], args: Mapping[str, Any], name: str, where: str, *, shown: Mapping[str, Any], made: str
) -> Any:
    """What `factory` makes of `args`: a callable `made`. ConfigError names the operation and `shown`, its
    arguments in the config."""
    try:
        function = factory(**args)
    except (Exception, SystemExit) as error:
        typed = isinstance(error, TypeError | ValueError)
        raise ConfigError(
            f"the operation {name} does not accept its arguments",
            where=where,
            found=f"{shown}: {error}" if typed else f"{type(error).__name__}: {error}",
        ) from error
    if name not in NESTED and not callable(function):
        raise ConfigError(
            f"{name} did not return an operation",
            where=where,
            found=repr(type(function)),
            valid=f"a factory: called with its arguments, it returns a callable {made}",
        )
    return function


def entry_of(entry: Any, where: str, valid: str) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of an entry of a list of operations; ConfigError where it has no form of `valid`."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, dict) and len(entry) == 1 and all(isinstance(args, dict) for args in entry.values()):
        ((name, args),) = entry.items()
        return name, args
    raise ConfigError(
        "an operation must be a name, or one name with its arguments",
        where=where,
        found=(", ".join(map(str, entry)) or "an empty entry") if isinstance(entry, dict) else repr(entry),
        valid=valid,
        fix="give each operation a line of its own, each with a dash",
    )


def _inner(entries: Any, where: str, image_size: int) -> tuple[_Step, ...]:
    if not isinstance(entries, tuple) or not entries:
        raise ConfigError(
            "operations must be a list of one or more",
            where=where,
            found=repr(entries),
            valid="[horizontal_flip, {rotation: {degrees: 10}}]",
        )
    return tuple(_step(entry, f"{where}[{index}]", image_size) for index, entry in enumerate(entries))


def _checked(result: Any, step: _Step, planes: Planes) -> Pixels:
    """What a user's operation returned, for the next one."""
    tensor = isinstance(result, torch.Tensor) and str(result.dtype) == f"torch.{planes.dtype}"
    if tensor and result.ndim == 3 and result.shape[0] == planes.channels:
        result = result.detach().cpu().permute(1, 2, 0).contiguous().numpy()
    if isinstance(result, Image.Image):
        if result.mode == planes.mode:
            return result if planes.pillow else np.asarray(result)
        found = f"a Pillow image of mode {result.mode}"
    elif isinstance(result, np.ndarray):
        whole = result.ndim == 3 and result.shape[2] == planes.channels
        if result.dtype == planes.dtype and result.size and (whole or (result.ndim == 2 and planes.channels == 1)):
            result = np.ascontiguousarray(result[..., 0] if whole and planes.channels == 1 else result)
            return Image.fromarray(result) if planes.pillow else result
        found = f"an array {result.dtype} of shape {list(result.shape)}"
    elif isinstance(result, torch.Tensor):
        found = f"a tensor {result.dtype} of shape {list(result.shape)}"
    else:
        found = repr(type(result))
    raise DataError(
        f"the operation {step.name} ({step.place}) did not return {planes.words}",
        found=found,
        valid=f"{f'a Pillow image of mode {planes.mode}, ' * bool(planes.mode)}an array {planes.shape} {planes.dtype}, "
        f"or a tensor [{planes.channels}, H, W] {planes.dtype}",
        fix="normalisation and conversion to float happen later, on the device: leave them out",
    )


def _failure(step: _Step, image: Pixels | Encoded, error: BaseException) -> DataError:
    """An error without a place: that is the file, which whoever reads the samples knows."""
    size = "on an image of {} x {} (height x width)".format(*size_of(image))
    what, found = f"the operation {step.name} ({step.place}) failed {size}", f"{type(error).__name__}: {error}"
    if step.name == "random_crop":
        return UnfitError(what, entry=step.place, found=found, fix="put a resize before it, or give it padding")
    return DataError(what, found=found)


def _too_large(step: _Step, height: int, width: int, most: int) -> UnfitError:
    pixels = largest(step.function, height, width)
    shape = "give the resize two numbers, [height, width], which do not keep the shape, or " * (step.name == "resize")
    return UnfitError(
        f"the operation {step.name} ({step.place}) would make an image larger than allowed and was not run",
        entry=step.place,
        found=f"an image of {height} x {width} (height x width) would become one of {pixels / 1e6:,.1f} million pixels",
        valid=f"at most {MULTIPLE} times data.max_pixels, {most / 1e6:g} million pixels",
        fix=f"{shape}raise data.max_pixels where there is the memory",
    )


def center_crop(image_size: int, *, size: Size | None = None) -> Callable[[Any], Any]:
    """The middle; a smaller image is padded with black."""
    return v2.CenterCrop(sides(image_size if size is None else size))


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
    size = sides(image_size if size is None else size)
    return v2.RandomCrop(size, padding=padding, padding_mode=padding_mode, fill=colour(fill))  # type: ignore[arg-type]


def random_resized_crop(
    image_size: int,
    *,
    size: Size | None = None,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    resampling: str = "exact",
) -> Callable[[Any], Any]:
    """A part of random area (`scale` of the image) and shape (`ratio`, width to height), resized.

    `resampling: exact` is Pillow's. `fast` is torch's in integers, at most two levels from it; as the first operation
    it also has a JPEG decoded at 1/2, 1/4 or 1/8 where the part is at least that much larger than what is made of it.
    """
    if resampling not in ("exact", "fast"):
        raise ValueError("resampling is exact or fast")
    scale, ratio = rising("scale", scale, 1.0), rising("ratio", ratio, float("inf"))
    crop = QuickCrop if resampling == "fast" else v2.RandomResizedCrop
    return crop(sides(image_size if size is None else size), scale=scale, ratio=ratio, antialias=True)


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
    return v2.RandomRotation(degrees, InterpolationMode.BILINEAR, fill=colour(fill))  # type: ignore[arg-type]


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
SUMMED = frozenset(("gaussian_blur", "aug_mix", "perspective"))
"""Operations whose sums may depend on the number of threads."""
