"""INT8 within its gate: the faster type of activations, and float where INT8 costs too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx

from raycls.export.int8.sensitivity import groups_of, harm
from raycls.export.int8.static import Int8, milliseconds, weight_bits

__all__ = ["quantise"]

_FASTER = 0.95
"""S8S8 is taken where it needs less than this part of the time of U8S8, whose ranges fit activations better."""
_MOST_FLOAT = 0.5
"""Share of the parts that may stay float: with more of them the file is hardly INT8."""


def quantise(
    int8: Int8, network: onnx.ModelProto, passes: Callable[[onnx.ModelProto, dict[str, Any]], bool]
) -> dict[str, Any]:
    """Quantise `network` until `passes` says so of a graph and the facts about it; the facts about the last one.

    Facts: `activations` (`U8S8` or `S8S8`), `weight_bits`, `milliseconds` of one image on one thread by kind,
    `calibration`, `float`: the parts that stayed float, and `harm` of each part where that was looked at.
    """
    kinds = {name: int8.quantised(name) for name in int8.kinds}
    times = milliseconds({"fp32": network, **kinds}, int8.inputs[0])
    best = "U8S8" if "U8S8" in times and times["S8S8"] >= _FASTER * times["U8S8"] else "S8S8"
    calibration = int8.calibration
    facts: dict[str, Any] = {
        "activations": best,
        "weight_bits": weight_bits(),
        "milliseconds": times,
        "calibration": {"data": calibration.told, "images": len(calibration), "keys": calibration.keys},
        "float": [],
    }
    if passes(kinds[best], facts):
        return facts
    harms, parts = harm(int8, best, network, calibration.trained.reading), groups_of(int8.nodes)
    facts["harm"] = harms
    for count in range(1, max(1, int(_MOST_FLOAT * len(harms))) + 1):
        floats = list(harms)[:count]
        graph = int8.quantised(best, floats=[name for part in floats for name in parts[part]])
        facts = {**facts, "float": floats}
        facts["milliseconds"] = {**times, "kept": milliseconds({"kept": graph}, int8.inputs[0])["kept"]}
        if passes(graph, facts):
            break
    return facts
