"""Muon: an orthogonal update for weights that are matrices, beside AdamW for all others."""

# torch has no public name for its foreach functions
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from raycls.config.sections.types import Positive, UnderOne
from raycls.train.optimizers.library import Groups
from raycls.train.optimizers.state import Grouped, kept

__all__ = ["Muon", "muon", "orthogonal"]


def muon(
    groups: Groups,
    lr: float,
    *,
    momentum: UnderOne = 0.95,
    nesterov: bool = True,
    iterations: Annotated[int, Field(ge=1, le=20)] = 5,
    scale: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
    convolutions: Literal["muon", "adamw"] = "muon",
    betas: tuple[UnderOne, UnderOne] = (0.9, 0.999),
    eps: Positive = 1e-8,
) -> Optimizer:
    """Muon (Jordan et al. 2024) for weights, AdamW with `betas` and `eps` for biases, norms and the last weight.

    The last weight in the model's order is its head. A convolution is the matrix of its outputs by all else. With
    `match_rms_adamw` (Liu et al. 2025, equation 4) an update is as long as one of AdamW, so that one rate and one
    weight decay, decoupled, fit both.
    """
    weights = [parameter for group in groups for parameter in group["params"] if parameter.ndim > 1]
    # three dimensions have position embeddings and layer scales, which map nothing
    matrices = {
        id(weight) for weight in weights[:-1] if weight.ndim == 2 or (weight.ndim > 3 and convolutions == "muon")
    }
    parted: Groups = []
    for group in groups:
        for kind in ("muon", "adamw"):
            own = [parameter for parameter in group["params"] if (id(parameter) in matrices) == (kind == "muon")]
            parted += [{**group, "params": own, "kind": kind}] if own else []
    options = {"momentum": momentum, "nesterov": nesterov, "iterations": iterations, "scale": scale}
    return Muon(parted, {"lr": lr, "weight_decay": 0.0, **options, "betas": betas, "eps": eps})


class Muon(Grouped):
    """Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; weight decay of Liu et al. 2025.

    torch.optim.Muon refuses convolutions, and iterates in bfloat16, which many CPUs emulate; here it is float32.
    """

    def update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        if group["kind"] == "muon":
            self._muon(group, parameters, gradients)
        else:
            self._adamw(group, parameters, gradients)

    def _muon(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        lr, share = group["lr"], group["momentum"]
        momenta = [kept(self.state[parameter], "momentum", parameter) for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - share)
        updates = torch._foreach_lerp(gradients, momenta, share) if group["nesterov"] else momenta
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        for parameter, update in zip(parameters, updates, strict=True):
            matrix = update.flatten(1)
            if group["scale"] == "original":
                length = math.sqrt(max(1, matrix.shape[0] / matrix.shape[1]))
            else:
                length = 0.2 * math.sqrt(max(matrix.shape))
            parameter.add_(orthogonal(matrix, group["iterations"]).view(parameter.shape), alpha=-lr * length)

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        for state in states:
            state.setdefault("step", torch.tensor(0.0))
        pairs = list(zip(states, parameters, strict=True))
        adamw(
            parameters,
            gradients,
            [kept(state, "mean", parameter) for state, parameter in pairs],
            [kept(state, "square", parameter) for state, parameter in pairs],
            [],
            [state["step"] for state in states],
            foreach=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonal(matrix: Tensor, iterations: int) -> Tensor:
    """Near the orthogonal matrix U V' of `matrix` = U S V' `[A, B]`, of the same shape: Newton-Schulz iterations.

    Each maps the singular values, at most 1 at first, by 3.4445 s - 4.775 s^3 + 2.0315 s^5 (Jordan et al. 2024).
    """
    wide = matrix.float() if matrix.shape[0] <= matrix.shape[1] else matrix.float().T
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(iterations):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=-4.775, alpha=2.0315), wide, beta=3.4445)
    return (wide if matrix.shape[0] <= matrix.shape[1] else wide.T).contiguous()
