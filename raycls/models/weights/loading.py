"""Fitting the weights of a file into a network, and saying what was done with them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from raycls.errors import ModelError
from raycls.models.heads import Rows, classifier, common, listed, row_names, rows_by_name
from raycls.models.networks.timm_models import Preprocessing
from raycls.models.surgery import find_head
from raycls.models.weights.channels import adapted, widened
from raycls.models.weights.file import Content, read
from raycls.models.weights.find import Remote, fetch
from raycls.models.weights.fit import Fit, aliases, fit

__all__ = ["Loaded", "load_into"]

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


@dataclass(frozen=True)
class Loaded:
    """What was done with the weights, for the header of a run."""

    notes: tuple[str, ...]
    """One line each: the file and what of it is not used, and where the head's rows come from."""
    preprocessing: WeightsEnum | Preprocessing | Mapping[str, Any] | None
    """What the weights say about the images they were trained on: torchvision's enum, or what raycls wrote; else what
    timm's configuration of the network says."""
    moved: bool = False
    """Whether rows of the head were put elsewhere, so that it matters which layer is the head."""
    anew: bool = False
    """Whether the head, or rows of it, start anew."""


def load_into(
    model: nn.Module,
    source: WeightsEnum | Path | Remote,
    num_classes: int,
    classes: Sequence[str] | None = None,
    called: str | None = None,
    channels: int = 3,
) -> Loaded:
    """Copy the weights from `source` into `model`, in place; the notes name a file as it is `called`.

    The file must have everything but the head, under any common prefix (see `weights_fit.fit`). A head is matched by
    the class names that the file brings to `classes`, those of the data in the order of the outputs (see
    `heads.rows_by_name`); one that is missing, or that has none of them, starts anew. What else the file has beside
    the network is left out. A first convolution for 3 channels is made one for `channels`, those of `model`.
    Any other difference is a ModelError that lists it.
    """
    if isinstance(source, Remote):
        with source.copied() as copy:
            try:
                return load_into(model, copy, num_classes, classes, called, channels)
            except ModelError as error:
                error.where = source.uri
                raise
    content = read(fetch(source.url) if isinstance(source, WeightsEnum) else source)
    own = model.state_dict()
    first = aliases(own)
    head = find_head(model, num_classes)
    around = classifier(model, head) if head is not None else None
    part = {name for name in own if around is not None and _is_in(name, around)}
    fitted, tensors, stem = _fitted(content, own, part, channels)
    left_out = [*fitted.left_out, *_beside(tensors, own, fitted.added, around, hasattr(model, "aux_logits"))]
    _check_kinds(tensors, own, content.path)
    kinds = _kinds(tensors, own) + stem
    there = {first[name] for name in tensors if name in own}
    new = _new_head(there, own, part, head)
    given, published = _given(source, content), isinstance(source, WeightsEnum)
    rows = _rows(tensors, own, row_names(model, own, num_classes), given, num_classes, classes, published)
    if rows is None and head is None:
        rows = _unknown_head(given, num_classes, classes, published, content.path)
    _check_shapes(tensors, own, content.path)
    missing, unexpected = _copy(model, tensors, content, fitted)
    # Files older than torch 0.4.1 have no counters; those of the model start at zero.
    optional = {name for name in missing if name.endswith("num_batches_tracked") or first[name] in there}
    missing = [name for name in missing if name not in new | optional]
    if missing or unexpected:
        unexpected = [name for name in fitted.tensors if name not in own]
        raise _mismatch(content.path, {"missing in the file": missing, "not in the model": unexpected})
    label = source.name if isinstance(source, WeightsEnum) else called or content.path.name
    note = rows.note if rows else ""
    if new:
        note = f"its head ({around if new == part else head}) is not in the file and starts anew"
    notes = (_summary(label, fitted, left_out) + kinds, *([note] if note else []))
    moved = rows is not None and rows.of not in (None, tuple(range(num_classes)))
    anew = bool(new) or (rows is not None and (rows.of is None or None in rows.of))
    return Loaded(notes, source if isinstance(source, WeightsEnum) else content.preprocessing, moved, anew)


def _fitted(
    content: Content, own: Mapping[str, Tensor], part: set[str], channels: int
) -> tuple[Fit, dict[str, Tensor], str]:
    """The tensors of the file as `fit` finds them, with the first convolution for `channels`; a note of that."""
    fitted = fit(content.tensors, own, part, str(content.path))
    name = widened(fitted.tensors, own, channels)
    if name is None:
        return fitted, dict(fitted.tensors), ""
    # again, as a file in which a tensor has another shape is not taken for a whole network
    before = own[name].new_empty(fitted.tensors[name].shape)
    fitted = fit(content.tensors, {**own, name: before}, part, str(content.path))
    tensors = dict(fitted.tensors)
    tensors[name] = adapted(tensors[name], channels)
    made = "the sum of its kernels" if channels == 1 else f"its kernels repeated, times 3 / {channels}"
    return fitted, tensors, f"; {name} for {channels} instead of 3 channels: {made}"


def _is_in(name: str, module: str) -> bool:
    return not module or name.startswith(f"{module}.")


def _beside(
    tensors: dict[str, Tensor], own: Mapping[str, Tensor], root: str, around: str | None, auxiliary: bool
) -> list[str]:
    """Take out of `tensors` what belongs to other parts than the network has; their names.

    Those are modules beside the outermost ones of the network, such as another head or a loss, and what a head of
    another kind has in the place of the head (`around`). What is inside of a part that the network has, stays: it is
    another architecture, and an error. `auxiliary`: GoogLeNet and Inception are built without their auxiliary heads.
    """
    outermost = {name[len(root) :].split(".")[0] for name in own if name.startswith(root)}
    found: dict[str, None] = {}
    for name in [name for name in tensors if name not in own]:
        first = name[len(root) :].split(".")[0]
        foreign = first not in outermost and not first.isdigit()
        if foreign or (auxiliary and name.startswith(_AUXILIARY)):
            found[first] = None
        elif around and _is_in(name, around):
            found[name] = None
        else:
            continue
        del tensors[name]
    return list(found)


def _given(source: WeightsEnum | Path, content: Content) -> list[Sequence[str]]:
    """The class names that torchvision publishes with the weights, and those of the file."""
    names = source.meta.get("categories") if isinstance(source, WeightsEnum) else None
    return [*([names] if names else []), *content.classes]


def _rows(
    tensors: dict[str, Tensor],
    own: Mapping[str, Tensor],
    heads: list[list[str]],
    given: list[Sequence[str]],
    num_classes: int,
    classes: Sequence[str] | None,
    published: bool,
) -> Rows | None:
    """Put the rows of each head in `tensors` where the data has their classes; those of the first head, None where the
    file has none. A head that has other inputs, or only some of its tensors, stays as it is, and is a difference.
    """
    first = aliases(own)
    found: list[Rows] = []
    for names in heads:
        tied = {first[name] for name in names}
        theirs = [name for name in own if first[name] in tied and name in tensors and tensors[name].ndim]
        outputs = {tensors[name].shape[0] for name in theirs}
        whole = tied == {first[name] for name in theirs}
        if not whole or len(outputs) != 1 or any(tensors[n].shape[1:] != own[n].shape[1:] for n in theirs):
            continue
        (count,) = outputs
        named = _of_length(given, count, classes)
        rows = rows_by_name(count, named, num_classes, classes, published=published)
        if given and named is None:
            rows = Rows(rows.of, f"{rows.note} (the file names {len(given[0])} classes, which its outputs are not)")
        for name in theirs:
            tensors[name] = rows.put(tensors[name], own[name])
        found.append(rows)
    return found[0] if found else None


def _of_length(given: list[Sequence[str]], count: int, classes: Sequence[str] | None) -> Sequence[str] | None:
    """The class names for `count` outputs: of several lists that of which the data has most, else the first."""
    fitting = [names for names in given if len(names) == count]
    return max(fitting, key=lambda names: common(names, classes or ()), default=None)


def _unknown_head(
    given: list[Sequence[str]], num_classes: int, classes: Sequence[str] | None, published: bool, path: Path
) -> Rows:
    """Of a network without a layer that is known as its head: its rows cannot be moved."""
    named = _of_length(given, num_classes, classes)
    rows = rows_by_name(num_classes, named, num_classes, classes, published=published)
    if rows.of != tuple(range(num_classes)):
        raise ModelError(
            "the classes of the weights are not in the order of the data's, and the network has no known head",
            where=str(path),
            found=rows.note,
            valid="a linear layer or convolution with one output per class",
            fix="make the head such a layer, or give weights that were trained on the classes in the data's order",
        )
    return rows


def _new_head(there: set[str], own: Mapping[str, Tensor], part: set[str], head: str | None) -> set[str]:
    """The names that start anew because the file has no head: those of its layer, or all of the `part` around it.

    `there` are the tensors that the file has, each by its first name: a tied one may stand under another.
    """
    if head is None or len(part) == len(own):
        return set()
    first = aliases(own)
    layer = {name for name in part if _is_in(name, head)}
    if any(first[name] in there for name in layer):
        return set()
    rest = {name for name in part - layer if not name.endswith("num_batches_tracked")}
    absent = {name for name in rest if first[name] not in there}
    return layer if not absent else part if absent == rest else set()


def _check_kinds(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Refuse values that are no plain numbers of the network's kind: quantised, complex, integers for weights."""
    kinds = [
        f"{name}: {_kind(tensor.dtype)} in the file, {_kind(own[name].dtype)} in the model"
        for name, tensor in tensors.items()
        if name in own and not _same_kind(tensor, own[name])
    ]
    if kinds:
        raise _mismatch(path, {"other kinds of numbers": kinds})


def _same_kind(theirs: Tensor, own: Tensor) -> bool:
    if theirs.is_quantized or theirs.is_complex() != own.is_complex():
        return False
    if theirs.is_floating_point() and not own.is_floating_point():  # a counter that was made half with the rest
        return torch.equal(theirs, theirs.round())
    return theirs.is_floating_point() == own.is_floating_point()


def _check_shapes(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    shapes = [
        f"{name}: {list(tensor.shape)} in the file, {list(own[name].shape)} in the model"
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if shapes:
        raise _mismatch(path, {"other shapes": shapes})


def _copy(
    model: nn.Module, tensors: Mapping[str, Tensor], content: Content, fitted: Fit
) -> tuple[list[str], list[str]]:
    """Load what is there; the names (missing, unexpected). The versions that torch keeps beside a state dict go along:
    by them it renames what older versions called otherwise.
    """
    state = OrderedDict(tensors)
    taken, added = fitted.taken.removesuffix("."), fitted.added
    versions = {
        f"{added}{name[len(fitted.taken) :]}".removesuffix("."): version
        for name, version in content.versions.items()
        if name == taken or name.startswith(fitted.taken)
    }
    # A file without versions (safetensors) is taken to be of the model's own.
    state._metadata = versions or getattr(model.state_dict(), "_metadata", None)  # type: ignore[attr-defined]
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        lines = str(error).splitlines()[1:] or [str(error)]
        raise _mismatch(content.path, {"other shapes": lines}) from error
    return list(missing), list(unexpected)


def _summary(label: str, fitted: Fit, left_out: list[str]) -> str:
    """The weights in one line: where they are in the file, and what is left out of it."""
    text = label
    text += f", names under {fitted.taken.rstrip('.')}" if fitted.taken else ""
    text += f", put under {fitted.added.rstrip('.')}" if fitted.added != fitted.taken and fitted.added else ""
    if fitted.rival is not None:
        text += f", which is an average, and not under {fitted.rival.rstrip('.') or 'no prefix'}"
    return text + (f"; left out: {listed(left_out)}" if left_out else "")


def _kinds(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What becomes of numbers in another precision, to be said after the file."""
    kinds = {
        (_kind(tensor.dtype), _kind(own[name].dtype))
        for name, tensor in tensors.items()
        if name in own and own[name].is_floating_point() and tensor.dtype != own[name].dtype
    }
    return "".join(f"; {theirs} values, taken as {ours}" for theirs, ours in sorted(kinds))


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _mismatch(path: Path, differences: Mapping[str, list[str]]) -> ModelError:
    parts = []
    for title, names in differences.items():
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            parts.append(f"{title}: {', '.join(name.strip() for name in names[:5])}{more}")
    return ModelError(
        "the weights do not fit the model",
        where=str(path),
        found="; ".join(parts),
        fix="give weights of the same architecture, or change model.name and model.args",
    )
