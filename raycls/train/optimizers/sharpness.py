"""Sharpness-aware minimisation: a step's gradient is taken twice, the second time where the loss is higher."""

# torch has no public name for its foreach functions
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from raycls.train.reduction import Divisible, Part, Totals

__all__ = ["SharpnessAware"]


class SharpnessAware:
    """A reduction over another one (Foret et al. 2021, algorithm 1), with which the loop goes twice through a step.

    The first pass gives the gradient g of the global batch, whoever computed which part of it. The second one starts
    from w + radius g / |g| (equation 2), with the same samples and random numbers; its gradient is what `finish`
    leaves, at the weights w, to the bit. So g, and with it the step, is that of the reduction below: the same for any
    number of workers under `exact`. (The paper's m-sharpness with m = `data.batch_size`.)

    Sums and buffers, such as batch-norm statistics, are those of the first pass: of the weights that there are.
    """

    def __init__(self, inner: Divisible, model: nn.Module, radius: float) -> None:
        self.model, self.factor = inner.model, inner.factor
        self._inner, self._radius = inner, radius
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._buffers = list(model.buffers())
        self._step = 0
        self._holes: tuple[int, ...] = ()
        self._before: list[Tensor] = []
        self._after: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._totals: Totals = torch.zeros(0)

    def begin(self, step: int, holes: tuple[int, ...] = ()) -> None:
        self._step, self._holes = step, holes
        self._before = [buffer.clone() for buffer in self._buffers]
        self._inner.begin(step, holes)

    def passes(self, parts: Sequence[Part]) -> Iterator[Part]:
        while True:
            yield from self._inner.passes(parts)
            order = self._inner.order
            self._totals = self._inner.finish().clone()
            self._after = [buffer.clone() for buffer in self._buffers]
            self._weights = self._climb()
            if not self._weights:
                return
            self._again(self._before)  # the second pass is through the same function, whatever the forward pass reads
            yield from self._inner.passes(parts)
            if self._inner.order is order:
                return
            self._descend()  # memory ran out in the second pass: both are done with the smaller micro-batches
            self._again(self._before)

    def micro_batch(self, index: int, rows: int) -> AbstractContextManager[None]:
        return self._inner.micro_batch(index, rows)

    def add(self, index: int, sums: Sequence[Tensor] | None) -> None:
        self._inner.add(index, sums)

    @torch.no_grad()
    def finish(self) -> Totals:
        if self._weights:
            self._inner.finish()
            self._descend()
        self._put(self._after)
        return self._totals

    def keep_buffers(self, keep: bool) -> None:
        if not keep:
            self._put(self._before)

    @torch.no_grad()
    def _climb(self) -> list[Tensor]:
        """Go up the gradient by the radius; the weights before. Not where it is zero or not finite: nothing then."""
        moved = [parameter for parameter in self._parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in moved if parameter.grad is not None]
        length = float(torch.nn.utils.get_total_norm(gradients, foreach=True)) if moved else 0.0
        if not 0 < length < math.inf:
            return []
        weights = [parameter.detach().clone() for parameter in self._parameters]
        torch._foreach_add_(list[Tensor](moved), gradients, alpha=self._radius / length)
        return weights

    @torch.no_grad()
    def _descend(self) -> None:
        torch._foreach_copy_(list[Tensor](self._parameters), self._weights)
        self._weights = []

    def _again(self, buffers: list[Tensor]) -> None:
        self._put(buffers)
        self._inner.begin(self._step, self._holes)

    def _put(self, values: list[Tensor]) -> None:
        for buffer, value in zip(self._buffers, values, strict=True):
            buffer.copy_(value)
