"""`torch.compile` of the network that is trained; evaluations, checkpoints, averages and exports are of the network."""

# torch has no public name for the time that it compiled, for its errors, nor for the look for a C++ compiler
# pyright: reportPrivateUsage=false
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from raycls.config.sections.train import TrainConfig
from raycls.errors import TrainError, kind_and_line

__all__ = ["as_it_is", "compiled", "refuse_missing_compiler", "seconds"]

_MOST_SHAPES = 256
"""Graphs of one network: one for every size of a micro-batch and of an image, and every stage of fine-tuning."""
_BACKEND = "inductor"


@contextmanager
def compiled(model: nn.Module, threads: int) -> Iterator[None]:
    """In the block `model`, of which copies are made before, is compiled for each shape that it is called with.

    Each shape has kernels of its own, which follow from it alone: with such for any batch size (torch's default) the
    bits would depend on which sizes this process has seen before. What a kernel adds in which order is not chosen by
    measuring, which each worker would do for itself. Names of parameters stay. So many `threads` compile.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # a CUDA toolkit without a GPU is no matter
    options: dict[str, str | int | bool | Callable[..., object]] = {}
    if _BACKEND == "inductor":
        options = {"deterministic": True, "compile_threads": threads}
    model.compile(backend=_BACKEND, dynamic=False, recompile_limit=_MOST_SHAPES, options=options or None)
    from torch._dynamo import config as dynamo
    from torch._dynamo.exc import TorchDynamoException

    try:
        with dynamo.patch(fail_on_recompile_limit_hit=True):  # and not go on without, with other bits
            yield
    except TorchDynamoException as error:
        raise _failed(error) from error
    finally:
        model._compiled_call_impl = None
        torch.compiler.reset()  # graphs belong to the code and not to the network: the next one would add to them


def as_it_is(train: TrainConfig) -> AbstractContextManager[object]:
    """In the block a compiled network computes as if it were not: an evaluation is that of the network in `model/`."""
    return nullcontext() if train.compile == "off" else torch.compiler.set_stance("force_eager")


def seconds() -> float:
    """Seconds that this process has compiled, up to now."""
    from torch._dynamo.utils import calculate_time_spent

    return calculate_time_spent()["total_wall_time"]


def refuse_missing_compiler(device: torch.device) -> None:
    """TrainError where there is no C++ compiler that torch can use for the CPU."""
    if device.type != "cpu" or _BACKEND != "inductor":
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise _failed(error) from error


def _failed(error: BaseException) -> TrainError:
    inner = error
    while (next_one := inner.__cause__ or getattr(inner, "inner_exception", None)) not in (None, inner):
        inner = next_one
    found = kind_and_line(inner)[:300]
    missing = "compiler" in found.lower()
    return TrainError(
        "torch.compile cannot compile the network",
        where="train.compile",
        found=found,
        fix=("install a C++ compiler, such as g++, on every machine, or name it in CXX; or " if missing else "")
        + "set train.compile=off; a run that has checkpoints starts anew, with --new",
    )
