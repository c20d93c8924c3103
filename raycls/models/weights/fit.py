"""Tensors of a file under the names of a network: wrappers, containers and prefixes are taken off or put before."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raycls.errors import ModelError

__all__ = ["Fit", "aliases", "fit"]

_WRAPPERS = ("module", "_orig_mod")
"""Components of names that DataParallel, DDP, averaged models and `torch.compile` add."""
# torchvision's DenseNet files are older than the rule that a module's name has no dot.
_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
_AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?)([._]|\d|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Fit:
    """Which tensors of a file are the network's."""

    tensors: dict[str, Tensor]
    """By the network's names, and what else the file has beside them there."""
    taken: str
    """The prefix that the names have in the file: with its dot, or empty."""
    added: str
    """The prefix that the network's names have besides."""
    left_out: tuple[str, ...]
    """What the file has elsewhere, as its first component that differs."""
    rival: str | None = None
    """A prefix of other weights in the file that fit as well: `taken` was chosen because it names an average."""


def aliases(own: Mapping[str, Tensor]) -> dict[str, str]:
    """The first name of each tensor of a network: tied weights have several."""
    first: dict[tuple[object, ...], str] = {}
    found: dict[str, str] = {}
    for name, tensor in own.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        found[name] = first.setdefault(place, name) if tensor.numel() else name
    return found


def fit(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], head: Collection[str], where: str) -> Fit:
    """Find the prefix under which the file has most of the network's tensors `own`.

    One prefix is taken off all names (`state_dict.model.`), or put before them (the network's `net.backbone.`), or
    both. `head` are the names of `own` that a file may lack. Among several networks that fit, the averaged one is taken
    (`model_ema`, `ema.`), as it is the one that is evaluated; ModelError where that does not decide.
    """
    tensors = _plain_names(tensors, own)
    body = [name for name in own if name not in head] or list(own)
    counts: Counter[tuple[str, str]] = Counter()
    shapes: Counter[tuple[str, str]] = Counter()
    added = _common_prefixes(body)
    for name, tensor in tensors.items():
        parts = name.split(".")
        for depth in range(len(parts)):
            rest = ".".join(parts[depth:])
            for prefix in added:
                if (tensor_there := own.get(prefix + rest)) is not None:
                    pair = name[: len(name) - len(rest)], prefix
                    counts[pair] += 1
                    shapes[pair] += tensor_there.shape == tensor.shape
    ranked = sorted(counts, key=lambda pair: (-counts[pair], -shapes[pair], len(pair[0]), len(pair[1]), pair))
    whole = _distinct([pair for pair in ranked if _is_whole(pair, tensors, own, body)], tensors, body)
    likely = bool(ranked) and 2 * counts[ranked[0]] > min(len(body), len(tensors))
    chosen, rival = ranked[0] if likely else ("", ""), None
    if whole:
        whole = [pair for pair in whole if pair[1] == whole[0][1]]
        averaged = [pair for pair in whole if _AVERAGED.search(pair[0])]
        if not averaged and ("", "") in whole:  # the very names of the network
            whole = [("", "")]
        if len(whole) > 1 and len(averaged) != 1:
            raise _ambiguous([pair[0] for pair in whole], where)
        chosen = averaged[0] if len(whole) > 1 else whole[0]
        rival = next((pair[0] for pair in whole if pair != chosen), None)
    taken, added_one = chosen
    inside = {added_one + name[len(taken) :]: tensor for name, tensor in tensors.items() if name.startswith(taken)}
    others = taken if not rival else (taken, rival)
    outside = [name for name in tensors if not name.startswith(others)]
    return Fit(inside, taken, added_one, _first_components(outside, taken), rival)


def _plain_names(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the wrappers' components, under the names of today."""
    theirs = {part for name in own for part in name.split(".")}
    dropped = [wrapper for wrapper in _WRAPPERS if wrapper not in theirs]
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = ".".join(part for part in name.split(".") if part not in dropped)
        if any(part.startswith("denselayer") for part in theirs):
            short = _DENSENET_KEY.sub(r"\1\2", short)
        plain[short] = tensor
    return plain if len(plain) == len(tensors) else dict(tensors)


def _common_prefixes(names: Iterable[str]) -> list[str]:
    """`""`, `net.`, `net.backbone.`: the modules that all `names` are in."""
    modules = [name.split(".")[:-1] for name in names]
    common: list[str] = [""]
    for parts in zip(*modules, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(f"{common[-1]}{parts[0]}.")
    return common


def _source(name: str, pair: tuple[str, str]) -> str | None:
    """The name in the file of the network's `name`."""
    taken, added = pair
    return taken + name[len(added) :] if name.startswith(added) else None


def _is_whole(
    pair: tuple[str, str], tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], body: Collection[str]
) -> bool:
    """Whether the file has everything of the network but its head under these prefixes, in the same shapes."""
    first = aliases(own)
    there: set[str] = set()
    for name, tensor in own.items():
        source = _source(name, pair)
        if source is not None and source in tensors and tensors[source].shape == tensor.shape:
            there.add(first[name])
    return {first[name] for name in body if not name.endswith("num_batches_tracked")} <= there


def _distinct(
    pairs: list[tuple[str, str]], tensors: Mapping[str, Tensor], body: Collection[str]
) -> list[tuple[str, str]]:
    """Of the pairs that lead to the same tensors, or to equal ones, the first."""
    kept: list[tuple[str, str]] = []
    for pair in pairs:
        if not any(_same(pair, other, tensors, body) for other in kept):
            kept.append(pair)
    return kept


def _same(pair: tuple[str, str], other: tuple[str, str], tensors: Mapping[str, Tensor], names: Collection[str]) -> bool:
    for name in names:
        ours, theirs = _source(name, pair), _source(name, other)
        if ours == theirs or ours is None or theirs is None or ours not in tensors or theirs not in tensors:
            continue
        if not torch.equal(tensors[ours], tensors[theirs]):
            return False
    return True


def _first_components(names: Iterable[str], taken: str) -> tuple[str, ...]:
    """`optimizer` and `state_dict.loss` for everything outside of `state_dict.model.`."""
    found: dict[str, None] = {}
    for name in names:
        parts, common = name.split("."), 0
        for ours, theirs in zip(parts, taken.split("."), strict=False):
            if ours != theirs:
                break
            common += 1
        found[".".join(parts[: common + 1])] = None
    return tuple(found)


def _ambiguous(prefixes: list[str], where: str) -> ModelError:
    names = [prefix.rstrip(".") or "no prefix" for prefix in prefixes]
    key = names[0]
    return ModelError(
        "the file holds more than one network that fits the model",
        where=where,
        found=f"names under {', '.join(names[:5])}",
        valid="one network, or one that is named as the average of another (ema)",
        fix=f"save the one that is meant in a file of its own, for example with only the names under {key}",
    )
