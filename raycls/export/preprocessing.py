"""From an image to what a network is given: as the run evaluates it, written down so that an artefact can do the same.

Pillow resamples in integers: first along the width, then along the height, and each pass rounds to a level. `Resize` of
uint8 with `antialias` is implemented that way in onnxruntime too, so an artefact differs from the training
in few of them, by one level (by two where both passes round otherwise). A `Resize` of floats differs in one of six, and
with `bicubic` by up to 18 levels at edges.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from raycls.config.sections.types import Operation
from raycls.data.images import operations as built
from raycls.errors import ConfigError
from raycls.export.artefact import scale_and_shift
from raycls.session.trained.trained import Trained

__all__ = ["Crop", "Preprocessing", "Resize", "Step", "preprocessing_of", "size_of"]

_MODES = {"bilinear": "linear", "bicubic": "cubic"}
_PILLOW_CUBIC = -0.5
"""The parameter of Pillow's cubic filter; that of ONNX is -0.75 unless told (Keys 1981, equation 4)."""


@dataclass(frozen=True)
class Resize:
    """To `size`: one number is the shorter side, two are height and width; as `raycls.data.images.operations`."""

    size: tuple[int, ...]
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class Crop:
    """The middle of `size` (height, width); a smaller image is padded with black."""

    size: tuple[int, int]


Step = Resize | Crop


@dataclass(frozen=True)
class Preprocessing:
    """What happens between a decoded image and the network."""

    steps: tuple[Step, ...] | None
    """None: they are done outside of the artefact, whose input is normalised."""
    operations: tuple[Operation, ...]
    """`augment.eval` as a config has it, for the metadata."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: tuple[int, int]
    """Height and width of what the network is given."""
    fixed: tuple[int, int] | None = None
    """Height and width of every image; None where any size is taken."""

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
        return {
            "where": "inside" if self.inside else "outside",
            "input": takes,
            "channels": "RGB",
            "operations": json.loads(json.dumps(self.operations)),
            "mean": list(self.mean),
            "std": list(self.std),
            "network_size": list(self.size),
        }

    def nodes(self, source: str, target: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Nodes and their constants from `source` `[B, H, W, 3] uint8` to `target` `[B, 3, h, w] float32`."""
        graph = _Nodes()
        pixels, least = source, (0, 0) if self.fixed is None else self.fixed
        for step in self.steps or ():
            if isinstance(step, Resize):
                pixels = graph.resize(pixels, step)
                least = step.size if len(step.size) == 2 else (step.size[0],) * 2
            else:
                pixels = graph.crop(
                    pixels, step, padded=any(have < want for have, want in zip(least, step.size, strict=True))
                )
                least = step.size
        scale, shift = scale_and_shift(self.mean, self.std)
        planes = graph.add("Transpose", [pixels], perm=[0, 3, 1, 2])
        floats = graph.add("Cast", [planes], to=TensorProto.FLOAT)
        scaled = graph.add("Mul", [floats, graph.constant(scale.reshape(1, 3, 1, 1))])
        graph.add("Add", [scaled, graph.constant(shift.reshape(1, 3, 1, 1))], output=target)
        return graph.nodes, graph.constants


def preprocessing_of(trained: Trained, image: tuple[int, int], *, inside: bool) -> Preprocessing:
    """That of the run's evaluation. `image` is the height and width of an image of the data.

    ConfigError where an operation cannot be a part of an artefact and `inside` is wanted.
    """
    augment, size = trained.run.augment, trained.run.data.image_size
    operations = augment.eval
    if operations is None:
        operations = built.default_operations(train=False, image_size=size)
    mean, std = augment.mean, augment.std
    if not inside:
        return Preprocessing(None, operations, mean, std, image)
    steps = tuple(_step(entry, f"augment.eval[{index}]", size) for index, entry in enumerate(operations))
    end, fixed = size_of(steps, image)
    return Preprocessing(steps, operations, mean, std, end, None if fixed else image)


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


def _step(entry: Operation, where: str, image_size: int) -> Step:
    name, args = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
    size = args.get("size") or image_size
    sides = tuple(size) if isinstance(size, list | tuple) else (size,)
    if name == "resize":
        return Resize(sides, args.get("interpolation", "bilinear"))
    if name == "center_crop":
        return Crop((sides[0], sides[-1]))
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

    def resize(self, pixels: str, step: Resize) -> str:
        if len(step.size) == 2:
            sizes = self.constant(step.size)
        else:  # floor(size * side / shorter side), which torchvision has as int(size * long / short)
            sides = self._sides(pixels)
            short = self.add("ReduceMin", [sides], keepdims=1)
            sizes = self.add("Div", [self.add("Mul", [sides, self.constant(step.size)]), short])
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
            black = self.constant(np.asarray(0, np.uint8))
            pixels = self.add("Pad", [pixels, pads, black, self.constant([1, 2])], mode="constant")
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
