"""The same artefact as a program of `torch.export`, for those who serve with torch."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raycls.errors import ModelError, kind_and_line
from raycls.export.artefact import METADATA, scale_and_shift
from raycls.export.preprocessing import Crop, Preprocessing, Resize, Step, height_first
from raycls.tasks.grey import grey
from raycls.tasks.reading import ONE, Reading

__all__ = ["program", "saved"]


_IMAGE_SIDE = re.compile(r"size\(\)\[[12]\]")
"""What torch assumed of the height or the width of an image: how the memory of its example lies, such as that a crop
takes something away. It refuses all other images, though the operations compute the same with any. What it assumed of
the number of images stays, as the network may branch on that."""


class _Whole(nn.Module):
    """`images` as an artefact takes them -> probabilities `[B, C] float32`."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, reading: Reading) -> None:
        super().__init__()
        self.reading = reading
        self.model, self.steps, self.grey = model, preprocessing.steps, preprocessing.channels == 1
        self.early = preprocessing.planes.channels == 1
        for name, values in zip(
            ("scale", "shift"), scale_and_shift(preprocessing.mean, preprocessing.std), strict=True
        ):
            self.register_buffer(name, torch.from_numpy(values).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if self.steps is not None:
            pixels = images.permute(0, 3, 1, 2)
            pixels = grey(pixels.float()).to(torch.uint8) if self.early else pixels
            for step in self.steps:
                pixels = _done(step, pixels)
            levels = grey(pixels.float()) if self.grey and not self.early else pixels.float()
            images = levels * self.scale + self.shift
        return self.reading.of_tensor(self.model(images).float())


def _done(step: Step, pixels: Tensor) -> Tensor:
    if isinstance(step, Resize):
        height, width = pixels.shape[-2:]
        size: Any = step.size
        if step.fit:
            size = _fitted(step, height, width)
        elif len(step.size) == 1:
            short = torch.sym_min(height, width)
            size = (step.size[0] * height // short, step.size[0] * width // short)
        if height_first():
            more = torch.sym_max(height - size[0] - torch.sym_max(2 * (width - size[1]), 0), 0)
            first = height - torch.sym_min(more, 1) * (height - size[0])  # 0 or 1 times: no branch for the exporter
            pixels = _resampled(step, pixels, (first, width))
        return _resampled(step, pixels, size)
    return _cropped(step, pixels)


def _fitted(step: Resize, height: Any, width: Any) -> tuple[Any, Any]:
    """As `raycls.data.images.geometry.Fit.resized`."""
    tall, wide = step.size
    sides = ((tall, wide * height // width), (wide, tall * width // height))
    if step.fit == "crop":
        down, right = (torch.sym_max(*pair) for pair in sides)
    else:
        down, right = (torch.sym_min(wanted, torch.sym_max(kept, 1)) for wanted, kept in sides)
    return down, right


def _resampled(step: Resize, pixels: Tensor, size: Any) -> Tensor:
    """torch resamples uint8 in integers along the width first, as Pillow does."""
    return F.interpolate(pixels, size=size, mode=step.interpolation, antialias=True)


def _cropped(step: Crop, pixels: Tensor) -> Tensor:
    """The middle, as the graph of ONNX has it."""
    for dimension, wanted in ((2, step.size[0]), (3, step.size[1])):
        lacking = torch.sym_max(wanted - pixels.shape[dimension], 0)
        sides = (lacking // 2, lacking - lacking // 2)
        pads: Any = (0, 0, *sides) if dimension == 2 else (*sides, 0, 0)
        pixels = F.pad(pixels, pads, value=step.fill)
        spare = pixels.shape[dimension] - wanted
        start = spare // 2 + spare % 2 * (spare // 2 % 2)
        pixels = pixels.narrow(dimension, start, wanted)
    return pixels


def program(model: nn.Module, preprocessing: Preprocessing, reading: Reading = ONE) -> torch.export.ExportedProgram:
    """`model` (in evaluation mode, on the CPU) with its preprocessing. ModelError where torch cannot export it."""
    free = torch.export.Dim.DYNAMIC
    if preprocessing.inside:
        height, width = preprocessing.fixed or (size + 7 for size in preprocessing.size)
        example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
        shapes: dict[int, Any] = {0: free} if preprocessing.fixed else {0: free, 1: free, 2: free}
    else:
        example, shapes = torch.zeros(2, preprocessing.channels, *preprocessing.size), {0: free}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch's exporter about itself
            found = torch.export.export(
                _Whole(model, preprocessing, reading).eval(), (example,), dynamic_shapes=(shapes,)
            )
    except Exception as error:
        raise ModelError(
            "torch cannot export this network",
            found=kind_and_line(error),
            valid="a network that torch.export traces, with any number of images in a batch",
        ) from error
    for node in found.graph.nodes:  # the paths of this machine
        node.meta.pop("stack_trace", None)
    found._guards_code = [guard for guard in found._guards_code if not _IMAGE_SIDE.search(guard)]
    return found


def saved(program: torch.export.ExportedProgram, metadata: Mapping[str, Any]) -> bytes:
    """One file, with `metadata` as JSON in it."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, file, extra_files={METADATA: json.dumps(dict(metadata))})
    return file.getvalue()
