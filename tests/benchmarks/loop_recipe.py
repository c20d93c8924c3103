"""raycls's training loop with moving average, clipping and MixUp on, against the same in Lightning's loop and with
timm's utilities, per step.

Network, batches and normalisation are those of `loop.py`. raycls has `optim.ema`, `optim.clip_norm` and
`augment.batch: [mixup]`; `lightning` is `Trainer.fit` with `gradient_clip_val`, `EMAWeightAveraging` and torchvision's
`MixUp`; `timm` is a bare loop with `Mixup`, `ModelEmaV3`, `dispatch_clip_grad` and `SoftTargetCrossEntropy`, without
the rest of `train.py`; `bare` is the loop of `loop.py` with none of the three. Each is a process of its own, since
raycls changes how its process keeps memory (`raycls/allocator.py`), and they make their steps in turn: a pair is a step
of raycls's and the one that the other made after it. They need `uv pip install timm lightning`.

    python tests/benchmarks/loop_recipe.py --peer lightning timm --batch 64 128
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import loop
import measure
import torch
from torch import Tensor, nn

from raycls.allocator import keep_freed_memory
from raycls.config.sections.data import AugmentConfig
from raycls.config.sections.optim import OptimConfig
from raycls.tasks.classification import Classification
from raycls.train.state import moving_average

DECAY, CLIP, ALPHA, CLASSES = 0.999, 1.0, 0.2, 10

Turn = Callable[[], None]
"""Called between two steps; returns when the next step is wanted."""


class EndedError(Exception):
    """No further step is wanted."""


def bare(model: nn.Module, batches: loop.Batches, turn: Turn) -> None:
    """The bare loop, with nothing on."""
    plain = loop.Bare(model, batches)
    while True:
        turn()
        plain.step_once()


def timm(model: nn.Module, batches: loop.Batches, turn: Turn) -> None:
    """The bare loop with timm's parts."""
    from timm.data.mixup import Mixup
    from timm.loss.cross_entropy import SoftTargetCrossEntropy
    from timm.utils.clip_grad import dispatch_clip_grad
    from timm.utils.model_ema import ModelEmaV3

    plain = loop.Bare(model, batches)
    mixup = Mixup(mixup_alpha=ALPHA, label_smoothing=0.0, num_classes=CLASSES)
    criterion, average = SoftTargetCrossEntropy(), ModelEmaV3(model, decay=DECAY)
    for step in itertools.count(1):
        turn()
        images, targets = mixup(*plain.batch())
        criterion(model(images), targets).backward()
        dispatch_clip_grad(model.parameters(), value=CLIP, mode="norm")
        plain.optimizer.step()
        plain.optimizer.zero_grad()
        average.update(model, step=step)


def lightning(model: nn.Module, batches: loop.Batches, turn: Turn) -> None:
    """`Trainer.fit`, whose loader waits for its turn."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import EMAWeightAveraging
    from torchvision.transforms.v2 import MixUp

    plain = loop.Bare(model, batches)

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.mixup, self.loss = model, MixUp(alpha=ALPHA, num_classes=CLASSES), nn.CrossEntropyLoss()

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            images, targets = self.mixup(*batch)
            loss = self.loss(self.network(images), targets)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return plain.optimizer

    class Loader:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            while True:
                turn()
                yield plain.batch()

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # that a loader has no workers, and other advice
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=CLIP,
        callbacks=[EMAWeightAveraging(decay=DECAY)],
    )
    trainer.fit(Module(), Loader())


class Ours(loop.Ours):
    """raycls's with the same options on."""

    clip = OptimConfig(clip_norm=CLIP)

    def __init__(self, model: nn.Module, *args: Any) -> None:
        super().__init__(model, *args)
        augment = AugmentConfig(mean=loop.MEAN, std=loop.STD, batch=({"mixup": {"alpha": ALPHA}},))
        self.task = Classification(replace(self.task.setting, augment=augment))
        self.state.ema = moving_average(self.state.model, DECAY, "off")


def raycls(model: nn.Module, batches: loop.Batches, turn: Turn) -> None:
    """What a training worker does: `session/setup.py`."""
    keep_freed_memory()
    Ours(model, batches, 1, turn, loop.MANY).run()


LOOPS = {"raycls": raycls, "lightning": lightning, "timm": timm, "bare": bare}


def process(name: str, rows: int, options: Any, orders: Connection) -> None:
    """Make a step whenever the other end asks for one, and answer with its (wall, CPU) seconds."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    begun: tuple[float, float] | None = None

    def turn() -> None:
        nonlocal begun
        ended = time.perf_counter(), time.process_time()
        if begun is not None:
            orders.send((ended[0] - begun[0], ended[1] - begun[1]))
        if not orders.recv():
            raise EndedError
        begun = time.perf_counter(), time.process_time()

    model = loop.tiny_cnn(CLASSES, width=options.width)
    try:
        LOOPS[name](model, loop.Batches.random(8, rows, options.size), turn)
    except EndedError:
        orders.close()


class Running:
    """A loop in its process."""

    def __init__(self, name: str, rows: int, options: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.orders, theirs = context.Pipe()
        self.process = context.Process(target=process, args=(name, rows, options, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def step(self) -> tuple[float, float]:
        self.orders.send(True)
        return self.orders.recv()

    def end(self) -> None:
        self.orders.send(False)
        self.process.join(60)


def compare(peer: str, rows: int, options: Any) -> dict[str, Any]:
    """Steps of both loops in turn, and the ratios of raycls's to theirs."""
    ours, theirs = Running("raycls", rows, options), Running(peer, rows, options)
    pairs = [(ours.step(), theirs.step()) for _ in range(loop.WARM_UP + options.steps)][loop.WARM_UP :]
    ours.end()
    theirs.end()
    return {
        "peer": peer,
        "batch": rows,
        "peer_ms_per_step": round(1000 * statistics.median(other[1] for _, other in pairs), 3),
        "wall_against_peer": measure.ratios([(own[0], other[0]) for own, other in pairs]),
        "cpu_against_peer": measure.ratios([(own[1], other[1]) for own, other in pairs]),
        "cpu_in_all": round(sum(own[1] for own, _ in pairs) / sum(other[1] for _, other in pairs), 3),
    }


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = loop.parser(__doc__ or "")
    parser.add_argument("--peer", nargs="+", choices=[*LOOPS][1:], default=["lightning", "timm"])
    options = loop.parsed(parser, argv)
    result = {**measure.begin("loop_recipe"), "threads": options.threads, "cases": []}
    for peer in options.peer:
        for rows in options.batch:
            case = compare(peer, rows, options)
            result["cases"].append(case)
            measure.say(
                f"{peer}, batch {rows:4}: {case['peer_ms_per_step']:.1f} ms of CPU per step of theirs, "
                f"{options.threads} threads; raycls against it: CPU {measure.spread(case['cpu_against_peer'])}, "
                f"in all {case['cpu_in_all']}, wall {measure.spread(case['wall_against_peer'])}"
            )
    return measure.finish(result, options.json)


if __name__ == "__main__":
    main()
