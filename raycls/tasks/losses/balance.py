"""What `loss.balance` makes of the training samples per class. Mind who divides: see `class_weights`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["class_weights", "log_priors"]


def class_weights(counts: Sequence[int], beta: float | None) -> Tensor:
    """A weight for each class, `[C] float32`, whose mean over the training samples is 1.

    A class of n samples has a weight in proportion to 1 / n, or to (1 - beta) / (1 - beta^n), one by its effective
    number of samples (Cui et al. 2019, equation 2). A class without samples has the weight 1.

    The weighted losses are added up and divided by the number of samples of the global batch, as losses without weights
    are. PyTorch divides by the sum of the weights of each batch, so that a sample counts less beside rare classes.
    """
    number = np.asarray(counts, np.float64)
    there = number > 0
    weights = np.ones(len(number))
    # expm1 and log1p: 1 - beta^n is inexact for a beta near 1
    raw = 1 / number[there] if beta is None else (beta - 1) / np.expm1(number[there] * np.log(beta))
    weights[there] = raw * number.sum() / (raw * number[there]).sum()
    return torch.from_numpy(weights).float()


def log_priors(counts: Sequence[int]) -> Tensor:
    """The logarithm of each class's part of the training samples, `[C] float32`: added to the logits in training alone,
    it takes the priors out of what the network learns (Menon et al. 2021, equation 10).

    A class without samples counts as one of one sample.
    """
    number = np.maximum(np.asarray(counts, np.float64), 1)
    return torch.from_numpy(np.log(number / number.sum())).float()
