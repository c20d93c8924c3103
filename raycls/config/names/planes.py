"""Which options fit images that are not 8-bit RGB: `data.channels` and `data.bit_depth` beside all others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from raycls.config.names.builtin import MOVING, NESTED, OPERATIONS
from raycls.config.sections.data import AugmentConfig, DataConfig
from raycls.config.sections.model import ModelConfig
from raycls.config.sections.types import RuleError

__all__ = ["check_planes"]

_COLOURS = ("hsv", "grayscale")
_TINTS = ("saturation", "hue")
"""Arguments of `color_jitter` that change nothing in an image without colours."""


def check_planes(data: DataConfig, augment: AugmentConfig, model: ModelConfig) -> None:
    """RuleError where the network, the normalisation or an operation does not fit the images that `data` asks for."""
    if data.bit_depth != 8 and data.channels == 3:
        raise RuleError(
            f"data.bit_depth: {data.bit_depth} is not for RGB: of 16 bits per colour the decoder gives the high byte "
            "alone",
            fix="data.channels=1 model.in_channels=1, or data.bit_depth=8",
        )
    if data.channels != 3 and model.in_channels != data.channels:
        raise RuleError(
            f"data.channels: {data.channels} is what the network is given, and model.in_channels is "
            f"{model.in_channels}",
            fix=f"model.in_channels={data.channels}",
        )
    known = (3, model.in_channels) if data.channels in (1, 3) else (model.in_channels,)
    for option, values in (("mean", augment.mean), ("std", augment.std)):
        if len(values) not in known and values != AugmentConfig.model_fields[option].default:
            raise ValueError(
                f"the wrong number of values: augment.{option} has three, or one for each of model.in_channels "
                f"({model.in_channels})"
            )
    for section, entries in (("augment.train", augment.train), ("augment.eval", augment.eval)):
        for place, why, fix in _unfit(entries or (), section, data):
            raise RuleError(f"{place}: {why}", fix=f"leave it out of {section}, or {fix}")


def _unfit(entries: Iterable[Any], place: str, data: DataConfig) -> Iterator[tuple[str, str, str]]:
    """Where an operation does not fit, why, and what may be typed against it."""
    for number, entry in enumerate(entries):
        name, args = _named(entry)
        where, inner = f"{place}[{number}]", args.get("operations")
        if name in NESTED and isinstance(inner, list | tuple):
            yield from _unfit(cast("Iterable[Any]", inner), f"{where}.{name}.operations", data)
        elif name in OPERATIONS and (found := _why(name, args, data)) is not None:
            yield where, *found


def _why(name: str, args: Mapping[str, Any], data: DataConfig) -> tuple[str, str] | None:
    fill = args.get("fill")
    levels = list(cast("Iterable[Any]", fill)) if isinstance(fill, list | tuple) else [fill]
    if data.bit_depth != 8:
        if name not in MOVING:
            return f"{name} works on 8 bits, and data.bit_depth is {data.bit_depth}", "data.bit_depth=8"
        if any(levels):
            return (
                f"the fill of {name} is a level of 8 bits, and data.bit_depth is {data.bit_depth}",
                "data.bit_depth=8",
            )
    if data.channels == 3:
        return None
    if data.channels != 1 and name not in MOVING:
        return f"{name} is for RGB or grey, and data.channels is {data.channels}", "data.channels=3 model.in_channels=3"
    tinted = name == "color_jitter" and any(args.get(tint) for tint in _TINTS)
    if name in _COLOURS or tinted:
        what = f"{' and '.join(tint for tint in _TINTS if args.get(tint))} of color_jitter" if tinted else name
        return f"{what} changes colours, and images of data.channels: {data.channels} have none", "data.channels=3"
    if len(levels) > 1:
        return f"the fill of {name} has {len(levels)} levels, and data.channels is {data.channels}", "data.channels=3"
    if args.get("resampling", "exact") != "exact":
        return f"resampling: fast makes RGB, and data.channels is {data.channels}", "data.channels=3"
    return None


def _named(entry: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if not isinstance(entry, Mapping):
        return "", {}
    name, args = next(iter(cast("Mapping[str, Any]", entry).items()), ("", None))
    return name, cast("Mapping[str, Any]", args) if isinstance(args, Mapping) else {}
