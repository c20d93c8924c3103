"""Logistic regression on features: a linear head at the minimum of cross entropy and weight decay."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from raycls.progress import progress

__all__ = ["Fitted", "Head", "Trial", "chosen", "fit"]

_HISTORY = 10
"""Steps that L-BFGS remembers, as in scikit-learn."""
_GRADIENT = 1e-4
"""The largest entry of the gradient at which it is done: scikit-learn's default."""


@dataclass(frozen=True)
class Head:
    """`logits = features @ weight.T + bias`, for features as the network gives them."""

    weight: Tensor
    """`[C, D] float32`."""
    bias: Tensor | None
    """`[C] float32`; None where the network's own head has none."""

    def logits(self, features: Tensor) -> Tensor:
        """`[B, C]` for features `[B, D]`."""
        return F.linear(features, self.weight, self.bias)


@dataclass(frozen=True)
class Trial:
    """One weight decay of the grid."""

    weight_decay: float
    epochs: int
    """Passes over all training features."""
    seconds: float
    converged: bool
    """Whether the gradient is as good as zero, or no step in float32 made it better before the passes were used up."""
    loss: float
    """Mean cross entropy of the training features, without the weight decay."""
    val_top1: float
    val_loss: float


@dataclass(frozen=True)
class Fitted:
    head: Head
    trial: Trial


def fit(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor] | None,
    classes: int,
    weight_decays: Sequence[float],
    epochs: int,
    *,
    biased: bool = True,
) -> list[Fitted]:
    """A head for each weight decay, from the largest on, each starting at the one before.

    `train` and `val` are features `[N, D] float32` and labels `[N] int64` on one device. What is minimised is
    `mean(cross entropy) + weight_decay / 2 * sum(weight ** 2)`, without decay of the bias, by L-BFGS over all features
    at once: the linear probe of Radford et al. 2021 (CLIP), appendix A.3. After `epochs` passes per weight decay the
    search along a line that is under way is the last. The head sees each feature with mean 0 and variance 1 over the
    training split, as the batch normalisation before the probe of He et al. 2022 (appendix A.1) has it; those that are
    returned hold the same for the features as they are. Minimal where scikit-learn's
    `LogisticRegression(C=1 / (N * weight_decay))` is. Without a bias (not `biased`) features keep their mean.
    """
    features, labels = train
    mean, spread = features.mean(0), features.std(0, correction=0)
    mean = mean if biased else torch.zeros_like(mean)
    spread = torch.where(spread > 1e-6 * features.abs().amax(0), spread, torch.ones_like(spread))  # constant: no scale
    scaled = (features - mean) / spread
    weight = torch.zeros(classes, features.shape[1], device=features.device, requires_grad=True)
    bias = torch.zeros(classes, device=features.device, requires_grad=True) if biased else None
    _warm_up()
    found: list[Fitted] = []
    for weight_decay in sorted(weight_decays, reverse=True):
        began = time.monotonic()
        done, converged = _minimise(scaled, labels, weight, bias, weight_decay, epochs)
        seconds = time.monotonic() - began
        head = _unscaled(weight, bias, mean, spread)
        loss, _ = scores(head, train)
        val_loss, val_top1 = (float("nan"), float("nan")) if val is None else scores(head, val)
        found.append(Fitted(head, Trial(weight_decay, done, seconds, converged, loss, val_top1, val_loss)))
    return found


def chosen(found: Sequence[Fitted]) -> Fitted:
    """The one that is right most often on validation; of equal ones that with the lowest loss there, then the one with
    more weight decay."""
    return max(found, key=lambda one: (one.trial.val_top1, -one.trial.val_loss, one.trial.weight_decay))


@torch.no_grad()
def scores(head: Head, split: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """(mean cross entropy, top-1) on features and labels."""
    features, labels = split
    logits = head.logits(features)
    hits = int((logits.argmax(1) == labels).sum())
    return float(F.cross_entropy(logits.double(), labels)), hits / len(labels)


def _warm_up() -> None:
    """The first step of an optimizer in a process imports much, which is no time of the head's."""
    one = torch.zeros(1, requires_grad=True)
    torch.optim.SGD([one], lr=0.0).step()


def _minimise(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None, weight_decay: float, epochs: int
) -> tuple[int, bool]:
    """Change `weight` and `bias` in place; (passes over the features, whether it converged)."""
    parameters = [weight] if bias is None else [weight, bias]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=epochs,
        max_eval=epochs,
        history_size=_HISTORY,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    done = 0

    def closure() -> Tensor:
        nonlocal done
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(features, weight, bias), labels) + weight_decay / 2 * weight.square().sum()
        loss.backward()
        done += 1
        progress(f"training the head, weight decay {weight_decay:g}", done, epochs, "epochs")
        return loss

    optimizer.step(closure)
    gradients = [part.grad for part in parameters if part.grad is not None]
    return done, done < epochs or max(float(gradient.abs().max()) for gradient in gradients) <= _GRADIENT


@torch.no_grad()
def _unscaled(weight: Tensor, bias: Tensor | None, mean: Tensor, spread: Tensor) -> Head:
    """The head for features as they are; in float64, so that nothing is lost but the last rounding."""
    plain = weight.double() / spread.double()
    return Head(plain.float(), None if bias is None else (bias.double() - plain @ mean.double()).float())
