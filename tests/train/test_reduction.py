"""The two reductions against a plain PyTorch step, and the exact one against itself on other worlds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from harness.ranks import run_ranks
from torch import nn

from raycls.data.order import Order, part
from raycls.data.slices import micro_rows
from raycls.train.reduction import make_reduction, subtrees, tree_sum

_CPU = torch.device("cpu")


def grouped() -> nn.Sequential:
    """Without batch norm: the gradient is that of the global batch, however it is split."""
    return _net(nn.GroupNorm(2, 6))


def normed() -> nn.Sequential:
    return _net(nn.BatchNorm2d(6))


def _net(norm: nn.Module) -> nn.Sequential:
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(24, 5)
    )
    return net.to(memory_format=torch.channels_last)


class Branching(nn.Module):
    """One layer takes part in no forward pass, another one only where the first image is a bright one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.unused = nn.Linear(4, 4)
        self.first = nn.Linear(3, 5)
        self.sometimes = nn.Linear(3, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.mean((2, 3))
        logits = self.first(means)
        return logits + self.sometimes(means) if self.bright(images) else logits

    @staticmethod
    def bright(images: torch.Tensor) -> bool:
        return bool(images[0].mean() > 0.05)


def _samples(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(11)
    return torch.randn(count, 3, 9, 9), torch.randint(0, 5, (count,))


def one_step(
    rank: int,
    world: int,
    name: str,
    count: int,
    batch: int,
    micro: int,
    step: int,
    build: Callable[[], nn.Module],
    steps: int = 1,
) -> dict[str, Any]:
    """The gradients that there are, weights, buffers and totals after `steps` steps from `step` on, on this rank.

    `used` has the names of the parameters with a gradient, a list per step.
    """
    order = Order(5, count, batch, micro)
    images, labels = _samples(count)
    model = build()
    example = (torch.zeros(1, 3, 9, 9),)
    reduction = make_reduction(name, model, order, rank=rank, world=world, device=_CPU, sums=2, example=example)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    totals = torch.zeros(2)
    gradients, used = [], []
    for now in range(step, step + steps):
        rows = order.rows(now)
        ids = order.slice_ids(now, rank, world)
        reduction.begin(now)
        for index, start, stop in micro_rows(order, now, rank, world):
            sums = None
            with reduction.micro_batch(index, stop - start):
                if stop > start:
                    torch.manual_seed(1000 * now + index)
                    chosen = ids[start:stop]
                    logits = reduction.model(images[chosen])
                    loss = F.cross_entropy(logits, labels[chosen], reduction="sum")
                    correct = (logits.argmax(1) == labels[chosen]).sum()
                    sums = [loss, correct]
                    (loss * (reduction.factor / rows)).backward()
            reduction.add(index, sums)
        totals = reduction.finish().clone()
        gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        used.append([name for name, parameter in model.named_parameters() if parameter.grad is not None])
        optimizer.step()
    return {
        "used": used,
        "gradients": [gradient.numpy().copy() for gradient in gradients],
        "weights": [parameter.detach().numpy().copy() for parameter in model.parameters()],
        "buffers": [buffer.numpy().copy() for buffer in model.buffers()],
        "totals": totals.tolist(),
    }


def _plain_gradient(count: int, batch: int, step: int) -> list[torch.Tensor]:
    """The gradient of the mean loss of the global batch, in one process, without dropout's randomness."""
    order = Order(5, count, batch, 1)
    images, labels = _samples(count)
    model = grouped()
    ids = order.batch(step)
    model[5].p = 0.0  # type: ignore[union-attr]
    F.cross_entropy(model(images[ids]), labels[ids]).backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def without_dropout(rank: int, world: int, *args: object) -> dict[str, object]:
    """`one_step` on a network whose dropout drops nothing."""
    original = nn.Dropout.forward
    nn.Dropout.forward = lambda self, value: value  # type: ignore[method-assign]
    try:
        return one_step(rank, world, *args)  # type: ignore[arg-type]
    finally:
        nn.Dropout.forward = original  # type: ignore[method-assign]


@pytest.mark.parametrize("name", ["exact", "fast"])
@pytest.mark.parametrize(("world", "count", "batch", "step"), [(2, 43, 20, 2), (3, 43, 20, 0), (3, 41, 20, 2)])
def test_gradient_is_that_of_the_global_batch(name: str, world: int, count: int, batch: int, step: int) -> None:
    # 43 rows in batches of 20: the last one has 3; 41: it has one row, and two of three ranks have none
    expected = _plain_gradient(count, batch, step)
    for result in run_ranks(world, without_dropout, name, count, batch, world, step, grouped):
        for ours, plain in zip(result["gradients"], expected, strict=True):
            assert abs(torch.from_numpy(ours) - plain).max() <= 1e-6 * max(1.0, float(plain.abs().max()))


@pytest.mark.parametrize(("micro", "worlds"), [(4, (1, 2, 3, 4)), (3, (1, 2, 3)), (7, (1, 3))])
def test_exact_is_the_same_bits_on_any_world(micro: int, worlds: tuple[int, ...]) -> None:
    # 45 rows in batches of 20: the third step has 5 rows for up to 7 micro-batches
    first = None
    for world in worlds:
        for result in run_ranks(world, one_step, "exact", 45, 20, micro, 0, normed, 5):
            bits = [value.tobytes() for kind in ("gradients", "weights", "buffers") for value in result[kind]]
            bits.append(repr(result["totals"]).encode())
            first = first or bits
            assert bits == first, f"world {world} differs"


def test_exact_counts_steps_and_averages_statistics() -> None:
    result = run_ranks(1, one_step, "exact", 40, 20, 4, 0, normed, 3)[0]
    mean, variance, tracked = result["buffers"]
    assert tracked == 3  # three steps of four micro-batches each
    assert mean.shape == variance.shape == (6,)

    # The first step by hand: each quarter of the batch starts from zeros and ones.
    step = run_ranks(1, one_step, "exact", 40, 20, 4, 0, normed, 1)[0]
    images, _ = _samples(40)
    order, model = Order(5, 40, 20, 4), normed()
    with torch.no_grad():
        quarters = [model[0](images[order.micro(0, m)]).transpose(0, 1).flatten(1) for m in range(4)]
    expected = torch.stack([0.1 * quarter.mean(1) for quarter in quarters]).mean(0)
    torch.testing.assert_close(torch.from_numpy(step["buffers"][0]), expected, rtol=1e-5, atol=1e-6)


def _plain_branching(rows: int, micro: int, steps: int) -> tuple[list[list[str]], list[str], list[torch.Tensor]]:
    """Micro-batches added up by autograd alone: the parameters with a gradient in each step, which micro-batches took
    the branch (`x`), did not (`-`) or had no rows (`.`), and the weights in the end."""
    order = Order(5, rows, 20, micro)
    images, labels = _samples(rows)
    model = Branching()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    used, taken = [], []
    for step in range(steps):
        optimizer.zero_grad()
        parts = [order.micro(step, index) for index in range(micro)]
        for ids in parts:
            if len(ids):
                (F.cross_entropy(model(images[ids]), labels[ids], reduction="sum") / order.rows(step)).backward()
        used.append([name for name, parameter in model.named_parameters() if parameter.grad is not None])
        taken.append("".join("." if not len(ids) else "x" if Branching.bright(images[ids]) else "-" for ids in parts))
        optimizer.step()
    return used, taken, [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("name", ["exact", "fast"])
def test_a_parameter_that_nothing_used_has_no_gradient(name: str) -> None:
    """Else weight decay would shrink it and momentum would move it."""
    used, taken, weights = _plain_branching(102, 4, 6)
    assert taken == ["--xx", "----", "x--x", "----", "--x-", ".-.-"]
    bits = set()
    for world in (1, 2, 3):
        for result in run_ranks(world, one_step, name, 102, 20, 4, 0, Branching, 6):
            assert result["used"] == used
            for ours, plain in zip(result["weights"], weights, strict=True):
                torch.testing.assert_close(torch.from_numpy(ours), plain, rtol=1e-5, atol=1e-6)
            bits.add(b"".join(value.tobytes() for value in result["weights"]))
    assert name == "fast" or len(bits) == 1


def test_fast_ranks_agree_and_repeat_to_the_bit() -> None:
    runs = [run_ranks(3, one_step, "fast", 41, 20, 6, 0, normed, 3) for _ in range(2)]
    bits = [[value.tobytes() for value in rank["weights"] + rank["buffers"]] for run in runs for rank in run]
    assert all(rank == bits[0] for rank in bits)


def test_totals_are_those_of_the_global_batch() -> None:
    images, labels = _samples(45)
    order, model = Order(5, 45, 20, 3), grouped()
    model[5].p = 0.0  # type: ignore[union-attr]
    ids = order.batch(2)
    with torch.no_grad():
        logits = model(images[ids])
    expected = [
        float(F.cross_entropy(logits, labels[ids], reduction="sum")),
        int((logits.argmax(1) == labels[ids]).sum()),
    ]
    for name in ("exact", "fast"):
        for result in run_ranks(2, without_dropout, name, 45, 20, 3, 2, grouped):
            assert result["totals"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("leaves", range(1, 18))
def test_subtrees_cover_every_leaf_once_and_add_up_alike(leaves: int) -> None:
    values = [torch.tensor([0.1 * (leaf + 1) ** 3]) for leaf in range(leaves)]
    root = ((leaves - 1).bit_length(), 0)
    whole = tree_sum(root, leaves, lambda node: values[node[1]].clone() if node[0] == 0 else None)
    assert whole is not None
    for world in range(1, leaves + 1):
        held = {}
        for rank in range(world):
            for node in subtrees(part(leaves, rank, world), leaves):
                held[node] = tree_sum(node, leaves, lambda leaf: values[leaf[1]].clone() if leaf[0] == 0 else None)
        covered = [leaf for level, index in held for leaf in range(index << level, min((index + 1) << level, leaves))]
        assert sorted(covered) == list(range(leaves))
        total = tree_sum(root, leaves, held.get)
        assert total is not None and total.item() == whole.item()
