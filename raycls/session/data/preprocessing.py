"""Whether images come to a network as they did when its first weights were trained."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torchvision.models import WeightsEnum

from raycls.config.sections.run import Run
from raycls.config.sections.types import Operation, named
from raycls.config.write import flow, override
from raycls.data.images.operations import default_operations
from raycls.data.images.planes import RGB, planes_of
from raycls.models.networks.timm_models import Preprocessing
from raycls.tasks.build import takes_volumes

__all__ = ["differences", "preprocessing_of"]

_SAME = 1e-3
"""Below which two means or deviations of a channel, in 0..1, are one: 0.485 and 0.4851."""


def preprocessing_of(run: Run) -> dict[str, Any]:
    """What `model/model.json` says about the images of a run, as plain JSON."""
    size = {
        "image_size": run.data.image_size,
        "eval": None if run.augment.eval is None else list(run.augment.eval),
    }
    if takes_volumes(run.task):
        spacing = run.data.spacing
        return {**size, "window": list(run.data.window), "spacing": None if spacing is None else list(spacing)}
    planes = planes_of(run.data)
    more = {} if planes == RGB else {"channels": planes.channels, "bit_depth": planes.bits}
    return {**size, "mean": list(run.augment.mean), "std": list(run.augment.std), **more}


def differences(run: Run, brought: WeightsEnum | Preprocessing | Mapping[str, Any] | None) -> list[str]:
    """Lines about what of `augment` and `data.image_size` differs from what the weights of a run were made with.

    `brought` is an enum value of torchvision, what raycls wrote beside a model, or timm's configuration of one. Mean,
    standard deviation and interpolation (of a model of raycls or timm: all of `augment.eval`) should be theirs, and the
    overrides that take them are said. Another size is often meant, so it is only mentioned; how much of the border
    torchvision's crop takes is not even that.
    """
    if brought is None or takes_volumes(run.task):  # of which no weights say how they were read
        return []
    whose = "the weights"
    if isinstance(brought, Preprocessing):
        whose, theirs = f"timm's {brought.model}", brought.written(run.data.image_size)
    else:
        theirs = _published(run, brought) if isinstance(brought, WeightsEnum) else _written(brought)
    texts: list[str] = []
    remedies: list[str] = []
    for option in ("mean", "std"):
        own, other = getattr(run.augment, option), theirs.get(option)
        if other is not None and run.data.channels in (1, 3) and not _close(own, other):
            texts.append(f"augment.{option} {flow(list(own))} instead of {flow(other)}")
            remedies.append(override(f"augment.{option}", other))
    if "eval" in theirs and _plain(theirs["eval"]) != _plain(run.augment.eval):
        if "interpolation" in theirs:
            texts.append(f"augment.eval resizes {theirs['interpolation'][0]} instead of {theirs['interpolation'][1]}")
        else:
            texts.append(f"augment.eval {_operations(run.augment.eval)} instead of {_operations(theirs['eval'])}")
        remedies.append(override("augment.eval", _plain(theirs["eval"])))
    lines = [f"preprocessing differs from that of {whose}: {', '.join(texts)}"] if texts else []
    lines += [f"as theirs: {' '.join(remedies)}"] if remedies else []
    size = theirs.get("image_size")
    if size is not None and run.augment.eval is None and size != run.data.image_size:
        lines.append(f"evaluated on images of {size} pixels by their author, here of {run.data.image_size}")
    return lines


def _published(run: Run, weights: WeightsEnum) -> dict[str, Any]:
    """What torchvision's transforms of the weights say, for the options of a config."""
    transforms = weights.transforms()
    found: dict[str, Any] = {"mean": list(transforms.mean), "std": list(transforms.std)}
    found["image_size"] = transforms.crop_size[0]
    interpolation = transforms.interpolation.value
    operations = run.augment.eval
    if operations is None:
        operations = default_operations(train=False, image_size=run.data.image_size)
    resizes = [entry for entry in operations if named(entry)[0] == "resize"]
    used = {named(entry)[1].get("interpolation", "bilinear") for entry in resizes}
    if used and used != {interpolation}:
        changed = [_interpolated(entry, interpolation) if entry in resizes else entry for entry in operations]
        found |= {"eval": changed, "interpolation": (", ".join(sorted(used - {interpolation})), interpolation)}
    return found


def _written(info: Mapping[str, Any]) -> dict[str, Any]:
    """What `model.json` says; nothing of it where it is not what raycls writes."""
    found: dict[str, Any] = {}
    for option in ("mean", "std"):
        value = info.get(option)
        if isinstance(value, list) and len(value) in (1, 3) and all(type(number) in (int, float) for number in value):
            found[option] = value
    if "eval" in info and isinstance(info["eval"], list | None):
        found["eval"] = info["eval"]
    if type(info.get("image_size")) is int:
        found["image_size"] = info["image_size"]
    return found


def _close(own: Sequence[float], other: Sequence[float]) -> bool:
    near = (math.isclose(a, b, rel_tol=0.0, abs_tol=_SAME) for a, b in zip(own, other, strict=False))
    return len(own) == len(other) and all(near)


def _interpolated(entry: Operation, interpolation: str) -> dict[str, Any]:
    name, arguments = named(entry)
    return {name: {**arguments, "interpolation": interpolation}}


def _plain(operations: Any) -> Any:
    return json.loads(json.dumps(operations))


def _operations(operations: Any) -> str:
    return "its default" if operations is None else flow(_plain(operations))
