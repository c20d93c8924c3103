"""The ways to compute one network that are measured beside each other, on the CPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from raycls.errors import ConfigError, kind_and_line
from raycls.progress import progress
from raycls.session.trained.trained import Network

__all__ = ["NAMES", "Missing", "Variant", "compiled", "eager", "onnx_file"]

Name = Literal["eager", "compiled", "onnx fp32", "onnx int8"]
NAMES: tuple[Name, ...] = ("eager", "compiled", "onnx fp32", "onnx int8")


@dataclass(frozen=True)
class Variant:
    """One way. It takes normalised pixels `[B, 3, h, w] float32` and gives a score per class, `[B, C]`."""

    name: str
    take: Callable[[np.ndarray], Any]
    """The pixels as this way wants them, which is not measured."""
    call: Callable[[Any], Any]
    """What is measured: from that to the scores, which are an array or a tensor."""
    size: int
    """Bytes of its weights, or of its file."""
    notes: tuple[str, ...] = field(default=())

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        return np.asarray(self.call(self.take(pixels)))


@dataclass(frozen=True)
class Missing:
    """A way that this machine cannot go."""

    name: str
    why: str
    fix: str | None = None


def eager(network: Network) -> Variant:
    """The network as an evaluation calls it."""
    model = network.model
    return _of_torch("eager", model, network, sum(tensor.nbytes for tensor in model.state_dict().values()))


def compiled(network: Network, batches: Sequence[int], pixels: np.ndarray) -> Variant | Missing:
    """The same through `torch.compile`, compiled for each number of images in `batches` before it is measured.

    Missing where there is no C++ compiler that torch can use.
    """
    size = sum(tensor.nbytes for tensor in network.model.state_dict().values())
    # In this process: a pool of compiling processes would outlive the command that is measured.
    from torch._inductor import config as inductor  # pyright: ignore[reportPrivateUsage]

    # It warns of a CUDA toolkit without a GPU, which the CPU does not need.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)

    variant = _of_torch("compiled", torch.compile(network.model, dynamic=False), network, size)
    try:
        with inductor.patch(compile_threads=1):
            for count in batches:
                progress(f"compiling for {count} images")
                variant.scores(np.repeat(pixels[:1], count, 0))
    except Exception as error:  # noqa: BLE001 - torch has many kinds, and wraps those of the compiler
        return Missing("compiled", _innermost(error), "install a C++ compiler, such as g++, or set CXX")
    return variant


def onnx_file(name: str, path: Path, threads: int, notes: Sequence[str] = ()) -> Variant:
    """A file that `raycls export --preprocess outside` wrote, with onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that spin after a call would slow whichever way is measured next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given, answer = session.get_inputs()[0].name, session.get_outputs()[0].name
    return Variant(
        name,
        np.ascontiguousarray,
        lambda pixels: session.run([answer], {given: pixels})[0],
        os.path.getsize(path),
        tuple(notes),
    )


def missing_extra() -> tuple[str, str] | None:
    """Why there is no ONNX here, and the line that installs it; None where there is."""
    from raycls.export.extra import check_extra

    try:
        check_extra()
    except ConfigError as error:
        return f"{error.what}; {error.found}", error.fix or ""
    return None


def _of_torch(name: str, model: Callable[[Tensor], Tensor], network: Network, size: int) -> Variant:
    layout = network.task.layout

    def take(pixels: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pixels)).to(memory_format=layout)

    @torch.no_grad()
    def call(images: Tensor) -> Tensor:
        return model(images)

    return Variant(name, take, call, size)


def _innermost(error: BaseException) -> str:
    while (inner := error.__cause__ or getattr(error, "inner_exception", None)) is not None and inner is not error:
        error = inner
    return kind_and_line(error)[:200]
