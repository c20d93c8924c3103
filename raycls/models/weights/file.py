"""What a file of weights holds: its tensors, the class names it brings and its preprocessing. Nothing in it is run."""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor
from torch.torch_version import TorchVersion

from raycls.errors import ModelError, kind_and_line

__all__ = ["Content", "read"]

_DEPTH = 8
"""How deep a checkpoint may nest what is looked at."""
_CLASSES = re.compile(
    r"(class(es)?|labels?|categor(y|ies)|targets?)(names?|labels?|list|map|mapping|dict|vocab|(to|2)(id|idx|index|int))"
    r"|(id|idx|index|int)(to|2)(class|label|category|target|name)(names?)?|classes|categories|labels|names|vocab"
)
"""Keys under which checkpoints keep their class names, without `_` and `-`, in lower case."""
_PUBLISHED = ("model.safetensors", "pytorch_model.bin")
"""What hubs call the weights of a network."""
_ARRAYS = ("scalar", "_reconstruct")
_PLAIN: list[Any] = [
    *(argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath, datetime, TorchVersion),
    *(set, frozenset, slice, range),
    *(np.ndarray, np.dtype, *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type))),
    # numpy moved them: a file has the one name or the other
    *((getattr(np._core.multiarray, name), f"numpy._core.multiarray.{name}") for name in _ARRAYS),  # type: ignore[attr-defined]
    *((getattr(np._core.multiarray, name), f"numpy.core.multiarray.{name}") for name in _ARRAYS),  # type: ignore[attr-defined]
]
"""What checkpoints hold beside tensors (options, paths, the best value, when) and what runs nothing when it is read."""


@dataclass(frozen=True)
class Content:
    """What a file holds."""

    path: Path
    tensors: Mapping[str, Tensor]
    """By name, on the CPU; what is nested (`{"state_dict": {"conv.weight": ...}}`) has its keys joined with dots."""
    versions: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What torch notes beside a state dict, by module: the layout that its parameters have."""
    classes: tuple[tuple[str, ...], ...] = ()
    """Lists of class names, in the order of the outputs; which is the head's shows by its length."""
    preprocessing: Mapping[str, Any] | None = None
    """As `run.weights` writes it: `image_size`, `eval`, `mean`, `std`."""


def read(path: Path) -> Content:
    """The content of a `.safetensors` file, or of a file saved by torch: a state dict, or any checkpoint around one.

    Class names are found in a checkpoint beside the weights or among its options (`classes`, `class_names`,
    `class_to_idx`, `id2label` ...), in the metadata of a safetensors file, in the `config.json` of a hub, and in the
    `model.json`, or the run folder, that raycls wrote around one.

    Raises ModelError for a file that is damaged, is no such file, or holds what only unpickling could read.
    """
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    try:
        with torch.serialization.safe_globals(_PLAIN):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise _unreadable(path, error) from error
    tensors: dict[str, Tensor] = {}
    versions: dict[str, Any] = {}
    if not isinstance(content, Tensor):
        _flatten(content, "", tensors, versions)
    if not tensors:
        raise ModelError(
            "the file holds no state dict",
            where=str(path),
            found=type(content).__name__,
            valid="names with tensors, or a checkpoint that holds these",
            fix="save model.state_dict() with torch.save, or write a .safetensors file",
        )
    return Content(path, tensors, versions, tuple(dict.fromkeys([*_class_lists(content), *_published(path)])))


def _read_safetensors(path: Path) -> Content:
    try:
        tensors = safetensors.torch.load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = dict(file.metadata() or {})
    except Exception as error:
        raise _unreadable(path, error) from error
    if not tensors:
        raise ModelError("the file holds no tensors", where=str(path), valid="names with tensors")
    for name, text in metadata.items():
        with suppress(ValueError, TypeError):
            metadata[name] = json.loads(text)
    classes = [*_class_lists(metadata), *_published(path)]
    beside = _json(path.with_suffix(".json"))
    preprocessing = None
    if "sha256" in beside and beside["sha256"] == _sha256(path):  # else it is of other weights
        classes += _class_lists({"classes": beside.get("classes")})
        given = beside.get("preprocessing")
        preprocessing = cast("dict[str, Any]", given) if isinstance(given, dict) else None
    if path.resolve().parent.parent.name == "checkpoints":  # of a run that has not ended
        data = _json(path.resolve().parents[2] / "env.json").get("data")
        classes += _class_lists({"classes": data.get("classes")} if isinstance(data, dict) else {})
    return Content(path, tensors, {}, tuple(dict.fromkeys(classes)), preprocessing)


def _published(path: Path) -> Iterator[tuple[str, ...]]:
    """The class names in the `config.json` that hubs keep beside the weights of a network."""
    return _class_lists(_json(path.parent / "config.json") if path.name in _PUBLISHED else {})


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is none."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flatten(value: Any, name: str, tensors: dict[str, Tensor], versions: dict[str, Any], depth: int = 0) -> None:
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return
    for module, version in (getattr(value, "_metadata", None) or {}).items():
        versions[".".join(part for part in (name, module) if part)] = version
    if depth < _DEPTH:
        for key, item in _items(value):
            _flatten(item, f"{name}.{key}" if name else key, tensors, versions, depth + 1)


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(number), item) for number, item in enumerate(value))


def _class_lists(value: Any, depth: int = 0) -> Iterator[tuple[str, ...]]:
    """Every list of class names in a checkpoint, the outermost first."""
    inner: list[Any] = []
    for key, item in _items(value):
        if isinstance(item, Tensor):
            continue
        word = key.lower().replace("_", "").replace("-", "")
        names = _class_names(item) if _CLASSES.fullmatch(word) else None
        if names is not None:
            yield names
        else:
            inner.append(item)
    if depth < _DEPTH:
        for item in inner:
            yield from _class_lists(item, depth + 1)


def _class_names(value: Any) -> tuple[str, ...] | None:
    """Names in the order of their numbers: of a list, of `{name: number}`, of `{number: name}`, or of a list of
    `{"id": number, "name": name}`. Numbers from 0 or from 1. Metadata, which can only be text, has commas or lines.
    """
    value = _plain(value)
    if isinstance(value, str):
        parts = [part.strip() for part in re.split("[,\n]", value)]
        value = [part for part in parts if part] if len(parts) > 1 else None
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        entries = cast("Sequence[Mapping[str, Any]]", value)
        value = {entry.get("id", number): entry.get("name") for number, entry in enumerate(entries)}
        numbers = {key: number for number, key in enumerate(sorted(value, key=_number))}  # those of COCO have gaps
        value = {numbers[key]: name for key, name in value.items()} if len(value) == len(entries) else None
    if isinstance(value, Mapping):
        pairs = [(_plain(number), key) for key, number in value.items()]
        if not all(isinstance(number, int) for number, _ in pairs):
            pairs = [(_number(key), _plain(name)) for key, name in value.items()]
        ordered = sorted(pairs, key=lambda pair: pair[0])
        least = 1 if ordered and ordered[0][0] == 1 else 0
        if [number for number, _ in ordered] != list(range(least, least + len(ordered))):
            return None
        value = [name for _, name in ordered]
    if not isinstance(value, list | tuple) or not value:
        return None
    names = [_plain(name) for name in cast("Sequence[Any]", value)]
    if not all(isinstance(name, str | int) and not isinstance(name, bool) for name in names):
        return None
    return tuple(str(name) for name in names)


def _plain(value: Any) -> Any:
    """A value or list of Python for one of numpy or torch."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def _number(key: Any) -> int:
    try:
        return int(key)
    except (TypeError, ValueError):
        return -1


def _unreadable(path: Path, error: Exception) -> ModelError:
    text = str(error)
    if "weights_only" in text or "Weights only" in text:
        kinds: list[str] = []
        with suppress(Exception), torch.serialization.safe_globals(_PLAIN):
            kinds = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        what = f" ({', '.join(kinds[:5])}{' ...' if len(kinds) > 5 else ''})" if kinds else ""
        return ModelError(
            "the file holds more than tensors, or is not a file saved by torch",
            where=str(path),
            found=f"content that only unpickling could read, which runs code from the file{what}",
            fix="save model.state_dict() with torch.save, or write a .safetensors file",
        )
    return ModelError(
        "the weights cannot be read",
        where=str(path),
        found=kind_and_line(error),
        valid="a .safetensors file, or a state dict saved by torch.save",
    )
