"""What a network is made of: its layers, what they cost, and how fine its maps are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from raycls.models.cost import counted
from raycls.models.layers import layers
from raycls.randomness import kept

__all__ = ["Insight", "Map", "Part", "Window", "insight"]

_aten = torch.ops.aten


@dataclass(frozen=True)
class Part:
    """A layer, as `raycls.models.layers` counts them; with an empty path what lies between them."""

    path: str
    kind: str
    output: tuple[int, ...] | None
    """What it returns for one sample; None where it is not called as a module."""
    parameters: int
    trained: int
    macs: int


@dataclass(frozen=True)
class Window:
    """A convolution or a pooling that moves over a map. Where height and width differ, the larger."""

    kind: str
    kernel: int
    stride: int


@dataclass(frozen=True)
class Map:
    """A feature map: `stride` and `field` (receptive field) are in pixels of the input."""

    stride: int
    field: int
    height: int
    width: int


@dataclass(frozen=True)
class Insight:
    """What `insight` finds. Multiply-adds and maps are those of one sample in evaluation mode."""

    parts: tuple[Part, ...]
    macs: int
    stem: Map | None
    """The map that the second layer is given, and what made it. None where there is no convolution before it."""
    windows: tuple[Window, ...]
    last: Map | None
    """The map of the last convolution."""


def insight(model: nn.Module, example: tuple[Tensor, ...]) -> Insight:
    """Run `example`, what `model` takes for one sample, once, and look. The model is left in evaluation mode.

    What is trained is what requires a gradient.
    """
    found = layers(model)
    named = dict(model.named_parameters())
    outputs: dict[str, tuple[int, ...]] = {}
    maps = _Maps(example)
    hooks: list[Any] = []
    for layer in found:
        module = model.get_submodule(layer.path)
        hooks += _watched(module, layer.path, maps, outputs)
    try:
        with kept(), maps:
            counts = counted(model, example).get_flop_counts()
    finally:
        for hook in hooks:
            hook.remove()
    total = sum(counts.get("Global", {}).values()) // 2
    parts: list[Part] = []
    for layer in found:
        values = [named[name] for name in layer.parameters]
        parts.append(
            Part(
                layer.path,
                type(model.get_submodule(layer.path)).__name__,
                outputs.get(layer.path),
                _count(values),
                _count([value for value in values if value.requires_grad]),
                sum(counts.get(f"{type(model).__name__}{'.' * bool(layer.path)}{layer.path}", {}).values()) // 2,
            )
        )
    between = total - sum(part.macs for part in parts)
    if between:
        parts.append(Part("", "between the layers", None, 0, 0, between))
    stem, windows = maps.stem or (maps.now, tuple(maps.windows))
    return Insight(tuple(parts), total, stem, windows, maps.last)


class _Maps(TorchDispatchMode):
    """Follows stride and receptive field from the input on, through branches too (the larger of what is joined).

    What is averaged over all positions is no map any more: the convolutions of a squeeze-and-excitation, or of a head
    behind the pooling, are left out.
    """

    def __init__(self, example: tuple[Tensor, ...]) -> None:
        super().__init__()
        self._alive: list[Any] = list(example)  # so that no address is used again
        self._known = {_key(part): (1, 1) for part in example if part.ndim == 4}
        self._entered = list[str]()
        self.windows: list[Window] = []
        self.now: Map | None = None
        self.last: Map | None = None
        self.stem: tuple[Map | None, tuple[Window, ...]] | None = None

    def enter(self, path: str) -> None:
        """A layer begins; with the second one the stem ends."""
        if path not in self._entered:
            self._entered.append(path)
        if len(self._entered) == 2 and self.stem is None:
            self.stem = self.now, tuple(self.windows)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        given = [self._known[_key(each)] for each in tree_leaves(args) if _is(each) and _key(each) in self._known]
        if not given or func.overloadpacket in _AVERAGES:
            return output
        stride, field = max(each[0] for each in given), max(each[1] for each in given)
        window, dilation = _window(func.overloadpacket, args)
        if window is not None:
            field += (window.kernel - 1) * dilation * stride
            stride *= window.stride
        made = [each for each in tree_leaves(output) if _is(each)]
        self._alive += made
        self._known |= {_key(each): (stride, field) for each in made}
        if window is not None:
            self.windows.append(window)
            self.now = Map(stride, field, *made[0].shape[-2:])
            self.last = self.now if window.kind == "convolution" else self.last
        return output


_AVERAGES = (_aten.mean, _aten._adaptive_avg_pool2d, _aten.adaptive_max_pool2d)
_POOLINGS = (_aten.max_pool2d_with_indices, _aten.avg_pool2d)


def _window(operation: Any, args: Any) -> tuple[Window | None, int]:
    """The window that an operation moves over its map, and its dilation."""
    if operation is _aten.convolution and args[1].ndim == 4 and not args[6]:
        return Window("convolution", max(args[1].shape[2:]), max(args[3])), max(args[5])
    if operation in _POOLINGS:
        stride = args[2] if len(args) > 2 and args[2] else args[1]
        dilation = max(args[4]) if operation is _aten.max_pool2d_with_indices and len(args) > 4 else 1
        return Window("pooling", max(args[1]), max(stride)), dilation
    return None, 1


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is(value: Any) -> bool:
    return isinstance(value, Tensor)


def _watched(module: nn.Module, path: str, maps: _Maps, outputs: dict[str, tuple[int, ...]]) -> list[Any]:
    def enter(module: nn.Module, inputs: Any) -> None:
        maps.enter(path)

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs[path] = tuple(output.shape[1:])

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def _count(values: Sequence[Tensor]) -> int:
    return sum(value.numel() for value in values)
