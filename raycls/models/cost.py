"""What a network costs: floating-point operations of a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from raycls.models.surgery import beside

__all__ = ["counted", "operations"]


def operations(model: nn.Module, example: tuple[Tensor, ...]) -> int:
    """Operations of the forward pass of `example`. Multiplication and addition are two.

    Convolutions, matrix products and attention are counted, by torch's `FlopCounterMode`; what goes element by element
    is not. So it is twice the multiply-adds that papers publish. `model` is left in evaluation mode.
    """
    return counted(model, example).get_total_flops()


def counted(model: nn.Module, example: tuple[Tensor, ...]) -> FlopCounterMode:
    """The counter of `operations`, which knows those of each module too."""
    with _unfused(), FlopCounterMode(display=False) as counter:
        model.eval()(*beside(model, example))
    return counter


@contextmanager
def _unfused() -> Iterator[None]:
    """Without torch's fused inference of attention, for which the counter has no formula: it would count as nothing.

    It needs gradients to be off, which a network may do by itself or by weights that are frozen: hence the switch too.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
