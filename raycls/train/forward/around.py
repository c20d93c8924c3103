"""How the forward pass of a training runs, besides what the network is: what `train` says about memory and speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from raycls.config.sections.train import TrainConfig
from raycls.errors import RayclsError, TrainError
from raycls.models.zoo import not_trainable
from raycls.quantities import bytes_text, plural
from raycls.train.forward import batch_norm, compiled, recompute
from raycls.train.forward.narrow import widened
from raycls.train.forward.saved import Part, saved

__all__ = ["Around", "around", "check"]

Example = tuple[Tensor, ...]
"""What the network is called with for one sample."""


def check(train: TrainConfig, model: nn.Module, ready: Callable[[], object], example: Example) -> None:
    """ModelError where `model`, on the CPU and as `ready` sets it, cannot be trained as `train` says."""
    if train.batch_norm == "sync":
        batch_norm.refuse_without_norms(model)
    if train.activation_checkpointing == "off":
        return
    ready()
    try:
        parts, _ = _chosen(model, example)
        recompute.check(model, parts, example)
    except RayclsError:
        raise
    except (Exception, SystemExit) as error:  # whatever a plug-in raises
        raise not_trainable(error, example) from error


class Around:
    """What is asked of it while the network is trained."""

    def __init__(self, train: TrainConfig) -> None:
        self._compiles = train.compile != "off"
        self._seconds = compiled.seconds() if self._compiles else 0.0

    def compiled(self) -> float:
        """Seconds that were spent on compiling since the last call."""
        if not self._compiles:
            return 0.0
        before, self._seconds = self._seconds, compiled.seconds()
        return self._seconds - before


@contextmanager
def around(
    train: TrainConfig,
    model: nn.Module,
    *,
    device: torch.device,
    world: int,
    micro_batches: int,
    threads: int,
    ready: Callable[[], object],
    example: Callable[[], Example],
    together: Callable[[Callable[[], object]], object],
    say: Callable[[str], None],
) -> Iterator[Around]:
    """`model` computes as `train` says in the block; what is told about it goes to `say`.

    Copies of it, such as a moving average, are made before. `ready` sets the modes of training, `together` calls a
    function on every rank and raises on all where one raises.
    """
    if train.compile != "off":
        together(lambda: compiled.refuse_missing_compiler(device))
        say("compiling the network with torch.compile: the first step with each size of a micro-batch takes longer")
        with widened(model, device), compiled.compiled(model, threads):
            yield Around(train)
        return
    with ExitStack() as stack:
        stack.enter_context(widened(model, device))  # first: other parts run it, again too
        parts: tuple[Part, ...] = ()
        if train.activation_checkpointing != "off":
            ready()
            parts, text = _chosen(model, example())
            say(text)
        if train.batch_norm == "sync":
            if world != micro_batches:
                raise TrainError(
                    "train.batch_norm: sync needs a worker for each micro-batch",
                    where="scale.workers",
                    found=f"{world} workers, {micro_batches} micro-batches",
                )
            stack.enter_context(batch_norm.synchronised(model, world))
        if parts:  # around the norms: what runs again in the backward pass is synchronised there too
            stack.enter_context(recompute.recomputed(model, parts))
        yield Around(train)


def _chosen(model: nn.Module, example: Example) -> tuple[tuple[Part, ...], str]:
    """What runs again, and a line about it."""
    found = saved(model, example, 2)
    parts = recompute.choose(model, found)
    if not parts:
        return (), "activation checkpointing: no part of this network saves memory by running again"
    before, after = found.memory(()), found.memory(parts)
    return parts, (
        f"activation checkpointing: {plural(len(parts), 'part')} of the network {'runs' if len(parts) == 1 else 'run'} "
        f"again in the backward pass; {bytes_text(after.most // 2)} of activations per image instead of "
        f"{bytes_text(before.most // 2)}"
    )
