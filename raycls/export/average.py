"""One network from several: the mean of the weights of checkpoints (SWA), or of runs (a soup), as a run of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from raycls.data.making.sample import collate
from raycls.data.order import permutation
from raycls.errors import ConfigError, DataError
from raycls.export.pictures import Pictures, pictures
from raycls.export.pruning.folder import Place, check_network, write
from raycls.models import zoo
from raycls.models.finetune import finetuned
from raycls.models.surgery import restore
from raycls.progress import progress
from raycls.randomness import seeded
from raycls.run import kept
from raycls.run.kept import Weights
from raycls.session.setup import make_task
from raycls.session.trained.trained import Trained
from raycls.tasks.base import Task

__all__ = ["Averaging", "average", "checkpoints_of", "mean_of"]


@dataclass(frozen=True)
class Averaging:
    """How batch normalisation gets its statistics, and from how many images of the training split, None: all."""

    batch_norm: Literal["recompute", "average"] = "recompute"
    images: int | None = None


def checkpoints_of(trained: Trained, wanted: str) -> list[Trained]:
    """The run with the weights of each of its checkpoints that `wanted` names: `last:N`, the newest N, or `all`.

    Those of an exponential moving average where the run has one. ConfigError where there are fewer than two.
    """
    steps, (kind, _, number) = trained.folder.steps(), wanted.partition(":")
    right = wanted == "all" or (kind == "last" and number.isdecimal() and int(number) >= 2)
    chosen = steps if wanted == "all" else steps[-int(number) :] if right else []
    if len(chosen) < 2 or (wanted != "all" and len(chosen) < int(number)):
        raise ConfigError(
            "there are not as many checkpoints to average" if right else "this names no checkpoints",
            where="--checkpoints",
            found=f"{wanted}; {trained.name} has " + (", ".join(f"step-{step}" for step in steps) or "none"),
            valid="all, or last:N for the newest N, 2 or more",
            fix="train with a larger checkpoint.keep, which says how many are kept" if right else None,
        )
    return [replace(trained, weights=Weights(f"step-{step}", step, checkpoint=True), sha256="") for step in chosen]


def average(
    sources: Sequence[Trained],
    place: Place,
    wanted: Averaging,
    *,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write the mean of the weights of `sources`, two or more, to `place`; what is in its `average.json`.

    Izmailov et al. 2018 (SWA), Wortsman et al. 2022 (model soups: uniform). The run is otherwise that of the last of
    them. ConfigError, and nothing written, where they are not of one network and one list of classes.
    """
    place.check()
    last = sources[-1]
    task = make_task(last.run, last.classes, torch.device("cpu"))
    check_network(last, task, place.kind)
    base = zoo.settled(last.run.model)
    progress("averaging")
    tensors = mean_of([(f"{each.name} {each.weights.name}", _tensors(each, last)) for each in sources])
    model = zoo.build(base, len(last.classes), last.run.run.seed, load=False)
    restore(model, tensors)
    normed = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    trained = _with_batch_statistics(model, normed, sources) if wanted.batch_norm == "recompute" else []
    count = 0
    if trained:
        found = _images(last, wanted, say)
        count = len(found)
        model.to(memory_format=task.layout)  # pyright: ignore[reportCallIssue]
        _recompute(model, trained, task, found, last.run.data.batch_size)
    facts: dict[str, Any] = {
        "from": [each.provenance for each in sources],
        "batch_norm": "recompute" if trained else "average" if normed else "none",
        "images": count,
    }
    write(last, place, base, {name: value.contiguous() for name, value in model.state_dict().items()}, facts)
    return facts


def mean_of(sources: Sequence[tuple[str, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """The mean of each tensor, added up in float64; integers and masks, which have none, are the last one's.

    ConfigError that names the source whose tensors have other names or shapes.
    """
    name, last = sources[-1]
    for other, tensors in sources:
        differ = [key for key in {**last, **tensors} if _shape(last, key) != _shape(tensors, key)]
        masks = [key for key, value in last.items() if value.dtype == torch.bool and key not in differ]
        differ += [key for key in masks if not torch.equal(tensors[key], last[key])]
        if differ:
            raise ConfigError(
                "these are weights of different networks, which have no mean",
                where="RUN",
                found=f"{differ[0]}: {_shape(tensors, differ[0])} in {other}, {_shape(last, differ[0])} in {name}",
                valid="weights with the same names, shapes and masks",
            )
    means = dict(last)
    for key, value in last.items():
        if value.is_floating_point():
            total = torch.stack([tensors[key].double() for _, tensors in sources]).sum(0)
            means[key] = (total / len(sources)).to(value.dtype)
    return means


def _shape(tensors: Mapping[str, Tensor], key: str) -> list[int] | None:
    return list(tensors[key].shape) if key in tensors else None


def _tensors(source: Trained, last: Trained) -> Mapping[str, Tensor]:
    if (source.classes, source.run.task) != (last.classes, last.run.task):
        raise ConfigError(
            "these runs have different classes or tasks, so their weights have no mean",
            where="RUN",
            found=f"{source.name} ({source.run.task.name}, {len(source.classes)} classes), "
            f"{last.name} ({last.run.task.name}, {len(last.classes)} classes)",
            valid="runs of one task on the same classes in the same order",
        )
    return kept.load(source.folder, source.weights)


def _with_batch_statistics(
    model: nn.Module, normed: Sequence[_BatchNorm], sources: Sequence[Trained]
) -> list[_BatchNorm]:
    """Those of `normed` that computed with the statistics of the batch in the last step of any source.

    The others have been frozen by fine-tuning: what follows them was trained with the statistics that they keep.
    """
    found: set[_BatchNorm] = set()
    for source in sources:
        plan, step = source.plan, source.weights.step
        stages = finetuned(source.run.finetune, model, plan.classes, plan.steps_per_epoch, plan.total_steps)
        stages((plan.total_steps if step is None else step) - 1)
        found |= {module for module in normed if module.training}
    return [module for module in normed if module in found]


def _images(trained: Trained, wanted: Averaging, say: Callable[[str], None]) -> Pictures:
    progress("opening the data")
    try:
        return pictures(trained, split="train", data=None, most=wanted.images or 2**62, say=say)
    except DataError as error:
        before = f"{error.fix}; or " if error.fix else ""
        error.fix = f"{before}average the statistics too: --batch-norm=average"
        raise


def _recompute(model: nn.Module, normed: Sequence[_BatchNorm], task: Task, found: Pictures, batch_size: int) -> None:
    """The statistics of batch normalisation as the mean over batches of `found`, as an evaluation makes them.

    As torch's `update_bn` over a permutation of the images that is always the same one, but a last batch smaller than
    the others is left out where there are others.
    """
    momenta = [module.momentum for module in normed]
    model.eval()
    for module in normed:
        module.reset_running_stats()
        module.momentum = None  # the mean over all batches
        module.train()
    size = min(batch_size, len(found))
    order = permutation(len(found), 0)  # they are often sorted by class, and no batch of one class has the variances
    with torch.no_grad(), seeded(0):
        for start in range(0, len(found) - size + 1, size):
            progress("recomputing batch-norm statistics", start, len(found), "images")
            samples = [found.sample(int(row)) for row in order[start : start + size]]
            task.rows(model, task.batch(collate(samples, lambda row: f"row {row}"), train=False))
    model.eval()
    for module, momentum in zip(normed, momenta, strict=True):
        module.momentum = momentum
