"""What each part of a network saves for the backward pass, measured; what it would be with parts that run again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from raycls.models.surgery import beside, buffers_kept
from raycls.randomness import seeded

__all__ = ["Memory", "Part", "Saved", "memory_of", "saved"]

Part = tuple[str, ...]
"""Paths of modules that run one after another: one, or neighbours of a row."""


@dataclass(frozen=True)
class Memory:
    """Bytes: what is kept when the forward pass ends, and the most that there is until the backward pass has ended."""

    kept: int
    most: int


@dataclass
class Saved:
    """Storages by a number each, in bytes; what every module called by its path saves and is given."""

    sizes: dict[int, int] = field(default_factory=dict[int, int])
    all: set[int] = field(default_factory=set[int])
    inside: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    """What is saved in its forward pass, by all that it calls."""
    given: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    events: list[tuple[int, tuple[str, ...]]] = field(default_factory=list[tuple[int, tuple[str, ...]]])
    """(storage, the modules that ran, from the outermost on) of each tensor that is saved."""
    began: dict[str, int] = field(default_factory=dict[str, int])
    """How many events there were when a module was first called."""
    overwritten: set[str] = field(default_factory=set[str])
    """Modules whose input does not hold what it held when they were called: they cannot run again."""

    def size(self, storages: Collection[int]) -> int:
        return sum(self.sizes[each] for each in storages)

    def of(self, part: Sequence[str]) -> int:
        """Bytes that a part saves, besides what it is given."""
        inside = set[int]().union(*(self.inside[path] for path in part))
        return self.size(inside - self.given[part[0]])

    def memory(self, parts: Sequence[Part]) -> Memory:
        """What a forward and a backward pass need where these `parts` keep their input alone and run again.

        While one does, there is what it saves, and what was kept before it: what came after it is used up.
        """
        again = {path for part in parts for path in part}
        waiting = sorted(parts, key=lambda part: -self.began[part[0]])
        kept, size, most = set[int](), 0, 0

        def keep(storages: Collection[int]) -> None:
            nonlocal size
            size += self.size(set(storages) - kept)
            kept.update(storages)

        for at in range(len(self.events) + 1):
            while waiting and self.began[waiting[-1][0]] <= at:
                part = waiting.pop()
                keep(self.given[part[0]])
                most = max(most, size + self.of(part))
            if at < len(self.events) and not again.intersection(self.events[at][1]):
                keep(self.events[at][:1])
        return Memory(size, max(size, most))


def saved(model: nn.Module, example: tuple[Tensor, ...], rows: int) -> Saved:
    """Measure a forward pass of `rows` times `example`, in the modes that `model` is in.

    Each storage counts once, those of parameters and buffers not at all. Buffers and generators stay as they are.
    """
    watch = _Watch(model)
    hooks = [
        hook
        for path, module in model.named_modules()
        if not isinstance(module, torch.jit.ScriptModule)
        for hook in watch.hooks(path, module)
    ]
    batch = beside(model, example, rows)
    saving = torch.autograd.graph.saved_tensors_hooks(watch.save, lambda kept: kept)
    try:
        with buffers_kept(model), seeded(0), torch.enable_grad(), saving:
            output = model(*batch)
            del output
    finally:
        for hook in hooks:
            hook.remove()
    return watch.found()


def memory_of(two: Saved, three: Saved, parts: Sequence[Part], rows: int) -> Memory:
    """Of a batch of `rows`, by what two and three images save: batch norm cannot be trained on one value per channel.

    What is saved per batch and not per image, such as its statistics, counts once.
    """
    less, more = two.memory(parts), three.memory(parts)
    kept, most = (
        below + (rows - 2) * (above - below) for below, above in ((less.kept, more.kept), (less.most, more.most))
    )
    return Memory(kept, most)


class _Watch:
    def __init__(self, model: nn.Module) -> None:
        self._own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        self._numbers: dict[int, int] = {}
        self._alive: list[torch.UntypedStorage] = []  # so that no address is used again
        self._running: list[str] = []
        self._saved = Saved()
        self._calls: list[tuple[str, Tensor, int]] = []

    def hooks(self, path: str, module: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        def enter(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
            self._running.append(path)
            self._saved.inside.setdefault(path, set())
            self._saved.began.setdefault(path, len(self._saved.events))
            given = self._saved.given.setdefault(path, set())
            for each in tree_leaves((args, kwargs)):
                if isinstance(each, Tensor):
                    self._calls.append((path, each, each._version))
                    if (number := self._number(each)) >= 0:
                        given.add(number)

        def leave(module: nn.Module, args: object, output: object) -> None:
            self._running.pop()

        return [
            module.register_forward_pre_hook(enter, with_kwargs=True),
            module.register_forward_hook(leave, always_call=True),
        ]

    def save(self, tensor: Tensor) -> Tensor:
        number = self._number(tensor)
        if number >= 0:
            self._saved.events.append((number, tuple(self._running)))
            self._saved.all.add(number)
            for path in self._running:
                self._saved.inside[path].add(number)
        return tensor

    def found(self) -> Saved:
        self._saved.overwritten |= {path for path, tensor, version in self._calls if tensor._version != version}
        return self._saved

    def _number(self, tensor: Tensor) -> int:
        """That of the storage; -1 where it is a parameter's or a buffer's."""
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address in self._own:
            return -1
        if address not in self._numbers:
            self._numbers[address] = len(self._alive)
            self._saved.sizes[len(self._alive)] = storage.nbytes()
            self._alive.append(storage)
        return self._numbers[address]
