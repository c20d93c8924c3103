"""Activation checkpointing: parts of a network keep their input alone, and run again in the backward pass.

Which parts these are is measured, not known by name, so that it works for any network; the bits do not depend on it.
Chen, Xu, Zhang and Guestrin 2016, training deep nets with sublinear memory cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import CheckpointError, checkpoint

from raycls.errors import ModelError
from raycls.models.surgery import beside, buffers_kept
from raycls.randomness import States, kept, put_back, seeded, states
from raycls.train.forward.replace import replaced
from raycls.train.forward.saved import Part, Saved

__all__ = ["check", "choose", "part_name", "recomputed"]

_LEAST = 0.001
"""The share of all that is saved for which it is worth to run a part again."""


def choose(model: nn.Module, saved: Saved) -> tuple[Part, ...]:
    """The parts with which a forward and a backward pass need the least memory; none where there are no such.

    A part is a module, or neighbours in a `Sequential`. For every bound there is one choice: the largest modules, and
    the longest rows, that save no more than it. The best of these is taken; bounds are what a module saves, and what
    the first ones of a row do.
    """
    rows = [row for path in saved.inside if (row := _row(model, path, saved))]
    firsts = [row[: count + 1] for row in rows for count in range(1, len(row))]
    bounds = {saved.of(part) for part in [*((path,) for path in saved.inside), *firsts]}
    choices = {tuple(_parts(model, "", bound, saved)) for bound in bounds}
    best = min(choices, key=lambda parts: (saved.memory(parts).most, len(parts), parts), default=())
    return best if saved.memory(best).most < saved.memory(()).most else ()


def _parts(model: nn.Module, path: str, bound: int, saved: Saved) -> Iterator[Part]:
    """The parts inside of a module that save no more than `bound` bytes."""
    children = _children(model, path)
    row: list[str] = []
    packed = path in saved.inside and bool(_row(model, path, saved))
    for child in children:
        fits = child in saved.inside and saved.of((child,)) <= bound
        if row and not (packed and fits and saved.of((*row, child)) <= bound):
            yield from _worth(row, saved)
            row = []
        if not fits:
            yield from _parts(model, child, bound, saved)
        elif row or child not in saved.overwritten:
            row.append(child)
        elif not _is_leaf(model, child):
            yield from _parts(model, child, bound, saved)
    yield from _worth(row, saved)


def _worth(row: list[str], saved: Saved) -> Iterator[Part]:
    if row and saved.of(row) > _LEAST * saved.size(saved.all):
        yield tuple(row)


def _row(model: nn.Module, path: str, saved: Saved) -> list[str]:
    """What a `Sequential` calls one after another; nothing where the module is none."""
    module, children = model.get_submodule(path), _children(model, path)
    plain = type(module).forward is nn.Sequential.forward and len(children) == len(module)  # type: ignore[arg-type]
    return children if plain and all(child in saved.inside for child in children) else []


def _children(model: nn.Module, path: str) -> list[str]:
    return [f"{path}.{name}" if path else name for name, _ in model.get_submodule(path).named_children()]


def _is_leaf(model: nn.Module, path: str) -> bool:
    return not any(model.get_submodule(path).children())


@contextmanager
def recomputed(model: nn.Module, parts: Sequence[Part]) -> Iterator[None]:
    """In the block, `parts` keep their input alone where gradients are asked for, and run again in the backward pass.

    They do so with the generators, the buffers (batch-norm statistics) and the autocast that they ran with, and leave
    buffers and generators as they find them: nothing is counted or drawn twice. A copy of the network that is made in
    the block would compute with the modules of this one.
    """
    with ExitStack() as stack:
        rows: dict[str, list[Part]] = {}
        for part in parts:
            if part[1:]:
                rows.setdefault(part[0].rpartition(".")[0], []).append(part)
                continue
            module = model.get_submodule(part[0])
            stack.enter_context(replaced(module, partial(_run, module.forward, (module,))))
        for path, grouped in rows.items():
            row = model.get_submodule(path)
            stack.enter_context(replaced(row, partial(_run_row, _stations(row, path, grouped))))
        try:
            yield
        except CheckpointError as error:
            raise _differs(", ".join(map(part_name, parts)), str(error).strip().splitlines()[0]) from error


def check(model: nn.Module, parts: Sequence[Part], example: tuple[Tensor, ...]) -> None:
    """ModelError where the gradients of two times `example` on the CPU are others with `parts` that run again.

    So are those of a part that depends on what it did before, in something that is no buffer and no generator.
    """
    batch = beside(model, example, 2)
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    once = _gradients(model, batch)
    with recomputed(model, parts):
        twice = _gradients(model, batch)
    for name, one, other in zip(names, once, twice, strict=True):
        if (one is None) != (other is None) or not (one is None or other is None or _same(one, other)):
            raise _differs(", ".join(map(part_name, parts)), f"another gradient of {name} for two images")


def _gradients(model: nn.Module, batch: tuple[Tensor, ...]) -> Sequence[Tensor | None]:
    trained = [value for value in model.parameters() if value.requires_grad]
    with buffers_kept(model), seeded(0), torch.enable_grad():
        total = _total(model(*batch))
        return torch.autograd.grad(total, trained, allow_unused=True)


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def _total(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return (output.float() * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum()
    parts = output.values() if isinstance(output, dict) else output
    return torch.stack([_total(part) for part in parts]).sum()


def _differs(parts: str, found: str) -> ModelError:
    return ModelError(
        "a part of the network computes something else when it runs again for the backward pass",
        where="train.activation_checkpointing, model.name",
        found=f"{found} (parts that run again: {parts})",
        valid="a forward pass that follows from its input, buffers and generators alone",
        fix="set train.activation_checkpointing=off",
    )


def part_name(part: Part) -> str:
    """The path of a part: `layer1.0`, or `features.0 to 3`."""
    return part[0] if len(part) == 1 else f"{part[0]} to {part[-1].rpartition('.')[2]}"


Station = tuple[tuple[nn.Module, ...], bool]
"""Modules that run one after another, and whether they run again."""


def _stations(row: nn.Module, path: str, parts: Sequence[Part]) -> list[Station]:
    """All of a row in its order, with its `parts` as one each."""
    begin = {part[0]: part for part in parts}
    inside = {name for part in parts for name in part}
    stations: list[Station] = []
    for name, child in row.named_children():
        full = f"{path}.{name}" if path else name
        if full in begin:
            stations.append((tuple(row.get_submodule(each.rpartition(".")[2]) for each in begin[full]), True))
        elif full not in inside:
            stations.append(((child,), False))
    return stations


def _run_row(stations: Sequence[Station], values: Any) -> Any:
    for modules, again in stations:
        call = partial(_one_after_another, modules)
        values = _run(call, modules, values) if again else call(values)
    return values


def _one_after_another(modules: Sequence[nn.Module], values: Any) -> Any:
    for module in modules:
        values = module(values)
    return values


def _run(call: Callable[..., Any], modules: Sequence[nn.Module], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return call(*args, **kwargs)
    # All of them: batch norm does not count what it does to its statistics as a new version of them.
    buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    contexts = nullcontext(), _as_then(modules, buffers, states())
    leaves, form = tree_flatten((args, kwargs))  # a list of maps may have grown until the backward pass

    def run(*leaves: Any) -> Any:
        args, kwargs = tree_unflatten(leaves, form)
        return call(*args, **kwargs)

    return checkpoint(run, *leaves, use_reentrant=False, context_fn=lambda: contexts)


@contextmanager
def _as_then(
    modules: Sequence[nn.Module], buffers: Sequence[tuple[Tensor, Tensor]], generators: States
) -> Iterator[None]:
    """Generators (a GPU's are `checkpoint`'s matter) and `buffers` as they were, and after it as they are now."""
    with kept(), buffers_kept(nn.ModuleList(modules)):
        put_back(generators)
        with torch.no_grad():
            for buffer, then in buffers:
                buffer.copy_(then)
        yield
