"""The network of a config: what it is made of, what it costs, and whether it suits the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raycls.config.sections.finetune import FinetuneConfig
from raycls.config.sections.run import Run
from raycls.config.write import override
from raycls.data.images.operations import build as build_augment
from raycls.data.images.planes import planes_of
from raycls.data.source import open_dataset
from raycls.errors import DataError
from raycls.models import zoo
from raycls.models.finetune import finetuned
from raycls.models.insight import Insight, insight
from raycls.session.data.unfit import first_sample
from raycls.session.prepare import plan_of
from raycls.session.setup import make_task
from raycls.train.forward.recompute import choose, part_name
from raycls.train.forward.saved import Memory, memory_of, saved
from raycls.train.plan import micro_batches_of

__all__ = ["Described", "describe"]

_STEPS_PER_EPOCH, _STEPS = 10**6, 10**10
"""Of a run that is longer than any: what it trains in the end is all that it ever trains."""
_SMALL, _DIVIDED = 64, 4
"""Pixels, and the stride of a stem, that together leave too little: He et al. 2016 (4.2) have no such stem there."""
_USUAL = 224


@dataclass(frozen=True)
class Described:
    """`rows`: images of a micro-batch, which a forward pass holds at once.

    `image_bytes` and `batch_bytes` are what it keeps for the backward pass. `checkpointed` is what a micro-batch needs
    where the parts `again` run again there (`train.activation_checkpointing`).
    """

    insight: Insight
    classes: int
    input: tuple[tuple[int, ...], ...]
    rows: int
    image_bytes: int
    batch_bytes: int
    checkpointed: Memory
    again: tuple[str, ...]
    problem: str
    """Why the network does not suit images of this size, and what can be typed against it; both may be empty."""
    fix: str


def describe(run: Run, classes: int | None) -> Described:
    """Build the network of `run`, without weights, and look at it.

    What its task puts around it, such as a projection, is left out. With `classes` no data is opened, and the images
    are of the size that the operations of training make of one with `data.image_size`. ConfigError, DataError and
    ModelError as at the start of a run.
    """
    if classes is None:
        dataset = open_dataset(run.data)
        count = len(dataset.classes)
        task = make_task(run, dataset.classes, torch.device("cpu"))
        example = task.example(first_sample(run, dataset, plan_of(run, dataset)))
        model = zoo.build(run.model, count, run.run.seed, load=False)
        whole = task.network(model)
    else:
        count, example = classes, (torch.zeros(1, run.model.in_channels, *_size(run, train=True)),)
        whole = model = zoo.build(run.model, count, run.run.seed, load=False)
    zoo.probe(model, example, None)
    stages = finetuned(run.finetune, whole, count, _STEPS_PER_EPOCH, _STEPS)
    stages(_STEPS - 1)
    rows = -(-run.data.batch_size // micro_batches_of(run.train, run.scale.max_workers))
    rows *= 1 if run.data.patch.size == "off" else run.data.patch.per_volume
    two, three = saved(model, example, 2), saved(model, example, 3)
    parts = choose(model, two)
    one, batch = three.memory(()).kept - two.memory(()).kept, memory_of(two, three, (), rows).kept
    found = insight(model, example)
    problem = _problem(found, example)
    return Described(
        found,
        count,
        tuple(tuple(part.shape[1:]) for part in example),
        rows,
        one,
        batch,
        memory_of(two, three, parts, rows),
        tuple(map(part_name, parts)),
        problem,
        _fix(run, min(example[0].shape[-2:])) if problem else "",
    )


def _size(run: Run, *, train: bool) -> tuple[int, int]:
    """Height and width that the operations make of an image, at the end of the run."""
    size, listed = run.data.image_size, run.augment.train if train else run.augment.eval
    planes, most = planes_of(run.data), run.data.max_pixels
    augment = build_augment(listed, train=train, image_size=size, max_pixels=most, planes=planes)
    pixels: np.ndarray = augment(planes.black(size, size), (run.run.seed, 0, 0))
    return pixels.shape[0], pixels.shape[1]


def _problem(found: Insight, example: tuple[Tensor, ...]) -> str:
    stem, last = found.stem, found.last
    if stem is None or last is None:
        return ""
    height, width = example[0].shape[-2:]
    said: list[str] = []
    if stem.stride >= _DIVIDED and min(height, width) < _SMALL:
        steps = ", ".join(
            f"{each.kernel}x{each.kernel} {each.kind} with stride {each.stride}" for each in found.windows
        )
        said.append(f"the stem ({steps}) leaves {stem.height}x{stem.width} of {height}x{width} pixels")
    if min(last.height, last.width) < 2:
        said.append(f"the last convolution leaves {last.height}x{last.width}")
    return "; ".join(said)


def _fix(run: Run, size: int) -> str:
    """Another network, or larger images, where that is one option."""
    ways: list[str] = []
    name = "resnet18_cifar" if size >= 16 else "tiny_cnn"
    if run.model.weights is None and run.finetune == FinetuneConfig() and run.model.name != name:
        ways.append(f"a network for small images, {override('model.name', name)}")
    larger = run.model_copy(update={"data": run.data.model_copy(update={"image_size": _USUAL})})
    try:
        sized = all(min(_size(larger, train=train)) >= _SMALL for train in (True, False))
    except DataError:  # an operation for images of one size
        sized = False
    if sized:
        ways.append(f"larger images, {override('data.image_size', _USUAL)}")
    else:
        ways.append("larger images, by a size in augment.train and augment.eval")
    return "; or ".join(ways)
