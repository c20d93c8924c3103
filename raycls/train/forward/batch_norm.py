"""Batch-norm statistics of the global batch (SyncBN): one micro-batch on each worker, all in the same layer at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from raycls.errors import ConfigError
from raycls.train.forward.replace import replaced

__all__ = ["refuse_without_norms", "synchronised"]

_SIGNATURE = inspect.signature(F.batch_norm)


def refuse_without_norms(model: nn.Module) -> None:
    """ConfigError where there are no statistics to be those of the global batch."""
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ConfigError(
            "the network has no batch norm whose statistics could be those of the global batch",
            where="train.batch_norm, model.name",
            found="sync",
            fix="set train.batch_norm=micro_batch",
        )


@contextmanager
def synchronised(model: nn.Module, world: int) -> Iterator[None]:
    """In the block the batch norms of `model` that are in training mode use the samples of all `world` ranks.

    All ranks call the same ones in the same order. Sums are gathered and added in the order of the ranks, so that every
    rank has the same statistics to the bit, whichever answered first. (`torch.nn.SyncBatchNorm` is for GPUs alone, and
    another module: here a network stays what it is, and so do its copies.)
    """
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, _BatchNorm) and world > 1:
                stack.enter_context(replaced(module, partial(_forward, module, module.forward, world)))
        yield


def _forward(module: nn.Module, forward: Callable[..., Any], world: int, *args: Any, **kwargs: Any) -> Any:
    if not module.training:
        return forward(*args, **kwargs)
    with _Intercepted(world):  # and not `F.batch_norm` for all: a norm with an activation has a forward pass of its own
        return forward(*args, **kwargs)


class _Intercepted(TorchFunctionMode):
    def __init__(self, world: int) -> None:
        super().__init__()
        self._world = world

    def __torch_function__(self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.batch_norm:
            return func(*args, **(kwargs or {}))
        bound = _SIGNATURE.bind(*args, **(kwargs or {}))
        bound.apply_defaults()
        return _batch_norm(**bound.arguments, world=self._world)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    world: int,
) -> Tensor:
    """`F.batch_norm` in training, over `[B, C, ...]` of all ranks."""
    output, mean, variance, count = _Normalised.apply(input, weight, bias, eps, world)  # type: ignore[misc]
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    return output


class _Normalised(torch.autograd.Function):
    """Ioffe and Szegedy 2015, algorithm 1, and its gradient (section 3). Statistics in float32, added in float64."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, world: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        axes = [axis for axis in range(values.ndim) if axis != 1]
        variance, mean = torch.var_mean(wide, axes, correction=0)
        rows = mean.new_full((1,), values.numel() // values.shape[1])
        means, variances, counts = _gathered(torch.cat([mean, variance, rows]), world).split(
            [len(mean), len(mean), 1], dim=1
        )
        count = counts.sum()
        if int(count) < 2:
            raise ValueError("expected more than 1 value per channel over all workers")
        mean = (means * counts).sum(0) / count
        variance = ((variances + (means - mean) ** 2) * counts).sum(0) / count
        inverse = (variance + eps).rsqrt().to(wide.dtype)
        narrow = mean.to(wide.dtype)
        ctx.save_for_backward(values, weight, narrow, inverse, count)
        ctx.axes, ctx.world = axes, world
        output = (wide - _spread(narrow, wide)) * _spread(inverse, wide)
        if weight is not None:
            output = output * _spread(weight, wide)
        if bias is not None:
            output = output + _spread(bias, wide)
        ctx.mark_non_differentiable(mean, variance, count)
        return output.to(values.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, inverse, count = ctx.saved_tensors
        gradient = gradients[0].to(mean.dtype)
        normal = (values.to(mean.dtype) - _spread(mean, values)) * _spread(inverse, values)
        plain, scaled = gradient.sum(ctx.axes), (gradient * normal).sum(ctx.axes)
        found = None
        if ctx.needs_input_grad[0]:
            all_plain, all_scaled = (
                (_gathered(torch.cat([plain, scaled]), ctx.world).sum(0) / count).to(mean.dtype).chunk(2)
            )
            found = gradient - _spread(all_plain, values) - normal * _spread(all_scaled, values)
            found = found * _spread(inverse if weight is None else inverse * weight, values)
            found = found.to(values.dtype)
        return (
            found,
            scaled if ctx.needs_input_grad[1] else None,
            plain if ctx.needs_input_grad[2] else None,
            None,
            None,
        )


def _gathered(own: Tensor, world: int) -> Tensor:
    """`own` of every rank, `[world, ...] float64`."""
    every = own.new_empty(world * len(own), dtype=torch.float64)
    dist.all_gather_into_tensor(every, own.double())
    return every.view(world, -1)


def _spread(of_channels: Tensor, like: Tensor) -> Tensor:
    return of_channels.view(1, -1, *[1] * (like.ndim - 2))
