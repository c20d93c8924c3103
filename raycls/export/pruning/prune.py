"""From a trained run to a pruned one: a run folder of its own, and what it costs and is worth beside the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from raycls.config.sections.model import ModelConfig
from raycls.errors import ConfigError, DataError
from raycls.export.pictures import pictures
from raycls.export.pruning.folder import Place, check_network, write
from raycls.export.pruning.measured import accuracies, cost, example_of, latencies
from raycls.export.pruning.structured import Limits, cut_channels
from raycls.export.pruning.unstructured import zero_smallest
from raycls.export.timing import threads_set
from raycls.models import zoo
from raycls.models.pruned import MASK
from raycls.models.surgery import restore
from raycls.progress import progress
from raycls.run import kept
from raycls.session.setup import make_task
from raycls.session.trained.trained import Trained

__all__ = ["Wanted", "prune"]


@dataclass(frozen=True)
class Wanted:
    """What is to be pruned, and what is measured."""

    ratio: float
    """Part of the channels of each layer, or of the weights of the network, in 0..1."""
    structured: bool = False
    limits: Limits = field(default_factory=Limits)
    data: str | None = None
    """Other data for the accuracy; None: the split that was evaluated during the training."""
    images: int | None = None
    """Most images for the accuracy; None: all."""
    threads: int = 1
    seconds: float = 3.0
    """For each latency."""


def prune(
    trained: Trained, place: Place, wanted: Wanted, *, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Write the pruned run to `place`, and return what is in its `prune.json`.

    ConfigError or ModelError, and nothing written, where the network cannot be pruned.
    """
    place.check()
    device = torch.device("cpu")
    task = make_task(trained.run, trained.classes, device)
    check_network(trained, task, place.kind)
    base = zoo.settled(trained.run.model)
    example = example_of(trained, task)
    tensors = kept.load(trained.folder, trained.weights)
    progress("pruning")
    section, pruned = _pruned(trained, base, tensors, example, wanted)
    made = {"before": _made(trained, base, tensors), "after": _made(trained, section, pruned)}
    models = {name: model.to(memory_format=task.layout) for name, model in made.items()}  # pyright: ignore[reportCallIssue]
    if wanted.structured:
        zoo.probe(models["after"], example, task.outputs(2))
    facts: dict[str, Any] = {
        "from": trained.provenance,
        "structured": wanted.structured,
        "ratio": wanted.ratio,
        "threads": wanted.threads,
        **{name: cost(model, example) for name, model in models.items()},
    }
    times = latencies(models, example, layout=task.layout, threads=wanted.threads, seconds=wanted.seconds)
    for name, taken in times.items():
        facts[name]["seconds"] = taken
    facts |= _accuracy(trained, models, task, wanted, facts, say)
    write(trained, place, section, pruned, facts)
    return facts


def _pruned(
    trained: Trained, base: ModelConfig, tensors: dict[str, Tensor], example: tuple[Tensor, ...], wanted: Wanted
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The section `model` of the pruned network, and its tensors."""
    masked = any(entry == "masked" for entry in base.pruned.values())
    if wanted.structured:
        if masked:
            raise ConfigError(
                "channels of a network with masks cannot be cut",
                where="--structured",
                found=f"{trained.name}, whose single weights were pruned",
                valid="a run before single weights are pruned",
                fix="prune the channels first, and single weights afterwards",
            )
        shapes = [part.shape for part in example]
        cut, network = cut_channels(trained, base, wanted.ratio, shapes, wanted.limits)
        return base.model_copy(update={"pruned": cut}), network
    sizes = {name: entry for name, entry in base.pruned.items() if entry != "masked"}
    unmasked = {name: tensor for name, tensor in tensors.items() if not (masked and name.endswith(MASK))}
    model = _made(trained, base.model_copy(update={"pruned": sizes}), unmasked)
    masks, network = zero_smallest(model, wanted.ratio)
    return base.model_copy(update={"pruned": {**sizes, **masks}}), network


def _made(trained: Trained, section: ModelConfig, tensors: dict[str, Tensor]) -> nn.Module:
    model = zoo.build(section, len(trained.classes), trained.run.run.seed, load=False)
    restore(model, tensors)
    return model.eval()


def _accuracy(
    trained: Trained,
    models: dict[str, nn.Module],
    task: Any,
    wanted: Wanted,
    facts: dict[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """`before` and `after` with their accuracy; without, where the data is not there, which is told."""
    try:
        progress("opening the data")
        found = pictures(trained, split=None, data=wanted.data, most=wanted.images or 2**62, say=say)
        with threads_set(wanted.threads):
            scores = accuracies(models, task, found)
    except (DataError, ConfigError) as error:
        if wanted.data is not None:
            raise
        say(f"accuracy is not measured: {error}")
        return {"images": 0, "data": None}
    both = {name: {**facts[name], trained.reading.score: value} for name, value in scores.items()}
    return {**both, "images": len(found), "data": found.told}
