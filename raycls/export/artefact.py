"""An exported file, opened: probabilities for images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from raycls.config.sections.data import LUMA
from raycls.errors import ModelError, kind_and_line
from raycls.export.load import read_onnx
from raycls.quantities import cores

__all__ = ["IMAGES", "METADATA", "PROBABILITIES", "VOLUMES", "Artefact", "normalised", "scale_and_shift", "session"]

VOLUMES = "NCDHW"
"""The layout of an input that is a volume, in -1..1."""
IMAGES, PROBABILITIES = "images", "probabilities"
"""Names of the input and the output of every artefact."""
METADATA = "raycls.json"
"""What the metadata is called in a `.pt2` file."""


def scale_and_shift(mean: Sequence[float], std: Sequence[float], white: int = 255) -> tuple[np.ndarray, np.ndarray]:
    """`(x / white - mean) / std` as `x * scale + shift`, both `[channels] float32`, rounded as in training."""
    above, below = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    return (1 / (white * below)).astype(np.float32), (-above / below).astype(np.float32)


def normalised(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """`[B, h, w, 3] uint8` after the operations -> `[B, 3, h, w] float32`: what is done outside of an artefact.

    `[B, 1, h, w]`, grey values, where `mean` and `std` are of one channel; images may be `[B, h, w, 1]` then, uint8 or
    uint16."""
    if len(mean) < images.shape[3]:
        images = ((images.astype(np.uint32) @ np.asarray(LUMA, np.uint32) + sum(LUMA) // 2) // sum(LUMA))[..., None]
    white = 65535 if images.dtype == np.uint16 else 255
    scale, shift = (part[:, None, None] for part in scale_and_shift(mean, std, white))
    return images.transpose(0, 3, 1, 2).astype(np.float32) * scale + shift


def session(model: str | bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU with `threads` threads; 0: as many as this process may use."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.log_severity_level = 3  # its warnings are about how it optimises
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Artefact:
    """A file that `raycls export` wrote, opened on the CPU. ModelError where `path` is not one."""

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        self.path = str(path)
        texts, self._run = (_open_pt2 if self.path.endswith(".pt2") else _open_onnx)(self.path, threads)
        try:
            found = {name: json.loads(texts[name]) for name in ("classes", "preprocessing", "provenance")}
        except (KeyError, ValueError) as error:
            raise ModelError(
                "this file was not written by `raycls export`",
                where=self.path,
                found=f"no {error.args[0]} in its metadata" if isinstance(error, KeyError) else str(error),
            ) from error
        self.classes: tuple[str, ...] = tuple(found["classes"])
        """Class names in the order of the probabilities."""
        self.preprocessing: dict[str, Any] = found["preprocessing"]
        self.provenance: dict[str, Any] = found["provenance"]

    @property
    def inside(self) -> bool:
        """Whether it preprocesses images itself."""
        return self.preprocessing["where"] == "inside"

    def probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images `[H, W, 3] uint8`, RGB, or volumes `[C, D, H, W] float32` in 0..1 -> `[B, C] float32`.

        Where the answers are masks, of images of one size, `[B, C, H, W]` or `[B, C, D, H, W]`.

        Decoded images of any sizes where the preprocessing is `inside`; else images after the operations of
        `preprocessing`, all of one size, which are normalised here.
        """
        found: dict[int, np.ndarray] = {}
        shapes = [image.shape for image in images]
        for shape in dict.fromkeys(shapes):
            rows = [row for row, other in enumerate(shapes) if other == shape]
            found |= zip(rows, self.run(self._batch(np.stack([images[row] for row in rows]))), strict=True)
        none = np.zeros((0, len(self.classes)), np.float32)
        return np.stack([found[row] for row in range(len(images))]) if images else none

    def run(self, batch: np.ndarray) -> np.ndarray:
        """What the file says of its own input: `[B, H, W, 3] uint8`, or `[B, channels, h, w] float32` outside."""
        return self._run(batch)

    def _batch(self, images: np.ndarray) -> np.ndarray:
        if self.inside:
            return images
        if self.preprocessing["input"]["layout"] == VOLUMES:
            return images.astype(np.float32) * np.float32(2) - np.float32(1)
        return normalised(images, self.preprocessing["mean"], self.preprocessing["std"])


_Opened = tuple[Mapping[str, str], Callable[[np.ndarray], np.ndarray]]
"""The metadata of a file as JSON by name, and what computes."""


def _open_onnx(path: str, threads: int) -> _Opened:
    texts = {entry.key: entry.value for entry in read_onnx(path).metadata_props}
    try:
        running = session(path, threads)
    except Exception as error:  # onnxruntime has many kinds, all of its own
        raise ModelError("onnxruntime cannot open this file", where=path, found=kind_and_line(error)) from error
    return texts, lambda batch: np.asarray(running.run([PROBABILITIES], {IMAGES: batch})[0])


def _open_pt2(path: str, threads: int) -> _Opened:
    """`threads` is torch's own business, which is one for the process."""
    import torch

    extra = {METADATA: ""}
    try:
        module = torch.export.load(path, extra_files=extra).module()
        texts = {name: json.dumps(value) for name, value in json.loads(extra[METADATA] or "{}").items()}
    except Exception as error:  # torch has many kinds
        raise ModelError("torch cannot open this file", where=path, found=kind_and_line(error)) from error

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(np.ascontiguousarray(batch))).numpy()

    return texts, run
