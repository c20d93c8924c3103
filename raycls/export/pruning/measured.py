"""What a network costs and is worth: operations, parameters, time, and accuracy where its data can be read."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raycls.config.sections.data import DataConfig
from raycls.data.images.planes import planes_of
from raycls.data.making.sample import collate
from raycls.export.pictures import Pictures
from raycls.export.timing import BATCHES, interleaved, threads_set
from raycls.models.cost import operations
from raycls.progress import progress
from raycls.quantities import plural
from raycls.session.trained.trained import Trained
from raycls.tasks.base import Task

__all__ = ["accuracies", "cost", "example_of", "latencies"]

_ACCURACY_BATCH = 32


class _Black:
    """A reader of one black picture."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config

    def read(self, index: int) -> np.ndarray:
        return planes_of(self._config).black(self._config.image_size, self._config.image_size)


def example_of(trained: Trained, task: Task) -> tuple[Tensor, ...]:
    """What the network takes for one black picture of `data.image_size`, as it is evaluated: `[1, ...]` each."""
    split = trained.split(["black"], _Black(trained.run.data))
    return task.example(trained.sample(trained.arrays(), split, 0))


def cost(model: nn.Module, example: tuple[Tensor, ...]) -> dict[str, int]:
    """`flops` of one sample, `parameters`, and how many of these are not zero."""
    parameters = [parameter.detach() for parameter in model.parameters()]
    return {
        "flops": operations(model, example),
        "parameters": sum(parameter.numel() for parameter in parameters),
        "nonzero": sum(int(torch.count_nonzero(parameter)) for parameter in parameters),
    }


def latencies(
    models: Mapping[str, nn.Module],
    example: tuple[Tensor, ...],
    *,
    layout: torch.memory_format,
    threads: int,
    seconds: float,
) -> dict[str, dict[str, float]]:
    """Median seconds of a forward pass by network and batch, `{"name": {"1": s, "32": s}}`, taken in turns.

    Weights and noise in place of images lie in memory as `layout` says, as in an evaluation; `seconds` are for each
    batch.
    """
    found: dict[str, dict[str, float]] = {name: {} for name in models}
    with threads_set(threads), torch.inference_mode():
        for batch in BATCHES:
            inputs = tuple(_noise(part, batch, layout) for part in example)
            calls = {name: _call(model.eval(), inputs) for name, model in models.items()}
            phase = f"measuring the time of {plural(batch, 'image')}"
            for name, taken in interleaved(calls, seconds=seconds, phase=phase).items():
                found[name][str(batch)] = statistics.median(taken)
    return found


def _noise(part: Tensor, batch: int, layout: torch.memory_format) -> Tensor:
    repeated = part.repeat(batch, *[1] * (part.ndim - 1))
    if not part.is_floating_point():
        return repeated
    made = torch.randn(repeated.shape, generator=torch.Generator().manual_seed(0))
    return made.to(memory_format=layout) if made.ndim == 4 else made


def _call(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    return lambda: model(*inputs)


@torch.inference_mode()
def accuracies(models: Mapping[str, nn.Module], task: Task, pictures: Pictures) -> dict[str, float]:
    """How good each network is on the same pictures, as the task measures it; each is decoded once."""
    said: dict[str, list[np.ndarray]] = {name: [] for name in models}
    for start in range(0, len(pictures), _ACCURACY_BATCH):
        rows = range(start, min(start + _ACCURACY_BATCH, len(pictures)))
        progress("evaluating both networks", start, len(pictures), "images")
        batch = task.batch(collate([pictures.sample(row) for row in rows], lambda row: f"row {row}"), train=False)
        for name, model in models.items():
            said[name].append(task.rows(model.eval(), batch)["logits"].cpu().numpy())
    return {name: task.reading.scored(np.concatenate(each), pictures.truth) for name, each in said.items()}
