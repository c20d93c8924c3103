"""How the gradients of micro-batches become the gradient of the global batch.

`Exact` gives the same bits for any number of workers. Each micro-batch's gradient is a leaf of a binary tree
over the micro-batch index, and the additions are those of the tree whoever makes them: a rank adds up the
sub-trees whose leaves it owns, the ranks exchange their partial sums in shards (all-to-all), each finishes the
tree for its shard, and an all-gather puts the shards together: the bytes of a ring all-reduce. The aim is that of
EasyScale (Li et al., SC '23), accuracy that does not depend on the number of workers.

`Fast` is DistributedDataParallel: the same world size gives the same bits.

Under both, a parameter that took part in no forward pass of a step has no gradient, as in one process; one that
took part in some counts as zero in the others.

Buffers (batch-norm statistics) follow the same rule under `Exact`: each micro-batch starts from the step's
buffers, and what it changes is a leaf; the step's new buffers are the old ones plus the mean change. Integer
buffers count steps, not micro-batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raycls.data.order import Order
from raycls.models.surgery import modes_kept
from raycls.train.tree import Node, subtrees, tree_sum

__all__ = ["Divisible", "Exact", "Fast", "Part", "Reduction", "Totals", "make_reduction"]

Part = tuple[int, int, int]
"""(micro-batch, start, stop): what a rank computes of it, see `micro_rows`."""

Totals = Tensor
"""`[S]`: the sums of the task over the global batch, in its order."""


class Reduction(Protocol):
    """What the loop asks of a reduction. `model` is what the forward pass calls."""

    model: nn.Module
    factor: float
    """The loss of a micro-batch is multiplied by this before its backward pass."""

    def begin(self, step: int, holes: tuple[int, ...] = ()) -> None:
        """`holes`: rows of the global batch of `step` that are left out, see `Order`."""
        ...

    def passes(self, parts: Sequence[Part]) -> Iterable[Part]:
        """What the loop computes one by one before `finish`: `parts`, once here."""
        return parts

    def micro_batch(self, index: int, rows: int) -> AbstractContextManager[None]: ...
    def add(self, index: int, sums: Sequence[Tensor] | None) -> None: ...
    def finish(self) -> Totals: ...
    def keep_buffers(self, keep: bool) -> None: ...


class Divisible(Reduction, Protocol):
    """A reduction whose micro-batches may become others."""

    order: Order

    def divide(self, order: Order) -> None:
        """From the next `begin` on the micro-batches are those of `order`, in which every sample keeps its worker."""


def make_reduction(
    name: str,
    model: nn.Module,
    order: Order,
    *,
    rank: int,
    world: int,
    device: torch.device,
    sums: int,
    example: tuple[Tensor, ...],
) -> Divisible:
    """`exact` or `fast`, for this rank and `sums` numbers of the task. `example`: `fast` calls the model with it."""
    if name == "exact":
        return Exact(model, order, rank, world, device, sums)
    return Fast(model, order, rank, world, device, sums, example)


class _Flat:
    """One contiguous vector for gradients, float buffers, the totals, and a count per parameter.

    There are views shaped like each. They have the parameters' strides, so that copying into them is a copy of
    memory. A count says in how many micro-batches the parameter got a gradient.
    """

    def __init__(
        self, like: list[Tensor], sums: int, parameters: int, padded: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.data = torch.zeros(padded, dtype=dtype, device=device)
        self.views: list[Tensor] = []
        start = 0
        for tensor in like:
            part = self.data[start : start + tensor.numel()]
            self.views.append(part.as_strided(tensor.size(), _dense_strides(tensor), part.storage_offset()))
            start += tensor.numel()
        self.totals = self.data[start : start + sums]
        self.uses = self.data[start + sums : start + sums + parameters]


class Exact(Divisible):
    """The tree reduction. See the module's docstring."""

    factor = 1.0

    def __init__(self, model: nn.Module, order: Order, rank: int, world: int, device: torch.device, sums: int) -> None:
        self.model = model
        self._rank, self._world, self._device = rank, world, device
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        buffers = list(model.buffers())
        self._floats = [buffer for buffer in buffers if buffer.is_floating_point()]
        self._counters = [buffer for buffer in buffers if not buffer.is_floating_point()]
        self._like = [*self._parameters, *self._floats]
        self._sums = sums
        size = sum(tensor.numel() for tensor in self._like) + sums + len(self._parameters)
        self._dtype = torch.float32
        for tensor in self._like:
            self._dtype = torch.promote_types(self._dtype, tensor.dtype)
        self._shard = -(-size // world)
        self.divide(order)
        self._step, self._there = 0, order
        self._float_start: list[Tensor] = []
        self._counter_start: list[Tensor] = []
        self._counter_after: list[Tensor] | None = None
        self._totals = torch.zeros(sums)

    def divide(self, order: Order) -> None:
        self.order, self._leaves = order, order.micro_batches
        self._nodes = [subtrees(order.owned(other, self._world), self._leaves) for other in range(self._world)]
        self._stack: list[tuple[Node, _Flat]] = []
        self._spare: list[_Flat] = []

    @property
    def _alone(self) -> bool:
        """One micro-batch is its own sum: nothing is copied."""
        return self._leaves == 1

    def begin(self, step: int, holes: tuple[int, ...] = ()) -> None:
        self._step, self._there = step, self.order.without(holes)
        self._let_go()  # of a step that begins anew
        self._counter_after = None
        self._float_start = [buffer.clone() for buffer in self._floats]
        self._counter_start = [buffer.clone() for buffer in self._counters]
        for parameter in self._parameters:
            parameter.grad = None

    @contextmanager
    def micro_batch(self, index: int, rows: int) -> Iterator[None]:
        if not self._alone:
            _copy(self._floats, self._float_start)
            _copy(self._counters, self._counter_start)
        yield
        if self._counter_after is None and rows:
            self._counter_after = [buffer.clone() for buffer in self._counters]

    @torch.no_grad()
    def add(self, index: int, sums: Sequence[Tensor] | None) -> None:
        if self._alone:
            self._totals = torch.zeros(self._sums) if sums is None else _totals(sums, self._dtype)
            return
        flat = self._spare.pop() if self._spare else self._new()
        if sums is None:
            flat.data.zero_()
        else:
            self._fill(flat)
            flat.totals.copy_(_totals(sums, self._dtype))
        node: Node = (0, index)
        while self._stack and node[1] % 2 and self._stack[-1][0] == (node[0], node[1] - 1):
            left = self._stack.pop()[1]
            left.data.add_(flat.data)
            self._spare.append(flat)
            flat, node = left, (node[0] + 1, node[1] // 2)
        self._stack.append((node, flat))

    @torch.no_grad()
    def finish(self) -> Totals:
        if self._alone:
            return self._totals
        held = dict(self._stack)
        parts = [
            tree_sum(node, self._leaves, lambda node: held[node].data if node in held else None)
            for node in self._nodes[self._rank]
        ]
        result = self._stack[0][1]
        if self._world > 1:
            self._exchange([part for part in parts if part is not None], result.data)
        # No gradient at all where no micro-batch gave one: a zero would let weight decay and momentum change it.
        for parameter, view, uses in zip(self._parameters, result.views, result.uses.tolist(), strict=False):
            parameter.grad = view if uses else None
        filled = self._there.filled(self._step)
        changes = result.views[len(self._parameters) :]
        for buffer, start, change in zip(self._floats, self._float_start, changes, strict=True):
            buffer.copy_(start).add_(change / filled)
        self._settle_counters()
        # The views of `result` are the gradients until the next `begin` takes them away again.
        self._let_go()
        return result.totals

    def _let_go(self) -> None:
        self._spare += [flat for _, flat in self._stack]
        self._stack.clear()

    def keep_buffers(self, keep: bool) -> None:
        if not keep:
            _copy(self._floats, self._float_start)
            _copy(self._counters, self._counter_start)

    def _new(self) -> _Flat:
        padded = self._shard * self._world
        return _Flat(self._like, self._sums, len(self._parameters), padded, self._dtype, self._device)

    def _fill(self, flat: _Flat) -> None:
        views, grads = [], []
        flat.uses.fill_(1)
        for index, (parameter, view) in enumerate(zip(self._parameters, flat.views, strict=False)):
            if parameter.grad is None:
                view.zero_()
                flat.uses[index] = 0
            else:
                views.append(view)
                grads.append(parameter.grad)
                parameter.grad = None
        _copy(views, grads)
        changes = flat.views[len(self._parameters) :]
        for buffer, start, change in zip(self._floats, self._float_start, changes, strict=True):
            # A buffer that is constant changes by exactly 0, also where it holds infinities.
            torch.sub(buffer, start, out=change).masked_fill_(buffer == start, 0)

    def _exchange(self, parts: list[Tensor], into: Tensor) -> None:
        """All-to-all of shards, the tree over each shard, all-gather of the sums into `into`."""
        world, shard = self._world, self._shard
        mine = [part.view(world, shard) for part in parts]
        send = mine[0].reshape(-1) if len(mine) == 1 else torch.stack(mine, 1).reshape(-1)
        counts = [len(nodes) for nodes in self._nodes]
        received = torch.empty(sum(counts) * shard, dtype=self._dtype, device=self._device)
        dist.all_to_all_single(received, send, [count * shard for count in counts], [len(mine) * shard] * world)
        nodes = [node for nodes in self._nodes for node in nodes]
        held = dict(zip(nodes, received.view(-1, shard).unbind(), strict=True))
        root = ((self._leaves - 1).bit_length(), 0)
        total = tree_sum(root, self._leaves, held.get)
        if total is None:
            raise RuntimeError("the reduction has no micro-batches")
        dist.all_gather_into_tensor(into, total)

    def _settle_counters(self) -> None:
        _copy(self._counters, self._counter_after or self._counter_start)
        everyone_has_rows = self._there.filled(self._step) == self._leaves
        if self._world > 1 and not everyone_has_rows:
            _share(self._counters, _first_rank(self._there, self._step, self._world))


class Fast(Divisible):
    """DistributedDataParallel, with `no_sync` for all but the last micro-batch of a step.

    After a step every rank takes the buffers of the rank with the first sample: what DDP does before the next
    forward pass, done where a checkpoint and an evaluation can see it.
    """

    def __init__(
        self,
        model: nn.Module,
        order: Order,
        rank: int,
        world: int,
        device: torch.device,
        sums: int,
        example: tuple[Tensor, ...],
    ) -> None:
        self.model: nn.Module = model
        # The loss is a sum divided by the global count, and DDP divides by the number of ranks.
        self.factor = float(world)
        self._module = model
        self._rank, self._world, self._device = rank, world, device
        self.divide(order)
        self._buffers = list(model.buffers())
        self._start: list[Tensor] = []
        self._totals = torch.zeros(sums, dtype=torch.float64, device=device)
        self._step, self._there = 0, order
        self._example = example
        if world > 1:
            # Looking for unused parameters costs a walk through the graph per step, and is right for every network:
            # which ones take part may depend on the images. DDP then keeps its buckets, too. Else it packs them anew
            # after its first backward pass, in the order in which gradients came, and with three or more ranks a
            # resumed run would add in another order than an uninterrupted one.
            self.model = nn.parallel.DistributedDataParallel(
                model,
                device_ids=[device] if device.type == "cuda" else None,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=True,
            )

    def divide(self, order: Order) -> None:
        self.order = order
        self._last = order.owned(self._rank, self._world).stop - 1

    def begin(self, step: int, holes: tuple[int, ...] = ()) -> None:
        self._step, self._there = step, self.order.without(holes)
        self._start = [buffer.clone() for buffer in self._buffers]
        self._totals.zero_()
        self.model.zero_grad(set_to_none=True)

    @contextmanager
    def micro_batch(self, index: int, rows: int) -> Iterator[None]:
        quiet = self._world > 1 and index != self._last
        with self.model.no_sync() if quiet else nullcontext():  # type: ignore[operator]
            yield

    def add(self, index: int, sums: Sequence[Tensor] | None) -> None:
        if sums is not None:
            self._totals += _totals(sums, torch.float64)
        elif index == self._last and self._world > 1:
            self._pass_without_samples()

    def finish(self) -> Totals:
        if self._world > 1:
            dist.all_reduce(self._totals)
            _share(self._buffers, _first_rank(self._there, self._step, self._world))
        return self._totals

    def keep_buffers(self, keep: bool) -> None:
        if not keep:
            _copy(self._buffers, self._start)

    def _pass_without_samples(self) -> None:
        """A backward pass that adds zeros: a rank without rows must still take part in DDP's all-reduce.

        A parameter that only this pass uses has a gradient of zeros, and not none, in that step.
        """
        with modes_kept(self._module):
            self._module.eval()  # leaves batch-norm statistics alone and draws no random numbers
            (_everything(self.model(*self._example)) * 0).backward()


def _dense_strides(tensor: Tensor) -> tuple[int, ...]:
    """The strides of `tensor` where it fills its memory without gaps (channels_last too), else contiguous ones."""
    return torch.empty_like(tensor, device="meta").stride()


@torch.no_grad()
def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    if to:
        torch._foreach_copy_(to, source)  # pyright: ignore[reportPrivateImportUsage]


def _totals(sums: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.stack([value.detach().to(dtype) for value in sums])


def _everything(output: Tensor | Sequence[Tensor] | Mapping[str, Tensor]) -> Tensor:
    """The sum of all that a network returned."""
    if isinstance(output, Tensor):
        return output.sum()
    parts = output.values() if isinstance(output, Mapping) else output
    return torch.stack([_everything(part) for part in parts]).sum()


def _first_rank(order: Order, step: int, world: int) -> int:
    first = order.first_filled(step)
    return next(rank for rank in range(world) if first in order.owned(rank, world))


@torch.no_grad()
def _share(tensors: list[Tensor], source: int) -> None:
    """Broadcast from rank `source`, one message per dtype."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    for group in groups.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.broadcast(flat, source)
        parts = flat.split([tensor.numel() for tensor in group])
        _copy(group, [part.view_as(tensor) for part, tensor in zip(parts, group, strict=True)])
