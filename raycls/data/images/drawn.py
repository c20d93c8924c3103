"""Operations that draw which other operations are applied. They draw as torchvision's of the same names do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from raycls.data.images.checks import number

__all__ = ["Drawn", "random_apply", "random_choice", "random_order"]


@dataclass(frozen=True)
class Drawn:
    """Operations, of which some are applied: all in a drawn order, or one by `weights`, or all with probability `p`."""

    operations: tuple[Any, ...]
    shuffled: bool = False
    weights: tuple[float, ...] = ()
    p: float = 1.0

    def draw(self) -> Sequence[Any]:
        """What to apply, one after another. Draws from torch's generator."""
        if self.weights:
            return (self.operations[int(torch.multinomial(torch.tensor(self.weights), 1))],)
        if self.shuffled:
            return [self.operations[index] for index in torch.randperm(len(self.operations)).tolist()]
        return self.operations if torch.rand(1) < self.p else ()


def random_choice(image_size: int, *, operations: Sequence[Any], p: Sequence[float] | None = None) -> Drawn:
    """One of `operations`, each as likely as its weight in `p`; all alike by default."""
    weights = [1.0] * len(operations) if p is None else [number("p", weight, 0, float("inf")) for weight in p]
    if len(weights) != len(operations) or not 0 < sum(weights) < float("inf"):
        raise ValueError(f"p must be {len(operations)} weights, one for each operation, that are not all 0")
    return Drawn(tuple(operations), weights=tuple(weight / sum(weights) for weight in weights))


def random_order(image_size: int, *, operations: Sequence[Any]) -> Drawn:
    """All of `operations`, in a random order."""
    return Drawn(tuple(operations), shuffled=True)


def random_apply(image_size: int, *, operations: Sequence[Any], p: float = 0.5) -> Drawn:
    """All of `operations`, or with probability `1 - p` none of them."""
    return Drawn(tuple(operations), p=number("p", p, 0, 1))
