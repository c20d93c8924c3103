"""What a terminal shows of an export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raycls.quantities import plural

__all__ = ["exported_lines"]


def exported_lines(facts: Mapping[str, Any], where: str) -> list[str]:
    """The artefact, what it takes and gives, and how it compares with the run."""
    found, takes = facts["comparison"], facts["preprocessing"]["input"]
    volumes, masks = takes["layout"] == "NCDHW", found.get("metric") == "dice"
    sides = "any size" if takes["size"] == "any" else " x ".join(map(str, takes["size"]))
    size = sides if takes["size"] == "any" else f"{sides} {'voxels' if volumes else 'pixels'}"
    axes = "D, H, W" if volumes else "H, W"
    gives = f"[B, {len(facts['classes'])}{f', {axes}' if masks else ''}]"
    channels = facts["preprocessing"].get("network_channels", 3)
    layout = "[B, H, W, 3]" if takes["layout"] == "NHWC" else f"[B, {channels}, {axes}]"
    opset = f", opset {facts['opset']}" if "opset" in facts else ""
    kinds = {"map": ("label set", "mean average precision"), "dice": ("voxel" if volumes else "pixel", "Dice")}
    same, score = kinds.get(found.get("metric"), ("top-1", "accuracy"))
    lines = [
        f"{where}: {facts['bytes'] / 1e6:,.2f} MB, {facts['precision']}{opset}",
        f"{'volumes' if volumes else 'images'} {takes['dtype']} {layout} of {size} -> probabilities {gives} float32",
        f"compared on {plural(found['images'], 'image')} of {found['data']}: "
        f"{same} agreement {found['agreement']:.2%}, largest probability difference {found['difference']:.2g}",
        f"{score} {found['accuracy']:.2%} trained, in float32; {found['artefact_accuracy']:.2%} exported",
    ]
    if "thresholds" in facts:
        lines.append(f"the metadata has the thresholds of the classes: {facts['thresholds_of']}")
    if "int8" in facts:
        lines += _int8_lines(facts["int8"])
    return lines + [f"rejected: {text}" for text in facts["failures"]]


def _int8_lines(facts: Mapping[str, Any]) -> list[str]:
    """What was measured, and which parts stayed float."""
    times, calibration = facts["milliseconds"], facts["calibration"]
    shown = ", ".join(
        f"{name} {time:.2f} ms ({times['fp32'] / time:.2f}x)" for name, time in times.items() if name != "fp32"
    )
    lines = [
        f"one image on one thread: fp32 {times['fp32']:.2f} ms, {shown}",
        f"{facts['activations']}, weights of {facts['weight_bits']} bits per channel, calibrated on "
        f"{plural(calibration['images'], 'image')} of {calibration['data']}",
    ]
    if facts["float"]:
        lines.append(f"left float, as INT8 costs too much there: {', '.join(facts['float'])}")
    return lines
