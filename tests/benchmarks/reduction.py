"""The reduction `exact` against `fast`, per step, on gloo ranks with one thread each.

Every rank holds two copies of the network, one under each reduction, and trains them in turns: a step of one, a step
of the other, the order changing from pair to pair, with a barrier before each. A step is what the loop does: zero the
gradients, micro-batches forward and backward, reduce, the gradient's norm, update. The time of a step is that of the
slowest rank; its CPU-seconds are those of all ranks, the communication threads included.

    python tests/benchmarks/reduction.py --model tiny_cnn resnet18_cifar --micro-batches 2 4
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

from raycls.config.sections.data import AugmentConfig
from raycls.config.sections.task import LossConfig
from raycls.data.order import Order, key
from raycls.data.slices import micro_rows
from raycls.models.networks.resnet_cifar import resnet18_cifar
from raycls.models.networks.tiny import tiny_cnn
from raycls.randomness import seed_all
from raycls.tasks.base import Setting
from raycls.tasks.classification import Classification
from raycls.train.optimizers.clipping import gradient_norm
from raycls.train.precision import arithmetic
from raycls.train.reduction import make_reduction

CPU = torch.device("cpu")
MANY_PIXELS = 50_000_000
WARM_UP = 3
NAMES = ("exact", "fast")


@dataclass(frozen=True)
class Case:
    """One comparison. `batch` is the global batch, `size` the height and width of an image in pixels."""

    model: str
    batch: int
    micro_batches: int
    size: int
    width: int
    pairs: int

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        model = tiny_cnn(10, width=self.width) if self.model == "tiny_cnn" else resnet18_cifar(10)
        return model.to(memory_format=torch.channels_last)


class Training:
    """A network, its optimizer and one reduction, on one rank."""

    def __init__(self, name: str, case: Case, rank: int, world: int) -> None:
        self.name, self.rank, self.world = name, rank, world
        self.model = case.build().train()
        self.order = Order(0, case.batch * 8, case.batch, case.micro_batches)
        size = (case.size, case.size)
        example = (torch.zeros(1, 3, *size),)
        self.reduction = make_reduction(
            name, self.model, self.order, rank=rank, world=world, device=CPU, sums=2, example=example
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, foreach=True)
        self.parameters = list(self.model.parameters())
        mean = (0.485, 0.456, 0.406)
        augment = AugmentConfig(mean=mean, std=(0.23, 0.22, 0.23))
        names = tuple(map(str, range(10)))
        self.task = Classification(Setting(0, names, case.size, MANY_PIXELS, augment, LossConfig(), True, CPU))
        rows = len(self.order.slice_ids(0, rank, world))
        random = np.random.RandomState(rank)
        self.image = random.randint(0, 256, (rows, *size, 3), dtype=np.uint8)
        self.label = random.randint(0, 10, rows)

    def step(self, step: int) -> tuple[float, float]:
        """(wall, CPU) seconds of one step on this rank."""
        dist.barrier()
        began, cpu = time.perf_counter(), time.process_time()
        torch.use_deterministic_algorithms(self.name == "exact")
        rows, parts = self.order.rows(step), micro_rows(self.order, step, self.rank, self.world)
        self.reduction.begin(step)
        for micro, start, stop in parts:
            with self.reduction.micro_batch(micro, stop - start):
                seed_all(key(0, step, micro) >> 1)
                arrays = {"image": self.image[start:stop], "label": self.label[start:stop]}
                sums = self.task.loss(self.reduction.model, self.task.batch(arrays, train=True))
                (sums["loss"] * (self.reduction.factor / rows)).backward()
            self.reduction.add(micro, [sums[name] for name in self.task.sums])
        self.reduction.finish().tolist()
        gradient_norm(self.parameters, float("inf"))
        self.reduction.keep_buffers(True)
        self.optimizer.step()
        return time.perf_counter() - began, time.process_time() - cpu


def rank_main(rank: int, world: int, case: Case, folder: str) -> None:
    """Write the steps of one rank to `folder`: one object per pair, by the name of the reduction."""
    warnings.simplefilter("ignore")
    found: list[dict[str, tuple[float, float]]] = []
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    with arithmetic(threads=1, strict=True):
        trainings = [Training(name, case, rank, world) for name in NAMES]
        for turn in range(WARM_UP + case.pairs):
            ordered = trainings if turn % 2 == 0 else trainings[::-1]
            found.append({training.name: training.step(turn) for training in ordered})
    Path(folder, f"rank-{rank}.json").write_text(json.dumps(found[WARM_UP:]))
    dist.barrier()
    dist.destroy_process_group()


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    result = {**measure.begin("reduction"), "ranks": options.ranks, "cases": []}
    measure.say(f"{options.ranks} gloo ranks with 1 thread each, amp off")
    for model, batch in zip(options.model, options.batch, strict=True):
        for micro_batches in options.micro_batches:
            case = Case(model, batch, micro_batches, options.size, options.width, options.pairs)
            found = _compare(case, options.ranks)
            result["cases"].append(found)
            measure.say(
                f"{model} at {options.size}x{options.size}, batch {batch}, micro-batches {micro_batches}: fast "
                f"{found['fast_cpu_ms_per_step']:.0f} ms of CPU per step over all ranks; exact against it: CPU "
                f"{measure.spread(found['cpu_exact_against_fast'])}, wall "
                f"{measure.spread(found['wall_exact_against_fast'])}"
            )
    return measure.finish(result, options.json)


def _options(argv: Sequence[str] | None) -> Any:
    parser = measure.arguments(__doc__.split("\n")[0])
    parser.add_argument("--model", nargs="+", default=["tiny_cnn", "resnet18_cifar"])
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 64], help="global batch, one for each model")
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--width", type=int, default=64, help="of tiny_cnn")
    parser.add_argument("--size", type=int, default=32, help="pixels, height and width")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=30)
    options = parser.parse_args(argv)
    if options.quick:
        options.model, options.batch, options.micro_batches = ["tiny_cnn"], [8], [2]
        options.width, options.size, options.pairs = 8, 8, 2
    return options


def _compare(case: Case, world: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(rank_main, (world, case, folder), nprocs=world)
        ranks = [json.loads(Path(folder, f"rank-{rank}.json").read_text()) for rank in range(world)]
    wall: list[tuple[float, float]] = []
    cpu: list[tuple[float, float]] = []
    for pair in zip(*ranks, strict=True):
        exact, fast = ([rank[name] for rank in pair] for name in NAMES)
        wall.append((max(time[0] for time in exact), max(time[0] for time in fast)))
        cpu.append((sum(time[1] for time in exact), sum(time[1] for time in fast)))
    return {
        "model": case.model,
        "batch": case.batch,
        "micro_batches": case.micro_batches,
        "fast_cpu_ms_per_step": round(1000 * statistics.median(pair[1] for pair in cpu), 2),
        "fast_wall_ms_per_step": round(1000 * statistics.median(pair[1] for pair in wall), 2),
        "wall_exact_against_fast": measure.ratios(wall),
        "cpu_exact_against_fast": measure.ratios(cpu),
    }


if __name__ == "__main__":
    main()
