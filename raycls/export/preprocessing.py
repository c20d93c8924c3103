"""From an image to what a network is given: as the run evaluates it, written down so that an artefact can do the same.

Pillow resamples in integers: first along the width, then along the height, and each pass rounds to a level. `Resize` of
uint8 with `antialias` is implemented that way in onnxruntime too, so an artefact differs from the training
in few of them, by one level (by two where both passes round otherwise). A `Resize` of floats differs in one of six, and
with `bicubic` by up to 18 levels at edges. So does the other order of the passes, because what the first one makes
darker than black or lighter than white is cut off. From version 13 on Pillow begins with the height of some images:
see `height_first`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import PIL
from onnx import TensorProto, helper, numpy_helper

from raycls.config.sections.data import LUMA
from raycls.config.sections.types import Operation, named
from raycls.data.images import operations as built
from raycls.data.images.planes import RGB, Planes, planes_of
from raycls.data.volumes.operations import default_operations
from raycls.data.volumes.reading import Wanted
from raycls.data.volumes.windows import limits_of
from raycls.errors import ConfigError
from raycls.export.artefact import VOLUMES, scale_and_shift
from raycls.session.trained.trained import Trained
from raycls.tasks.build import takes_volumes

__all__ = ["Crop", "Preprocessing", "Resize", "Step", "height_first", "preprocessing_of", "size_of", "steps_of"]

_MODES = {"bilinear": "linear", "bicubic": "cubic"}
_PILLOW_CUBIC = -0.5
"""The parameter of Pillow's cubic filter; that of ONNX is -0.75 unless told (Keys 1981, equation 4)."""


@dataclass(frozen=True)
class Resize:
    """To `size`: one number is the shorter side, two are height and width; as `raycls.data.images.geometry`."""

    size: tuple[int, ...]
    interpolation: str = "bilinear"
    fit: str = ""
    """`crop`: as large as `size` or larger in one side, `pad`: or smaller, and the shape kept. A `Crop` follows."""


@dataclass(frozen=True)
class Crop:
    """The middle of `size` (height, width); a smaller image is padded with the level `fill`."""

    size: tuple[int, int]
    fill: int = 0


Step = Resize | Crop


@dataclass(frozen=True)
class Preprocessing:
    """What happens between a decoded image and the network."""

    steps: tuple[Step, ...] | None
    """None: they are done outside of the artefact, whose input is normalised."""
    operations: tuple[Operation, ...]
    """`augment.eval` as a config has it, for the metadata."""
    mean: tuple[float, ...]
    """Of each channel, as `std`: three, or one where the network takes grey values."""
    std: tuple[float, ...]
    size: tuple[int, ...]
    """Height and width of what the network is given; of a volume slices, rows and columns."""
    fixed: tuple[int, int] | None = None
    """Height and width of every image; None where any size is taken."""
    planes: Planes = RGB
    """What the run decodes images to; an artefact that does all of it is given RGB, and makes it grey first."""
    volumes: Wanted | None = None
    """How volumes are read; None of images. `mean` and `std` are 0.5 for each window there."""

    @property
    def channels(self) -> int:
        """What the network takes: 3, or 1 of grey values."""
        return len(self.mean)

    @property
    def inside(self) -> bool:
        return self.steps is not None

    def to_dict(self) -> dict[str, Any]:
        """For the metadata, as plain JSON."""
        takes = (
            {"layout": "NHWC", "dtype": "uint8", "size": list(self.fixed) if self.fixed else "any"}
            if self.inside
            else {"layout": "NCHW", "dtype": "float32", "size": list(self.size)}
        )
        more: dict[str, Any] = {}
        if self.volumes is not None:
            takes |= {"layout": VOLUMES}
            windows = [list(limits_of(window)) for window in self.volumes.window]
            more = {"windows": windows, "spacing": self.volumes.spacing and list(self.volumes.spacing)}
        return {
            "where": "inside" if self.inside else "outside",
            "input": takes,
            "channels": "RGB" if self.inside else {1: "grey", 3: "RGB"}.get(self.channels, "as decoded"),
            "network_channels": self.channels,
            "operations": json.loads(json.dumps(self.operations)),
            "mean": list(self.mean),
            "std": list(self.std),
            "network_size": list(self.size),
            **({} if self.planes == RGB else {"decoded": {**asdict(self.planes), "white": self.planes.white}}),
            **more,
        }

    def nodes(self, source: str, target: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Nodes and their constants from `source` `[B, H, W, 3] uint8` to `target` `[B, channels, h, w] float32`."""
        graph = _Nodes()
        early = self.planes.channels == 1
        pixels, least = graph.grey_pixels(source) if early else source, (0, 0) if self.fixed is None else self.fixed
        for step in self.steps or ():
            if isinstance(step, Resize):
                pixels = graph.resize(pixels, step)
                least = (1, 1) if step.fit == "pad" else step.size if len(step.size) == 2 else (step.size[0],) * 2
            else:
                pixels = graph.crop(
                    pixels, step, padded=any(have < want for have, want in zip(least, step.size, strict=True))
                )
                least = step.size
        scale, shift = scale_and_shift(self.mean, self.std)
        planes = graph.add("Transpose", [pixels], perm=[0, 3, 1, 2])
        floats = graph.add("Cast", [planes], to=TensorProto.FLOAT)
        if self.channels == 1 and not early:
            floats = graph.grey(floats)
        scaled = graph.add("Mul", [floats, graph.constant(scale.reshape(1, -1, 1, 1))])
        graph.add("Add", [scaled, graph.constant(shift.reshape(1, -1, 1, 1))], output=target)
        return graph.nodes, graph.constants


def preprocessing_of(trained: Trained, image: tuple[int, ...], *, inside: bool) -> Preprocessing:
    """That of the run's evaluation. `image` is the height and width of an image of the data, or where `inside` is false
    the size of what the network is given.

    ConfigError where an operation cannot be a part of an artefact and `inside` is wanted.
    """
    augment, size = trained.run.augment, trained.run.data.image_size
    operations = augment.eval
    if takes_volumes(trained.run.task):
        listed = default_operations() if operations is None else operations
        half = (0.5,) * trained.run.model.in_channels
        data = trained.run.data
        return Preprocessing(None, listed, half, half, image, volumes=Wanted(data.window, data.spacing))
    if operations is None:
        operations = built.default_operations(train=False, image_size=size)
    mean, std = augment.normalisation(trained.run.model.in_channels)
    planes = planes_of(trained.run.data)
    if not inside:
        return Preprocessing(None, operations, mean, std, image, planes=planes)
    if not planes.pillow:
        raise ConfigError(
            f"{planes.words} cannot be prepared by an exported file",
            where="data.channels, data.bit_depth",
            found=f"{planes.channels}, {planes.bits}",
            valid="1 or 3, 8: the resize of uint8 is the one that computes as the training does",
            fix="export without the preprocessing, and do it yourself before: --preprocess=outside",
        )
    steps = steps_of(operations, size)
    end, fixed = size_of(steps, (image[0], image[1]))
    return Preprocessing(steps, operations, mean, std, end, None if fixed else (image[0], image[1]), planes)


def size_of(steps: Sequence[Step], image: tuple[int, int]) -> tuple[tuple[int, int], bool]:
    """The height and width that `steps` make of `image`, and whether it is the same for every image."""
    height, width, fixed = *image, False
    for step in steps:
        if len(step.size) == 2:
            (height, width), fixed = step.size, True
        else:
            short = min(height, width)
            height, width = step.size[0] * height // short, step.size[0] * width // short
    return (height, width), fixed


def height_first() -> bool:
    """Whether the Pillow that is installed, with which the artefact is compared, begins with the height of some images.

    These are images that lose more than twice as many rows as columns, and where the width grows, that lose any.
    """
    return int(PIL.__version__.partition(".")[0]) >= 13


def steps_of(operations: Sequence[Operation], image_size: int) -> tuple[Step, ...]:
    """The operations of `augment.eval` as steps."""
    return tuple(
        step for index, entry in enumerate(operations) for step in _steps(entry, f"augment.eval[{index}]", image_size)
    )


def _steps(entry: Operation, where: str, image_size: int) -> tuple[Step, ...]:
    name, args = named(entry)
    size = args.get("size") or image_size
    sides = tuple(size) if isinstance(size, list | tuple) else (size,)
    both, fit = (sides[0], sides[-1]), args.get("fit", "side")
    if name == "resize":
        mode = args.get("interpolation", "bilinear")
        if fit in ("crop", "pad"):
            return Resize(both, mode, fit), Crop(both, args.get("fill", 0))
        return (Resize(both if fit == "stretch" else sides, mode),)
    if name == "center_crop":
        return (Crop(both),)
    raise ConfigError(
        "this operation cannot be a part of an exported file",
        where=where,
        found=f"{name}, {'which is random' if name in built.OPERATIONS else 'a plug-in'}",
        valid="resize, center_crop",
        fix="export without the preprocessing, and do it yourself before: --preprocess=outside",
    )


class _Nodes:
    """Nodes in their order, and their constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        name = f"preprocess/{len(self.nodes)}_{kind}"
        self.nodes.append(helper.make_node(kind, inputs, [output or name], name=name, **attributes))
        return output or name

    def constant(self, values: np.ndarray | Sequence[int]) -> str:
        name = f"preprocess/constant_{len(self.constants)}"
        array = values if isinstance(values, np.ndarray) else np.asarray(values, np.int64)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def grey_pixels(self, pixels: str) -> str:
        """`[B, H, W, 3] uint8` -> `[B, H, W, 1] uint8`."""
        levels = self.grey(self.add("Cast", [pixels], to=TensorProto.FLOAT), axis=3)
        return self.add("Cast", [levels], to=TensorProto.UINT8)

    def grey(self, planes: str, axis: int = 1) -> str:
        """As `raycls.tasks.grey`, whose whole numbers float32 holds exactly."""
        shape = [-1 if each == axis else 1 for each in range(4)]
        weights, half, whole = (
            self.constant(np.asarray(values, np.float32).reshape(shape)) for values in (LUMA, sum(LUMA) / 2, sum(LUMA))
        )
        total = self.add("ReduceSum", [self.add("Mul", [planes, weights]), self.constant([axis])], keepdims=1)
        return self.add("Floor", [self.add("Div", [self.add("Add", [total, half]), whole])])

    def resize(self, pixels: str, step: Resize) -> str:
        if step.fit:
            sizes = self._fitted(pixels, step)
        elif len(step.size) == 2:
            sizes = self.constant(step.size)
        else:  # floor(size * side / shorter side), which torchvision has as int(size * long / short)
            sides = self._sides(pixels)
            short = self.add("ReduceMin", [sides], keepdims=1)
            sizes = self.add("Div", [self.add("Mul", [sides, self.constant(step.size)]), short])
        if height_first():
            pixels = self._resample(pixels, self._first_sizes(pixels, sizes), step)
        return self._resample(pixels, sizes, step)

    def _fitted(self, pixels: str, step: Resize) -> str:
        """As `raycls.data.images.geometry.Fit.resized`."""
        sides, size, other = self._sides(pixels), self.constant(step.size), self.constant(step.size[::-1])
        across = self.add("Gather", [sides, self.constant([1, 0])])
        kept = self.add("Div", [self.add("Mul", [sides, other]), across])
        if step.fit == "crop":
            return self.add("Max", [kept, size])
        return self.add("Min", [self.add("Max", [kept, self.constant([1])]), size])

    def _first_sizes(self, pixels: str, sizes: str) -> str:
        """`sizes` along the height where Pillow begins with it, else the sides of `pixels` as they are."""
        sides = self._sides(pixels)
        lost = self.add("Sub", [sides, sizes])
        rows, columns = (self.add("Gather", [lost, self.constant([axis])]) for axis in (0, 1))
        bound = self.add("Max", [self.add("Add", [columns, columns]), self.constant([0])])
        chosen = self.add("Where", [self.add("Greater", [rows, bound]), sizes, sides])
        height, width = (self.add("Gather", [of, self.constant([axis])]) for axis, of in ((0, chosen), (1, sides)))
        return self.add("Concat", [height, width], axis=0)

    def _resample(self, pixels: str, sizes: str, step: Resize) -> str:
        return self.add(
            "Resize",
            [pixels, "", "", sizes],
            mode=_MODES[step.interpolation],
            antialias=1,
            axes=[1, 2],
            coordinate_transformation_mode="half_pixel",
            cubic_coeff_a=_PILLOW_CUBIC,
            exclude_outside=1,  # at the border Pillow's weights are those of the pixels that exist
        )

    def crop(self, pixels: str, step: Crop, *, padded: bool) -> str:
        size, two = self.constant(step.size), self.constant([2])
        sides = self._sides(pixels)
        if padded:
            lacking = self.add("Max", [self.add("Sub", [size, sides]), self.constant([0])])
            before = self.add("Div", [lacking, two])
            after = self.add("Sub", [lacking, before])
            pads = self.add("Concat", [before, after], axis=0)
            level = self.constant(np.asarray(step.fill, np.uint8))
            pixels = self.add("Pad", [pixels, pads, level, self.constant([1, 2])], mode="constant")
            sides = self.add("Add", [sides, lacking])
        # The middle as Python rounds it: a half goes to the even number.
        spare = self.add("Sub", [sides, size])
        half = self.add("Div", [spare, two])
        odd = self.add("Sub", [spare, self.add("Mul", [half, two])])
        half_odd = self.add("Sub", [half, self.add("Mul", [self.add("Div", [half, two]), two])])
        start = self.add("Add", [half, self.add("Mul", [odd, half_odd])])
        end = self.add("Add", [start, size])
        return self.add("Slice", [pixels, start, end, self.constant([1, 2])])

    def _sides(self, pixels: str) -> str:
        """Height and width, `[2] int64`."""
        return self.add("Shape", [pixels], start=1, end=3)
