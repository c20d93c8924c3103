"""What the optimizers of this folder have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Grouped", "adapted", "counted", "kept"]


class Grouped(Optimizer):
    """An optimizer whose step treats one group of parameters at a time, those that took part in the forward pass.

    All that has to survive a resume is in the state of a parameter: the options of a group are the config's.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self.update(group, parameters, [parameter.grad for parameter in parameters])

    def update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Change the `parameters`, in place; not the gradients."""
        raise NotImplementedError


def kept(state: dict[str, Any], name: str, parameter: Tensor) -> Tensor:
    """The tensor `name` of a parameter's state: of its shape and memory layout, zeros before the first step."""
    if name not in state:
        state[name] = torch.zeros_like(parameter)
    return state[name]


def counted(state: dict[str, Any]) -> float:
    """The number of this step of a parameter, from 1 on; `step` is a tensor, as in torch's optimizers."""
    state["step"] = state.get("step", torch.tensor(0.0)) + 1
    return float(state["step"])


def adapted(parameter: Tensor, adapt: str) -> bool:
    """Whether LARS and LAMB scale the update of `parameter`: with `weights` that of biases and norms is left."""
    return adapt == "all" or parameter.ndim > 1
