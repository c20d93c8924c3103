"""What comes to the head of a network while it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from raycls.errors import ModelError
from raycls.models.surgery import find_head

__all__ = ["features_noted"]


@contextmanager
def features_noted(network: nn.Module, num_classes: int, where: str) -> Iterator[list[Tensor]]:
    """The features of each forward pass within, `[B, D]`: the input of the head, averaged over space where that is a
    convolution. ModelError with `where` of the config where the network has no head.
    """
    name = find_head(network, num_classes)
    if not name:
        raise ModelError(
            "the network has no head whose features could be compared",
            where=where,
            found=type(network).__name__,
            valid=f"a network whose last linear layer or convolution has one output per class, here {num_classes}",
        )
    noted: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        noted.append(inputs[0].flatten(2).mean(2) if inputs[0].dim() == 4 else inputs[0])

    hook = network.get_submodule(name).register_forward_pre_hook(note)
    try:
        yield noted
    finally:
        hook.remove()
