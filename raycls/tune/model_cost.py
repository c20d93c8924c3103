"""Parameters and floating-point operations of a model, for a search with a budget of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from raycls.config.sections.run import Run
from raycls.config.sections.search import SearchConfig
from raycls.config.space.check import apply
from raycls.config.write import flow
from raycls.models import zoo
from raycls.models.cost import operations

__all__ = ["DECIDED_BY", "Cost", "cost_of", "costs_of", "within"]

DECIDED_BY = ("model.", "data.", "augment.", "task.")
"""How the paths begin whose values may decide what a model costs."""

Cost = tuple[int, int]
"""(parameters, floating-point operations of the forward pass of one sample)."""


def cost_of(run: Run, classes: int, example: tuple[Tensor, ...]) -> Cost:
    """What the model of `run` costs on `example`, which is what it takes for one sample, see `operations`.

    Raises ConfigError and ModelError where the model cannot be built.
    """
    model = zoo.build(run.model, classes, run.run.seed, load=False)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    try:
        return parameters, operations(model.to("meta"), example)  # shapes alone: nothing is computed
    except Exception:  # noqa: BLE001 - a network that looks at values, or keeps tensors that torch does not know of
        model = zoo.build(run.model, classes, run.run.seed, load=False)
        return parameters, operations(model, example)


def costs_of(
    run: Run, classes: int, example: Callable[[Run], tuple[Tensor, ...]]
) -> Callable[[Mapping[str, Any]], Cost | None]:
    """What the model of `run` costs with values of its space; None for one that cannot be built.

    `example` gives what the model of a run takes for one sample. Each model is built once.
    """
    known: dict[str, Cost | None] = {}

    def measure(chosen: Mapping[str, Any]) -> Cost | None:
        try:
            varied = apply(run, chosen)
            return cost_of(varied, classes, example(varied))
        except Exception:  # noqa: BLE001 - whatever a plug-in raises
            return None

    def cost(chosen: Mapping[str, Any]) -> Cost | None:
        key = flow({path: value for path, value in chosen.items() if path.startswith(DECIDED_BY)})
        if key not in known:
            known[key] = measure(chosen)
        return known[key]

    return cost


def within(
    search: SearchConfig, cost: Callable[[Mapping[str, Any]], Cost | None]
) -> Callable[[Mapping[str, Any]], bool]:
    """Whether values of the space give a model within `search.max_parameters` and `search.max_flops`.

    One that cannot be built fits: its trial fails, and tells why, and the search goes on.
    """
    limits = search.max_parameters, search.max_flops

    def fits(chosen: Mapping[str, Any]) -> bool:
        if limits == ("off", "off"):
            return True
        found = cost(chosen)
        return found is None or all(
            isinstance(limit, str) or value <= limit for limit, value in zip(limits, found, strict=True)
        )

    return fits
