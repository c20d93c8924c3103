"""Nested state (dict, list, tuple of tensors and plain values) as tensors plus a JSON structure, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from raycls.errors import CheckpointError

__all__ = ["Snapshot", "join", "snapshot", "split"]


@dataclass(frozen=True)
class Snapshot:
    """The state of a run after `step` steps, in CPU memory that the training does not touch.

    `trees` maps a name (`model`, `optimizer`, `train`) to nested dict, list and tuple of tensors, str, int,
    float, bool and None; the keys of a dict are str or int.
    """

    step: int
    trees: dict[str, Any]


def snapshot(step: int, trees: Mapping[str, Any]) -> Snapshot:
    """A copy of `trees` that later steps do not change. Tensors keep dtype and shape; they end up contiguous.

    Raises CheckpointError for a value that no checkpoint can hold.
    """
    return Snapshot(step, {name: _copy(tree, name) for name, tree in trees.items()})


def split(tree: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """(tensors by name, JSON structure). The name of a tensor is the path to it, joined with `/`.

    In the structure a tensor is `{"tensor": name}`, a dict `{"dict": [[key, value], ...]}`, a tuple
    `{"tuple": [...]}`, and a float that JSON has no word for `{"float": "nan"}`.
    """
    tensors: dict[str, torch.Tensor] = {}
    return tensors, _encode(tree, "", tensors)


def join(tensors: Mapping[str, torch.Tensor], structure: Any) -> Any:
    """What `split` took apart. Raises KeyError, TypeError or ValueError where the two do not belong together."""
    if isinstance(structure, list):
        return [join(tensors, item) for item in structure]
    if not isinstance(structure, dict):
        return structure
    ((kind, value),) = structure.items()
    if kind == "tensor":
        return tensors[value].clone()  # memory of torch's own, aligned like that of a run that was never resumed
    if kind == "dict":
        return {key: join(tensors, item) for key, item in value}
    if kind == "tuple":
        return tuple(join(tensors, item) for item in value)
    if kind == "float":
        return float(value)
    raise ValueError(f"{kind!r} is no kind of node")


def _copy(value: Any, where: str) -> Any:
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_meta:
            raise _refuse(where, f"a {value.layout} tensor on {value.device}")
        copy = torch.empty(value.shape, dtype=value.dtype, device="cpu")
        return copy.copy_(value.detach())
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise _refuse(where, f"a key of type {type(key).__name__}")
        return {key: _copy(item, f"{where}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_copy(item, f"{where}/{index}") for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    raise _refuse(where, f"a value of type {type(value).__name__}")


def _encode(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = _free_name(path or "tensor", tensors)
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        pairs = [[key, _encode(item, f"{path}/{key}" if path else str(key), tensors)] for key, item in value.items()]
        return {"dict": pairs}
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{path}/{index}" if path else str(index), tensors) for index, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _free_name(path: str, taken: Mapping[str, torch.Tensor]) -> str:
    name, number = path, 1
    while name in taken or name == "__metadata__":  # the second is a word of the safetensors format
        number += 1
        name = f"{path}#{number}"
    return name


def _refuse(where: str, found: str) -> CheckpointError:
    return CheckpointError(
        "this state cannot be written to a checkpoint",
        where=where,
        found=found,
        valid="dense tensors, str, int, float, bool, None, and dict, list or tuple of them with str or int keys",
        fix="change what the model or the optimizer returns from state_dict()",
    )
