"""The layers of a network in order: what freezing by depth and layer-wise decay count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

__all__ = ["Layer", "layers"]

_MOST = 0.8
"""The share of a module's parameters that its row of equal blocks has, for it to be no block itself."""


@dataclass(frozen=True)
class Layer:
    """A block of a network: a convolution with its norm, a residual block, an encoder layer, a linear layer."""

    path: str
    """The module that it is, or the first one of it."""
    parameters: tuple[str, ...]
    """Names of its parameters."""


def layers(model: nn.Module) -> list[Layer]:
    """The blocks of `model` that have parameters, in the order in which they are defined.

    Containers (`nn.Sequential` and lists) are opened, and so is a module that is little more than a row of equal
    blocks, or that holds most of the network and has such parts. A module whose parameters all have one dimension (a
    norm) belongs to the block before it, a parameter outside of the blocks (a class token, an embedding of positions)
    to the first one: as BEiT counts its layers (Bao et al. 2022).
    """
    total = _size(model)
    found: list[tuple[str, list[str]]] = []
    loose: list[str] = []
    seen: set[int] = set()
    for path, module in _blocks(model, "", total, loose):
        named = [(name, value) for name, value in module.named_parameters() if id(value) not in seen]
        seen |= {id(value) for _, value in named}
        names = [f"{path}.{name}" if path else name for name, _ in named]
        if found and all(value.ndim <= 1 for _, value in named):
            found[-1][1].extend(names)
        elif names:
            found.append((path, names))
    if loose:
        found = found or [("", [])]
        found[0][1][:0] = loose
    return [Layer(path, tuple(names)) for path, names in found]


def _blocks(module: nn.Module, path: str, total: int, loose: list[str]) -> Iterator[tuple[str, nn.Module]]:
    if not any(module.children()):
        yield path, module
        return
    loose += [f"{path}.{name}" if path else name for name, _ in module.named_parameters(recurse=False)]
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        if _opened(child, total):
            yield from _blocks(child, inner, total, loose)
        elif _size(child):
            yield inner, child


def _opened(module: nn.Module, total: int) -> bool:
    """Whether a module is a row of blocks and not one."""
    if not any(module.children()):
        return False
    if type(module) is nn.Sequential or isinstance(module, nn.ModuleList | nn.ModuleDict):
        return True
    if isinstance(module, nn.Sequential):  # one of its own kind: `Conv2dNormActivation` is a block, `AnyStage` a row
        return any(_size(child) and any(child.children()) for child in module.children())
    if any(_row(child) and _size(child) > _MOST * _size(module) for child in module.children()):
        return True
    deep = (child for child in module.children() if any(any(inner.children()) for inner in child.children()))
    return 2 * _size(module) > total and any(_opened(child, total) for child in deep)


def _row(module: nn.Module) -> bool:
    """Whether a container holds two or more blocks of one kind and nothing else, each more than one convolution."""
    if type(module) is not nn.Sequential and not isinstance(module, nn.ModuleList):
        return False
    blocks = [child for child in module.children() if _size(child)]
    alike = len(blocks) > 1 and len({type(block) for block in blocks}) == 1
    return alike and sum(parameter.ndim > 1 for parameter in blocks[0].parameters()) > 1


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
