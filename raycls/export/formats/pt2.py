"""The same artefact as a program of `torch.export`, for those who serve with torch."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raycls.errors import ModelError, kind_and_line
from raycls.export.artefact import METADATA, scale_and_shift
from raycls.export.preprocessing import Crop, Preprocessing, Resize, Step

__all__ = ["program", "saved"]


class _Whole(nn.Module):
    """`images` as an artefact takes them -> probabilities `[B, C] float32`."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model, self.steps = model, preprocessing.steps
        for name, values in zip(
            ("scale", "shift"), scale_and_shift(preprocessing.mean, preprocessing.std), strict=True
        ):
            self.register_buffer(name, torch.from_numpy(values).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if self.steps is not None:
            pixels = images.permute(0, 3, 1, 2)
            for step in self.steps:
                pixels = _done(step, pixels)
            images = pixels.float() * self.scale + self.shift
        return self.model(images).float().softmax(1)


def _done(step: Step, pixels: Tensor) -> Tensor:
    if isinstance(step, Resize):
        height, width = pixels.shape[-2:]
        size: Any = step.size
        if len(step.size) == 1:
            short = torch.sym_min(height, width)
            size = (step.size[0] * height // short, step.size[0] * width // short)
        # torch resamples uint8 in integers, as Pillow does
        return F.interpolate(pixels, size=size, mode=step.interpolation, antialias=True)
    return _cropped(step, pixels)


def _cropped(step: Crop, pixels: Tensor) -> Tensor:
    """The middle, as the graph of ONNX has it."""
    for dimension, wanted in ((2, step.size[0]), (3, step.size[1])):
        lacking = torch.sym_max(wanted - pixels.shape[dimension], 0)
        sides = (lacking // 2, lacking - lacking // 2)
        pads: Any = (0, 0, *sides) if dimension == 2 else (*sides, 0, 0)
        pixels = F.pad(pixels, pads)
        spare = pixels.shape[dimension] - wanted
        start = spare // 2 + spare % 2 * (spare // 2 % 2)
        pixels = pixels.narrow(dimension, start, wanted)
    return pixels


def program(model: nn.Module, preprocessing: Preprocessing) -> torch.export.ExportedProgram:
    """`model` (in evaluation mode, on the CPU) with its preprocessing. ModelError where torch cannot export it."""
    free = torch.export.Dim.DYNAMIC
    if preprocessing.inside:
        height, width = preprocessing.fixed or (size + 7 for size in preprocessing.size)
        example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
        shapes: dict[int, Any] = {0: free} if preprocessing.fixed else {0: free, 1: free, 2: free}
    else:
        example, shapes = torch.zeros(2, 3, *preprocessing.size), {0: free}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch's exporter about itself
            found = torch.export.export(_Whole(model, preprocessing).eval(), (example,), dynamic_shapes=(shapes,))
    except Exception as error:
        raise ModelError(
            "torch cannot export this network",
            found=kind_and_line(error),
            valid="a network that torch.export traces, with any number of images in a batch",
        ) from error
    for node in found.graph.nodes:  # the paths of this machine
        node.meta.pop("stack_trace", None)
    return found


def saved(program: torch.export.ExportedProgram, metadata: Mapping[str, Any]) -> bytes:
    """One file, with `metadata` as JSON in it."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, file, extra_files={METADATA: json.dumps(dict(metadata))})
    return file.getvalue()
