"""The head of a network, and its rows in the order of the classes of the data."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from raycls.models.surgery import find_auxiliary_heads, find_head

__all__ = ["Rows", "classifier", "common", "listed", "row_names", "rows_by_name"]

_SHOWN = 5


def classifier(model: nn.Module, head: str) -> str:
    """The module around the layer `head` that is usually taken off with it: `classifier` of a VGG, `heads` of a ViT.

    It is the outermost one that holds no convolution or attention besides the head, and not all of the network.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    path = head
    while parent := path.rpartition(".")[0]:
        module = model.get_submodule(parent)
        deep = any(
            isinstance(inner, _ConvNd | nn.MultiheadAttention) and f"{parent}.{name}" != head
            for name, inner in module.named_modules()
        )
        if deep or sum(parameter.numel() for parameter in module.parameters()) == total:
            break
        path = parent
    return path


def row_names(model: nn.Module, own: Mapping[str, Tensor], num_classes: int) -> list[list[str]]:
    """Names of the tensors of `own` with a row per class, for the head and then for each auxiliary one."""
    main = find_head(model, num_classes)
    heads = [main] if main is not None else []
    heads += [name for name in find_auxiliary_heads(model, num_classes) if name != main]
    return [
        [
            name
            for name, tensor in own.items()
            if name.startswith(f"{head}." if head else "") and tensor.ndim and tensor.shape[0] == num_classes
        ]
        for head in heads
    ]


@dataclass(frozen=True)
class Rows:
    """Where the classes of the data are among the outputs of a file, and what is said of it."""

    of: tuple[int | None, ...] | None
    """The output of each class, None where it starts anew; None where the head starts anew as a whole."""
    note: str

    def put(self, theirs: Tensor, own: Tensor) -> Tensor:
        """Rows of `theirs` in the order of the data's classes, with rows of `own` where it has none."""
        if self.of is None:
            return own
        rows = [own[number] if place is None else theirs[place].to(own.dtype) for number, place in enumerate(self.of)]
        return torch.stack(rows)


def rows_by_name(
    outputs: int,
    theirs: Sequence[str] | None,
    num_classes: int,
    classes: Sequence[str] | None,
    *,
    published: bool = False,
) -> Rows:
    """Which of a file's `outputs` is which class of the data.

    Where the file brings names (`theirs`, one per output), they decide: a class that it lacks starts anew, an output
    that the data lacks is left out, and where none is common, the whole head starts anew. Names are compared in
    Unicode's normal form C and, where none is common, without case and the marks between words; one that occurs twice
    means nothing. Where the file brings no names, a head of the same size is taken as it is: its author numbered the
    classes and did not name them, and the note says which order is assumed. So is one that torchvision published
    (`published`) where none of its names is common: ImageNet's are words, and its folders are named by number. A head
    of another size starts anew.
    """
    same = tuple(range(num_classes)) if outputs == num_classes else None
    order = f"its outputs are taken for the classes in this order: {listed(classes)}" if classes else ""
    if theirs is None or classes is None:
        if same is None:
            return Rows(None, f"head for {outputs} classes, the data has {num_classes}: it starts anew")
        return Rows(same, f"head taken as it is: {order}" if order else "")
    found = _matched(theirs, classes)
    if not any(place is not None for place in found):
        unknown = f"none of its class names ({listed(theirs)}) is one of the data's"
        if same is None or not published:
            return Rows(None, f"head for {outputs} classes, {unknown}: it starts anew")
        return Rows(same, f"head taken as it is, {unknown}: {order}")
    if found == same:
        return Rows(found, f"head: its {num_classes} classes are those of the data, by name")
    new = [name for name, place in zip(classes, found, strict=True) if place is None]
    unused = [name for number, name in enumerate(theirs) if number not in set(found)]
    note = f"head: {num_classes - len(new)} of {num_classes} classes are found by name and put in the data's order"
    note += f"; starting anew: {listed(new)}" if new else ""
    note += f"; left out: {listed(unused)}" if unused else ""
    return Rows(found, note)


def common(theirs: Sequence[str], classes: Sequence[str]) -> int:
    """How many of the data's `classes` are among the names of a file."""
    return sum(place is not None for place in _matched(theirs, classes))


def _matched(theirs: Sequence[str], classes: Sequence[str]) -> tuple[int | None, ...]:
    """The output of each class by its name; see `rows_by_name`."""
    found = _places(theirs, classes, _normal)
    return found if any(place is not None for place in found) else _places(theirs, classes, _loose)


def _places(theirs: Sequence[str], classes: Sequence[str], form: Callable[[str], str]) -> tuple[int | None, ...]:
    """The output of each class, where names of the same `form` are one; a form that occurs twice means nothing."""
    counts, own = Counter(map(form, theirs)), Counter(map(form, classes))
    places = {name: number for number, name in enumerate(map(form, theirs)) if counts[name] == 1}
    return tuple(places.get(name) if own[name] == 1 else None for name in map(form, classes))


def listed(names: Sequence[str]) -> str:
    """`a, b, c`, or the first few and the last of many."""
    if len(names) <= _SHOWN + 1:
        return ", ".join(names)
    return f"{', '.join(names[: _SHOWN - 1])} ... {names[-1]} ({len(names)})"


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _loose(name: str) -> str:
    return re.sub(r"[\W_]+", " ", _normal(name)).strip().casefold()
