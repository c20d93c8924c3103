"""What the nearest features say: a classifier without any training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from raycls.progress import counted

__all__ = ["NEIGHBOURS", "nearest"]

NEIGHBOURS = 20
_TEMPERATURE = 0.07
_AT_ONCE = 1024
"""Queries that are compared at a time."""


@torch.no_grad()
def nearest(bank: tuple[Tensor, Tensor], queries: Tensor, classes: int, neighbours: int = NEIGHBOURS) -> Tensor:
    """The class `[M] int64` of each of the `queries` `[M, D]`, by the `neighbours` most similar features of the bank.

    `bank` is features `[N, D]` and labels `[N] int64`. Similarity is the cosine, and each neighbour votes for its class
    with `exp(similarity / 0.07)` (Wu, Xiong, Yu and Lin 2018, section 3.4). All vote where there are fewer.
    """
    keys, labels = F.normalize(bank[0], dim=1), bank[1]
    found: list[Tensor] = []
    for part in counted(queries.split(_AT_ONCE), "looking for nearest neighbours", -(-len(queries) // _AT_ONCE)):
        similar, places = (F.normalize(part, dim=1) @ keys.T).topk(min(neighbours, len(keys)), dim=1)
        votes = F.one_hot(labels[places], classes) * (similar / _TEMPERATURE).exp()[..., None]
        found.append(votes.sum(1).argmax(1))
    return torch.cat(found)
