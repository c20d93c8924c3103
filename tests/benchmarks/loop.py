"""raycls's training loop against a bare PyTorch loop, per step.

Both train the same network from the same weights on the same uint8 batches in memory, with the same normalisation,
in this process, with the same number of threads. The bare loop is: forward, cross entropy, backward, SGD step with
momentum, zero_grad. raycls's is `raycls.train.loop.train` with the exact reduction, everything switched on that a
run has on CPU: deterministic kernels, the gradient's norm, the running accuracy, the check for non-finite values.
The two alternate step by step: raycls's loop asks for its next batch, and before it gets one, the bare loop makes a
step. A pair is a step of raycls's and the mean of the bare steps before and after it.

    python tests/benchmarks/loop.py --batch 64 128 --micro-batches 1 4
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import measure
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from raycls.config.sections.data import AugmentConfig
from raycls.config.sections.optim import OptimConfig
from raycls.config.sections.task import LossConfig
from raycls.data.order import Order
from raycls.data.slices import Position, Slice
from raycls.data.stream import Stream
from raycls.models.networks.tiny import tiny_cnn
from raycls.tasks.base import Setting
from raycls.tasks.classification import Classification
from raycls.train.loop import train
from raycls.train.optim import EarlyStop
from raycls.train.optimizers.build import build_optimizer
from raycls.train.optimizers.clipping import build_clip
from raycls.train.plan import Plan
from raycls.train.precision import arithmetic
from raycls.train.ranks import Ranks
from raycls.train.recovery.non_finite import NonFinite
from raycls.train.reduction import make_reduction
from raycls.train.state import TrainState

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LR, MOMENTUM = 0.01, 0.9
MANY = 10**9
WARM_UP = 5


@dataclass(frozen=True)
class Batches:
    """Global batches in memory: `pixels` `[K, B, H, W, 3] uint8`, `labels` `[K, B] int64`."""

    pixels: np.ndarray
    labels: np.ndarray

    @classmethod
    def random(cls, count: int, rows: int, size: int) -> Batches:
        random = np.random.RandomState(0)
        pixels = random.randint(0, 256, (count, rows, size, size, 3), dtype=np.uint8)
        return cls(pixels, random.randint(0, 10, (count, rows)))

    def __len__(self) -> int:
        return len(self.labels)


class Bare:
    """What one would write without raycls."""

    def __init__(self, model: nn.Module, batches: Batches) -> None:
        self.model, self.batches, self.step = model.to(memory_format=torch.channels_last), batches, 0
        self.optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
        # (x / 255 - mean) / std as one multiplication and one addition, as in raycls: this compares loops, not that
        self.scale = (1 / (255 * torch.tensor(STD))).view(1, 3, 1, 1)
        self.shift = (-torch.tensor(MEAN) / torch.tensor(STD)).view(1, 3, 1, 1)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next batch, normalised: `[B, 3, H, W] float32`, `[B] int64`."""
        at = self.step % len(self.batches)
        images = torch.from_numpy(self.batches.pixels[at]).permute(0, 3, 1, 2)
        images = images.to(torch.float32, memory_format=torch.channels_last).mul_(self.scale).add_(self.shift)
        self.step += 1
        return images, torch.from_numpy(self.batches.labels[at])

    def step_once(self) -> None:
        images, labels = self.batch()
        loss = F.cross_entropy(self.model(images), labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class Ours:
    """`raycls.train.loop.train`, with `between` called before every step, outside of what is timed."""

    clip = OptimConfig()

    def __init__(
        self, model: nn.Module, batches: Batches, micro_batches: int, between: Callable[[], None], steps: int
    ) -> None:
        rows = batches.labels.shape[1]
        self.batches, self.between, self.steps = batches, between, steps
        self.plan = _EndlessPlan(0, MANY * rows, 10, rows, micro_batches, MANY, steps, 50, 0, 0, 1, 0, 0.0, 0.0)
        augment = AugmentConfig(mean=MEAN, std=STD)
        names = tuple(map(str, range(10)))
        self.task = Classification(Setting(0, names, 32, 50_000_000, augment, LossConfig(), True, CPU))
        model = model.to(memory_format=torch.channels_last)
        self.state = TrainState(
            model=model,
            optimizer=build_optimizer(OptimConfig(lr=LR, args={"momentum": MOMENTUM}), model),
            ema=None,
            scaler=torch.amp.GradScaler("cpu", enabled=False),
            plateau=None,
            early_stop=EarlyStop("off", 0.0, "max"),
        )
        self.ranks = Ranks()
        self.order = _EndlessOrder(0, MANY, rows, micro_batches)
        size = batches.pixels.shape[2:4]
        example = (torch.zeros(1, 3, *size),)
        self.reduction = make_reduction(
            "exact", model, self.order, rank=0, world=1, device=CPU, sums=2, example=example
        )
        self.asked: list[tuple[float, float]] = []
        self.given: list[tuple[float, float]] = []

    def run(self) -> list[tuple[float, float]]:
        """(wall, CPU) seconds of each step: from one batch to the moment when the next one is asked for."""
        stream = Stream(self._slices(), self._positions())
        with arithmetic(threads=torch.get_num_threads(), strict=True):
            train(
                self.state,
                self.plan,
                self.task,
                stream,
                self.ranks,
                self.reduction,
                precision=nullcontext(),
                lr=lambda step: LR,
                clip=build_clip(self.clip, self.state.model),
                ready=lambda step: self.state.model.train(),
                non_finite=NonFinite(),
                seen=lambda step, batch, parts: None,
                log=lambda state, norm, waited: state.meter.take() and None,
                evaluate=lambda state: False,
                save=lambda state: None,
            )
        self.asked.append(_now())
        return [(b[0] - a[0], b[1] - a[1]) for a, b in zip(self.given, self.asked[1:], strict=True)]

    def _positions(self) -> Iterator[Position]:
        step = self.state.step
        while True:
            yield Position("train", 0, step, 0, 0)
            step += 1

    def _slices(self) -> Iterator[Slice]:
        for position in self._positions():
            self.asked.append(_now())
            torch.use_deterministic_algorithms(False)
            self.between()
            torch.use_deterministic_algorithms(True)
            at = position.step % len(self.batches)
            labels = self.batches.labels[at]
            made = Slice(position, np.arange(len(labels)), {"image": self.batches.pixels[at], "label": labels})
            self.given.append(_now())
            yield made


@dataclass(frozen=True)
class _EndlessOrder(Order):
    """One epoch that never ends: nothing is permuted, since the batches lie in memory."""

    def batch(self, step: int) -> np.ndarray:
        return np.arange(self.batch_size)

    def rows(self, step: int) -> int:
        return self.batch_size


@dataclass(frozen=True)
class _EndlessPlan(Plan):
    @property
    def order(self) -> Order:
        return _EndlessOrder(self.seed, MANY, self.batch_size, self.micro_batches)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = parsed(parser(__doc__ or ""), argv)
    torch.set_num_threads(options.threads)
    result = {**measure.begin("loop"), "threads": options.threads, "cases": []}
    measure.say(f"tiny_cnn width {options.width} at {options.size}x{options.size}, amp off")
    for rows in options.batch:
        for micro_batches in options.micro_batches:
            case = _compare(rows, micro_batches, options)
            result["cases"].append(case)
            measure.say(
                f"batch {rows:4}, micro-batches {micro_batches}: {case['bare_ms_per_step']:.1f} ms of CPU per bare "
                f"step on {options.threads} thread(s); raycls against it, over pairs of steps: CPU "
                f"{measure.spread(case['cpu_against_bare'])}, wall {measure.spread(case['wall_against_bare'])}"
            )
    return measure.finish(result, options.json)


def parser(about: str) -> argparse.ArgumentParser:
    """The options of a benchmark of loops."""
    parser = measure.arguments(about.split("\n")[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--width", type=int, default=64, help="of tiny_cnn")
    parser.add_argument("--size", type=int, default=32, help="pixels, height and width")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=150, help="measured steps of each loop, after 5 that are not")
    return parser


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> Any:
    """The options as they were given; `--quick` sets small sizes."""
    options = parser.parse_args(argv)
    if options.quick:
        options.batch, options.micro_batches, options.width, options.size = [8], [1, 2], 8, 8
        options.steps = 3
    return options


def _compare(rows: int, micro_batches: int, options: Any) -> dict[str, Any]:
    batches = Batches.random(8, rows, options.size)
    torch.manual_seed(0)
    model = tiny_cnn(10, width=options.width)
    other = tiny_cnn(10, width=options.width)
    other.load_state_dict(model.state_dict())
    bare, steps = Bare(model, batches), WARM_UP + options.steps
    bare_steps: list[tuple[float, float]] = []

    def bare_step() -> None:
        before = _now()
        bare.step_once()
        after = _now()
        bare_steps.append((after[0] - before[0], after[1] - before[1]))

    ours = Ours(other, batches, micro_batches, bare_step, steps).run()
    bare_step()
    wall, cpu = (
        [(ours[at][which], (bare_steps[at][which] + bare_steps[at + 1][which]) / 2) for at in range(WARM_UP, steps)]
        for which in (0, 1)
    )
    return {
        "batch": rows,
        "micro_batches": micro_batches,
        "bare_ms_per_step": round(1000 * statistics.median(pair[1] for pair in cpu), 3),
        "wall_against_bare": measure.ratios(wall),
        "cpu_against_bare": measure.ratios(cpu),
    }


def _now() -> tuple[float, float]:
    return time.perf_counter(), measure.this_thread()


if __name__ == "__main__":
    main()
