"""Fine-tuning: which parameters of a network are trained when, and at which part of the learning rate.

All of it follows from the config and the step, so that a resumed run is the same run. A parameter that is frozen at a
step has no gradient there: neither decay nor momentum reaches it, and the gradient's norm leaves it out. What is
trained at some time is in the optimizer all the time, so that the layout of its state and of the reduction is fixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import inf

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from raycls.config.sections.finetune import FinetuneConfig
from raycls.config.write import override
from raycls.errors import ConfigError
from raycls.models.layers import layers
from raycls.models.surgery import Rate, find_head

__all__ = ["Stages", "check_factors", "finetuned", "fitting"]


class Stages:
    """Called with a step (from 0), puts the network into the form in which that step trains it."""

    def __init__(self, model: nn.Module, rates: dict[str, Rate], starts: Mapping[str, float], norm: str) -> None:
        """`starts`: the step from which each parameter is trained, by name; infinite where it never is."""
        self.rates = rates
        self._model = model
        named = dict(model.named_parameters())
        for name, start in starts.items():
            named[name].requires_grad_(start < inf)
        self._later = [(named[name], start) for name, start in starts.items() if 0 < start < inf]
        self._norms = [
            (module, start)
            for module, start in _norms(model, {id(named[name]): start for name, start in starts.items()}, norm)
            if start > 0
        ]

    def __call__(self, step: int) -> None:
        self._model.train()
        for parameter, start in self._later:
            parameter.requires_grad_(step >= start)
        for module, start in self._norms:
            module.train(step >= start)


def finetuned(
    config: FinetuneConfig, model: nn.Module, num_classes: int, steps_per_epoch: int, total_steps: int
) -> Stages:
    """What `config` makes of `model` in a run of that length. What is never trained needs no gradient from now on.

    ConfigError where a pattern fits nothing, a stage begins after the end, or nothing is trained at first.
    """
    starts = dict.fromkeys((name for name, _ in model.named_parameters()), 0.0)
    if isinstance(config.freeze, int):
        starts |= dict.fromkeys(_first(model, config.freeze), inf)
    else:
        starts |= dict.fromkeys(_named(config.freeze or _rest(config), model, num_classes, "freeze"), inf)
    for time, patterns in config.stages:
        step = time.steps(steps_per_epoch, total_steps)
        if step >= total_steps:
            raise ConfigError(
                "a part of the network would be trained from the end of the run on",
                where="finetune.unfreeze",
                found=f"{time}: {', '.join(patterns)} (step {step} of {total_steps})",
                valid=f"durations below {total_steps} steps",
                fix="train longer, unfreeze it earlier, or leave it out",
            )
        for name in _named(patterns, model, num_classes, "unfreeze"):
            starts[name] = min(starts[name], step)
    first = min(starts.values(), default=0)
    if first > 0:
        raise ConfigError(
            "nothing is trained" + (f" before step {first:g}" if first < inf else ": all of the network is frozen"),
            where="finetune.freeze, finetune.unfreeze",
            found=f"{len(starts)} parameters, all frozen at step 0",
            fix=f"train the head from the start on: {override('finetune.unfreeze', {'0ep': 'head'})}",
        )
    return Stages(model, _rates(config, model, num_classes), starts, config.frozen_norm)


def fitting(pattern: str, model: nn.Module, num_classes: int, option: str) -> list[str]:
    """Names of the parameters that `pattern` means: a path with all inside, a pattern of paths, `head` or `all`.

    ConfigError, at `finetune.{option}`, where it means none.
    """
    names = [name for name, _ in model.named_parameters()]
    head = find_head(model, num_classes) if pattern == "head" else None
    if pattern == "all":
        return names
    if head is not None:
        found = [name for name in names if name.startswith(f"{head}." if head else "")]
    else:
        found = [name for name in names if any(fnmatchcase(path, pattern) for path in _paths(name))]
    if not found:
        children = [name for name, child in model.named_children() if any(True for _ in child.parameters())]
        raise ConfigError(
            "no parameter of the network is meant by a part that is named",
            where=f"finetune.{option}",
            found=pattern,
            valid=", ".join(["head", "all", *children]) + ", or what is inside of these",
        )
    return found


def check_factors(name: str, model: nn.Module, made: Optimizer, rates: Mapping[str, Rate]) -> None:
    """ConfigError where an optimizer dropped the factors of its groups: all would be trained at the whole rate."""
    factors = {id(value): group.get("lr_factor") for group in made.param_groups for value in group["params"]}
    lost = [key for key, value in model.named_parameters() if factors.get(id(value), 1.0) is None]
    if rates and lost:
        raise ConfigError(
            "the optimizer does not keep `lr_factor` of its groups, so finetune cannot set their rates",
            where="optim.name, finetune",
            found=f"{name}: a group with {lost[0]} has none",
            fix="hand the groups on whole, or set neither finetune.lr_scale nor finetune.layer_decay",
        )


def _rest(config: FinetuneConfig) -> tuple[str, ...]:
    """What is frozen where `freeze` does not say it."""
    return ("all",) if config.unfreeze else ()


def _named(patterns: Iterable[str], model: nn.Module, num_classes: int, option: str) -> list[str]:
    return [name for pattern in patterns for name in fitting(pattern, model, num_classes, option)]


def _paths(name: str) -> Sequence[str]:
    """`a`, `a.b` and `a.b.c` of `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _first(model: nn.Module, count: int) -> list[str]:
    found = layers(model)
    if count >= len(found):
        raise ConfigError(
            "nothing would be trained: all layers of the network are frozen",
            where="finetune.freeze",
            found=f"{count} of {len(found)} layers",
            valid=f"1 to {len(found) - 1}",
        )
    return [name for layer in found[:count] for name in layer.parameters]


def _rates(config: FinetuneConfig, model: nn.Module, num_classes: int) -> dict[str, Rate]:
    """The rate of each parameter by name; empty where all have the whole one."""
    decay, scales = config.layer_decay, config.lr_scale
    if isinstance(decay, str) and not scales:
        return {}
    found = {name: Rate(1.0, (0, "")) for name, _ in model.named_parameters()}
    for name, pattern in _deciding(scales, model, num_classes).items():
        found[name] = Rate(scales[pattern], (0, pattern))
    if not isinstance(decay, str):
        blocks = layers(model)
        for depth, layer in enumerate(blocks):
            below = decay ** (len(blocks) - 1 - depth)
            for name in layer.parameters:
                found[name] = Rate(found[name].factor * below, (depth, found[name].group[1]))
    return found


def _deciding(scales: Mapping[str, float], model: nn.Module, num_classes: int) -> dict[str, str]:
    """The pattern that decides for each parameter: of those that fit it, the one that fits the fewest."""
    found: dict[str, str] = {}
    fits = {pattern: fitting(pattern, model, num_classes, "lr_scale") for pattern in scales}
    for pattern in sorted(fits, key=lambda each: (-len(fits[each]), each)):
        for name in fits[pattern]:
            other = found.get(name, pattern)
            if len(fits[other]) == len(fits[pattern]) and scales[other] != scales[pattern]:
                raise ConfigError(
                    "two patterns fit a parameter, each as many others, with different factors",
                    where="finetune.lr_scale",
                    found=f"{other}: {scales[other]:g} and {pattern}: {scales[pattern]:g} fit {name}",
                    fix="leave one of them out",
                )
            found[name] = pattern
    return found


def _norms(model: nn.Module, starts: Mapping[int, float], which: str) -> list[tuple[nn.Module, float]]:
    """The layers with running statistics, and the step from which each computes with those of the batch.

    One without parameters of its own goes with the module around it.
    """
    if which == "off":
        return []
    found: list[tuple[nn.Module, float]] = []
    for path, module in model.named_modules():
        if not isinstance(module, _NormBase) or not module.track_running_stats:
            continue
        around, place = module, path
        while place and not any(True for _ in around.parameters()):
            place = place.rpartition(".")[0]
            around = model.get_submodule(place)
        trained = min((starts[id(value)] for value in around.parameters()), default=0)
        found.append((module, inf if which == "all" else trained))
    return found
