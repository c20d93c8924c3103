"""A pruned network as the config describes it: smaller layers, and weights that are zero and stay zero.

The description holds sizes and no choice of channels: which ones were kept shows in the weights. So a network is made
again in any process without the library that pruned it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.optim import Optimizer

from raycls.config.sections.model import Pruned
from raycls.errors import ModelError

__all__ = ["MASK", "apply", "describe", "hold_masks", "mask_of", "masked_weights"]

MASK = "_mask"
"""A buffer of this ending beside a parameter: false where the parameter is zero for good. `bool`, of the same shape."""


def apply(model: nn.Module, pruned: Mapping[str, Pruned]) -> None:
    """Make `model`, as its builder made it, what `pruned` says (`model.pruned`), in place.

    Weights that stay are the first ones of each dimension: those of a pruned run are loaded afterwards. A mask is true
    everywhere until then. ModelError where the description is not of this network.
    """
    cut: dict[int, nn.Parameter] = {}
    for name, entry in pruned.items():
        if isinstance(entry, Mapping):
            module = _module(model, name)
            _set(module, name, entry)
            for own, shape in _shapes(module).items():
                _cut(module, own, shape, f"{name}.{own}", cut)
        else:
            path, _, own = name.rpartition(".")
            module = _module(model, path)
            if not isinstance(getattr(module, own, None), Tensor):
                raise _not_of(name, "no such parameter")
            if entry == "masked":
                weight = getattr(module, own)
                module.register_buffer(own + MASK, torch.ones_like(weight, dtype=torch.bool, requires_grad=False))
            else:
                _cut(module, own, tuple(entry), name, cut)


def describe(before: nn.Module, after: nn.Module) -> dict[str, Pruned]:
    """The sizes that make `before`, as it is built, the smaller `after`: what `apply` takes.

    ValueError where they have other layers.
    """
    found: dict[str, Pruned] = {}
    modules = dict(after.named_modules())
    if modules.keys() != dict(before.named_modules()).keys():
        raise ValueError("the smaller network has other layers")
    for name, module in before.named_modules():
        new = dict(_sizes(modules[name]))
        changed = {key: new[key] for key, value in _sizes(module) if new.get(key, value) != value}
        own = dict(_tensors(modules[name]))
        expected = _shapes(modules[name]) if changed else {}
        if changed:
            found[name] = changed
        for key, tensor in _tensors(module):
            shape = expected.get(key, tuple(tensor.shape))
            if tuple(own[key].shape) != shape:
                found[f"{name}.{key}" if name else key] = list(own[key].shape)
    return found


def masked_weights(model: nn.Module) -> list[str]:
    """Names of the weights that pruning sets to zero: those of convolutions, linear layers and attention."""
    kinds = (_ConvNd, nn.Linear, nn.MultiheadAttention)
    seen: set[int] = set()
    names: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, kinds):
            continue
        for own, parameter in module.named_parameters(recurse=False):
            if parameter.ndim > 1 and id(parameter) not in seen:  # tied weights are one
                seen.add(id(parameter))
                names.append(f"{path}.{own}" if path else own)
    return names


def mask_of(model: nn.Module, name: str) -> Tensor | None:
    """The mask of the parameter `name`, None where it has none."""
    path, _, own = name.rpartition(".")
    return getattr(model.get_submodule(path), own + MASK, None)


def hold_masks(model: nn.Module, optimizer: Optimizer) -> None:
    """Let the weights that are masked in `model` stay zero, whatever `optimizer` does.

    Their gradient is zero, so that it counts neither for clipping nor for what the optimizer keeps, and after each step
    they are zero again: decay and noise of an optimizer do not reach them either.
    """
    masks = {name: mask for name, _ in model.named_parameters() if (mask := mask_of(model, name)) is not None}
    if not masks:
        return
    held = [(parameter, masks[name]) for name, parameter in model.named_parameters() if name in masks]
    for parameter, mask in held:
        if parameter.requires_grad:
            parameter.register_hook(lambda gradient, mask=mask: gradient.masked_fill(~mask, 0))

    @torch.no_grad()
    def zero(*_: Any) -> None:
        for parameter, mask in held:
            parameter.masked_fill_(~mask, 0)

    optimizer.register_step_post_hook(zero)


def _sizes(module: nn.Module) -> Iterator[tuple[str, int | list[int]]]:
    """Attributes that are integers or tuples of them: `out_channels`, `normalized_shape`."""
    for key, value in vars(module).items():
        if key.startswith("_") or isinstance(value, bool):
            continue
        if isinstance(value, int):
            yield key, value
        elif isinstance(value, tuple) and value and all(type(item) is int for item in value):
            yield key, list(value)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _set(module: nn.Module, name: str, entry: Mapping[str, int | list[int]]) -> None:
    known = dict(_sizes(module))
    for key, value in entry.items():
        if key not in known or isinstance(known[key], list) != isinstance(value, list):
            raise _not_of(f"{name}.{key}", f"{type(module).__name__} has no such size")
        setattr(module, key, tuple(value) if isinstance(value, list) else value)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes that the tensors of a layer have by its sizes; empty for a kind that is not known here."""
    if isinstance(module, _ConvNd):
        first, second = module.out_channels, module.in_channels
        if isinstance(module, _ConvTransposeNd):
            first, second = second, first
        shapes = {"weight": (first, second // module.groups, *module.kernel_size), "bias": (module.out_channels,)}
    elif isinstance(module, nn.Linear):
        shapes = {"weight": (module.out_features, module.in_features), "bias": (module.out_features,)}
    elif isinstance(module, _NormBase):
        shapes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (module.num_features,))
    elif isinstance(module, nn.GroupNorm):
        shapes = {"weight": (module.num_channels,), "bias": (module.num_channels,)}
    elif isinstance(module, nn.LayerNorm):
        shapes = {"weight": tuple(module.normalized_shape), "bias": tuple(module.normalized_shape)}
    else:
        shapes = {}
    return {key: shape for key, shape in shapes.items() if getattr(module, key, None) is not None}


def _cut(module: nn.Module, own: str, shape: Sequence[int], name: str, done: dict[int, nn.Parameter]) -> None:
    """Keep the first `shape` of a parameter or buffer; `done` has what tied weights became."""
    old: Tensor = getattr(module, own)
    if len(shape) != old.ndim or any(not 0 < new <= there for new, there in zip(shape, old.shape, strict=True)):
        raise _not_of(name, f"shape {list(old.shape)}, which does not become {list(shape)}")
    new = old.detach()[tuple(slice(size) for size in shape)].clone()
    if isinstance(old, nn.Parameter):
        setattr(module, own, done.setdefault(id(old), nn.Parameter(new, requires_grad=old.requires_grad)))
    else:
        module.register_buffer(own, new, persistent=own not in module._non_persistent_buffers_set)


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise _not_of(name, "no such layer") from error


def _not_of(name: str, found: str) -> ModelError:
    return ModelError(
        "model.pruned is not of this network",
        where=f"model.pruned: {name}",
        found=found,
        valid="what raycls prune wrote for model.name and model.args",
        fix="leave model.pruned as it was written, or prune the run again",
    )
