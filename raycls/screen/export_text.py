"""What a terminal shows of an export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raycls.quantities import plural

__all__ = ["exported_lines"]


def exported_lines(facts: Mapping[str, Any], where: str) -> list[str]:
    """The artefact, what it takes and gives, and how it compares with the run."""
    found, takes = facts["comparison"], facts["preprocessing"]["input"]
    size = "any size" if takes["size"] == "any" else f"{takes['size'][0]} x {takes['size'][1]} pixels"
    layout = "[B, H, W, 3]" if takes["layout"] == "NHWC" else "[B, 3, H, W]"
    lines = [
        f"{where}: {facts['bytes'] / 1e6:,.2f} MB, {facts['precision']}, opset {facts['opset']}",
        f"images {takes['dtype']} {layout} of {size} -> probabilities [B, {len(facts['classes'])}] float32",
        f"compared on {plural(found['images'], 'image')} of {found['data']}: top-1 agreement {found['agreement']:.2%}, "
        f"largest probability difference {found['difference']:.2g}",
        f"accuracy {found['accuracy']:.2%} trained, {found['artefact_accuracy']:.2%} exported",
    ]
    return lines + [f"rejected: {text}" for text in facts["failures"]]
